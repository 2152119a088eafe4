"""Pictures: SVG that is readable on light and on dark ground."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from dagster_lifeguard.cli.file_changes import FileChange, read

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LETTER = 7.3
"""How wide a letter is: the font is monospaced."""

_TICKS = 5
_DAY = 86400.0
_STYLE = """
svg { color-scheme: light dark; background: #ffffff }
text { font: 12px ui-monospace, Menlo, Consolas, monospace; fill: #24292f }
.title { font-weight: 600; font-size: 14px }
.dim { fill: #57606a }
.grid { stroke: #d8dee4 }
.waiting { fill: #e0a526 }
.executing { fill: #2f6feb }
@media (prefers-color-scheme: dark) {
  svg { background: #0d1117 }
  text { fill: #e6edf3 }
  .dim { fill: #9198a1 }
  .grid { stroke: #30363d }
  .executing { fill: #4c8dff }
}
"""


def picture(width: float, height: float, title: str, style: str) -> ET.Element:
    """A picture with its title.

    Args:
        width: In pixels.
        height: In pixels.
        title: What stands above it.
        style: Its own colours, as CSS.
    """
    root = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width} {height}",
            "width": str(width),
            "height": str(height),
            "role": "img",
        },
    )
    ET.SubElement(root, "title").text = plain(title)
    ET.SubElement(root, "style").text = _STYLE + style
    write(root, 16, 26, title, "title")
    return root


def axis(
    root: ET.Element,
    ticks: Sequence[str],
    *,
    left: float,
    right: float,
    top: float,
    bottom: float,
) -> None:
    """Draw lines at equal distances, from edge to edge, with a text beneath each."""
    for index, tick in enumerate(ticks):
        x = left + (right - left) * index / (len(ticks) - 1)
        line = {"x1": f"{x:.1f}", "x2": f"{x:.1f}", "y1": str(top), "y2": str(bottom)}
        ET.SubElement(root, "line", {**line, "class": "grid"})
        anchor = {0: "start", len(ticks) - 1: "end"}.get(index, "middle")
        write(root, x, bottom + 18, tick, "dim", anchor)


def moments(since: float, until: float) -> list[str]:
    """Moments along an axis, brief enough to stand beside each other; the title has the days."""
    length = until - since
    written = "%H:%M:%S" if length < _DAY else "%m-%d %H:%M"
    found = (since + length * index / (_TICKS - 1) for index in range(_TICKS))
    return [time.strftime(written, time.localtime(at)) for at in found]


def write(
    parent: ET.Element, x: float, y: float, text: str, kind: str = "", anchor: str = "start"
) -> None:
    """Write a text."""
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    ET.SubElement(parent, "text", {**place, **({"class": kind} if kind else {})}).text = plain(text)


def plain(text: str) -> str:
    """The text without what XML cannot hold, whatever names there are."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def save(path: Path, text: str) -> None:
    """Write a picture to a file, all of it or nothing."""
    FileChange(path, read(path) if path.exists() else None, text).write()
