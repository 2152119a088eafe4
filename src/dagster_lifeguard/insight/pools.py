"""One pool as it is now: its holders, its queue, and when each of its waiters may start."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from dagster_lifeguard.deployment.contract import is_leaked
from dagster_lifeguard.engine.rules.model import TicketKey, WaitReason, is_script
from dagster_lifeguard.engine.rules.rate import nanoseconds
from dagster_lifeguard.insight.estimate import Estimate, NoEstimate
from dagster_lifeguard.insight.overview import PoolSummary, spread_of, summarize

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dagster_lifeguard.deployment.contract import (
        Deployment,
        HoldingStep,
        PoolState,
        Run,
        WaitingStep,
    )
    from dagster_lifeguard.insight.durations import Durations, Spread
    from dagster_lifeguard.insight.outlook import Outlook
    from dagster_lifeguard.insight.waits import HeldBack


@dataclass(frozen=True, slots=True)
class Holder:
    """A step (or run, under granularity ``run``) that holds slots.

    Attributes:
        job_name: The job of the run; None if the run is no longer known.
        run_status: Dagster's status of the run; None if the run is no longer known.
        step_key: The step; empty under granularity ``run``.
        elapsed: For how many seconds it has held the slots; None if ``since`` is not known.
        typical: How long the same step, or else other steps of the pool, held slots in the past;
            None if no history is known.
        fence: The fence of the engine's grant.
        group: Its group, if the order of the pool is fair.
        is_leaked: Whether its run is over, so that the slots may never be released.
        lost: The step's own process, as host and process id, if that process is dead or silent
            while another process, such as the run worker, keeps the slots.
    """

    run_id: str
    job_name: str | None
    run_status: str | None
    step_key: str
    slots: int
    since: float | None
    elapsed: float | None
    typical: Spread | None
    fence: int | None
    group: str | None
    is_leaked: bool
    lost: str | None = None


@dataclass(frozen=True, slots=True)
class Waiter:
    """A step (or run, under granularity ``run``) that waits.

    Attributes:
        position: 1 for the next one to start.
        waited: For how many seconds it has waited; None if ``since`` is not known.
        group: Its group, if the order of the pool is fair.
        reason: Why it waits.
        estimate: When it is likely to start.
    """

    position: int
    run_id: str
    job_name: str | None
    run_status: str | None
    step_key: str
    slots: int
    priority: int
    since: float | None
    waited: float | None
    group: str | None
    reason: WaitReason
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool with its holders and waiters.

    Attributes:
        holders: The holders, oldest first where the times are known.
        queue: The waiters, in the order in which they start.
        holds: How long steps held the pool in the window.
    """

    summary: PoolSummary
    holders: tuple[Holder, ...]
    queue: tuple[Waiter, ...]
    holds: Spread | None


def runs_in(
    deployment: Deployment, states: Iterable[PoolState], known: Iterable[Run] = ()
) -> dict[str, Run]:
    """The runs that hold or wait in these pools, or did until their lease was over; by id.

    Args:
        deployment: Where they are.
        states: The pools.
        known: Runs that need not be asked for.
    """
    ids = {step.run_id for state in states for step in state.with_over}
    found = {run.run_id: run for run in known if run.run_id in ids}
    unknown = ids - found.keys()
    return found | {run.run_id: run for run in deployment.runs(unknown)} if unknown else found


def runs_leaked(
    deployment: Deployment, states: Iterable[PoolState], unfinished: Iterable[Run]
) -> frozenset[str]:
    """The runs that hold slots of these pools although they are over; see ``is_leaked``.

    Args:
        deployment: Where they are.
        states: The pools, looked at before the runs.
        unfinished: All runs that are not over.
    """
    holding = {step.run_id for state in states for step in state.holding}
    suspects = {run_id for run_id in holding if not is_script(run_id)}
    suspects -= {run.run_id for run in unfinished}
    found = {run.run_id: run for run in deployment.runs(suspects)} if suspects else {}
    return frozenset(run_id for run_id in suspects if is_leaked(run_id, found.get(run_id)))


def startable(states: Iterable[PoolState], held_back: HeldBack, now: float) -> dict[str, int]:
    """How many wait for each pool although nothing keeps them from going in.

    These are steps that could take their slots at each of their pools, and runs in the run queue
    that nothing keeps there. There are some at most moments: they go in when they, or the daemon,
    look next. Where the same ones stay, something that should look does not. Runs under
    granularity ``run`` are not among them.
    """
    states = tuple(states)
    kept = {
        (step.run_id, step.step_key)
        for state in states
        for step, reason in zip(state.waiting, _reasons(state, _starts(state, now)), strict=True)
        if reason is not WaitReason.NEXT and reason is not WaitReason.PROMISED
    }
    found = {}
    for state in states:
        steps = [s for s in state.waiting if s.step_key and (s.run_id, s.step_key) not in kept]
        count = len(steps) + len(held_back.launchable.get(state.pool, ()))
        if count and state.limit is not None:
            found[state.pool] = count
    return found


