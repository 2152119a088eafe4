"""Charts of a load: their values, and the labels of their axes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, floor, log10
from typing import TYPE_CHECKING

from dagster_lifeguard.insight.load import THROTTLED_SECONDS
from dagster_lifeguard.insight.timeline import Phase
from dagster_lifeguard.texts import duration_text, number, window_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dagster_lifeguard.insight.load import Load
    from dagster_lifeguard.insight.simulation.answer import PoolAnswer, Side
    from dagster_lifeguard.insight.timeline import Bar

_NICE_SECONDS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 18000, 43200, 86400)


@dataclass(frozen=True, slots=True)
class Plot:
    """One chart.

    Attributes:
        key: Its name in the page.
        title: Its name for people.
        hint: What it shows, in a sentence.
        values: The values from left to right; None where there is nothing to draw.
        top: The value at the upper edge.
        top_text: The label of the upper edge.
        texts: The text of each value.
        rest: The whole chart in a few words.
        summary: The chart as a sentence, for screen readers.
        limits: The limit as it was, where the chart is of slots; empty for no line.
    """

    key: str
    title: str
    hint: str
    values: tuple[float | None, ...]
    top: float
    top_text: str
    texts: tuple[str, ...]
    rest: str
    summary: str
    limits: tuple[int | None, ...] = ()


def pool_plots(load: Load, pool: str, limits: tuple[int | None, ...]) -> tuple[Plot, ...]:
    """Slots held under the limit, and backlog, waits and throttling of one pool."""
    held = load.held.get(pool, (0.0,) * len(load.backlog))
    most = max((limit for limit in limits if limit is not None), default=0)
    texts = tuple(
        f"{_count(value)} of {'unlimited' if limit is None else limit}"
        for value, limit in zip(held, limits, strict=True)
    )
    found = _plot(
        "held",
        "Slots held",
        "Slots held, the mean of each part. The dashed line is the limit as it was",
        held,
        _count,
        lambda value: max(nice_count(value), most),
        texts,
    )
    return (replace(found, limits=limits), *plots_of(load)[1:])


def asset_plots(bars: Iterable[Bar], since: float, until: float, count: int) -> tuple[Plot, ...]:
    """How many executions went on at once, how long they took, and how long they had waited.

    Args:
        bars: The executions of one asset.
        since: The beginning of the period.
        until: Its end.
        count: Into how many parts it is divided.
    """
    length = (until - since) / count
    at_once = [0.0] * count
    took: list[list[float]] = [[] for _ in range(count)]
    waited: list[list[float]] = [[] for _ in range(count)]
    for bar in bars:
        span = bar.spans[-1]
        if span.phase is not Phase.EXECUTING:
            continue
        for part in range(count):
            edge = since + part * length
            at_once[part] += (
                max(0.0, min(span.ended, edge + length) - max(span.started, edge)) / length
            )
        if since <= span.started < until:
            part = min(int((span.started - since) / length), count - 1)
            took[part].append(span.ended - span.started)
            waited[part].append(bar.seconds_in(Phase.QUEUED) + bar.seconds_in(Phase.WAITING))
    return (
        _plot("executing", "Executing", "Executions at once", at_once, _count, nice_count),
        _plot(
            "wait",
            "Waited, longest",
            "The longest wait, in the run queue and at pools, before an execution of this time",
            [max(found, default=None) for found in waited],
            duration_text,
            _nice_seconds,
        ),
        _plot(
            "took",
            "Took, longest",
            "The longest of the executions that started at this time",
            [max(found, default=None) for found in took],
            duration_text,
            _nice_seconds,
        ),
    )


def plots_of(load: Load) -> tuple[Plot, ...]:
    """Saturation, backlog, waits and throttling."""
    return (
        _plot(
            "saturation",
            "Saturation",
            "Slots held, as a share of the slots of the pools that were in use",
            load.saturation,
            _percent,
            lambda most: max(1.0, ceil(most * 10) / 10),
        ),
        _plot(
            "backlog",
            "Backlog",
            "Steps that waited at pools, and runs that waited in the run queue",
            load.backlog,
            _count,
            nice_count,
        ),
        _plot(
            "wait",
            "Wait, p95",
            "95 % of the steps that started at this time waited no longer",
            load.wait_p95,
            duration_text,
            _nice_seconds,
        ),
        _plot(
            "throttled",
            "Throttled",
            f"Steps that started after a wait of {window_text(THROTTLED_SECONDS)} or longer",
            load.throttled,
            _count,
            nice_count,
            tuple(
                f"{few:,} of {number(all_, 'start')}"
                for few, all_ in zip(load.throttled, load.starts, strict=True)
            ),
            f"{sum(load.throttled):,} of {number(sum(load.starts), 'start')}",
        ),
    )


@dataclass(frozen=True, slots=True)
class SimulatedPlot:
    """A pool in one of two simulations, which are drawn at one scale.

    Attributes:
        key: Its name in the page.
        title: Its name for people.
        hint: What it shows, in a sentence.
        held: The slots held, the mean of each part.
        asked: The slots held plus the waiting executions.
        limit: The limit, once for each part; None for none.
        top: The value at the upper edge.
        top_text: The label of the upper edge.
        texts: The text of each part.
        rest: The whole chart in a few words.
        summary: The chart as a sentence, for screen readers.
    """

    key: str
    title: str
    hint: str
    held: tuple[float, ...]
    asked: tuple[float, ...]
    limit: tuple[int | None, ...]
    top: float
    top_text: str
    texts: tuple[str, ...]
    rest: str
    summary: str


def simulated_plots(found: PoolAnswer) -> tuple[SimulatedPlot, ...]:
    """A pool as it was, and as it would have been; see ``simulate`` for its curves."""
    sides = (("before", "As it was", found.before), ("after", "With these limits", found.after))
    asked = [_asked(side) for _, _, side in sides]
    limits = [side.settings.limit or 0 for _, _, side in sides]
    top = max(nice_count(max(map(max, asked))), *limits)
    return tuple(
        _simulated_plot(key, title, side, both, top)
        for (key, title, side), both in zip(sides, asked, strict=True)
    )


def _asked(side: Side) -> tuple[float, ...]:
    assert side.curve is not None
    return tuple(map(sum, zip(side.curve.held, side.curve.waiting, strict=True)))


def _simulated_plot(
    key: str, title: str, side: Side, asked: tuple[float, ...], top: float
) -> SimulatedPlot:
    assert side.curve is not None
    waits = side.waits
    rest = "nobody started" if waits.p95 is None else f"wait p95 {duration_text(waits.p95)}"
    return SimulatedPlot(
        key=key,
        title=title,
        hint="Slots held, and above them the executions that wait. The dashed line is the limit",
        held=side.curve.held,
        asked=asked,
        limit=(side.settings.limit,) * len(asked),
        top=top,
        top_text=_count(top),
        texts=tuple(
            f"{_count(held)} held, {_count(waiting)} waiting"
            for held, waiting in zip(side.curve.held, side.curve.waiting, strict=True)
        ),
        rest=rest,
        summary=f"{title}: {rest}",
    )


def _plot(
    key: str,
    title: str,
    hint: str,
    values: Sequence[float | None],
    text_of: Callable[[float], str],
    top_of: Callable[[float], float],
    texts: tuple[str, ...] | None = None,
    rest: str | None = None,
) -> Plot:
    known = [value for value in values if value is not None]
    most = max(known, default=0.0)
    top = top_of(most)
    summary = f"{title}: at most {text_of(most)}" if known else f"{title}: no data"
    if texts is None:
        texts = tuple("no data" if value is None else text_of(value) for value in values)
    if rest is None:
        rest = f"max {text_of(most)}" if known else "no data"
    return Plot(key, title, hint, tuple(values), top, text_of(top), texts, rest, summary)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _count(value: float) -> str:
    is_whole = value >= 10 or abs(value - round(value)) < 0.05  # noqa: PLR2004
    return f"{value:,.0f}" if is_whole else f"{value:.1f}"


def nice_count(most: float) -> float:
    """The least of 1, 2, 5, 10, 20, 50 and so on that is not below."""
    if most <= 1:
        return 1.0
    size = 10.0 ** floor(log10(most))
    return next(step * size for step in (1, 2, 5, 10) if step * size >= most)


def _nice_seconds(most: float) -> float:
    found = (float(seconds) for seconds in _NICE_SECONDS if seconds >= most)
    return next(found, 86400.0 * ceil(most / 86400))
