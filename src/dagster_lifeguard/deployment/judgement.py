"""Whether it is safe to free what a run or a step has: the one place that decides it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.deployment.contract import Judgement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster_lifeguard.deployment.contract import LifeSign, Run


def judge(run: Run | None, signs: Sequence[LifeSign], now: float) -> Judgement:
    """Whether a process works for a run, or under what one of its steps holds.

    A process that says so itself, and then the run launcher, is believed before anything that is
    written of the run: it can be marked as over while one of its steps still executes. Of a run
    that was deleted nothing is written: what it holds it took after that, for Dagster frees the
    slots of a run as it deletes it.

    Args:
        run: The run; None if it is not known any more.
        signs: The life signs of its processes.
        now: Seconds since the epoch.
    """
    evidence = (*_of_run(run, now), *(f"{sign.name}: {sign.detail}" for sign in signs))
    sessions = [sign for sign in signs if sign.source == "session"]
    if any(sign.alive for sign in sessions):
        return Judgement(alive=True, evidence=evidence)
    if sessions:
        return Judgement(alive=False, evidence=evidence)
    workers = {sign.alive for sign in signs if sign.source == "run-worker"}
    if True in workers:
        return Judgement(alive=True, evidence=evidence)
    is_over = run is not None and run.is_over
    is_dead = is_over or workers == {False}
    return Judgement(alive=False if is_dead else None, evidence=evidence)


def _of_run(run: Run | None, now: float) -> tuple[str, ...]:
    if run is None:
        return ("The run is not known any more.",)
    if not run.is_over:
        return (f"The run is {run.status}.",)
    when = "" if run.ended is None else f", and ended {now - run.ended:.0f} s ago"
    return (f"The run is {run.status}{when}.",)
