"""The world: pools, a simulated clock, and arrivals that the engine's rules decide about.

A heap of events moves the clock from one event to the next. Nothing sleeps and nothing is random,
so the same arrivals always give the same result.

``admission`` decides which tickets start. No process dies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.admission import PATIENCE_SECONDS
from dagster_lifeguard.insight.simulation.admission import Admission
from dagster_lifeguard.insight.simulation.events import (
    ARRIVE,
    CHANGE,
    END,
    LOOK,
    LOOK_AT_POOL,
    Events,
)
from dagster_lifeguard.insight.simulation.outcome import Play

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
    from dagster_lifeguard.insight.simulation.arrivals import Arrival, Change


def play(
    arrivals: Sequence[Arrival],
    settings: Mapping[str, PoolSettings],
    changes: Iterable[Change] = (),
    *,
    window: tuple[float, float],
    patience_seconds: float = PATIENCE_SECONDS,
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
    """
    events = Events()
    followers: dict[int, list[int]] = {}
    for place, arrival in enumerate(arrivals):
        if arrival.after is None:
            events.at(arrival.at, ARRIVE, place)
        else:
            assert arrival.after < place, f"{arrival.key} follows a later arrival"
            followers.setdefault(arrival.after, []).append(place)
    for change in changes:
        events.at(change.at, CHANGE, change)
    count = len(arrivals)
    played = Play([None] * count, [None] * count, fences=[0] * count)
    admission = Admission(settings, window, patience_seconds, events, played)
    while events:
        now, kind, _, what = events.next()
        if kind == ARRIVE:
            admission.ask(what, arrivals[what], now)
        elif kind == END:
            for place in followers.get(what.place, ()):
                events.at(now + arrivals[place].at, ARRIVE, place)
            admission.release(what, now)
        elif kind == LOOK:
            admission.look_patiently(what, now)
        elif kind == LOOK_AT_POOL:
            admission.look_at_pool(what, now)
        else:
            assert kind == CHANGE
            admission.change(what, now)
    admission.finish()
    return played
