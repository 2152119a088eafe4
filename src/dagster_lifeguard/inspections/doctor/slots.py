"""Slots that are held or promised to runs that are over, and steps that wait beside a free one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dagster_lifeguard.deployment.contract import HoldingStep, is_leaked
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.inspections.doctor.check import Told, check
from dagster_lifeguard.inspections.doctor.phrases import duration, end_of
from dagster_lifeguard.texts import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dagster_lifeguard.deployment.contract import PoolState, WaitingStep
    from dagster_lifeguard.inspections.doctor.examined import Examined

LOOK_AGAIN_SECONDS = 1.0
"""A free slot beside a waiter is looked at again after this: the step that takes it may be on its
way. Dagster's storage promises a free slot within the release, in milliseconds."""

SILENT_SECONDS = 3600.0
"""A run that holds or was promised a slot and began longer ago than this is worth a look."""


@check(severity="error", source="deployment")
def slots_leaked(subject: Examined) -> Iterator[Told]:
    """A run that is over holds slots."""
    for state in subject.pools:
        leaked = [s for s in state.holding if is_leaked(s.run_id, subject.users.get(s.run_id))]
        if leaked:
            count = sum(step.slots for step in leaked)
            held = number(count, "slot")
            if state.limit is not None:
                held = f"{count} of {number(state.limit, 'slot')}"
            yield Told(
                f"{pool_text(state.pool)}: {held} held by runs that are over.",
                _remedy(subject, leaked, "Free them."),
                names=[state.pool, *dict.fromkeys(step.run_id for step in leaked)],
                evidence=[_end(subject, step) for step in leaked],
                commands=["lifeguard doctor --fix"],
            )


@check(severity="error", source="deployment")
def waiters_leaked(subject: Examined) -> Iterator[Told]:
    """A run that is over waits for slots."""
    for state in subject.pools:
        leaked = [s for s in state.waiting if is_leaked(s.run_id, subject.users.get(s.run_id))]
        if leaked:
            promised = sum(s.slots for s in leaked if s.assigned is not None)
            yield Told(
                f"{pool_text(state.pool)}: {number(len(leaked), 'waiter')} of runs that are over, "
                "which the run queue takes for slots in use"
                + (f"; {number(promised, 'slot')} promised to them." if promised else "."),
                _remedy(subject, leaked, "Withdraw them."),
                names=[state.pool, *dict.fromkeys(step.run_id for step in leaked)],
                evidence=[_end(subject, step) for step in leaked],
                commands=["lifeguard doctor --fix"],
            )


@check(severity="error", source="deployment")
def waiter_stuck(subject: Examined) -> Iterator[Told]:
    """A step waits although a slot is free.

    Looks twice, see ``LOOK_AGAIN_SECONDS``.
    """
    # The engine's waiters look again by themselves; at granularity run the queue does.
    if subject.settings.granularity == "run" or subject.has_engine():
        return
    suspects = {state.pool for state in subject.pools if stuck_count(state)}
    if not suspects:
        return
    time.sleep(LOOK_AGAIN_SECONDS)
    for state in subject.deployment.pools(suspects):
        count = stuck_count(state)
        if count and state.limit is not None:
            waiting = [s for s in state.waiting if s.assigned is None]
            yield Told(
                f"{pool_text(state.pool)}: {count} of {number(state.limit, 'slot')} free and "
                f"promised to nobody, and {number(len(waiting), 'waiter')}: a release and "
                "a first claim came at once, and Dagster's storage lost the wake-up.",
                "Promise the slots to them. The engine loses none: lifeguard engine enable.",
                names=[state.pool, *dict.fromkeys(step.run_id for step in waiting)],
                evidence=[
                    _waits(step.run_id, step.step_key, step.since, subject.now)
                    for step in waiting[:5]
                ],
                commands=["lifeguard doctor --fix"],
            )


