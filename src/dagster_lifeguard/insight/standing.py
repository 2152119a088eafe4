"""The state of a pool, in one word."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster_lifeguard.insight.overview import PoolSummary


class Standing(str, Enum):
    """The state of a pool. The first that applies is the pool's state."""

    PAUSED = "paused"
    """The limit is 0."""
    DRAINING = "draining"
    """More slots are held than the limit, since it was lowered."""
    BACKLOGGED = "backlogged"
    """Steps wait at the pool, or runs wait in the run queue because of it."""
    FULL = "full"
    """All slots are held, and nothing waits."""
    IN_USE = "in use"
    """Some slots are held, and nothing waits."""
    IDLE = "idle"
    """No slot is held, and nothing waits."""


def standing_of(pool: PoolSummary) -> Standing:
    """The state of a pool."""
    if pool.limit == 0:
        return Standing.PAUSED
    if pool.limit is not None and pool.held > pool.limit:
        return Standing.DRAINING
    if pool.waiting:
        return Standing.BACKLOGGED
    if pool.held:
        return Standing.FULL if pool.held == pool.limit else Standing.IN_USE
    return Standing.IDLE
