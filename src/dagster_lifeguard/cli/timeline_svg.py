"""A timeline as a picture: SVG that is readable on light and on dark ground."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from dagster_lifeguard.cli.picture import LETTER, axis, picture, plain, write
from dagster_lifeguard.insight.timeline import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster_lifeguard.insight.timeline import Timeline

_WIDTH, _ROW, _BAR, _TOP = 960, 22, 14, 64
_LABEL_LETTERS_MAX = 44

_STYLE = """
.queued { fill: #c5cdd6 }
.starting { fill: #9aa7b5 }
.failed { stroke: #cf222e; stroke-width: 3 }
@media (prefers-color-scheme: dark) {
  .queued { fill: #3d444d }
  .starting { fill: #656c76 }
  .failed { stroke: #ff7b72 }
}
"""


def svg(found: Timeline, title: str, labels: Sequence[str], ticks: Sequence[str]) -> str:
    """Draw a timeline.

    Args:
        found: The timeline.
        title: What stands above it.
        labels: What stands before each bar; cut to 44 characters, whole in its tooltip with the
            run's id.
        ticks: What stands at equal distances along the axis, from edge to edge.
    """
    shown = [_cut(label) for label in labels]
    left = 28 + max((len(label) for label in shown), default=0) * LETTER
    right = _WIDTH - 24 - max((len(bar.result) for bar in found.bars), default=0) * LETTER - 8
    bottom = _TOP + len(found.bars) * _ROW
    height = bottom + 40
    root = picture(_WIDTH, height, title, _STYLE)
    _legend(root, 16, 48, found)

    def x_of(at: float) -> float:
        share = (at - found.since) / ((found.until - found.since) or 1.0)
        return left + (right - left) * min(max(share, 0.0), 1.0)

    axis(root, ticks, left=left, right=right, top=_TOP - 6, bottom=bottom + 4)
    for row, (bar, label) in enumerate(zip(found.bars, labels, strict=True)):
        y = _TOP + row * _ROW
        group = ET.SubElement(root, "g")
        ET.SubElement(group, "title").text = plain(f"{label}: {bar.result}, run {bar.run_id}")
        write(group, 16, y + 12, shown[row])
        for span in bar.spans:
            x = x_of(span.started)
            width = max(x_of(span.ended) - x, 1.0)
            place = {"x": f"{x:.1f}", "y": str(y), "width": f"{width:.1f}", "height": str(_BAR)}
            ET.SubElement(group, "rect", {**place, "rx": "2", "class": span.phase.value})
        for failure in bar.failures:
            at = f"{x_of(failure):.1f}"
            mark = {"x1": at, "x2": at, "y1": str(y - 2), "y2": str(y + _BAR + 2)}
            ET.SubElement(group, "line", {**mark, "class": "failed"})
        write(group, right + 8, y + 12, bar.result, "dim")
    return ET.tostring(root, encoding="unicode") + "\n"


def _legend(root: ET.Element, x: float, y: float, found: Timeline) -> None:
    """What the colours of this picture mean."""
    shown = {span.phase for bar in found.bars for span in bar.spans}
    for phase in (phase for phase in Phase if phase in shown):
        place = {"x": f"{x:.1f}", "y": str(y - 10), "width": "12", "height": "12"}
        ET.SubElement(root, "rect", {**place, "rx": "2", "class": phase.value})
        write(root, x + 18, y, phase.value, "dim")
        x += 18 + (len(phase.value) + 3) * LETTER
    if any(bar.failures for bar in found.bars):
        mark = {"x1": f"{x + 4:.1f}", "x2": f"{x + 4:.1f}", "y1": str(y - 11), "y2": str(y + 3)}
        ET.SubElement(root, "line", {**mark, "class": "failed"})
        write(root, x + 18, y, "a step failed", "dim")


def _cut(label: str) -> str:
    if len(label) <= _LABEL_LETTERS_MAX:
        return label
    return label[: _LABEL_LETTERS_MAX - 1] + "…"