@check(severity="note", source="deployment")
def lease_over(subject: Examined) -> Iterator[Told]:
    """A process that is dead or silent has slots or waits."""
    for state in subject.pools:
        if state.over:
            held = sum(isinstance(step, HoldingStep) for step in state.over)
            told = (number(held, "holder"), number(len(state.over) - held, "waiter"))
            yield Told(
                f"{pool_text(state.pool)}: the lease is over of {' and '.join(told)}.",
                "Nothing is blocked: they count no more, and the next claim takes back what they "
                "have. To do it now:",
                names=[state.pool, *dict.fromkeys(step.run_id for step in state.over)],
                evidence=[_end(subject, step) for step in state.over],
                commands=["lifeguard doctor --fix"],
            )


@check(severity="warning", source="deployment")
def step_dead(subject: Examined) -> Iterator[Told]:
    """A step's own process is dead, and its run worker keeps its slots."""
    for state in subject.pools:
        for step in state.holding:
            if step.lost is not None:
                yield Told(
                    f"{pool_text(state.pool)}: the process of step {step.step_key} of run "
                    f"{step.run_id} is dead or silent, and its run worker keeps "
                    f"{number(step.slots, 'slot')}.",
                    "Cancel the run: it waits for a step that does not execute. Its slots are free "
                    "once the step has failed, or its run worker has ended.",
                    names=[state.pool, step.run_id, step.step_key],
                    evidence=[f"process {step.lost}: its lease has run out"],
                )


@check(severity="note", source="deployment")
def holder_silent(subject: Examined) -> Iterator[Told]:
    """A run holds a slot for very long."""
    for state in subject.pools:
        waiting = subject.held_back.waits_for(state).count
        if not waiting:
            continue
        for step in state.holding:
            run = subject.users.get(step.run_id)
            if run is None or run.is_over:
                continue
            since = step.since or run.started or run.created
            if subject.now - since > SILENT_SECONDS:
                yield Told(
                    f"{pool_text(state.pool)}: run {step.run_id} has held a slot for "
                    f"{duration(subject.now - since)}; {number(waiting, 'waiter')}.",
                    "If its process is dead, say so in Dagster's UI: Terminate, with force. "
                    "Then lifeguard doctor --fix frees the slot.",
                    names=[state.pool, step.run_id],
                    evidence=[f"step {step.step_key}, run {run.status}"],
                )


def stuck_count(state: PoolState) -> int:
    """How many free slots are promised to nobody although somebody waits to whom none is."""
    if state.limit is None:
        return 0
    promised = sum(step.slots for step in state.waiting if step.assigned is not None)
    free = state.limit - state.held - promised
    waiting = [step.slots for step in state.waiting if step.assigned is None]
    return min(free, sum(waiting)) if waiting and free >= waiting[0] else 0


def _remedy(subject: Examined, leaked: Iterable[HoldingStep | WaitingStep], remedy: str) -> str:
    if all(step.run_id in subject.users for step in leaked):
        return remedy
    return (
        f"{remedy} A process of a deleted run may still live, so --fix leaves its slots: free them "
        "in Dagster's UI, Deployment > Concurrency, when you know that it does not."
    )


def _end(subject: Examined, step: HoldingStep | WaitingStep) -> str:
    end = end_of(subject.users.get(step.run_id), subject.now)
    return f"run {step.run_id}, step {step.step_key}: {end}"


def _waits(run_id: str, step_key: str, since: float | None, now: float) -> str:
    how_long = "" if since is None else f" waits for {duration(now - since)}"
    return f"run {run_id}, step {step_key}{how_long}"


def pools_of(states: Iterable[PoolState], run_id: str) -> list[str]:
    """The pools where a run holds or waits."""
    return [
        state.pool
        for state in states
        if run_id in {step.run_id for step in state.holding}
        or run_id in {step.run_id for step in state.waiting}
    ]


CHECKS = (slots_leaked, waiters_leaked, waiter_stuck, lease_over, step_dead, holder_silent)
