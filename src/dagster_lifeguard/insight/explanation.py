"""Why a step waits: on which pool or in the run queue, behind whom, and until when."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Literal

from dagster_lifeguard.engine.rules.duplicates import DUPLICATE_TAG, NO_DUPLICATE
from dagster_lifeguard.engine.rules.model import TicketKey
from dagster_lifeguard.engine.rules.pool_expressions import ticket_name
from dagster_lifeguard.insight.deadline import Deadline, deadline_of
from dagster_lifeguard.insight.durations import terms_of, terms_of_asset, terms_of_step
from dagster_lifeguard.insight.outlook import read_outlook
from dagster_lifeguard.insight.overview import PoolSummary, summarize
from dagster_lifeguard.insight.pools import Pool, look_into, runs_in
from dagster_lifeguard.insight.queue_look import BEFORE_LAUNCH, IN_QUEUE_OR_PROGRESS
from dagster_lifeguard.insight.run_queue import QueuePlace, places_in_queue
from dagster_lifeguard.insight.step_answer import AskedPool, State, StepAnswer
from dagster_lifeguard.insight.subject import Subject, unknown_step
from dagster_lifeguard.insight.waits import read_held_back

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dagster_lifeguard.deployment.contract import (
        Deployment,
        HoldingStep,
        PlannedStep,
        PoolState,
        Run,
        Settings,
        WaitingStep,
    )
    from dagster_lifeguard.deployment.history import RunExecution, StepExecution
    from dagster_lifeguard.engine.rules.pool_expressions import Term
    from dagster_lifeguard.insight.durations import Durations
    from dagster_lifeguard.insight.pools import Waiter

RUNS_SEEN_MAX = 50
"""The most unfinished runs that may make an asset and are read, the oldest ones."""

_MADE_WHILE_GOING_ON = re.compile(r"\[[^\]]*\]")


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an asset, a run or a step waits.

    Attributes:
        kind: What the question is about.
        name: The asset, or the run's id.
        step_key: The step, if the question is about one.
        at: When the deployment was read, in seconds since the epoch.
        granularity: ``op`` if steps wait in their run, ``run`` if runs wait in the queue.
        engine: Whether the engine is in use; None if that cannot be seen.
        window: How many seconds before ``at`` the estimates use.
        pools: The pools of the asset's steps.
        pools_by_partition: The pools that depend on the partition, by their template.
        steps: The steps. For a run or a step: in the order of the run's plan. For an asset: the
            steps of its unfinished runs, in the order in which they start.
        duplicate_of: For a run that was dropped as a duplicate: the run that does the work.
        deadline: For a run or a step: when Dagster ends the run because it has run too long.
        runs_unseen: How many unfinished runs may make the asset but were not read.
        run_over: For a run that is over: its status, such as ``FAILURE``.
        run_ended: For a run that is over: when it ended, if that is known.
        lease_over: The pools where these steps hold or wait under a lease that has run out; the
            next claim frees these slots.
        never_ran: For an asset: whether no run has planned it, so that only the definitions name
            it.
    """

    kind: Literal["asset", "run", "step"]
    name: str
    step_key: str | None
    at: float
    granularity: str
    engine: bool | None
    window: float
    pools: tuple[PoolSummary, ...]
    steps: tuple[StepAnswer, ...]
    pools_by_partition: tuple[str, ...] = ()
    duplicate_of: str | None = None
    deadline: Deadline | None = None
    runs_unseen: int = 0
    run_over: str | None = None
    run_ended: float | None = None
    lease_over: tuple[str, ...] = ()
    never_ran: bool = False

    @property
    def is_waiting(self) -> bool:
        """Whether anything that was asked about waits."""
        return any(step.state in (State.WAITING, State.QUEUED) for step in self.steps)


