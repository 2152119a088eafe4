"""What there is to say of one step of one run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster_lifeguard.insight.forecast import Estimate
    from dagster_lifeguard.insight.pools import Holder, PoolSummary, Waiter
    from dagster_lifeguard.insight.run_queue import QueuePlace


class State(str, Enum):
    """What a step does now."""

    WAITING = "waiting"
    """It waits for slots of a pool."""
    HOLDING = "holding"
    """It holds slots, and executes."""
    EXECUTING = "executing"
    """It executes and needs no slots of its own."""
    QUEUED = "queued"
    """Its run is in the run queue, or is not launched yet."""
    PENDING = "pending"
    """Its run goes on, and has not come to it yet."""
    DONE = "done"
    """It was executed."""
    NOT_EXECUTED = "not-executed"
    """Its run is over without it."""


@dataclass(frozen=True, slots=True)
class AskedPool:
    """A pool that a step asks for.

    Attributes:
        pool: The pool in outline.
        slots: How many slots of it.
        holders: Who holds them now.
        waiter: The step, or its run, in the queue of the pool; None if it is not there.
        ahead: Who goes in before it.
    """

    pool: PoolSummary
    slots: int
    holders: tuple[Holder, ...]
    waiter: Waiter | None
    ahead: tuple[Waiter, ...]


@dataclass(frozen=True, slots=True)
class StepAnswer:
    """What there is to say of one step of one run.

    Attributes:
        assets: The assets it makes, each as ``a/b``.
        state: What it does now.
        since: Since when; None where that is not known.
        seconds: For how long.
        pools: The pools it asks for; empty: it is not limited.
        queue_place: Where its run stands in the run queue.
        estimate: When it goes in, if it waits.
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
