"""The settings of a pool, as one value from lifeguard.yaml to the tables and the screen."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.pool_expressions import SLOTS_MAX, is_of_all_partitions
from dagster_lifeguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster_lifeguard.engine.rules.rate import Rate

LIMIT_MAX = SLOTS_MAX
"""The highest limit of a pool, which is Dagster's own default maximum."""

BACKFILL_TAG = "dagster/backfill"
"""The tag with which Dagster marks the runs of a backfill."""

_ORDER = re.compile(r"fifo|fair\((?:tag:(?P<tag>[^\s()]+)|backfill)\)")


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """The settings of one pool. A setting that is not set has its default.

    Attributes:
        limit: How many slots the pool has; 0 is paused. None: it has no limit of its own, so the
            default limit is in force, or the pool is unlimited.
        rate: How many steps may start per time; None: as many as slots allow.
        fair_by: The tag whose values are the groups that share the pool fairly; None: first come,
            first served.
    """

    limit: int | None = None
    rate: Rate | None = None
    fair_by: str | None = None

    @property
    def texts(self) -> dict[str, str | None]:
        """The settings besides the limit, by the names and in the words of lifeguard.yaml."""
        return {
            "rate": None if self.rate is None else str(self.rate),
            "order": format_order(self.fair_by),
        }

    @property
    def texts_set(self) -> dict[str, str]:
        """The entries of ``texts`` that differ from the default; only the engine stores them."""
        nothing = NOTHING_SET.texts
        return {name: text for name, text in self.texts.items() if text and text != nothing[name]}


NOTHING_SET = PoolSettings()
"""The settings of a pool without any setting of its own."""


def limits_of(settings: Mapping[str, PoolSettings | None]) -> dict[str, int | None]:
    """The limits among these settings; None where there is none."""
    return {pool: None if found is None else found.limit for pool, found in settings.items()}


def own_limits(settings: Mapping[str, PoolSettings]) -> dict[str, int]:
    """The limits of the pools that have a limit of their own."""
    return {pool: limit for pool, limit in limits_of(settings).items() if limit is not None}


def refuse_out_of_bounds(pool: str, settings: PoolSettings) -> None:
    """Refuse a limit that no pool can have.

    Raises:
        ConfigError: It is not between 0 (paused) and ``LIMIT_MAX``.
    """
    if settings.limit is not None and not 0 <= settings.limit <= LIMIT_MAX:
        raise ConfigError(
            f"The limit {settings.limit} of the pool {pool!r} is out of bounds.",
            remedy=f"Give a limit from 0 (paused) to {LIMIT_MAX}.",
            names=[pool],
        )


def limit_in_force(pool: str, own: int | None, default_limit: int | None) -> int | None:
    """The limit that is in force for a pool; None: the pool is unlimited.

    Args:
        pool: The pool.
        own: Its own limit in Dagster's table.
        default_limit: The limit of pools that have none of their own.
    """
    if is_of_all_partitions(pool):  # A step that asks for all of its slots must be alone.
        return LIMIT_MAX
    return default_limit if own is None else own


def is_by_default(pool: str, own: int | None, default_limit: int | None) -> bool:
    """Whether the limit in force for a pool is the default limit."""
    return own is None and default_limit is not None and not is_of_all_partitions(pool)


def most_slots(pool: str, limit: int | None, limit_known: int | None) -> int:
    """The most slots that a pool can grant at once, by the limit that the engine has last seen.

    A ticket that asks for more holds up no other ticket, and only a higher limit can help it.
    """
    most = limit_in_force(pool, limit, limit_known)
    return SLOTS_MAX if most is None else most


def parse_order(text: str) -> str | None:
    """The tag by whose values a pool is shared fairly; None for ``fifo``.

    Raises:
        ConfigError: The text says neither.
    """
    found = _ORDER.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"{text!r} is not an order.",
            remedy="Write fifo, fair(tag:NAME) or fair(backfill).",
            names=[text],
        )
    return None if text == "fifo" else found["tag"] or BACKFILL_TAG


def format_order(fair_by: str | None) -> str:
    """An order as it is written in ``lifeguard.yaml``."""
    if fair_by is None:
        return "fifo"
    return "fair(backfill)" if fair_by == BACKFILL_TAG else f"fair(tag:{fair_by})"
