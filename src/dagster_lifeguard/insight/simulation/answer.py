"""What other settings would have done, and how reliable the answer is."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from dagster_lifeguard.engine.rules.admission import PATIENCE_SECONDS
from dagster_lifeguard.engine.rules.pool_settings import NOTHING_SET
from dagster_lifeguard.insight.durations import quantile
from dagster_lifeguard.insight.simulation.backfills import compare_backfills
from dagster_lifeguard.insight.simulation.curves import Curve, Parts, curve_of
from dagster_lifeguard.insight.simulation.doubts import Doubt
from dagster_lifeguard.insight.simulation.other_rules import NO_OTHER_DEMANDS, OtherDemands
from dagster_lifeguard.insight.simulation.recording import UNLIMITED
from dagster_lifeguard.insight.simulation.world import play

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
    from dagster_lifeguard.insight.simulation.backfills import BackfillAnswer
    from dagster_lifeguard.insight.simulation.outcome import Play
    from dagster_lifeguard.insight.simulation.recording import Recording, Source

Trust = Literal["good", "poor", "too-few", "no-waits"]

WAIT_MIN = 1.0
"""A wait shorter than this, in seconds, does not count as a wait. With a run queue the time between
two looks of its daemon comes on top: no play knows when the daemon looked."""

WAITS_MIN = 10
"""With fewer waits the fit of the simulation is not judged."""

ERROR_MAX = 0.25
"""The largest median error of a good simulation, as a share of the median wait."""

CHANGED_MIN = 0.5
"""A smaller difference of mean waits, in seconds, does not count as a change."""


@dataclass(frozen=True, slots=True)
class Waits:
    """How long executions waited, in seconds. None without executions.

    Attributes:
        count: How many executions started.
        p50: Half of the executions waited no longer.
        p95: 95 % of the executions waited no longer.
        never: How many executions never started.
    """

    count: int
    p50: float | None
    p95: float | None
    never: int = 0


@dataclass(frozen=True, slots=True)
class Calibration:
    """The simulated past beside the real past.

    Attributes:
        recorded: The real waits.
        played: The waits of the same executions in the simulation.
        waited: How many executions waited at least a second, in reality or in the simulation.
        error_p50: The median difference between their real and simulated waits, in seconds.
        error_p90: 90 % of these differences are no larger.
        trust: ``good``, ``poor``, ``too-few`` waits to judge, or ``no-waits`` at all.
    """

    recorded: Waits
    played: Waits
    waited: int
    error_p50: float | None
    error_p90: float | None
    trust: Trust


@dataclass(frozen=True, slots=True)
class Side:
    """A pool in one simulation.

    Attributes:
        settings: Its settings at the end of the window.
        waits: The waits of all executions that asked for it. For the steps with which a run began,
            the time of the run in the run queue counts too.
        utilisation: The share of its slots that was held, 0 to 1; None if it was unlimited.
        most: The most slots held at once.
        curve: Who waited and what was held through the window; None where it was not asked for.
    """

    settings: PoolSettings
    waits: Waits
    utilisation: float | None
    most: int
    curve: Curve | None = None


@dataclass(frozen=True, slots=True)
class PoolAnswer:
    """One pool under both settings.

    Attributes:
        pool: Its name.
        calibration: How well the simulated past fits the real past.
        before: Simulated with the settings that were in force.
        after: Simulated with the wanted settings; the same as ``before`` if none are wanted.
    """

    pool: str
    calibration: Calibration
    before: Side
    after: Side


@dataclass(frozen=True, slots=True)
class QueueSide:
    """The run queue in one simulation.

    Attributes:
        runs_max: How many runs may be in progress; -1: any number.
        waits: How long runs were in the queue; of those that went through it.
        most: The most runs in progress at once.
    """

    runs_max: int
    waits: Waits
    most: int


@dataclass(frozen=True, slots=True)
class QueueAnswer:
    """The run queue under both settings; see ``PoolAnswer``."""

    calibration: Calibration
    before: QueueSide
    after: QueueSide


@dataclass(frozen=True, slots=True)
class StepAnswer:
    """One step of all runs, under both settings.

    Attributes:
        step_key: The step.
        pools: The pools that it asks for.
        executions: How many executions started in both simulations.
        before: The mean wait in seconds, with the settings that were in force.
        after: The mean wait in seconds, with the wanted settings.
    """

    step_key: str
    pools: tuple[str, ...]
    executions: int
    before: float
    after: float

    @property
    def change(self) -> float:
        """How much longer all its executions together wait, in seconds; negative: less."""
        return (self.after - self.before) * self.executions


@dataclass(frozen=True, slots=True)
class Answer:
    """What other settings would have done.

    Attributes:
        source: Where the past was read.
        since: The beginning of the window, in seconds since the epoch.
        until: The end of the window.
        executions: How many executions were simulated.
        pools: The pools with wanted settings, then the others, by name.
        gaining: Steps that wait less, the largest total first.
        losing: Steps that wait longer, the largest total first.
        doubts: What is not known.
        queue: The run queue; None if there is none.
        backfills: The backfills that asked for pools, the largest change first.
    """

    source: Source
    since: float
    until: float
    executions: int
    pools: tuple[PoolAnswer, ...]
    gaining: tuple[StepAnswer, ...]
    losing: tuple[StepAnswer, ...]
    doubts: tuple[Doubt, ...]
    queue: QueueAnswer | None = None
    backfills: tuple[BackfillAnswer, ...] = ()


def simulate(
    recording: Recording,
    wanted: Mapping[str, Mapping[str, object]],
    *,
    runs_max: int | None = None,
    other: OtherDemands = NO_OTHER_DEMANDS,
    patience_seconds: float | None = None,
    before: Play | None = None,
    parts: int = 0,
) -> Answer:
    """Play the past as it was, and once more with other settings.

    Args:
        recording: The past.
        wanted: By pool, the settings that are given, by the names of ``PoolSettings``. Without
            any, only the calibration is of interest.
        runs_max: How many runs may be in progress; None: as many as today.
        other: What executions would ask for under other rules.
        patience_seconds: How long a ticket lets later ones pass; None: the default.
        before: The past as it was, if it has been played already.
        parts: Into how many parts the window of curves is divided; 0: without curves.
    """
    is_changed = bool(wanted) or bool(other.demands) or runs_max is not None
    changed = recording.with_settings(wanted).with_runs_max(runs_max).with_demands(other.demands)
    patience = PATIENCE_SECONDS if patience_seconds is None else patience_seconds
    before = before or play_recording(recording, patience)
    after = play_recording(changed, patience) if is_changed else before
    waits = list(map(before.waited, range(len(recording.arrivals))))
    new_waits = list(map(after.waited, range(len(changed.arrivals)))) if is_changed else waits
    places = _places(recording)
    new_places = _places(changed) if other.demands else places
    pools = tuple(
        PoolAnswer(
            pool,
            _calibration(
                {place: recording.waited[place] or 0.0 for place in places[pool]},
                {place: waits[place] for place in places[pool]},
                _wait_min(recording),
            ),
            _side(recording, before, waits, pool, places[pool], parts),
            _side(changed, after, new_waits, pool, new_places[pool], parts),
        )
        for pool in sorted(
            (places.keys() | new_places.keys()) - set(UNLIMITED.pools),
            key=lambda pool: (pool not in wanted, pool),
        )
    )
    steps = _steps(recording, waits, new_waits) if is_changed else []
    gaining = (s for s in steps if s.after - s.before <= -CHANGED_MIN)
    losing = (s for s in steps if s.after - s.before >= CHANGED_MIN)
    return Answer(
        source=recording.source,
        since=recording.since,
        until=recording.until,
        executions=sum(waited is not None for waited in recording.waited),
        pools=pools,
        gaining=tuple(sorted(gaining, key=lambda s: (s.change, s.step_key))),
        losing=tuple(sorted(losing, key=lambda s: (-s.change, s.step_key))),
        doubts=(*recording.doubts, *other.doubts, *_doubts(recording, pools, wanted)),
        queue=_queue(recording, changed, before, after),
        backfills=compare_backfills(recording, before, after),
    )


def _places(past: Recording) -> dict[str, list[int]]:
    """The executions that count and ask for a pool, by pool."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, arrival in enumerate(past.arrivals):
        if past.waited[place] is not None:
            for pool in arrival.demand.pools:
                places[pool].append(place)
    return places


