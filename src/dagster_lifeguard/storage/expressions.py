"""What stands in ``op.pool``: one pool, or an expression over several, as the engine takes it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.model import Demand
from dagster_lifeguard.names import Term

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_OPERATORS = frozenset("+*")


@lru_cache(maxsize=10_000)
def demand_of(pool: str) -> Demand:
    """The demand of a step whose pool is this text.

    Dagster lets a pool have any name, so a text that is no expression and has no operator in it
    is the name of one pool, whatever it looks like.

    Raises:
        ConfigError: It has an operator in it and is not an expression. Better a run that fails
            with a word than one that goes unlimited.
    """
    try:
        return Demand.parse(pool)
    except ConfigError:
        if _OPERATORS & set(pool):
            raise
        return Demand((Term(pool),))


def is_expression(pool: str) -> bool:
    """Whether the text asks for anything but one slot of the pool of that name."""
    return demand_of(pool).terms != (Term(pool),)


def limit_of(demand: Demand, limits: Mapping[str, int], default_limit: int | None) -> int | None:
    """How many such demands can be met at once; None when every pool of it is unlimited."""
    found = [
        limit // term.slots
        for term in demand.terms
        if (limit := limits.get(term.name, default_limit)) is not None
    ]
    return min(found, default=None)


def slots_by_pool(counts: Mapping[str, int]) -> dict[str, int]:
    """The slots of each pool that this many steps of each expression ask for."""
    found: dict[str, int] = {}
    for text, count in counts.items():
        for term in demand_of(text).terms:
            found[term.name] = found.get(term.name, 0) + term.slots * count
    return found


def pools_of(texts: Iterable[str]) -> set[str]:
    """The pools that these expressions name."""
    return {pool for text in texts for pool in demand_of(text).pools}