def explain(
    deployment: Deployment, subject: Subject, settings: Settings, past: Durations, now: float
) -> Explanation:
    """Explain what an asset, a run or a step waits for.

    Raises:
        UnknownNameError: The run has no such step.
    """
    unseen = 0
    named: tuple[Term, ...] = ()
    own_pools: tuple[str, ...] = ()
    if subject.kind == "asset":
        terms = terms_of_asset(subject.name, subject.texts, settings)
        named = tuple({term.name: term for term in terms}.values())
        own_pools = tuple(term.name for term in named if not term.fields)
        unfinished = deployment.unfinished_runs()
        runs = [run for run in unfinished if _may_use(run, named)]
        unseen = max(0, len(runs) - RUNS_SEEN_MAX)
        runs = runs[:RUNS_SEEN_MAX]
    else:
        assert subject.run is not None
        runs = [subject.run]
        unfinished = ()
    planned = {run.run_id: deployment.planned_steps(run.run_id) for run in runs}
    if subject.kind == "asset":
        planned = {
            run_id: kept
            for run_id, steps in planned.items()
            if (kept := _making(steps, subject.name))
        }
        runs = [run for run in runs if run.run_id in planned]
    look = _Look(deployment, settings, past, now, runs, planned, own_pools, unfinished)
    steps = [answer for run in runs for answer in look.answers(run, subject)]
    if subject.kind == "step" and not steps:
        assert subject.run is not None
        run_id, step_key = subject.run.run_id, subject.step_key or ""
        raise unknown_step(run_id, step_key, look.keys_of(subject.run))
    return Explanation(
        kind="asset" if subject.kind == "asset" else "run" if subject.kind == "run" else "step",
        name=subject.name if subject.run is None else subject.run.run_id,
        step_key=subject.step_key,
        at=now,
        granularity=settings.granularity,
        engine=settings.engine,
        window=past.until - past.since,
        pools=tuple(summarize(look.states[pool], look.held_back, past, now) for pool in own_pools),
        steps=tuple(sorted(steps, key=_turn)) if subject.kind == "asset" else tuple(steps),
        pools_by_partition=tuple(term.name for term in named if term.fields),
        duplicate_of=_duplicate_of(subject.run),
        deadline=deadline_of(deployment, subject.run),
        runs_unseen=unseen,
        run_over=subject.run.status if subject.run is not None and subject.run.is_over else None,
        run_ended=subject.run.ended if subject.run is not None else None,
        lease_over=look.lease_over(runs, subject.step_key),
        never_ran=subject.never_ran,
    )


def _duplicate_of(run: Run | None) -> str | None:
    found = None if run is None else run.tags.get(DUPLICATE_TAG)
    return None if found == NO_DUPLICATE else found


def _making(steps: Sequence[PlannedStep], asset: str) -> tuple[PlannedStep, ...]:
    """The steps that make an asset; of a graph asset, every step of the graph.

    Only the last step of a graph bears the asset; the node at the top of its key names the graph.
    """
    nodes = {_node(step.step_key) for step in steps if asset in step.assets}
    return tuple(step for step in steps if _node(step.step_key) in nodes)


def _node(step_key: str) -> str:
    return step_key.partition("[")[0].partition(".")[0]


def _may_use(run: Run, pools: Sequence[Term]) -> bool:
    """Whether a run may execute a step with these pools, as far as the run itself tells."""
    if not pools or run.pools is None:
        return True
    # A name with a template in it is known only once a step claims.
    return any(term.fields or term.name in run.pools for term in pools)


def _is_of(found: HoldingStep | WaitingStep | Waiter, run: Run, ticket: str) -> bool:
    """Whether this is a ticket of a run, or of slots inside the step that has it."""
    return found.run_id == run.run_id and ticket in (
        found.step_key,
        TicketKey(found.run_id, found.step_key).step.step_key,
    )


