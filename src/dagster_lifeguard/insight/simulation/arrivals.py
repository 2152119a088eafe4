"""What is played: executions that ask for slots, and changes of pools."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster_lifeguard.engine.rules.model import Demand, TicketKey
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings

_NO_TAGS: Mapping[str, str] = {}


class Arrival(NamedTuple):
    """An execution that asks for slots, holds them and gives them back.

    Attributes:
        key: The step of the run.
        at: When it asks, in seconds since the epoch; with ``after``, in seconds after that end.
        demand: What it asks for.
        seconds: How long it holds.
        priority: The higher goes first.
        tags: Of its run: the groups of fair orders.
        after: The place, among the arrivals, of an earlier arrival that has to end before.
    """

    key: TicketKey
    at: float
    demand: Demand
    seconds: float
    priority: int = 0
    tags: Mapping[str, str] = _NO_TAGS
    after: int | None = None


class Change(NamedTuple):
    """Settings of a pool from a moment on; the limit is the one in force."""

    at: float
    pool: str
    settings: PoolSettings
