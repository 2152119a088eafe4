"""Pictures as SVG: what a template cannot reckon, and the words around it.

A picture bears classes and no styles, which the pages' Content-Security-Policy would refuse.
"""

from __future__ import annotations

from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dagster_lifeguard.engine.rules.model import TicketKey
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.insight.timeline import Phase
from dagster_lifeguard.insight.wording import (
    MISSING,
    estimate_text,
    reason_text,
    short_estimate,
    spread_text,
)
from dagster_lifeguard.texts import (
    clock_text,
    date_text,
    duration_text,
    limit_text,
    number,
    printable,
    short,
    window_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dagster_lifeguard.insight.pools import PoolSummary
    from dagster_lifeguard.insight.timeline import Bar, Timeline

WIDTH, HEIGHT = 120.0, 28.0
"""Of a line's ground, in its own units; it is stretched to the place that it is given."""

_TICKS = 4


def area(values: Sequence[float], top: float) -> str:
    """The path of the ground under a stepped line.

    Args:
        values: From left to right.
        top: The value at the upper edge.
    """
    return f"M0,{HEIGHT} {_steps(values, top)} V{HEIGHT} Z"


def line(values: Sequence[float], top: float) -> str:
    """The path of a stepped line; see ``area``."""
    return "M" + _steps(values, top)[1:]


def ground_of(values: Sequence[float], limit: int | None) -> float:
    """The value at the upper edge: the limit, or what goes beyond it; never 0."""
    return max(limit or 0.0, *values, 1.0)


def y_of(value: float, top: float) -> str:
    """Where a value lies."""
    return f"{_y(value, top):.1f}"


def sentence_of(values: Sequence[float], limit: int | None, span: str) -> str:
    """What a line says, for who does not see it."""
    if not any(values):
        return f"Nothing held in the last {span}."
    mean = sum(values) / len(values)
    of = "" if not limit else f" of {limit:,}"
    return f"Last {span}: {mean:.1f} slots held on average, at most {ceil(max(values)):,}{of}."


def tone_of(pool: PoolSummary) -> str:
    """How a pool is doing, as a class."""
    if pool.limit == 0:
        return "paused"
    if pool.limit is None:
        return "unlimited"
    if pool.held > pool.limit:
        return "over"
    return "waiting" if pool.waiting else "held" if pool.held else "idle"


def step_of(step_key: str) -> str:
    """The step that slots are held by, or inside of."""
    return TicketKey("", step_key).step.step_key


def held_text(pool: PoolSummary) -> str:
    """The slots that are held, and the limit."""
    if pool.limit is None:
        return f"{pool.held:,}, no limit"
    if pool.limit == 0:
        return f"{pool.held:,} held, paused" if pool.held else "paused"
    return f"{pool.held:,} of {pool.limit:,}"


def spans_of(bar: Bar, found: Timeline) -> Iterator[dict[str, str]]:
    """The spans of a bar as x, width and class, on a ground 1,000 wide."""
    for span in bar.spans:
        x = _x(span.started, found)
        yield {
            "x": f"{x:.1f}",
            "width": f"{max(_x(span.ended, found) - x, 2.0):.1f}",
            "phase": span.phase.value,
        }


def x_of(at: float, found: Timeline) -> str:
    """Where a moment lies, on a ground 1,000 wide."""
    return f"{_x(at, found):.1f}"


def bar_text(bar: Bar) -> str:
    """What a bar says, for who does not see it."""
    words = {
        Phase.QUEUED: "in the run queue",
        Phase.STARTING: "starting",
        Phase.WAITING: "waiting for its pool",
        Phase.EXECUTING: "executing",
    }
    parts = [f"{words[s.phase]} {duration_text(s.ended - s.started)}" for s in bar.spans]
    return ", ".join([*parts, bar.result])


def ticks_of(found: Timeline) -> list[str]:
    """What stands at equal distances along the axis, from edge to edge."""
    step = (found.until - found.since) / (_TICKS - 1)
    return [clock_text(found.since + i * step, found.until) for i in range(_TICKS)]


def anchor(name: str) -> str:
    """A name as an identifier of an element."""
    return "n-" + quote(name, safe="", errors="replace").replace("%", "_")


FILTERS: Mapping[str, Callable[..., Any]] = {
    "anchor": anchor,
    "area": area,
    "bar_text": bar_text,
    "clock": clock_text,
    "date": date_text,
    "duration": duration_text,
    "estimate": estimate_text,
    "ground": ground_of,
    "held_text": held_text,
    "line": line,
    "name": printable,
    "pool_text": lambda pool: printable(pool_text(pool)),
    "number": number,
    "reason": reason_text,
    "missing": MISSING.__getitem__,
    "sentence": sentence_of,
    "short": short,
    "short_estimate": short_estimate,
    "spans": spans_of,
    "spread": spread_text,
    "step_of": step_of,
    "the_limit": limit_text,
    "ticks": ticks_of,
    "tone": tone_of,
    "window": window_text,
    "x": x_of,
    "y": y_of,
}
"""What templates say it with."""


def _steps(values: Sequence[float], top: float) -> str:
    width = WIDTH / len(values)
    heights = [f"{_y(value, top):.1f}" for value in values]
    parts = [f"L0,{heights[0]}"]
    parts += [  # Most pools are idle most of the time: where a line goes on, nothing is said.
        f"H{index * width:.1f} V{height}"
        for index, (before, height) in enumerate(pairwise(heights), start=1)
        if height != before
    ]
    return " ".join([*parts, f"H{WIDTH}"])


def _y(value: float, top: float) -> float:
    return HEIGHT - 1.0 - (HEIGHT - 2.0) * min(value / top, 1.0)


def _x(at: float, found: Timeline) -> float:
    share = (at - found.since) / ((found.until - found.since) or 1.0)
    return 1000.0 * min(max(share, 0.0), 1.0)
