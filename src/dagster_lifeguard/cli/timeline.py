"""Runs as bars over time, in plain text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.history import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster_lifeguard.history import RunExecution

_MIN_BAR = 10


@dataclass(frozen=True, slots=True)
class Marks:
    """The characters that stand for what a run does at a time, each one column wide."""

    queued: str
    starting: str
    executing: str
    failed: str

    def legend(self) -> str:
        """What the marks mean, in one line."""
        return (
            f"{self.queued} queued   {self.starting} process starting   "
            f"{self.executing} executing   {self.failed} a step failed"
        )


UNICODE = Marks(queued="·", starting="░", executing="█", failed="×")  # noqa: RUF001
ASCII = Marks(queued=".", starting="-", executing="#", failed="x")


def timeline(
    runs: Sequence[RunExecution],
    *,
    since: float,
    until: float,
    width: int = 80,
    marks: Marks = UNICODE,
) -> list[str]:
    """Draw one bar per run on one axis from ``since`` to ``until`` (seconds since the epoch).

    A column shows what the run did in the middle of its time, and a failed step wherever one
    failed within it. What is shorter than a column may not show, but a failure always does.

    Args:
        runs: The runs, from top to bottom.
        since: The moment at the left edge.
        until: The moment at the right edge.
        width: How many columns a line may have.
        marks: The characters to draw with.
    """
    labels = [f"run {number}" for number, _ in enumerate(runs, start=1)]
    results = [run.status.lower() for run in runs]
    left = max(map(len, labels), default=0)
    right = max(map(len, results), default=0)
    columns = max(width - left - right - 4, _MIN_BAR)
    lines = [
        f"{label:<{left}}  {_bar(run, since, until, columns, marks)}  {result}"
        for label, result, run in zip(labels, results, runs, strict=True)
    ]
    return [*lines, f"{'':<{left}}  {_axis(until - since, columns)}"]


def _bar(run: RunExecution, since: float, until: float, columns: int, marks: Marks) -> str:
    step = (until - since) / columns or 1.0
    cells = [_mark_at(run, since + (i + 0.5) * step, until, marks) for i in range(columns)]
    for execution in run.steps:
        if execution.outcome is Outcome.FAILURE and execution.ended is not None:
            column = min(int((execution.ended - since) / step), columns - 1)
            if column >= 0:
                cells[column] = marks.failed
    return "".join(cells)


def _mark_at(run: RunExecution, moment: float, until: float, marks: Marks) -> str:
    ended = until if run.ended is None else run.ended
    phases = (
        (run.started, marks.executing),
        (run.dequeued, marks.starting),
        (run.enqueued, marks.queued),
    )
    if moment < ended:
        for begin, mark in phases:
            if begin is not None and begin <= moment:
                return mark
    return " "


def _axis(seconds: float, columns: int) -> str:
    end = f"{seconds:.1f} s"
    return f"{'0 s':<{columns - len(end)}}{end}"
