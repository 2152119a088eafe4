"""When the waiting steps and the queued runs of a deployment are likely to start.

All estimates of one look come from plays of the same present: see ``simulation.estimating``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dagster_lifeguard.deployment.contract import is_leaked
from dagster_lifeguard.engine.rules.admission import PATIENCE_SECONDS
from dagster_lifeguard.engine.rules.launch_order import IN_PROGRESS
from dagster_lifeguard.engine.rules.model import Demand, TicketKey
from dagster_lifeguard.engine.rules.pool_settings import limit_in_force
from dagster_lifeguard.insight.estimate import WORK
from dagster_lifeguard.insight.queue_look import in_line
from dagster_lifeguard.insight.simulation.arrivals import Change
from dagster_lifeguard.insight.simulation.present import Present, PresentRun, Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from dagster_lifeguard.compat.health import RunQueue
    from dagster_lifeguard.deployment.contract import (
        Deployment,
        HoldingStep,
        PoolState,
        Run,
        Settings,
        WaitingStep,
    )
    from dagster_lifeguard.insight.durations import Durations
    from dagster_lifeguard.insight.estimate import Estimate
    from dagster_lifeguard.insight.shapes import Shapes


class Outlook:
    """What may come, from one present.

    Args:
        present: Tells the present; asked once, and only if something waits.
        shapes: What past runs and holds were like.
        work: How much is played for each question; see ``estimating``.
    """

    def __init__(self, present: Callable[[], Present], shapes: Shapes, *, work: int = WORK) -> None:
        self._tell, self._shapes, self._work = present, shapes, work
        self._told: Present | None = None
        self._steps: dict[TicketKey, Estimate] = {}
        self._runs: dict[str, Estimate] = {}

    def of_steps(self, keys: Iterable[TicketKey]) -> Mapping[TicketKey, Estimate]:
        """When these waiting steps start, and perhaps when others do."""
        unknown = set(keys) - self._steps.keys()
        if unknown:
            self._steps |= self._estimate(unknown, ())[0]
        return self._steps

    def of_runs(self, run_ids: Iterable[str]) -> Mapping[str, Estimate]:
        """When these queued runs leave the queue, and perhaps when others do."""
        unknown = set(run_ids) - self._runs.keys()
        if unknown:
            self._runs |= self._estimate((), unknown)[1]
        return self._runs

    def _estimate(
        self, keys: Collection[TicketKey], run_ids: Collection[str]
    ) -> tuple[dict[TicketKey, Estimate], dict[str, Estimate]]:
        # A shell that completes a name does without it, and so without Dagster.
        from dagster_lifeguard.insight.simulation.estimating import estimate  # noqa: PLC0415

        if self._told is None:
            self._told = self._tell()
        return estimate(self._told, self._shapes, keys, run_ids, work=self._work)


def read_outlook(
    deployment: Deployment,
    settings: Settings,
    states: Iterable[PoolState],
    past: Durations,
    now: float,
    unfinished: Sequence[Run],
    *,
    work: int = WORK,
) -> Outlook:
    """What may come in a deployment.

    Args:
        deployment: The deployment. What else matters is read when the first estimate is wanted.
        settings: Of the deployment.
        states: The pools that were read already.
        past: For durations.
        now: When they were read.
        unfinished: The runs in the queue or in progress, from ``Deployment.unfinished_runs``.
        work: How much is played for each question; see ``estimating``.
    """

    def present() -> Present:
        known = {state.pool: state for state in states}
        unread = {pool for run in unfinished for pool in run.pools or ()} - known.keys()
        if unread and past.until > past.since:  # Else nothing is estimated.
            known |= {state.pool: state for state in deployment.pools(unread)}
        runs = {run.run_id: run for run in unfinished}
        ids = {step.run_id for state in known.values() for step in state.everyone} - runs.keys()
        if ids:
            runs |= {run.run_id: run for run in deployment.runs(ids)}
        queue = deployment.run_queue()
        return present_of(known.values(), runs, unfinished, queue, settings, past, now)

    return Outlook(present, past.shapes, work=work)


def present_of(
    states: Collection[PoolState],
    runs: Mapping[str, Run],
    unfinished: Sequence[Run],
    queue: RunQueue | None,
    settings: Settings,
    past: Durations,
    now: float,
) -> Present:
    """Who holds and waits now.

    Args:
        states: The pools; also those that runs join to the pools of interest.
        runs: The runs that hold or wait in them, by id, as far as they are known.
        unfinished: The runs in the queue or in progress, from ``Deployment.unfinished_runs``.
        queue: How the run queue lets runs go; None if there is no queue.
        settings: Of the deployment.
        past: For how far the runs in progress have come, and what steps asked for.
        now: When all this was read.
    """
    going_on = [run for run in unfinished if run.status in IN_PROGRESS]
    by_run = settings.granularity == "run"
    if by_run:
        holding = tuple(_held_by(run, now) for run in going_on if run.pools)
        waiting: tuple[Standing, ...] = ()
    else:
        holding = _standing(((s, s.holding) for s in states), runs, past.shapes, now)
        found = _standing(((s, s.waiting) for s in states), runs, past.shapes, now)
        waiting = tuple(sorted(found, key=lambda ticket: ticket.since))
    patience = settings.patience_seconds
    return Present(
        at=now,
        settings={state.pool: state.settings for state in states},
        holding=holding,
        waiting=waiting,
        queued=tuple(_run(run, past, now) for run in in_line(unfinished)),
        going_on=tuple(_run(run, past, now) for run in going_on),
        rules=queue,
        by_run=by_run,
        due_ns={s.pool: s.due_ns for s in states if s.settings.rate is not None},
        patience_seconds=PATIENCE_SECONDS if patience is None else patience,
        changes=tuple(_falls_back(states, settings.default_limit)),
    )


def _falls_back(states: Iterable[PoolState], default_limit: int | None) -> Iterator[Change]:
    """The ends of temporary limits."""
    for state in states:
        end = state.settings.fall_back
        if end is not None:
            limit = limit_in_force(state.pool, end.limit, default_limit)
            yield Change(end.at, state.pool, replace(state.settings.lasting, limit=limit))


def _standing(
    steps: Iterable[tuple[PoolState, Iterable[HoldingStep | WaitingStep]]],
    runs: Mapping[str, Run],
    shapes: Shapes,
    now: float,
) -> tuple[Standing, ...]:
    """One ticket for each step, at whatever number of pools it is."""
    slots: dict[TicketKey, dict[str, int]] = {}
    groups: dict[TicketKey, dict[str, str]] = {}
    first: dict[TicketKey, HoldingStep | WaitingStep] = {}
    for state, of_pool in steps:
        for step in of_pool:
            key = TicketKey(step.run_id, step.step_key)
            first.setdefault(key, step)
            of_ticket = slots.setdefault(key, {})
            of_ticket[state.pool] = of_ticket.get(state.pool, 0) + step.slots
            if state.settings.fair_by is not None:
                groups.setdefault(key, {})[state.settings.fair_by] = step.group or ""
    demands: dict[tuple[str, str], Mapping[str, int]] = {}
    found = []
    for key, step in first.items():
        run = runs.get(key.run_id)
        asked = slots[key]
        if run is not None:
            kind = run.job_name, key.step_key
            if kind not in demands:
                demands[kind] = _demand(shapes, run, key.step_key)
            # A ticket stands at some of its pools only.
            asked = {**demands[kind], **asked} if asked.keys() <= demands[kind].keys() else asked
        found.append(
            Standing(
                key,
                Demand.of(asked),
                now if step.since is None else step.since,
                getattr(step, "priority", 0),
                groups.get(key, {}),
                is_leaked(key.run_id, run),
            )
        )
    return tuple(found)


def _demand(shapes: Shapes, run: Run, step_key: str) -> Mapping[str, int]:
    """What the step asked for in a past run of the same job; nothing if that is not known."""
    for shape in reversed(shapes.runs_like(run.job_name, run.pools)):
        for step in shape.steps:
            if step.step_key == step_key:
                return {term.name: term.slots for term in step.demand.terms}
    return {}


def _held_by(run: Run, now: float) -> Standing:
    """What a run holds under granularity ``run``: one slot of each of its pools."""
    return Standing(
        TicketKey(run.run_id, run.job_name),
        Demand.of(dict.fromkeys(run.pools or (), 1)),
        now if run.started is None else run.started,
        run.priority,
        run.tags,
    )


def _run(run: Run, past: Durations, now: float) -> PresentRun:
    so_far = past.so_far.get(run.run_id)
    launched = None
    if run.status in IN_PROGRESS:
        launched = now if run.started is None else run.started
        if so_far is not None:
            launched = so_far.launched
    return PresentRun(
        run.run_id,
        run.job_name,
        run.priority,
        run.tags,
        run.pools,
        run.first_pools,
        launched,
        run.started if run.status in IN_PROGRESS else None,
        {} if so_far is None else so_far.done,
    )
