"""A simulation as a picture: each pool as it was, and beneath it as it would have been."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from dagster_lifeguard.cli.picture import axis, moments, picture, write
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.texts import date_text, duration_text, limit_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster_lifeguard.insight.simulation.answer import PoolAnswer, Side

_WIDTH, _LEFT, _RIGHT = 960, 64, 944
_TOP, _CHART, _GAP, _HEADING = 64, 88, 34, 30
_STYLE = """
.limit { fill: none; stroke: #57606a; stroke-dasharray: 5 4 }
@media (prefers-color-scheme: dark) { .limit { stroke: #9198a1 } }
"""


def svg(pools: Sequence[PoolAnswer], since: float, until: float) -> str:
    """Draw pools, with their curves.

    Args:
        pools: The pools.
        since: The beginning of the window, in seconds since the epoch.
        until: Its end.
    """
    of_pool = _HEADING + 2 * (_CHART + _GAP)
    height = _TOP + len(pools) * (of_pool + 24) + 16
    title = f"{date_text(since)} to {date_text(until)}: as it was, and as it would have been"
    root = picture(_WIDTH, height, title, _STYLE)
    for x, kind, text in ((16, "executing", "slots held"), (140, "waiting", "waiting, on top")):
        box = {"x": str(x), "y": "38", "width": "12", "height": "12", "rx": "2", "class": kind}
        ET.SubElement(root, "rect", box)
        write(root, x + 18, 48, text, "dim")
    write(root, 310, 48, "- - limit", "dim")
    for number, found in enumerate(pools):
        top = _TOP + number * (of_pool + 24) + _HEADING
        write(root, 16, top - 12, pool_text(found.pool), "title")
        most = max(_most(found.before), _most(found.after))
        axis(
            root,
            moments(since, until),
            left=_LEFT,
            right=_RIGHT,
            top=top,
            bottom=top + 2 * _CHART + _GAP,
        )
        for side, name, y in (
            (found.before, "as it was", top),
            (found.after, "as it would have been", top + _CHART + _GAP),
        ):
            _chart(root, side, f"{name}: {_facts(side)}", y, most)
    return ET.tostring(root, encoding="unicode") + "\n"


def _facts(side: Side) -> str:
    limit = side.settings.limit
    limited = limit_text(limit) if limit is None else f"limit {limit:,}"
    settings = ", ".join([limited, *side.settings.texts_set.values()])
    if side.waits.p50 is None or side.waits.p95 is None:
        return f"{settings}, nobody started"
    return (
        f"{settings}, wait p50 {duration_text(side.waits.p50)}, p95 {duration_text(side.waits.p95)}"
    )


def _most(side: Side) -> float:
    assert side.curve is not None
    both = map(sum, zip(side.curve.held, side.curve.waiting, strict=True))
    return max([*both, side.settings.limit or 0, 1])


def _chart(root: ET.Element, side: Side, text: str, top: float, most: float) -> None:
    assert side.curve is not None
    held, waiting = side.curve.held, side.curve.waiting
    bottom = top + _CHART
    both = [of_held + of_waiting for of_held, of_waiting in zip(held, waiting, strict=True)]
    for values, kind in ((both, "waiting"), (held, "executing")):
        ET.SubElement(root, "path", {"d": _area(values, bottom, most), "class": kind})
    edge = {"x1": str(_LEFT), "x2": str(_RIGHT), "y1": f"{bottom}", "y2": f"{bottom}"}
    ET.SubElement(root, "line", {**edge, "class": "grid"})
    if side.settings.limit is not None:
        y = f"{bottom - _CHART * side.settings.limit / most:.1f}"
        line = {"x1": str(_LEFT), "x2": str(_RIGHT), "y1": y, "y2": y, "class": "limit"}
        ET.SubElement(root, "line", line)
    write(root, _LEFT - 8, top + 10, f"{most:,.0f}", "dim", "end")
    write(root, _LEFT - 8, bottom, "0", "dim", "end")
    write(root, _LEFT + 6, top - 4, text, "dim")


def _area(values: Sequence[float], bottom: float, most: float) -> str:
    width = (_RIGHT - _LEFT) / len(values)
    points = [f"M{_LEFT} {bottom}"]
    for index, value in enumerate(values):
        x, y = _LEFT + index * width, bottom - _CHART * value / most
        points.append(f"L{x:.1f} {y:.1f}L{x + width:.1f} {y:.1f}")
    return "".join([*points, f"L{_RIGHT} {bottom}Z"])
