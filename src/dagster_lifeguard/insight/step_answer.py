"""The state of one step of one run, and what it waits for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster_lifeguard.insight.estimate import Estimate
    from dagster_lifeguard.insight.overview import PoolSummary
    from dagster_lifeguard.insight.pools import Holder, Waiter
    from dagster_lifeguard.insight.run_queue import QueuePlace


class State(str, Enum):
    """The state of a step now."""

    WAITING = "waiting"
    """The step waits for slots of a pool."""
    HOLDING = "holding"
    """The step holds slots and executes."""
    EXECUTING = "executing"
    """The step executes and holds no slots of its own."""
    QUEUED = "queued"
    """The run is in the run queue, or is not launched yet."""
    PENDING = "pending"
    """The run is in progress and has not reached the step yet."""
    DONE = "done"
    """The step was executed."""
    NOT_EXECUTED = "not-executed"
    """The run is over, and the step was not executed."""


@dataclass(frozen=True, slots=True)
class AskedPool:
    """A pool that a step asks for.

    Attributes:
        pool: The summary of the pool.
        slots: How many slots the step asks for.
        holders: The holders of slots of the pool.
        waiter: The step, or its run, in the queue of the pool; None if it does not wait there.
        ahead: The waiters that start before it.
    """

    pool: PoolSummary
    slots: int
    holders: tuple[Holder, ...]
    waiter: Waiter | None
    ahead: tuple[Waiter, ...]


@dataclass(frozen=True, slots=True)
class StepAnswer:
    """One step of one run.

    Attributes:
        assets: The assets that the step makes, each as ``a/b``.
        state: The state of the step now.
        since: When that state began, in seconds since the epoch; None if not known.
        seconds: How long that state has lasted.
        pools: The pools that the step asks for; empty if it is not limited.
        queue_place: The place of its run in the run queue.
        estimate: When the step is likely to start, if it waits.
    """

    run_id: str
    job_name: str
    run_status: str
    step_key: str
    assets: tuple[str, ...]
    state: State
    since: float | None
    seconds: float | None
    pools: tuple[AskedPool, ...]
    queue_place: QueuePlace | None
    estimate: Estimate | None

    @property
    def key(self) -> tuple[str, str]:
        """Its run and step."""
        return self.run_id, self.step_key

    @property
    def is_limited(self) -> bool:
        """Whether some pool of it has a limit or a rate."""
        return any(
            asked.pool.limit is not None or "rate" in asked.pool.settings for asked in self.pools
        )
