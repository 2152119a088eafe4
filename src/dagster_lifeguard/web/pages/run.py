"""One run: what each of its steps waits for, and how it went so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.errors import UnknownNameError
from dagster_lifeguard.insight.explanation import explain
from dagster_lifeguard.insight.subject import asset_or_run
from dagster_lifeguard.insight.timeline import Timeline, bar_of_run, bar_of_step

if TYPE_CHECKING:
    from dagster_lifeguard.deployment.contract import Deployment, Run
    from dagster_lifeguard.insight.durations import Durations
    from dagster_lifeguard.insight.explanation import Explanation

STEPS_MAX = 60
"""Of the steps that executed so many of the newest are drawn."""


@dataclass(frozen=True, slots=True)
class RunPage:
    """One run.

    Attributes:
        run: The run.
        explanation: What its steps do, and what they wait for.
        timeline: The run, and its steps below it.
    """

    run: Run
    explanation: Explanation
    timeline: Timeline


def run_page(deployment: Deployment, name: str, past: Durations, now: float) -> RunPage:
    """One run, by its id or the beginning of it.

    Raises:
        UnknownNameError: There is no such run, or several begin so.
    """
    subject = asset_or_run(deployment, name)
    if subject.run is None or subject.step_key is not None:
        raise UnknownNameError(
            f"{name} is no run but {'a step' if subject.run else 'an asset'}.",
            remedy="Give the id of a run.",
            names=[name],
        )
    run = subject.run
    return RunPage(
        run=run,
        explanation=explain(deployment, subject, deployment.settings(), past, now),
        timeline=_timeline(deployment, run, now),
    )


def _timeline(deployment: Deployment, run: Run, now: float) -> Timeline:
    for found in deployment.executions([run.run_id]):
        until = now if found.ended is None else found.ended
        steps = [bar_of_step(found, step, until) for step in found.steps]
        bars = [bar for bar in (bar_of_run(found, until), *steps[-STEPS_MAX:]) if bar.spans]
        begin = min((bar.spans[0].started for bar in bars), default=run.created)
        return Timeline(begin, until, tuple(bars), max(0, len(steps) - STEPS_MAX))
    return Timeline(run.created, run.ended or now, ())
