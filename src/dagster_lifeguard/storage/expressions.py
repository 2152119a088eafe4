"""What stands in ``op.pool``: one pool, or an expression over several, as the engine takes it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.model import Demand, limit_in_force
from dagster_lifeguard.names import Term, parse_expression, refuse_all_partitions, split_hold

if TYPE_CHECKING:
    from collections.abc import Mapping

_OPERATORS = frozenset("+*")


@lru_cache(maxsize=10_000)
def demand_of(pool: str) -> Demand:
    """The demand of a step whose pool is this text, which has no template left to fill in.

    Dagster lets a pool have any name, so a text that is no expression and has no operator in it
    is the name of one pool, whatever it looks like.

    Raises:
        ConfigError: It has an operator in it and is not an expression. Better a run that fails
            with a word than one that goes unlimited.
    """
    _, pool = split_hold(pool)
    try:
        return Demand.parse(pool)
    except ConfigError:
        if _OPERATORS & set(pool):
            raise
        return Demand((Term(pool),))


@lru_cache(maxsize=10_000)
def is_deferred(pool: str) -> bool:
    """Whether the text holds templates, which are filled in when a step claims."""
    try:
        return any(term.fields for term in parse_expression(split_hold(pool)[1]))
    except ConfigError:
        return False


def needs_plan(pool: str) -> bool:
    """Whether what is asked for, or by which ticket, depends on what a run plans."""
    return is_deferred(pool) or split_hold(pool)[0]


def is_expression(pool: str) -> bool:
    """Whether the text asks for anything but one slot of the pool of that name."""
    return is_deferred(pool) or demand_of(pool).terms != (Term(pool),)


def limit_of(demand: Demand, limits: Mapping[str, int], default_limit: int | None) -> int | None:
    """How many such demands can be met at once; None when every pool of it is unlimited."""
    found = [
        limit // term.slots
        for term in demand.terms
        if (limit := limit_in_force(term.name, limits.get(term.name), default_limit)) is not None
    ]
    return min(found, default=None)


def require_settable(pool: str) -> None:
    """Refuse to set anything of an expression, or of a pool that stands for all partitions.

    Raises:
        ConfigError: It is one.
    """
    refuse_all_partitions([pool])
    if is_expression(pool):
        terms = parse_expression(split_hold(pool)[1])
        raise ConfigError(
            f"{pool!r} is a pool expression and has neither a limit nor a rate of its own.",
            remedy=f"Set those of its pools: {', '.join(term.name for term in terms)}.",
            names=[pool],
        )
