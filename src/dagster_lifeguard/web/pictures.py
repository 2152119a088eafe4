"""Pictures as SVG: what a template cannot compute, and the words around it.

A picture bears classes and no styles, which the pages' Content-Security-Policy would refuse.
"""

from __future__ import annotations

import time
from itertools import groupby, pairwise
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
    record_text,
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
    temporary_text,
    until_text,
    window_text,
)
from dagster_lifeguard.web.pages.window import PARTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dagster_lifeguard.insight.overview import PoolSummary
    from dagster_lifeguard.insight.timeline import Bar, Timeline
    from dagster_lifeguard.web.limit_origins import LimitOrigin
    from dagster_lifeguard.web.pages.window import Period

WIDTH, HEIGHT = 120.0, 28.0
"""The size of a line's ground, in its own units; the page stretches it."""

_TICKS = 4
_WITH_SECONDS_BELOW = 60.0


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
    """The y of a value."""
    return f"{_y(value, top):.1f}"


def plot_line(values: Sequence[float | None], top: float) -> str:
    """The path of a stepped line with gaps where there is no value; empty if there is none."""
    return " ".join(f"M{x:.1f},{heights[0]}{_on(x, heights)}" for x, heights in _runs(values, top))


def plot_area(values: Sequence[float | None], top: float) -> str:
    """The path of the ground under ``plot_line``."""
    return " ".join(
        f"M{x:.1f},{HEIGHT} V{heights[0]}{_on(x, heights)} V{HEIGHT} Z"
        for x, heights in _runs(values, top)
    )


def _runs(values: Sequence[float | None], top: float) -> Iterator[tuple[float, list[str]]]:
    """Where each run of values begins, and the height of each value."""
    width = WIDTH / len(values)
    for is_known, run in groupby(enumerate(values), key=lambda pair: pair[1] is not None):
        if is_known:
            found = list(run)
            yield found[0][0] * width, [f"{_y(value or 0.0, top):.1f}" for _, value in found]


def _on(x: float, heights: Sequence[str]) -> str:
    """A stepped line on from its beginning."""
    width = WIDTH / PARTS
    parts = []
    for index, (before, height) in enumerate(pairwise(heights), start=1):
        if height != before:
            parts.append(f"H{x + index * width:.1f}V{height}")
    return "".join([*parts, f"H{x + len(heights) * width:.1f}"])


def part_times(since: float, until: float, now: float) -> list[str]:
    """The beginning of each part of a period, as text."""
    length = (until - since) / PARTS
    return [moment_text(since + index * length, now, length) for index in range(PARTS)]


def axis_of(since: float, until: float, now: float) -> list[str]:
    """The labels at the beginning, in the middle and at the end of an axis of time."""
    return [moment_text(at, now, until - since) for at in (since, (since + until) / 2, until)]


def moment_text(at: float, now: float, scale: float) -> str:
    """A moment by this machine's clock; a picture of ``scale`` seconds decides how exact."""
    moment, today = time.localtime(at), time.localtime(now)
    clock = "%H:%M:%S" if scale < _WITH_SECONDS_BELOW else "%H:%M"
    return time.strftime(clock if moment[:3] == today[:3] else f"%d %b {clock}", moment)


def period_text(period: Period, now: float) -> str:
    """A period as text."""
    if period.begin is None or period.end is None:
        return f"the last {window_text(period.seconds)}"
    begin, end = (moment_text(at, now, 900.0) for at in (period.begin, period.end))
    return f"{begin} to {end}"


def input_text(at: float) -> str:
    """A moment as a field for a date and a time takes it."""
    return time.strftime("%Y-%m-%dT%H:%M", time.localtime(at))


def origin_text(origin: LimitOrigin, now: float) -> str:
    """What set a limit, and if known, when and by whom."""
    words = {
        "file": "lifeguard.yaml",
        "own": "own limit",
        "temporary": "temporary limit",
        "default": "default limit",
        "none": "",
    }
    parts = [words[origin.source]]
    if origin.source in ("file", "own", "temporary") and origin.at is not None:
        parts.append(moment_text(origin.at, now, 3600.0))
    if origin.who:
        parts.append(f"by {printable(origin.who)}")
    return " ".join(filter(None, parts))


def sentence_of(values: Sequence[float], limit: int | None, span: str) -> str:
    """A line as a sentence, for screen readers."""
    if not any(values):
        return f"{span}: no slot was held."
    mean = sum(values) / len(values)
    of = "" if not limit else f" of {limit:,}"
    return f"{span}: {mean:.1f} slots held on average, at most {ceil(max(values)):,}{of}."


def tone_of(pool: PoolSummary) -> str:
    """The state of a pool, as a class of CSS."""
    if pool.limit == 0:
        return "paused"
    if pool.limit is None:
        return "unlimited"
    if pool.held > pool.limit:
        return "over"
    return "waiting" if pool.waiting else "held" if pool.held else "idle"


def step_of(step_key: str) -> str:
    """The step that holds slots, also for slots inside a step."""
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
    """The x of a moment, on a ground 1,000 wide."""
    return f"{_x(at, found):.1f}"


def bar_text(bar: Bar) -> str:
    """A bar as text, for screen readers."""
    words = {
        Phase.QUEUED: "in the run queue",
        Phase.STARTING: "starting",
        Phase.WAITING: "waiting for its pool",
        Phase.EXECUTING: "executing",
    }
    parts = [f"{words[s.phase]} {duration_text(s.ended - s.started)}" for s in bar.spans]
    return ", ".join([*parts, bar.result])


def bar_facts(bar: Bar, now: float) -> Iterator[tuple[str, str]]:
    """The facts of a bar: when it began, and how long each phase took."""
    yield "began", clock_text(bar.spans[0].started, now)
    words = {
        Phase.QUEUED: "in run queue",
        Phase.STARTING: "starting",
        Phase.WAITING: "waited",
        Phase.EXECUTING: "executed",
    }
    for phase, word in words.items():
        if any(span.phase is phase for span in bar.spans):
            yield word, duration_text(bar.seconds_in(phase))


def ticks_of(found: Timeline) -> list[str]:
    """The labels at equal distances along the axis, from edge to edge."""
    step = (found.until - found.since) / (_TICKS - 1)
    return [clock_text(found.since + i * step, found.until) for i in range(_TICKS)]


def anchor(name: str) -> str:
    """A name as an identifier of an element."""
    return "n-" + quote(name, safe="", errors="replace").replace("%", "_")


def change_text(now: float | None, before: float | None) -> str:
    """The change of a value in percent; a dash if it is unknown."""
    if now is None or not before:
        return "\N{EN DASH}"
    share = round(100 * (now / before - 1))
    return "the same" if share == 0 else f"{share:+,d} %".replace("-", "\N{MINUS SIGN}")


FILTERS: Mapping[str, Callable[..., Any]] = {
    "anchor": anchor,
    "area": area,
    "axis": axis_of,
    "input_moment": input_text,
    "origin": origin_text,
    "part_times": part_times,
    "period": period_text,
    "plot_area": plot_area,
    "plot_line": plot_line,
    "bar_facts": bar_facts,
    "bar_text": bar_text,
    "change": change_text,
    "clock": clock_text,
    "date": date_text,
    "duration": duration_text,
    "estimate": estimate_text,
    "record": record_text,
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
    "temporary": temporary_text,
    "the_limit": limit_text,
    "ticks": ticks_of,
    "until": until_text,
    "tone": tone_of,
    "window": window_text,
    "x": x_of,
    "y": y_of,
}
"""The filters of templates."""


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