class PlayedRecording(NamedTuple):
    """A recording and its play, to be compared with plays under other settings.

    Attributes:
        recording: What happened.
        play: Its play with the settings that were in force.
        patience_seconds: How long a ticket lets later ones pass.
    """

    recording: Recording
    play: Play
    patience_seconds: float

    @classmethod
    def of(cls, recording: Recording, patience_seconds: float | None) -> PlayedRecording:
        """Play a recording as it is; with the usual patience for None."""
        patience = PATIENCE_SECONDS if patience_seconds is None else patience_seconds
        return cls(recording, play_recording(recording, patience), patience)


def play_recording(past: Recording, patience_seconds: float) -> Play:
    """Play a recording as it is."""
    return play(
        past.arrivals,
        past.settings,
        past.changes,
        window=(past.since, past.until),
        patience_seconds=patience_seconds,
        queue=past.queue,
    )


def _spread(waits: Iterable[float | None]) -> Waits:
    found = list(waits)
    ordered = sorted(wait for wait in found if wait is not None)
    if not ordered:
        return Waits(0, None, None, len(found))
    return Waits(
        len(ordered),
        quantile(ordered, 0.5),
        quantile(ordered, 0.95),
        len(found) - len(ordered),
    )


def _side(
    past: Recording,
    played: Play,
    waits: Sequence[float | None],
    pool: str,
    places: Sequence[int],
    parts: int,
) -> Side:
    use = played.use.get(pool)
    last = past.settings.get(pool, NOTHING_SET)
    for change in past.changes:
        if change.pool == pool and change.at <= past.until:
            last = change.settings
    return Side(
        settings=last,
        waits=_spread(waits[place] for place in places),
        utilisation=None if use is None else use.share,
        most=0 if use is None else use.most,
        curve=curve_of(
            Parts(past.since, past.until, parts),
            ((place, past.arrivals[place]) for place in places),
            pool,
            played,
        )
        if parts
        else None,
    )


