"""The slots that a run, a step or a pool holds, and whether it seems safe to free them.

This is for display. ``Deployment.free`` judges again at the moment of freeing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.deployment.contract import HoldingStep
from dagster_lifeguard.deployment.judgement import judge
from dagster_lifeguard.errors import DeploymentError

if TYPE_CHECKING:
    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.insight.subject import Subject


@dataclass(frozen=True, slots=True)
class Freeable:
    """The slots that one step holds or waits for, and whether it is safe to free them.

    Attributes:
        run_status: Dagster's status of the run; None if the run is no longer known.
        holds: The slots that it holds: for each pool, its name and the number of slots.
        waits: The pools that it waits for.
        alive: Whether a process still works under these slots; None if that is not known.
        evidence: The reasons for ``alive``, in sentences.
    """

    run_id: str
    step_key: str
    run_status: str | None
    holds: tuple[tuple[str, int], ...]
    waits: tuple[str, ...]
    alive: bool | None
    evidence: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str]:
        """Its run and step."""
        return self.run_id, self.step_key

    @property
    def is_safe(self) -> bool:
        """Whether it is known that no process works under these slots any more."""
        return self.alive is False


def find_freeable(deployment: Deployment, subject: Subject, now: float) -> tuple[Freeable, ...]:
    """The slots that can be freed: of a run, of a step, or of all holders of a pool.

    Raises:
        DeploymentError: Under granularity ``run`` only runs hold, and they cannot be freed.
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
        judged = judge(run, deployment.life_signs(run_id, step_key), now)
        found.append(
            Freeable(
                run_id=run_id,
                step_key=step_key,
                run_status=None if run is None else run.status,
                holds=tuple(holds.get((run_id, step_key), {}).items()),
                waits=tuple(waits.get((run_id, step_key), ())),
                alive=judged.alive,
                evidence=judged.evidence,
            )
        )
    return tuple(found)


def _is_meant(subject: Subject, run_id: str, step_key: str) -> bool:
    if subject.run is None:
        return True
    return run_id == subject.run.run_id and subject.step_key in (None, step_key)
