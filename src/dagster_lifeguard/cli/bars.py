"""Bars over time, in plain text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len

from dagster_lifeguard.insight.timeline import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster_lifeguard.insight.timeline import Bar

_MIN_BAR = 10
_WIDE_BAR = 20
"""A bar with fewer columns than this says little; then labels stand above their bars."""


@dataclass(frozen=True, slots=True)
class Marks:
    """The characters that stand for what is done at a time, each one column wide."""

    queued: str
    starting: str
    waiting: str
    executing: str
    failed: str

    def legend(self, *phases: Phase) -> str:
        """What the marks of these phases mean, and of a failure, in one line."""
        words = {Phase.STARTING: "process starting", Phase.WAITING: "waiting for the pool"}
        parts = [f"{self.of(phase)} {words.get(phase, phase.value)}" for phase in phases]
        return "   ".join([*parts, f"{self.failed} a step failed"])

    def of(self, phase: Phase) -> str:
        """The mark of a phase."""
        mark: str = getattr(self, phase.value)
        return mark


UNICODE = Marks(queued="·", starting="░", waiting="▒", executing="█", failed="×")  # noqa: RUF001
ASCII = Marks(queued=".", starting="-", waiting="~", executing="#", failed="x")


def draw(
    bars: Sequence[Bar],
    labels: Sequence[str],
    *,
    since: float,
    until: float,
    width: int = 80,
    marks: Marks = UNICODE,
    edges: tuple[str, str] | None = None,
) -> list[str]:
    """Draw bars on one axis from ``since`` to ``until`` (seconds since the epoch).

    A column shows what was done in the middle of its time, and a failed step wherever one failed
    within it. What is shorter than a column may not show, but a failure always does.

    Args:
        bars: From top to bottom.
        labels: What stands before each.
        since: The moment at the left edge.
        until: The moment at the right edge.
        width: How many columns a line may have.
        marks: The characters to draw with.
        edges: What stands under the edges; by default the seconds from the left edge.
    """
    left = max(map(cell_len, labels), default=0)
    right = max((len(bar.result) for bar in bars), default=0)
    above = left + right + 4 + _WIDE_BAR > width  # Then each label is a line of its own.
    if above:
        left = 0
    columns = max(width - left - right - 4, _MIN_BAR)
    lines: list[str] = []
    for label, bar in zip(labels, bars, strict=True):
        if above:
            lines.append(label)
        head = " " * left if above else label + " " * (left - cell_len(label))
        lines.append(f"{head}  {_cells(bar, since, until, columns, marks)}  {bar.result}")
    begin, end = edges or ("0 s", f"{until - since:.1f} s")
    return [*lines, f"{'':<{left}}  {begin:<{max(columns - len(end), len(begin) + 2)}}{end}"]


def _cells(bar: Bar, since: float, until: float, columns: int, marks: Marks) -> str:
    step = (until - since) / columns or 1.0
    cells = [_mark_at(bar, since + (i + 0.5) * step, marks) for i in range(columns)]
    for failure in bar.failures:
        column = min(int((failure - since) / step), columns - 1)
        if column >= 0:
            cells[column] = marks.failed
    return "".join(cells)


def _mark_at(bar: Bar, moment: float, marks: Marks) -> str:
    for span in reversed(bar.spans):
        if span.started <= moment < span.ended:
            return marks.of(span.phase)
    return " "
