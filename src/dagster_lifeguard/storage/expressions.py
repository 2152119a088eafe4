"""What stands in ``op.pool``: one pool, or an expression over several, as the engine takes it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.model import Demand
from dagster_lifeguard.engine.rules.pool_expressions import asked_by, is_held_by_asset
from dagster_lifeguard.engine.rules.pool_settings import limit_in_force

if TYPE_CHECKING:
    from collections.abc import Mapping


@lru_cache(maxsize=10_000)
def demand_of(pool: str) -> Demand:
    """The demand of a step whose pool is this text, which does not depend on the step.

    Raises:
        ConfigError: See ``asked_by``.
    """
    return Demand(tuple(sorted(asked_by(pool), key=lambda term: term.name)))


@lru_cache(maxsize=10_000)
def is_deferred(pool: str) -> bool:
    """Whether what the text asks for depends on the step that claims: its assets, its partitions.

    Raises:
        ConfigError: See ``asked_by``.
    """
    return any(term.is_deferred for term in asked_by(pool))


def needs_plan(pool: str) -> bool:
    """Whether what is asked for, or by which ticket, depends on what a run plans."""
    return is_held_by_asset(pool) or is_deferred(pool)


def limit_of(demand: Demand, limits: Mapping[str, int], default_limit: int | None) -> int | None:
    """How many such demands can be met at once; None when every pool of it is unlimited."""
    found = [
        limit // term.slots
        for term in demand.terms
        if (limit := limit_in_force(term.name, limits.get(term.name), default_limit)) is not None
    ]
    return min(found, default=None)