class _Look:
    """Everything that the answers need, read once."""

    def __init__(
        self,
        deployment: Deployment,
        settings: Settings,
        past: Durations,
        now: float,
        runs: Sequence[Run],
        planned: Mapping[str, Sequence[PlannedStep]],
        own_pools: Sequence[str],
        unfinished: Sequence[Run],
    ) -> None:
        self._settings, self._past, self._now = settings, past, now
        self._planned = planned
        terms = [
            term
            for steps in planned.values()
            for step in steps
            if step.pool is not None
            for term in terms_of(step.pool, settings)
        ]
        names = {*own_pools, *(term.name for term in terms)}
        for run in runs:
            names |= run.pools or frozenset()
        # Which pools a template names, and slots inside steps, is known where they wait and hold.
        everywhere = settings.engine or any(term.is_deferred for term in terms)
        found = list(deployment.pools()) if everywhere else []
        unseen = names - {state.pool for state in found}
        found += deployment.pools(unseen) if unseen else ()
        self.states: dict[str, PoolState] = {state.pool: state for state in found}
        run_ids = {run.run_id for run in runs}
        self._of_run: dict[str, list[tuple[str, HoldingStep | WaitingStep]]] = defaultdict(list)
        for state in found:
            for step in state.everyone:
                if step.run_id in run_ids:
                    self._of_run[step.run_id].append((state.pool, step))
        used = names | {pool for steps in self._of_run.values() for pool, _ in steps}
        for run in runs:
            for planned_step in planned.get(run.run_id, ()):
                used |= _slots_of(run, planned_step, settings).keys()
        states = [state for name, state in self.states.items() if name in used]
        self._runs = runs_in(deployment, states, [*runs, *unfinished])
        self._looked_into: dict[str, Pool] = {}
        ids = [run.run_id for run in runs if run.status not in BEFORE_LAUNCH]
        self._executions = {run.run_id: run for run in deployment.executions(ids)} if ids else {}
        if not unfinished:
            unfinished = deployment.unfinished_runs(IN_QUEUE_OR_PROGRESS)
        self.held_back = read_held_back(deployment, settings, found, now, unfinished)
        self._outlook = read_outlook(deployment, settings, found, past, now, unfinished)
        queued = {run.run_id for run in runs if run.status == "QUEUED"}
        self._places = (
            places_in_queue(
                deployment, queued, unfinished, settings, now, self._outlook, self.states
            )
            if queued
            else {}
        )

    def keys_of(self, run: Run) -> dict[str, PlannedStep | None]:
        """The steps of a run, in the order of its plan; those made while it goes on come last."""
        planned = {step.step_key: step for step in self._planned.get(run.run_id, ())}
        seen: dict[str, PlannedStep | None] = {}
        execution = self._executions.get(run.run_id)
        here = [
            *(step.step_key for step in (execution.steps if execution else ())),
            *(
                TicketKey(step.run_id, step.step_key).step.step_key
                for _, step in self._of_run[run.run_id]
                if step.step_key
            ),
        ]
        made: set[str] = set()
        tickets = {self._ticket(key, step) for key, step in planned.items()}
        for key in dict.fromkeys(here):
            if key not in planned and key not in tickets:
                template = _MADE_WHILE_GOING_ON.sub("[?]", key)
                if template in planned:
                    made.add(template)
                    seen[key] = planned[template]
        return {**{k: step for k, step in planned.items() if k not in made}, **seen}

    def lease_over(self, runs: Iterable[Run], step_key: str | None) -> tuple[str, ...]:
        """The pools where these runs, or one step of them, have what no lease keeps any more."""
        run_ids = {run.run_id for run in runs}
        return tuple(
            name
            for name, state in sorted(self.states.items())
            if any(
                step.run_id in run_ids
                and step_key in (None, TicketKey(step.run_id, step.step_key).step.step_key)
                for step in state.over
            )
        )

    def answers(self, run: Run, subject: Subject) -> Iterable[StepAnswer]:
        execution = self._executions.get(run.run_id)
        done = _latest(execution)
        place = self._places.get(run.run_id)
        for key, step in self.keys_of(run).items():
            if subject.step_key is None or key == subject.step_key:
                yield self._answer(run, key, step, done.get(key), place)

    def _answer(
        self,
        run: Run,
        key: str,
        step: PlannedStep | None,
        execution: StepExecution | None,
        place: QueuePlace | None,
    ) -> StepAnswer:
        asked = self._asked(run, key, step)
        by_run = self._settings.granularity == "run"
        waiting = [a.waiter for a in asked if a.waiter is not None]
        own = [
            holder
            for a in asked
            for holder in a.holders
            if holder.run_id == run.run_id and holder.step_key == self._ticket(key, step)
        ]
        since: float | None = None
        if run.status in BEFORE_LAUNCH:
            state, since = State.QUEUED, run.created
        elif waiting and not by_run and not run.is_over:
            state = State.WAITING
            since = min((w.since for w in waiting if w.since is not None), default=None)
        elif own:
            state, since = State.HOLDING, own[0].since
        elif execution is not None and execution.ended is None and not run.is_over:
            state, since = State.EXECUTING, execution.started
        elif execution is not None:
            state, since = State.DONE, execution.ended or run.ended
        elif run.is_over:
            state, since = State.NOT_EXECUTED, run.ended
        else:
            state, since = State.PENDING, run.started
        if by_run and state is State.EXECUTING and asked:
            state = State.HOLDING  # Its run holds, for all its steps.
        estimate = None
        if state is State.QUEUED and place is not None:
            estimate = place.estimate
        elif state is State.WAITING:
            # One that waits at several pools has one estimate. Its step may wait with several
            # tickets, of slots inside it.
            estimate = max(
                (waiter.estimate for waiter in waiting),
                key=lambda e: inf if e.missing is not None else e.typical or 0.0,
            )
        return StepAnswer(
            run_id=run.run_id,
            job_name=run.job_name,
            run_status=run.status,
            step_key=key,
            assets=step.assets if step is not None else (),
            state=state,
            since=since,
            seconds=None if since is None else max(0.0, self._now - since),
            pools=asked,
            queue_place=place,
            estimate=estimate,
        )

    def _asked(self, run: Run, key: str, step: PlannedStep | None) -> tuple[AskedPool, ...]:
        ticket = self._ticket(key, step)
        slots = {} if step is None else _slots_of(run, step, self._settings)
        for name, other in self._of_run[run.run_id]:
            if _is_of(other, run, ticket):
                slots.setdefault(name, other.slots)
        own_key = "" if self._settings.granularity == "run" else ticket
        return tuple(self._asked_pool(run, own_key, name, n) for name, n in slots.items())

    def _ticket(self, key: str, step: PlannedStep | None) -> str:
        """The step key under which the step is in its pools."""
        if step is None or step.pool is None or self._settings.engine is False:
            return key
        return ticket_name(key, step.pool)

    def _asked_pool(self, run: Run, key: str, name: str, slots: int) -> AskedPool:
        pool = self._pool(name)
        # A run that is over goes in nowhere, whatever is left of it.
        own = [] if run.is_over else [w for w in pool.queue if _is_of(w, run, key)]
        waiter = own[0] if own else None
        return AskedPool(
            pool=pool.summary,
            slots=slots,
            holders=pool.holders,
            waiter=waiter,
            ahead=() if waiter is None else pool.queue[: waiter.position - 1],
        )

    def _pool(self, name: str) -> Pool:
        if name not in self._looked_into:
            state = self.states[name]
            self._looked_into[name] = look_into(
                state, self.held_back, self._runs, self._past, self._now, self._outlook
            )
        return self._looked_into[name]


