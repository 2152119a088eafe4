"""How many wait at a pool and how many slots are held there, through the time of a play."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dagster_lifeguard.insight.simulation.arrivals import Arrival
    from dagster_lifeguard.insight.simulation.outcome import Play


class Curve(NamedTuple):
    """A pool in the parts of a window, all of the same length.

    Attributes:
        waiting: The mean number of executions that wait, in the run queue or at their pools.
        held: The mean number of slots held.
    """

    waiting: tuple[float, ...]
    held: tuple[float, ...]


class Parts:
    """A window divided into equal parts, in which spans of time are counted.

    Args:
        since: The beginning of the window, in seconds since the epoch.
        until: Its end; later than its beginning.
        count: How many parts.
    """

    def __init__(self, since: float, until: float, count: int) -> None:
        self._since, self._until = since, until
        self._count = count
        self._length = (until - since) / count

    def means(self, spans: Iterable[tuple[float, float, float]]) -> tuple[float, ...]:
        """In each part, the mean of what goes on.

        Args:
            spans: The beginning, the end and the weight of each, in any order.
        """
        # A span adds its weight to all parts from its first on, and takes it away after its last;
        # the edges get what they miss or have too much of.
        steps = [0.0] * (self._count + 1)
        edges = [0.0] * (self._count + 1)
        for began, ended, weight in spans:
            first = (min(max(began, self._since), self._until) - self._since) / self._length
            last = (min(max(ended, self._since), self._until) - self._since) / self._length
            if last <= first:
                continue
            steps[int(first)] += weight
            edges[int(first)] -= weight * (first - int(first))
            steps[int(last)] -= weight
            edges[int(last)] += weight * (last - int(last))
        full = accumulate(steps)
        return tuple(max(0.0, mean + edge) for mean, edge in zip(full, edges, strict=True))[
            : self._count
        ]


def curve_of(parts: Parts, arrivals: Iterable[tuple[int, Arrival]], pool: str, play: Play) -> Curve:
    """The curve of a pool.

    Args:
        parts: The parts of the window.
        arrivals: Those that ask for the pool, each with its place in the play.
        pool: The pool.
        play: Their play.
    """
    waits, holds = [], []
    for place, arrival in arrivals:
        asked, granted = play.asked[place], play.granted[place]
        if asked is None:
            continue
        waits.append((asked - play.queued[place], _FOREVER if granted is None else granted, 1.0))
        if granted is not None:
            slots = next(term.slots for term in arrival.demand.terms if term.name == pool)
            holds.append((granted, granted + arrival.seconds, float(slots)))
    return Curve(parts.means(waits), parts.means(holds))


def most_at_once(spans: Iterable[tuple[float, float, float]]) -> float:
    """The largest sum of weights that go on at one moment; see ``Parts.means``."""
    # What ends at a moment has ended before what begins at it.
    edges = sorted(
        edge for began, ended, weight in spans for edge in ((began, 1, weight), (ended, 0, -weight))
    )
    return max(accumulate((weight for _, _, weight in edges), initial=0.0))


_FOREVER = float("inf")
