"""Who waits for a pool, wherever it waits: at the pool, or in Dagster's run queue because of it.

Everything that tells how many wait, and for how long, asks here, so that all of it says the same.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dagster_lifeguard.insight.queue_look import IN_QUEUE_OR_PROGRESS, Obstacle, QueueLook, in_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dagster_lifeguard.deployment.contract import (
        Deployment,
        PoolState,
        Run,
        Settings,
        WaitingStep,
    )


@dataclass(frozen=True, slots=True)
class PoolWaits:
    """Who waits for one pool.

    Attributes:
        steps: The steps that wait at the pool; under granularity ``run``, the runs in the queue.
        runs: The runs that the run queue holds back because the pool is full or paused. Under
            granularity ``run`` there are none: these runs are told as ``steps``.
        slots: How many slots all of them ask for.
    """

    steps: tuple[WaitingStep, ...]
    runs: tuple[Run, ...]
    slots: int

    @property
    def count(self) -> int:
        """How many wait in all."""
        return len(self.steps) + len(self.runs)

    def oldest(self, now: float) -> float | None:
        """How long the longest of all has waited; None: nobody waits, or it is not told."""
        ages = (self.oldest_at_pool(now), self.oldest_queued(now))
        return max((age for age in ages if age is not None), default=None)

    def oldest_at_pool(self, now: float) -> float | None:
        """How long the longest of the steps at the pool has waited; None as for ``oldest``."""
        return _longest((step.since for step in self.steps), now)

    def oldest_queued(self, now: float) -> float | None:
        """How long ago the oldest of the runs that are held back was submitted; None: none is."""
        return _longest((run.created for run in self.runs), now)


@dataclass(frozen=True, slots=True)
class RuleWaits:
    """The runs that one rule of the run queue holds back.

    Attributes:
        obstacle: A tag limit, or the number of runs at once.
        name: The tag as ``key=value``; empty for the number of runs.
        limit: The largest number of runs at once.
        taken: How many runs count there.
        runs: The runs that are held back, in the order in which the daemon looks at them.
    """

    obstacle: Obstacle
    name: str
    limit: int
    taken: int
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class HeldBack:
    """The runs that Dagster's run queue holds back because of pools.

    A run that begins with steps of several pools is held back while all of these are full, so it
    counts for each of them.

    Attributes:
        by_pool: These runs for each pool, in the order in which the daemon looks at them.
        in_queue: How many runs are in the queue in all; 0 under granularity ``run``.
        launchable: The runs in the queue that nothing keeps there, so that the daemon launches them
            when it looks next, for each pool of their first steps.
        unlisted: The pools of runs in the queue that the deployment does not list, since nothing
            but the default limit is known of them.
        by_rule: The runs that other rules of the run queue hold back.
    """

    by_pool: Mapping[str, tuple[Run, ...]] = field(default_factory=dict)
    in_queue: int = 0
    launchable: Mapping[str, tuple[Run, ...]] = field(default_factory=dict)
    unlisted: tuple[PoolState, ...] = ()
    by_rule: tuple[RuleWaits, ...] = ()

    def waits_for(self, state: PoolState) -> PoolWaits:
        """Who waits for a pool."""
        runs = self.by_pool.get(state.pool, ())
        slots = sum(step.slots for step in state.waiting)
        slots += sum((run.first_pools or {}).get(state.pool, 1) for run in runs)
        return PoolWaits(state.waiting, runs, slots)

    def wait_for_any(self, states: Iterable[PoolState]) -> tuple[int, int]:
        """How many wait for some of these pools, each counted once; and how many runs of them."""
        states = tuple(states)
        steps = {(step.run_id, step.step_key) for state in states for step in state.waiting}
        runs = {run.run_id for state in states for run in self.by_pool.get(state.pool, ())}
        return len(steps) + len(runs), len(runs)


NOBODY = HeldBack()
"""For what is not about who waits."""


def read_held_back(
    deployment: Deployment,
    settings: Settings,
    states: Iterable[PoolState],
    now: float,
    unfinished: Iterable[Run] | None = None,
) -> HeldBack:
    """Find the runs that the run queue holds back because of pools.

    Args:
        deployment: Where the queue is.
        settings: Of the deployment.
        states: Its pools, as far as they were read already; it is asked for all others.
        now: When all this was read.
        unfinished: Those in the queue or in progress, if they were read already.
    """
    if settings.granularity == "run":  # There the runs wait at the pools.
        return NOBODY
    if unfinished is None:
        unfinished = deployment.unfinished_runs(IN_QUEUE_OR_PROGRESS)
    unfinished = tuple(unfinished)
    line = in_line(unfinished)
    if not line:
        return NOBODY
    known = {state.pool: state for state in states}
    unread = {pool for run in line for pool in run.pools or ()} - known.keys()
    unlisted = deployment.pools(unread) if unread else ()
    known |= {state.pool: state for state in unlisted}
    look = QueueLook(unfinished, known.values(), deployment.run_queue(), settings, now)
    by_pool: dict[str, list[Run]] = defaultdict(list)
    launchable: dict[str, list[Run]] = defaultdict(list)
    by_rule: dict[tuple[Obstacle, str], list[Run]] = defaultdict(list)
    taken: dict[tuple[Obstacle, str], tuple[int, int]] = {}
    for run in line:
        kept = tuple(look.keeps(run))
        for keeper in kept:
            if keeper.obstacle is Obstacle.POOL:
                by_pool[keeper.name].append(run)
            else:
                rule = keeper.obstacle, keeper.name
                by_rule[rule].append(run)
                taken[rule] = keeper.limit, len(keeper.runs)
        if not kept:
            look.launch(run)
            for pool in run.first_pools or ():
                launchable[pool].append(run)
    return HeldBack(
        {pool: tuple(runs) for pool, runs in by_pool.items()},
        in_queue=len(line),
        launchable={pool: tuple(runs) for pool, runs in launchable.items()},
        unlisted=tuple(state for state in unlisted if state.pool in by_pool),
        by_rule=tuple(
            RuleWaits(*rule, *taken[rule], tuple(runs)) for rule, runs in by_rule.items()
        ),
    )


def _longest(moments: Iterable[float | None], now: float) -> float | None:
    known = [moment for moment in moments if moment is not None]
    return max(0.0, now - min(known)) if known else None
