"""One run: what each of its steps waits for, and what it did so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.errors import UnknownNameError
from dagster_lifeguard.insight.explanation import explain
from dagster_lifeguard.insight.run_label import RunLabel, label_of
from dagster_lifeguard.insight.subject import asset_or_run
from dagster_lifeguard.insight.timeline import Phase, Span, Timeline, bar_of_run, bar_of_step

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dagster_lifeguard.deployment.contract import Deployment, Run
    from dagster_lifeguard.insight.durations import Durations
    from dagster_lifeguard.insight.explanation import Explanation

STEPS_MAX = 60
"""The most steps in the timeline, the newest ones."""


@dataclass(frozen=True, slots=True)
class RunPage:
    """One run.

    Attributes:
        run: The run.
        explanation: What its steps do, and what they wait for.
        timeline: The run, and its steps below it.
        label: What the run is about.
        queued: How long it was in the run queue, in seconds.
        waited: The seconds in the run queue and at pools; waits at the same time count once.
    """

    run: Run
    explanation: Explanation
    timeline: Timeline
    label: RunLabel
    queued: float
    waited: float


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
    explanation = explain(deployment, subject, deployment.settings(), past, now)
    timeline = _timeline(deployment, run, now)
    queued = [s for bar in timeline.bars for s in bar.spans if s.phase is Phase.QUEUED]
    waits = [s for bar in timeline.bars for s in bar.spans if s.phase is Phase.WAITING]
    if not timeline.bars and run.status == "QUEUED":
        queued = [Span(Phase.QUEUED, run.created, now)]
    waits += [
        Span(Phase.WAITING, now - step.seconds, now)
        for step in explanation.steps
        if step.state.value == "waiting" and step.seconds is not None
    ]
    return RunPage(
        run=run,
        explanation=explanation,
        timeline=timeline,
        label=label_of(run),
        queued=_covered(queued),
        waited=_covered([*queued, *waits]),
    )


def _covered(spans: Iterable[Span]) -> float:
    """How long at least one of these went on."""
    total, edge = 0.0, float("-inf")
    for span in sorted(spans, key=lambda span: span.started):
        total += max(0.0, span.ended - max(span.started, edge))
        edge = max(edge, span.ended)
    return total


def _timeline(deployment: Deployment, run: Run, now: float) -> Timeline:
    for found in deployment.executions([run.run_id]):
        until = now if found.ended is None else found.ended
        steps = [bar_of_step(found, step, until) for step in found.steps]
        bars = [bar for bar in (bar_of_run(found, until), *steps[-STEPS_MAX:]) if bar.spans]
        begin = min((bar.spans[0].started for bar in bars), default=run.created)
        return Timeline(begin, until, tuple(bars), max(0, len(steps) - STEPS_MAX))
    return Timeline(run.created, run.ended or now, ())
