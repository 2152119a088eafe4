"""What can be mended without danger: what runs that are over have, or the dead; lost wake-ups.

Nothing here frees what a run that may be alive holds. Whether a run is over is asked again at the
moment of the fix, so that a fix can be agreed to long after it was offered, and done twice. A run
that was deleted may be alive: Dagster frees its slots as it deletes it, so what it holds it took
later.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dagster_lifeguard.compat.health import assign_waiting
from dagster_lifeguard.engine.rules.shown_names import enumerate_some, pool_text, pools_text
from dagster_lifeguard.inspections.doctor.phrases import duration, end_of
from dagster_lifeguard.inspections.doctor.slots import pools_of, stuck_count

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from dagster_lifeguard.deployment.contract import Run
    from dagster_lifeguard.inspections.doctor.examined import Examined

GRACE_SECONDS = 60.0
"""A run that ended shorter ago may still have a process that is going down, so its slots are left.
It is what ``lifeguard init`` sets for run monitoring, which then frees them."""

Outcome = Literal["done", "not needed", "refused"]


@dataclass(frozen=True)
class Fix:
    """Something that can be mended.

    Attributes:
        code: Of the check that finds it.
        action: What is to be done, in one line.
        apply: Do it: the outcome, and what was done or why not. May raise ``DeploymentError``.
    """

    code: str
    action: str
    apply: Callable[[], tuple[Outcome, str]]


def fixes(subject: Examined, codes: Collection[str]) -> tuple[Fix, ...]:
    """What can be mended of what checks of these codes found, in the order in which to do it."""
    return (*_freeing(subject, codes), *_reaping(subject, codes), *_promising(subject, codes))


def _freeing(subject: Examined, codes: Collection[str]) -> Iterator[Fix]:
    found = {
        "slots-leaked": [s.run_id for state in subject.pools for s in state.holding],
        "waiters-leaked": [s.run_id for state in subject.pools for s in state.waiting],
    }
    seen: set[str] = set()
    for code in [code for code in found if code in codes]:
        for run_id in dict.fromkeys(found[code]):
            run = subject.users.get(run_id)
            if run_id in seen or run is None or not run.is_over:
                continue
            seen.add(run_id)
            pools = pools_text(pools_of(subject.pools, run_id))
            yield Fix(
                code,
                f"Free what run {run_id} holds of {pools}, and withdraw what waits of it "
                f"({end_of(run, subject.now)}).",
                lambda run_id=run_id: _free(subject, run_id),  # type: ignore[misc]
            )


def _free(subject: Examined, run_id: str) -> tuple[Outcome, str]:
    deployment = subject.deployment
    pools = pools_of(deployment.pools(), run_id)
    if not pools:
        return "not needed", f"run {run_id} holds nothing any more"
    run = next(iter(deployment.runs([run_id])), None)
    if run is None or not run.is_over:
        status = "deleted" if run is None else run.status
        return "refused", f"run {run_id} may be alive: it is {status}"
    left = _grace_left(run)
    if left > 0:
        return "refused", (
            f"run {run_id} ended only just now, and a process of it may still be going down: "
            f"free it in {duration(left)}"
        )
    judged = deployment.free(run_id)
    if not judged.is_safe:
        return "refused", f"run {run_id} may be alive: {' '.join(judged.evidence)}"
    if pools_of(deployment.pools(pools), run_id):
        return "refused", f"run {run_id} holds or waits again: a process of it lives"
    if subject.why_not("instance") is None:
        for pool in pools:
            _promise(subject, pool)  # A slot without a pending step is promised to nobody.
    return "done", f"freed what run {run_id} held of {pools_text(pools)}"


def _reaping(subject: Examined, codes: Collection[str]) -> Iterator[Fix]:
    if "lease-over" not in codes:
        return
    over = [(step.run_id, step.step_key) for state in subject.pools for step in state.over]
    for run_id, step_key in dict.fromkeys(over):
        yield Fix(
            "lease-over",
            f"Take back what step {step_key} of run {run_id} has: its lease is over.",
            lambda run_id=run_id, step_key=step_key: _reap(subject, run_id, step_key),  # type: ignore[misc]
        )


def _reap(subject: Examined, run_id: str, step_key: str) -> tuple[Outcome, str]:
    left = [step for state in subject.deployment.pools() for step in state.over]
    if (run_id, step_key) not in {(step.run_id, step.step_key) for step in left}:
        return "not needed", f"step {step_key} of run {run_id} has nothing left, or is back"
    judged = subject.deployment.free(run_id, step_key)
    if not judged.is_safe:
        return "refused", f"step {step_key} of run {run_id} lives: {' '.join(judged.evidence)}"
    return "done", f"took back what step {step_key} of run {run_id} had"


def _grace_left(run: Run) -> float:
    return 0.0 if run.ended is None else run.ended + GRACE_SECONDS - time.time()


def _promising(subject: Examined, codes: Collection[str]) -> Iterator[Fix]:
    if "waiter-stuck" not in codes or subject.why_not("instance") is not None:
        return
    for state in subject.pools:
        if stuck_count(state):
            pool = state.pool
            yield Fix(
                "waiter-stuck",
                f"Promise the free slots of {pool_text(pool)} to its first waiters.",
                lambda pool=pool: _promise(subject, pool),  # type: ignore[misc]
            )


def _promise(subject: Examined, pool: str) -> tuple[Outcome, str]:
    """Do what the release that was lost would have done.

    Promising a slot that another step takes meanwhile does no harm: a step that was promised one
    takes it only if it is free.
    """
    (state,) = subject.deployment.pools([pool])
    count = stuck_count(state)
    if subject.settings.engine or not count:
        return "not needed", f"no free slot of {pool_text(pool)} is left for a waiter"
    assign_waiting(subject.instance, pool, count)
    waiters = [s.run_id for s in state.waiting if s.assigned is None][:count]
    return "done", f"promised {count} of {pool_text(pool)} to run {enumerate_some(waiters)}"
