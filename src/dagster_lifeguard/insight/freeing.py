"""Whether it is safe to free what a run, a step or a pool holds: what is known of who holds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.deployment.contract import HoldingStep
from dagster_lifeguard.errors import DeploymentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster_lifeguard.deployment.contract import Deployment, LifeSign, Run
    from dagster_lifeguard.insight.subject import Subject


@dataclass(frozen=True, slots=True)
class Freeable:
    """What one step holds, or waits for, and whether it is safe to free.

    Attributes:
        run_status: None if the run is not known any more.
        holds: Slots that it holds in each pool, as pool and slots.
        waits: The pools that it waits for.
        alive: Whether somebody still works under these slots; None if nobody can tell.
        evidence: By what that was judged, in sentences.
    """

    run_id: str
    step_key: str
    run_status: str | None
    holds: tuple[tuple[str, int], ...]
    waits: tuple[str, ...]
    alive: bool | None
    evidence: tuple[str, ...]

    @property
    def is_safe(self) -> bool:
        """Whether it is known that nobody works under these slots any more."""
        return self.alive is False


def find_freeable(deployment: Deployment, subject: Subject, now: float) -> tuple[Freeable, ...]:
    """What there is to free: of a run, a step, or, in a pool, of everybody who holds.

    Raises:
        DeploymentError: Under granularity ``run`` nothing is held but by the runs themselves.
    """
    if deployment.settings().granularity == "run":
        raise DeploymentError(
            "Under granularity run no slots are held: a run counts for its pools while it is in "
            "progress.",
            remedy="To make room, cancel the run. If it is dead already, mark it as canceled: the "
            "Dagster UI does it with Terminate, Force termination immediately.",
        )
    names = [subject.name] if subject.kind == "pool" else None
    holds: dict[tuple[str, str], dict[str, int]] = {}
    waits: dict[tuple[str, str], list[str]] = {}
    for state in deployment.pools(names):
        for step in state.with_over:
            key = (step.run_id, step.step_key)
            if not _is_meant(subject, *key):
                continue
            if isinstance(step, HoldingStep):
                holds.setdefault(key, {})[state.pool] = step.slots
            elif subject.kind != "pool":
                waits.setdefault(key, []).append(state.pool)
    keys = sorted(holds.keys() | waits.keys())
    runs = {run.run_id: run for run in deployment.runs({run_id for run_id, _ in keys})}
    found = []
    for run_id, step_key in keys:
        run = runs.get(run_id)
        alive, evidence = _judge(run, deployment.life_signs(run_id, step_key), now)
        found.append(
            Freeable(
                run_id=run_id,
                step_key=step_key,
                run_status=None if run is None else run.status,
                holds=tuple(holds.get((run_id, step_key), {}).items()),
                waits=tuple(waits.get((run_id, step_key), ())),
                alive=alive,
                evidence=evidence,
            )
        )
    return tuple(found)


def _is_meant(subject: Subject, run_id: str, step_key: str) -> bool:
    if subject.run is None:
        return True
    return run_id == subject.run.run_id and subject.step_key in (None, step_key)


def _judge(
    run: Run | None, signs: Sequence[LifeSign], now: float
) -> tuple[bool | None, tuple[str, ...]]:
    """Whether somebody works, and by what evidence.

    A process that says so itself, and then the run launcher, is believed before anything that is
    written of the run: it can be marked as over while one of its steps still executes. Of a run
    that was deleted nothing is written: what it holds it took after that, for Dagster frees the
    slots of a run as it deletes it.
    """
    evidence = [*_of_run(run, now), *(f"{sign.name}: {sign.detail}" for sign in signs)]
    sessions = [sign for sign in signs if sign.source == "session"]
    if any(sign.alive for sign in sessions):
        return True, tuple(evidence)
    if sessions:
        return False, tuple(evidence)
    workers = {sign.alive for sign in signs if sign.source == "run-worker"}
    if True in workers:
        return True, tuple(evidence)
    is_over = run is not None and run.is_over
    return (False if is_over or workers == {False} else None), tuple(evidence)


def _of_run(run: Run | None, now: float) -> tuple[str, ...]:
    if run is None:
        return ("The run is not known any more.",)
    if not run.is_over:
        return (f"The run is {run.status}.",)
    when = "" if run.ended is None else f", and ended {now - run.ended:.0f} s ago"
    return (f"The run is {run.status}{when}.",)
