"""What other limits would have done: sliders, and the past beside what it would have been."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.pool_settings import (
    NOTHING_SET,
    PoolSettings,
    refuse_out_of_bounds,
)
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.insight.simulation.answer import simulate
from dagster_lifeguard.insight.simulation.curves import most_at_once
from dagster_lifeguard.web.errors import RequestRefusedError
from dagster_lifeguard.web.pages.window import PARTS, Window
from dagster_lifeguard.web.plots import SimulatedPlot, simulated_plots

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster_lifeguard.insight.simulation.answer import (
        PlayedRecording,
        PoolAnswer,
        QueueAnswer,
        StepAnswer,
    )
    from dagster_lifeguard.insight.simulation.backfills import BackfillAnswer
    from dagster_lifeguard.insight.simulation.doubts import Doubt

SLIDERS_MAX = 8
"""So many pools have a slider: those in the address, and those where most time was waited."""

ROWS_MAX = 8
"""So many steps and backfills are listed, the largest changes first."""

_POSITIONS_MAX = 1000
_LIMIT, _RUNS = "limit.", "runs"


@dataclass(frozen=True, slots=True)
class Slider:
    """A limit that can be moved.

    Attributes:
        field: Its name in the address.
        pool: Its pool; empty for the runs at once.
        value: Where it stands; at ``most`` nothing would have waited.
        present: The limit in force now; None for none.
        most: As many as were ever wanted at once, or more.
    """

    field: str
    pool: str
    value: int
    present: int | None
    most: int

    @property
    def is_moved(self) -> bool:
        """Whether it stands elsewhere than the limit in force."""
        return self.value != (self.most if self.present is None else self.present)


@dataclass(frozen=True, slots=True)
class ComparedPool:
    """A pool as it was, and as it would have been.

    Attributes:
        answer: The figures.
        is_changed: Whether it would have been otherwise.
        plots: Its chart; the two charts, of one scale, if it would have been otherwise.
    """

    answer: PoolAnswer
    is_changed: bool
    plots: tuple[SimulatedPlot, ...]

    @classmethod
    def of(cls, found: PoolAnswer) -> ComparedPool:
        """The pool with its charts."""
        is_changed, plots = found.before != found.after, simulated_plots(found)
        return cls(found, is_changed, plots if is_changed else plots[:1])


@dataclass(frozen=True, slots=True)
class SimulationPage:
    """Limits that can be moved, and what they would have done.

    Attributes:
        window: The period.
        since: Its beginning, in seconds since the epoch.
        until: Its end.
        sliders: The limits.
        others: How many more pools were asked for.
        is_moved: Whether any limit is another than the one in force.
        executions: How many executions were played.
        by_event_logs: Whether they were read in Dagster's event logs, else in the engine's ledger.
        change: How much longer all steps together would have waited, in seconds; negative: less.
        queue: The run queue; None if there is none.
        pools: The pools with a slider, and what became of them.
        gaining: Steps that wait less.
        losing: Steps that wait longer.
        backfills: Backfills whose time changes.
        doubts: What is not known.
        seconds: How long the play took.
    """

    window: Window
    since: float
    until: float
    sliders: tuple[Slider, ...]
    others: int
    is_moved: bool
    executions: int
    by_event_logs: bool
    change: float
    queue: QueueAnswer | None
    pools: tuple[ComparedPool, ...]
    gaining: tuple[StepAnswer, ...]
    losing: tuple[StepAnswer, ...]
    backfills: tuple[BackfillAnswer, ...]
    doubts: tuple[Doubt, ...]
    seconds: float


def simulation_page(
    past: PlayedRecording, window: Window, query: Mapping[str, str]
) -> SimulationPage:
    """Play the past with the limits of an address.

    Args:
        past: The past.
        window: The period.
        query: ``limit.POOL=4`` for each limit, ``runs=20`` for the runs at once.

    Raises:
        RequestRefusedError: A limit is no number, or out of bounds.
    """
    given = {key: _limit(key, text) for key, text in query.items() if _is_limit(key)}
    sliders = _sliders(past, given)
    wanted: dict[str, dict[str, object]] = {
        slider.pool: {"limit": slider.value}
        for slider in sliders
        if slider.pool and slider.is_moved
    }
    runs = next((s.value for s in sliders if not s.pool and s.is_moved), None)
    began = time.monotonic()
    answer = simulate(
        past.recording,
        wanted,
        runs_max=runs,
        patience_seconds=past.patience_seconds,
        before=past.play,
        parts=PARTS,
    )
    seconds = time.monotonic() - began
    by_name = {found.pool: found for found in answer.pools}
    shown = [by_name[slider.pool] for slider in sliders if slider.pool in by_name]
    return SimulationPage(
        window=window,
        since=answer.since,
        until=answer.until,
        sliders=sliders,
        others=len(answer.pools) - len(shown),
        is_moved=bool(wanted) or runs is not None,
        executions=answer.executions,
        by_event_logs=answer.source == "event-logs",
        change=sum(step.change for step in (*answer.gaining, *answer.losing)),
        queue=answer.queue,
        pools=tuple(map(ComparedPool.of, shown)),
        gaining=answer.gaining[:ROWS_MAX],
        losing=answer.losing[:ROWS_MAX],
        backfills=tuple(found for found in answer.backfills if found.change)[:ROWS_MAX],
        doubts=answer.doubts,
        seconds=seconds,
    )


def _is_limit(key: str) -> bool:
    return key == _RUNS or (key.startswith(_LIMIT) and key != _LIMIT)


def _limit(key: str, text: str) -> int:
    try:
        limit = int(text)
        refuse_out_of_bounds(key.removeprefix(_LIMIT), PoolSettings(limit))
    except (ValueError, ConfigError) as error:
        raise RequestRefusedError(
            400, f"{key}={text} is no limit.", remedy="Give a whole number from 0 to 1,000."
        ) from error
    return limit


def _sliders(past: PlayedRecording, given: Mapping[str, int]) -> tuple[Slider, ...]:
    """The runs at once, where there is a run queue, and the pools that matter most."""
    recording, play = past.recording, past.play
    spans: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    waited: dict[str, float] = defaultdict(float)
    for place, arrival in enumerate(recording.arrivals):
        asked, granted = play.asked[place], play.granted[place]
        if asked is None:
            continue
        ended = recording.until if granted is None else granted + arrival.seconds
        for term in arrival.demand.terms:
            spans[term.name].append((asked, ended, term.slots))
        for pool, seconds in play.stood.get(place, {}).items():
            waited[pool] += seconds
    pools = [key.removeprefix(_LIMIT) for key in given if key != _RUNS]
    pools += sorted(spans.keys() - set(pools), key=lambda pool: (-waited[pool], pool))
    found = []
    queue = recording.queue
    if queue is not None:
        present = None if queue.rules.runs_max < 0 else queue.rules.runs_max
        most = _positions(present, max(play.runs_most, 1))
        found.append(
            Slider(_RUNS, "", given.get(_RUNS, most if present is None else present), present, most)
        )
    for pool in pools[:SLIDERS_MAX]:
        field = f"{_LIMIT}{pool}"
        present = _present(past, pool)
        most = max(_positions(present, most_at_once(spans[pool])), given.get(field, 0))
        value = given.get(field, most if present is None else min(present, most))
        found.append(Slider(field, pool, value, present, most))
    return tuple(found)


def _present(past: PlayedRecording, pool: str) -> int | None:
    settings = past.recording.settings.get(pool, NOTHING_SET)
    for change in past.recording.changes:
        if change.pool == pool:
            settings = change.settings
    return settings.limit


def _positions(present: int | None, most: float) -> int:
    """Where a slider ends."""
    return min(max(ceil(most), 2 * (present or 1), 4), _POSITIONS_MAX)
