"""A timeline as a picture: SVG that is readable on light and on dark ground."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from dagster_lifeguard.insight.timeline import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster_lifeguard.insight.timeline import Timeline

_WIDTH, _ROW, _BAR, _TOP = 960, 22, 14, 64
_LETTER = 7.3  # of the monospaced font below, at its size
_LABEL_LETTERS_MAX = 44

_STYLE = """
svg { color-scheme: light dark; background: #ffffff }
text { font: 12px ui-monospace, Menlo, Consolas, monospace; fill: #24292f }
.title { font-weight: 600; font-size: 14px }
.dim { fill: #57606a }
.grid { stroke: #d8dee4 }
.queued { fill: #c5cdd6 }
.starting { fill: #9aa7b5 }
.waiting { fill: #e0a526 }
.executing { fill: #2f6feb }
.failed { stroke: #cf222e; stroke-width: 3 }
@media (prefers-color-scheme: dark) {
  svg { background: #0d1117 }
  text { fill: #e6edf3 }
  .dim { fill: #9198a1 }
  .grid { stroke: #30363d }
  .queued { fill: #3d444d }
  .starting { fill: #656c76 }
  .executing { fill: #4c8dff }
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
    left = 28 + max((len(label) for label in shown), default=0) * _LETTER
    right = _WIDTH - 24 - max((len(bar.result) for bar in found.bars), default=0) * _LETTER - 8
    bottom = _TOP + len(found.bars) * _ROW
    height = bottom + 40
    root = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {_WIDTH} {height}",
            "width": str(_WIDTH),
            "height": str(height),
            "role": "img",
        },
    )
    ET.SubElement(root, "title").text = _plain(title)
    ET.SubElement(root, "style").text = _STYLE
    _text(root, 16, 26, title, "title")
    _legend(root, 16, 48, found)

    def x_of(at: float) -> float:
        share = (at - found.since) / ((found.until - found.since) or 1.0)
        return left + (right - left) * min(max(share, 0.0), 1.0)

    for index, tick in enumerate(ticks):
        x = left + (right - left) * index / (len(ticks) - 1)
        line = {"x1": f"{x:.1f}", "x2": f"{x:.1f}", "y1": str(_TOP - 6), "y2": str(bottom + 4)}
        ET.SubElement(root, "line", {**line, "class": "grid"})
        anchor = {0: "start", len(ticks) - 1: "end"}.get(index, "middle")
        _text(root, x, bottom + 22, tick, "dim", anchor)
    for row, (bar, label) in enumerate(zip(found.bars, labels, strict=True)):
        y = _TOP + row * _ROW
        group = ET.SubElement(root, "g")
        ET.SubElement(group, "title").text = _plain(f"{label}: {bar.result}, run {bar.run_id}")
        _text(group, 16, y + 12, shown[row])
        for span in bar.spans:
            x = x_of(span.started)
            width = max(x_of(span.ended) - x, 1.0)
            place = {"x": f"{x:.1f}", "y": str(y), "width": f"{width:.1f}", "height": str(_BAR)}
            ET.SubElement(group, "rect", {**place, "rx": "2", "class": span.phase.value})
        for failure in bar.failures:
            at = f"{x_of(failure):.1f}"
            mark = {"x1": at, "x2": at, "y1": str(y - 2), "y2": str(y + _BAR + 2)}
            ET.SubElement(group, "line", {**mark, "class": "failed"})
        _text(group, right + 8, y + 12, bar.result, "dim")
    return ET.tostring(root, encoding="unicode") + "\n"


def _legend(root: ET.Element, x: float, y: float, found: Timeline) -> None:
    """What the colours of this picture mean."""
    shown = {span.phase for bar in found.bars for span in bar.spans}
    for phase in (phase for phase in Phase if phase in shown):
        place = {"x": f"{x:.1f}", "y": str(y - 10), "width": "12", "height": "12"}
        ET.SubElement(root, "rect", {**place, "rx": "2", "class": phase.value})
        _text(root, x + 18, y, phase.value, "dim")
        x += 18 + (len(phase.value) + 3) * _LETTER
    if any(bar.failures for bar in found.bars):
        mark = {"x1": f"{x + 4:.1f}", "x2": f"{x + 4:.1f}", "y1": str(y - 11), "y2": str(y + 3)}
        ET.SubElement(root, "line", {**mark, "class": "failed"})
        _text(root, x + 18, y, "a step failed", "dim")


def _text(
    parent: ET.Element, x: float, y: float, text: str, kind: str = "", anchor: str = "start"
) -> None:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    ET.SubElement(parent, "text", {**place, **({"class": kind} if kind else {})}).text = _plain(
        text
    )


def _plain(text: str) -> str:
    """The text without what XML cannot hold, whatever names there are."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _cut(label: str) -> str:
    if len(label) <= _LABEL_LETTERS_MAX:
        return label
    return label[: _LABEL_LETTERS_MAX - 1] + "…"
