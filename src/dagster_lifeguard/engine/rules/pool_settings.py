"""The settings of a pool, as one value from lifeguard.yaml to the tables and the screen."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
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

_FALL_BACK = re.compile(r"until (?P<at>[\d.]+), then (?P<limit>\d+|none)")
_ORDER = re.compile(r"fifo|fair\((?:tag:(?P<tag>[^\s()]+)|backfill)\)")


@dataclass(frozen=True, slots=True)
class FallBack:
    """The end of a temporary limit.

    Attributes:
        at: When it ends, in seconds since the epoch by the store's clock.
        limit: The lasting limit, which is in force again from then on; None: the pool has no limit
            of its own then.
    """

    at: float
    limit: int | None

    @classmethod
    def read(cls, text: str) -> FallBack:
        """The fall-back that was written as text: the inverse of ``str``."""
        found = _FALL_BACK.fullmatch(text)
        assert found is not None, f"{text!r} is no fall-back"
        return cls(float(found["at"]), None if found["limit"] == "none" else int(found["limit"]))

    def __str__(self) -> str:
        return f"until {self.at!r}, then {'none' if self.limit is None else self.limit}"


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """The settings of one pool. A setting that is not set has its default.

    Attributes:
        limit: How many slots the pool has now; 0 is paused. None: it has no limit of its own, so
            the default limit is in force, or the pool is unlimited.
        rate: How many steps may start per time; None: as many as slots allow.
        fair_by: The tag whose values are the groups that share the pool fairly; None: first come,
            first served.
        fall_back: If ``limit`` is temporary: when it ends, and the limit after that. A store reads
            settings as of its own clock, so it never returns one that is over: see ``at``.
    """

    limit: int | None = None
    rate: Rate | None = None
    fair_by: str | None = None
    fall_back: FallBack | None = None

    @property
    def lasting_limit(self) -> int | None:
        """The limit without a temporary one: what Dagster's table and lifeguard.yaml contain."""
        return self.limit if self.fall_back is None else self.fall_back.limit

    @property
    def lasting(self) -> PoolSettings:
        """The settings without a temporary limit."""
        return replace(self, limit=self.lasting_limit, fall_back=None)

    def at(self, now: float) -> PoolSettings:
        """The settings that are in force at this time, by the store's clock."""
        return self if self.fall_back is None or now < self.fall_back.at else self.lasting

    def with_limit(self, limit: int | None, until: float | None = None) -> PoolSettings:
        """The settings with another limit, for good or until a time; the lasting limit stays then.

        Args:
            limit: The limit; None deletes it.
            until: When a temporary limit ends; None for good, which ends a temporary limit too.
        """
        fall_back = None if until is None else FallBack(until, self.lasting_limit)
        return replace(self, limit=limit, fall_back=fall_back)

    def with_lasting_limit(self, limit: int | None) -> PoolSettings:
        """The settings with another lasting limit; a temporary limit stays until its end."""
        if self.fall_back is None:
            return replace(self, limit=limit)
        return replace(self, fall_back=replace(self.fall_back, limit=limit))

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
    for limit in (settings.limit, settings.lasting_limit):
        if limit is not None and not 0 <= limit <= LIMIT_MAX:
            raise ConfigError(
                f"The limit {limit} of the pool {pool!r} is out of bounds.",
                remedy=f"Give a limit from 0 (paused) to {LIMIT_MAX}.",
                names=[pool],
            )


def limit_in_force(pool: str, own: int | None, default_limit: int | None) -> int | None:
    """The limit that is in force for a pool; None: the pool is unlimited.

    Args:
        pool: The pool.
        own: Its own limit: a temporary one, or else the one in Dagster's table.
        default_limit: The limit of pools that have none of their own.
    """
    if is_of_all_partitions(pool):  # A step that asks for all of its slots must be alone.
        return LIMIT_MAX
    return default_limit if own is None else own


def settings_in_force(pool: str, own: PoolSettings, default_limit: int | None) -> PoolSettings:
    """The settings of a pool with the limits in force, now and after a temporary limit.

    Args:
        pool: The pool.
        own: Its own settings.
        default_limit: The limit of pools that have none of their own.
    """
    limit = limit_in_force(pool, own.limit, default_limit)
    fall_back = own.fall_back
    if fall_back is not None:
        lasting = limit_in_force(pool, fall_back.limit, default_limit)
        fall_back = replace(fall_back, limit=lasting)
    if limit == own.limit and fall_back == own.fall_back:
        return own
    return replace(own, limit=limit, fall_back=fall_back)


def rises_at(settings: PoolSettings, ahead: int) -> float | None:
    """When a waiter may start because a temporary limit ends; None if that does not help it.

    Args:
        settings: The settings of its pool, with the limits in force.
        ahead: How many waiters are ahead of it: each of them takes at least one slot.
    """
    fall_back = settings.fall_back
    if fall_back is None or settings.limit is None:
        return None
    if fall_back.limit is None or max(settings.limit, ahead) < fall_back.limit:
        return fall_back.at
    return None


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