def look_into(
    state: PoolState,
    held_back: HeldBack,
    runs: Mapping[str, Run],
    past: Durations,
    now: float,
    outlook: Outlook,
) -> Pool:
    """One pool with everyone in it.

    Args:
        state: The pool.
        held_back: The runs that the run queue holds back.
        runs: The runs in it; see ``runs_in``.
        past: For typical durations.
        now: When the pool was looked at.
        outlook: For estimates.
    """
    holders = tuple(_holder(state.pool, step, runs, past, now) for step in state.holding)
    starts = _starts(state, now)
    estimates = _estimates(state, outlook)
    return Pool(
        summary=summarize(state, held_back, past, now),
        holders=holders,
        queue=tuple(
            _waiter(step, position, reason, estimate, runs, now)
            for position, (step, reason, estimate) in enumerate(
                zip(state.waiting, _reasons(state, starts), estimates, strict=True), start=1
            )
        ),
        holds=spread_of(past.holds.get(state.pool)),
    )


def find_pool(deployment: Deployment, name: str) -> PoolState:
    """One pool, known or not."""
    (state,) = deployment.pools([name])
    return state


def _holder(
    pool: str, step: HoldingStep, runs: Mapping[str, Run], past: Durations, now: float
) -> Holder:
    run = runs.get(step.run_id)
    sample = past.holds_of(pool, _name(step, run))
    return Holder(
        run_id=step.run_id,
        job_name=None if run is None else run.job_name,
        run_status=None if run is None else run.status,
        step_key=step.step_key,
        slots=step.slots,
        since=step.since,
        elapsed=None if step.since is None else max(0.0, now - step.since),
        typical=None if sample is None else sample.spread(),
        fence=step.fence,
        group=step.group,
        is_leaked=is_leaked(step.run_id, run),
        lost=step.lost,
    )


def _waiter(
    step: WaitingStep,
    position: int,
    reason: WaitReason,
    estimate: Estimate,
    runs: Mapping[str, Run],
    now: float,
) -> Waiter:
    run = runs.get(step.run_id)
    return Waiter(
        position=position,
        run_id=step.run_id,
        job_name=None if run is None else run.job_name,
        run_status=None if run is None else run.status,
        step_key=step.step_key,
        slots=step.slots,
        priority=step.priority,
        since=step.since,
        waited=None if step.since is None else max(0.0, now - step.since),
        group=step.group,
        reason=reason,
        estimate=estimate,
    )


def _name(step: HoldingStep, run: Run | None) -> str:
    """By what the past knows it: its step, or, where the run holds, its job."""
    return step.step_key or ("" if run is None else run.job_name)


def _starts(state: PoolState, now: float) -> list[float]:
    """In how many seconds the rate lets each waiter start, in queue order."""
    rate = state.settings.rate
    if rate is None:
        return [0.0] * len(state.waiting)
    now_ns = nanoseconds(now)
    return [
        max(0.0, (rate.start_at(state.due_ns, now_ns, place) - now_ns) / 1e9)
        for place in range(1, len(state.waiting) + 1)
    ]


def _reasons(state: PoolState, starts: Sequence[float]) -> list[WaitReason]:
    free = inf if state.limit is None else state.limit - state.held
    left = free
    reasons = []
    able = 0
    for step in state.waiting:
        if state.limit == 0:
            reason = WaitReason.PAUSED
        elif state.limit is not None and step.slots > state.limit:
            reason = WaitReason.TOO_LARGE
        elif step.assigned is not None and step.slots <= left:
            reason = WaitReason.PROMISED
        elif step.slots <= left:
            reason = WaitReason.RATE if starts[able] > 0 else WaitReason.NEXT
        else:
            reason = WaitReason.FULL if step.slots > free else WaitReason.BEHIND
        reasons.append(reason)
        if reason in (WaitReason.PROMISED, WaitReason.NEXT, WaitReason.RATE):
            left -= step.slots  # One that cannot go in lets a smaller one pass.
            able += 1
    return reasons


def _estimates(state: PoolState, outlook: Outlook) -> list[Estimate]:
    """When each waiter starts, in queue order."""
    steps = outlook.of_steps(TicketKey(s.run_id, s.step_key) for s in state.waiting if s.step_key)
    runs = outlook.of_runs(s.run_id for s in state.waiting if not s.step_key)
    found = (
        steps.get(TicketKey(s.run_id, s.step_key)) if s.step_key else runs.get(s.run_id)
        for s in state.waiting
    )
    return [estimate or Estimate(missing=NoEstimate.NO_HISTORY) for estimate in found]
