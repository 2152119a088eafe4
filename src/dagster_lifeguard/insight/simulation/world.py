"""The world: pools, a simulated clock, and arrivals that the engine's rules decide about.

A heap of events moves the clock from one event to the next. Nothing sleeps and nothing is random,
so the same arrivals always give the same result.

``run_queue`` decides which runs are launched, ``admission`` which tickets start. No process dies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.compat.health import RunQueue
from dagster_lifeguard.engine.rules.admission import PATIENCE_SECONDS
from dagster_lifeguard.insight.simulation.admission import Admission
from dagster_lifeguard.insight.simulation.events import (
    ARRIVE,
    BEGUN,
    CHANGE,
    END,
    LOOK,
    LOOK_AT_POOL,
    LOOK_AT_QUEUE,
    RUN_END,
    SUBMIT,
    Events,
)
from dagster_lifeguard.insight.simulation.outcome import Play
from dagster_lifeguard.insight.simulation.run_queue import QueuePlay, WorldQueue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
    from dagster_lifeguard.insight.simulation.arrivals import Arrival, Change, Start

_NO_QUEUE = QueuePlay((), RunQueue(-1, (), heeds_pools=False, buffer=0))


def play(
    arrivals: Sequence[Arrival],
    settings: Mapping[str, PoolSettings],
    changes: Iterable[Change] = (),
    *,
    window: tuple[float, float],
    patience_seconds: float = PATIENCE_SECONDS,
    queue: QueuePlay | None = None,
    start: Start | None = None,
) -> Play:
    """Let arrivals ask, wait, hold and release, until no event is left.

    Args:
        arrivals: The arrivals. If several ask at the same moment, the first in the sequence asks
            first.
        settings: The settings of each pool at the beginning, with the limit in force. A pool that
            is missing is unlimited.
        changes: Changes of these settings.
        window: The beginning and end of the time in which the use of pools is counted.
        patience_seconds: How long a ticket lets later ones pass.
        queue: The runs that go through the run queue, and its rules; None if there is no queue.
        start: The state in which the play begins; None: nobody holds or waits. With a start, the
            play ends once all that it awaits has started.
    """
    events = Events()
    followers: dict[int, list[int]] = {}
    placed = () if start is None else start.placed
    for place, arrival in enumerate(arrivals):
        if arrival.after is None:
            if arrival.run is None and place not in placed:
                events.at(arrival.at, ARRIVE, place)
        else:
            assert arrival.after < place, f"{arrival.key} follows a later arrival"
            followers.setdefault(arrival.after, []).append(place)
    for change in changes:
        events.at(change.at, CHANGE, change)
    count = len(arrivals)
    played = Play([None] * count, [None] * count, fences=[0] * count, queued=[0.0] * count)
    admission = Admission(settings, window, patience_seconds, events, played)
    runs = WorldQueue(queue or _NO_QUEUE, arrivals, admission, events, played, start)
    if start is not None:
        played.awaited.update(start.awaited)
        played.awaited_runs.update(start.awaited_runs)
        admission.resume(start, arrivals)
    for now, kind, _, what in events:
        if start is not None and not (played.awaited or played.awaited_runs):
            break
        if kind == ARRIVE:
            admission.ask(what, arrivals[what], now)
        elif kind == END:
            for place in followers.get(what.place, ()):
                events.at(now + arrivals[place].at, ARRIVE, place)
            admission.release(what, now)
            if what.arrival.run is not None:
                runs.step_ended(what.arrival.run, now)
            runs.stir(now)
        elif kind == SUBMIT:
            runs.submit(what, now)
        elif kind == RUN_END:
            runs.run_ended(what, now)
        elif kind == LOOK_AT_QUEUE:
            runs.look(now)
        elif kind == BEGUN:
            runs.begun(what, now)
        elif kind == LOOK:
            admission.look_patiently(what, now)
        elif kind == LOOK_AT_POOL:
            admission.look_at_pool(what, now)
        else:
            assert kind == CHANGE
            admission.change(what, now)
            runs.stir(now)
    runs.finish(window[1])
    admission.finish()
    return played
