"""What holds up the runs that use a pool before they come to it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.launch_order import IN_PROGRESS
from dagster_lifeguard.insight.queue_look import Obstacle

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dagster_lifeguard.deployment.contract import PoolState, Run
    from dagster_lifeguard.insight.waits import HeldBack

FIRST_MAX = 5
"""At most this many of the runs that are held up are named."""

_NO_NAMES: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Upstream:
    """One thing that holds up runs which use a pool.

    Attributes:
        obstacle: Another pool, a tag limit, or the number of runs at once.
        name: The pool, or the tag as ``key=value``; empty for the number of runs.
        limit: The slots of the pool, or the largest number of runs at once; None: no limit.
        taken: How many slots are held, or how many runs are in progress.
        queued: How many runs it keeps in the run queue.
        steps: How many steps wait at that pool: of runs in progress that use the pool, and steps
            that wait for both pools.
        first: The ids of the first of these runs, at most ``FIRST_MAX``.
    """

    obstacle: Obstacle
    name: str
    limit: int | None
    taken: int
    queued: int
    steps: int
    first: tuple[str, ...]


def upstream_of(
    pool: PoolState,
    states: Iterable[PoolState],
    held_back: HeldBack,
    unfinished: Iterable[Run],
) -> tuple[Upstream, ...]:
    """What holds up the runs that use a pool, but not the pool itself; what holds up most first.

    Args:
        pool: The pool.
        states: All pools, read at the same time.
        held_back: The runs that the run queue holds back.
        unfinished: The runs in the queue or in progress.
    """
    queued: dict[str, list[str]] = {}
    for name, runs in held_back.by_pool.items():
        coming = [run.run_id for run in runs if pool.pool in (run.pools or ())]
        if coming and name != pool.pool:
            queued[name] = coming
    steps = _steps_at(pool, states, unfinished)
    found = []
    if queued or steps:
        known = {state.pool: state for state in (*held_back.unlisted, *states)}
        found = [
            _of_pool(known[name], queued.get(name, _NO_NAMES), steps.get(name, _NO_NAMES))
            for name in {**queued, **steps}
            if name in known
        ]
    for rule in held_back.by_rule:
        coming = [run.run_id for run in rule.runs if pool.pool in (run.pools or ())]
        if coming:
            first = tuple(coming[:FIRST_MAX])
            found.append(
                Upstream(rule.obstacle, rule.name, rule.limit, rule.taken, len(coming), 0, first)
            )
    return tuple(sorted(found, key=lambda each: (-each.queued - each.steps, each.name)))


def _of_pool(state: PoolState, queued: Sequence[str], steps: Sequence[str]) -> Upstream:
    first = tuple(dict.fromkeys((*steps, *queued)))[:FIRST_MAX]
    held = state.held
    return Upstream(Obstacle.POOL, state.pool, state.limit, held, len(queued), len(steps), first)


def _steps_at(
    pool: PoolState, states: Iterable[PoolState], unfinished: Iterable[Run]
) -> Mapping[str, list[str]]:
    """For each other pool the runs of the steps that wait there, one for each step."""
    both = {(step.run_id, step.step_key) for step in pool.waiting}
    here = {step.run_id for step in pool.everyone}
    coming = {
        run.run_id
        for run in unfinished
        if run.status in IN_PROGRESS and pool.pool in (run.pools or ()) and run.run_id not in here
    }
    found: dict[str, list[str]] = defaultdict(list)
    if both or coming:
        for state in states:
            if state.waiting and state.pool != pool.pool:
                for step in state.waiting:
                    if step.run_id in coming or (step.run_id, step.step_key) in both:
                        found[state.pool].append(step.run_id)
    return found