def _queue(past: Recording, changed: Recording, before: Play, after: Play) -> QueueAnswer | None:
    if past.queue is None or changed.queue is None:
        return None
    runs = past.queue.submissions
    recorded = {run: wait for run, wait in enumerate(past.queued) if wait is not None}

    def waits(played: Play) -> dict[int, float | None]:
        moments = {run: played.launched[run] for run in recorded}
        return {run: None if at is None else at - runs[run].at for run, at in moments.items()}

    def side(recording: Recording, played: Play) -> QueueSide:
        assert recording.queue is not None
        return QueueSide(
            recording.queue.rules.runs_max, _spread(waits(played).values()), played.runs_most
        )

    return QueueAnswer(
        _calibration(recorded, waits(before), _wait_min(past)),
        side(past, before),
        side(changed, after),
    )


def _wait_min(past: Recording) -> float:
    return WAIT_MIN + (0.0 if past.queue is None else past.queue.rules.interval_seconds)


def _calibration(
    recorded: Mapping[int, float], played: Mapping[int, float | None], wait_min: float
) -> Calibration:
    """The fit of waits, by a number that stands for what waited; None: it never started."""
    waits = {place: wait for place, wait in played.items() if wait is not None}
    waited = [p for p in recorded if max(recorded[p], waits.get(p, wait_min)) >= wait_min]
    errors = sorted(abs(waits[p] - recorded[p]) for p in waited if p in waits)
    trust: Trust = "good"
    if not waited:
        trust = "no-waits"
    elif len(errors) < len(waited):
        trust = "poor"  # The play lets in fewer than really went in.
    elif len(waited) < WAITS_MIN:
        trust = "too-few"
    else:
        typical = quantile(sorted(recorded[p] for p in waited), 0.5)
        if quantile(errors, 0.5) > max(wait_min, ERROR_MAX * typical):
            trust = "poor"
    return Calibration(
        recorded=_spread(recorded.values()),
        played=_spread(played.values()),
        waited=len(waited),
        error_p50=quantile(errors, 0.5) if errors else None,
        error_p90=quantile(errors, 0.9) if errors else None,
        trust=trust,
    )


def _steps(
    past: Recording, before: Sequence[float | None], after: Sequence[float | None]
) -> list[StepAnswer]:
    waits: dict[tuple[str, tuple[str, ...]], list[tuple[float, float]]] = defaultdict(list)
    for place, arrival in enumerate(past.arrivals):
        first, second = before[place], after[place]
        if past.waited[place] is not None and first is not None and second is not None:
            waits[arrival.key.step_key, arrival.demand.pools].append((first, second))
    return [
        StepAnswer(
            step_key,
            pools,
            len(pairs),
            sum(first for first, _ in pairs) / len(pairs),
            sum(second for _, second in pairs) / len(pairs),
        )
        for (step_key, pools), pairs in waits.items()
    ]


def _doubts(
    past: Recording, pools: Sequence[PoolAnswer], wanted: Mapping[str, object]
) -> Iterable[Doubt]:
    poor = tuple(found.pool for found in pools if found.calibration.trust == "poor")
    if poor:
        yield Doubt(
            "poor-calibration",
            "The play of the past is far from what was, so the answer is too, for: "
            f"{', '.join(poor)}. Waits outside of pools, steps with a priority of their own, dead "
            "holders and changed limits are what it does not know of.",
            poor,
        )
    unlimited = tuple(
        found.pool
        for found in pools
        if found.pool in wanted
        and found.calibration.trust == "no-waits"
        and found.before.utilisation is None
    )
    if unlimited:
        yield Doubt(
            "was-unlimited",
            "Nobody ever waited there, as there was no limit, so nothing shows how far the answer "
            f"can be believed: {', '.join(unlimited)}.",
            unlimited,
        )
    unknown = tuple(sorted(wanted.keys() - {found.pool for found in pools}))
    if unknown:
        how = (
            "The ledger tells nothing of pools without a limit; try --by event-logs."
            if past.source == "ledger"
            else "No step of these runs asked for it."
        )
        yield Doubt(
            "no-executions", f"No execution is known of {', '.join(unknown)}. {how}", unknown
        )