def _slots_of(run: Run, step: PlannedStep, settings: Settings) -> dict[str, int]:
    """The slots of each pool that a step asks for, as far as its plan tells."""
    if step.pool is None:
        return {}
    static = set(terms_of(step.pool, settings))
    slots: dict[str, int] = {}
    for term in terms_of_step(step.pool, step.assets, settings):
        # A webserver tells which assets an op can make, not which of them its run selects.
        is_asked = term in static or run.pools is None or term.name in run.pools
        if is_asked and not term.fields:
            slots[term.name] = max(slots.get(term.name, 0), term.slots)
    return slots


_TURNS = (
    State.HOLDING,
    State.EXECUTING,
    State.WAITING,
    State.QUEUED,
    State.PENDING,
    State.DONE,
    State.NOT_EXECUTED,
)


def _turn(answer: StepAnswer) -> tuple[int, int]:
    """Sorts who executes first, and then who waits by its position."""
    places = [asked.waiter.position for asked in answer.pools if asked.waiter is not None]
    if answer.queue_place is not None:
        places = [answer.queue_place.position]
    return _TURNS.index(answer.state), max(places, default=0)


def _latest(execution: RunExecution | None) -> dict[str, StepExecution]:
    """The last attempt of each step."""
    return {} if execution is None else {step.step_key: step for step in execution.steps}
