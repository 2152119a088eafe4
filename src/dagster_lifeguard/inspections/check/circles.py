"""Circles that slots inside assets may wait in: a pure function over what assets say of themselves.

``deadlock`` finds a circle among those who wait at a moment. Here the question is whether there can
be one at any moment, however the runs of these assets meet.

How it is found. Suppose that everybody is stuck, and let out whoever cannot be: who asks for slots
that are free even while all others, as many as can execute at once, hold what they hold. Those who
are left when nobody more can be let out may hold each other up. They may never meet like this, so
not every circle that is told comes about.

Not told: a circle of tasks of one execution, and one through a step that has slots set aside
because it is out of patience.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.names import SLOTS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MANY = SLOTS_MAX + 1
"""So many executions at once that no limit has slots for all of them."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Slots that an asset asks for while it holds others.

    Attributes:
        asset: The asset, ``a/b``.
        held: What it holds meanwhile: slots by pool.
        wanted: What it asks for: slots by pool.
        at_once_max: How many executions of the asset there can be at once; ``MANY`` if no pool
            bounds them.
    """

    asset: str
    held: Mapping[str, int]
    wanted: Mapping[str, int]
    at_once_max: int


@dataclass(frozen=True, slots=True)
class Link:
    """One link of a circle: an ask, and a pool for which it may wait."""

    ask: Ask
    pool: str


def circles(asks: Sequence[Ask], limits: Mapping[str, int | None]) -> Iterator[tuple[Link, ...]]:
    """Find circles in which asks may wait for each other.

    Args:
        asks: All of them. One that waits for what it holds itself is in no circle with others.
        limits: The limit of each pool; None, or no such pool, is unlimited.

    Yields:
        Circles, each a shortest one: every link may wait for what the next one's asset holds, and
        the last for the first. Of those over the same pools only one.
    """
    left = [ask for ask in asks if not any(blocks_itself(ask, limits))]
    while True:
        meeting = _stuck(left, limits)
        if not meeting.asks:
            return
        circle = _shortest(meeting)
        yield circle
        pools = {link.pool for link in circle}
        left = [
            ask
            for ask in meeting.asks
            if pools.isdisjoint(ask.wanted) or pools.isdisjoint(ask.held)
        ]


def blocks_itself(ask: Ask, limits: Mapping[str, int | None]) -> Iterator[str]:
    """Yield the pools that never have what it asks for beside what it holds of them itself."""
    for pool, slots in ask.wanted.items():
        limit = limits.get(pool)
        if limit and ask.held.get(pool, 0) + slots > limit:
            yield pool


class _Meeting:
    """Asks at one moment, each by as many executions as there can be."""

    def __init__(self, asks: Sequence[Ask], limits: Mapping[str, int | None]) -> None:
        self.asks = asks
        self._limits = limits
        self._holding: defaultdict[str, list[Ask]] = defaultdict(list)
        # An execution asks for one thing at a time, so what holds most stands for its asset.
        self._most: defaultdict[str, dict[str, Ask]] = defaultdict(dict)
        for ask in asks:
            for pool, slots in ask.held.items():
                self._holding[pool].append(ask)
                most = self._most[pool].get(ask.asset)
                if most is None or most.held[pool] < slots:
                    self._most[pool][ask.asset] = ask
        self._held = {
            pool: sum(ask.held[pool] * ask.at_once_max for ask in most.values())
            for pool, most in self._most.items()
        }

    def held_up_at(self, ask: Ask) -> Iterator[str]:
        """Yield the pools at which others may hold it up."""
        for pool, slots in ask.wanted.items():
            limit = self._limits.get(pool)
            same = self._most[pool].get(ask.asset)
            by_others = self._held.get(pool, 0) - (0 if same is None else same.held[pool])
            if limit and ask.held.get(pool, 0) + slots + by_others > limit:
                yield pool

    def waits_for(self, ask: Ask) -> Iterator[tuple[str, Ask]]:
        """Yield the asks for which it may wait, each with the pool at which it does."""
        for pool in self.held_up_at(ask):
            for other in self._holding[pool]:
                if other.asset != ask.asset or ask.at_once_max > 1:
                    yield pool, other


def _stuck(asks: Sequence[Ask], limits: Mapping[str, int | None]) -> _Meeting:
    """Those who may hold each other up: who is left when whoever can go on has gone on."""
    while True:
        meeting = _Meeting(asks, limits)
        left = [ask for ask in asks if any(meeting.held_up_at(ask))]
        if len(left) == len(asks):
            return meeting
        asks = left


def _shortest(meeting: _Meeting) -> tuple[Link, ...]:
    """The shortest circle, or the first of these. There is one: everybody waits for somebody."""
    best: tuple[Link, ...] | None = None
    for ask in meeting.asks:
        found = _way_back(ask, meeting)
        if found is not None and (best is None or len(found) < len(best)):
            best = found
            if len(best) <= 2:  # noqa: PLR2004 - as short as one with others can be
                break
    assert best is not None, "nobody is stuck"
    return best


def _way_back(start: Ask, meeting: _Meeting) -> tuple[Link, ...] | None:
    """The shortest way from an ask back to itself; None if there is none."""
    paths: deque[tuple[tuple[Link, ...], Ask]] = deque([((), start)])
    seen: set[int] = set()
    while paths:
        path, ask = paths.popleft()
        for pool, other in meeting.waits_for(ask):
            longer = (*path, Link(ask, pool))
            if other is start:
                return longer
            if id(other) not in seen:
                seen.add(id(other))
                paths.append((longer, other))
    return None
