"""The sweep: what is held in each lane as time goes on, and where that is too much.

Pure, and in the memory of what is held at once. Whoever feeds it does so in the order in which
things happened; at equal times, who leaves goes before who enters.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from dagster_lifeguard.inspections.audit.audit_result import KEPT_MAX, Caveat, Excess, no_caveats

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from dagster_lifeguard.inspections.audit.audit_result import Lane, Occupant, Subject


class Sweep:
    """Counts slots.

    An excess is an entry over the limit that is in force at that moment. A limit lowered below
    what is held is none: holders are never put out, and the pool drains.

    Args:
        limits: The limit of each lane at the beginning; None is unlimited. A lane without one is
            not judged until ``set_limit`` says which it has. Assets have 1.

    Attributes:
        judging: Set to False for what happened before it is judged: an excess that is over by
            then is not told.
        caveats: What could not be judged, of ``limits`` and of ``duplicates``.
        counts: Excesses, by the kind of their lane.
    """

    def __init__(self, limits: Mapping[Lane, int | None]) -> None:
        self.judging = True
        self.caveats = no_caveats()
        self.counts: Counter[str] = Counter()
        self._limits = dict(limits)
        self._lanes: dict[Lane, _Occupied] = {}
        self._found: dict[str, list[Excess]] = {"pool": [], "asset": []}

    def set_limit(self, lane: Lane, at: float, limit: int | None) -> None:
        """From now on, the lane has this limit."""
        self._limits[lane] = limit
        occupied = self._lanes.get(lane)
        if occupied is not None and (limit is None or occupied.held <= limit):
            self._close_all(occupied, at)

    def enter(
        self,
        lane: Lane,
        occupant: Occupant,
        key: Hashable,
        *,
        doubtful: bool = False,
    ) -> None:
        """An occupant goes in, or with a key that is in already, once more and without slots.

        Args:
            lane: Where.
            occupant: Who, and when.
            key: By which it leaves.
            doubtful: Whether it may have left already, without a word: nobody exceeds a limit
                because of it.
        """
        occupied = self._lanes.get(lane)
        if occupied is None:
            occupied = self._lanes[lane] = _Occupied()
        inside = occupied.inside.get(key)
        if inside is not None:
            inside.times += 1
            return
        occupied.inside[key] = _Inside(occupant, doubtful)
        occupied.held += occupant.slots
        if doubtful:
            occupied.doubtful += occupant.slots
        limit = 1 if lane.kind == "asset" else self._limits.get(lane, _UNKNOWN)
        if limit is None or occupied.held <= limit:
            return
        if limit == _UNKNOWN:
            self.caveats["limits"][Caveat.LIMIT_UNKNOWN] += self.judging
        elif occupied.held - occupied.doubtful + (occupant.slots if doubtful else 0) > limit:
            occupants = tuple(other.occupant for other in occupied.inside.values())
            found = Excess(lane, limit, occupied.held, occupant.started, None, occupants)
            occupied.open[key] = found
        elif doubtful or self.judging:
            subject: Subject = "limits" if lane.kind == "pool" else "duplicates"
            self.caveats[subject][Caveat.DOUBTFUL] += 1

    def leave(self, lane: Lane, at: float, key: Hashable) -> bool:
        """Whoever went in with this key leaves; False if it was not in."""
        occupied = self._lanes.get(lane)
        inside = None if occupied is None else occupied.inside.get(key)
        if occupied is None or inside is None:
            return False
        if inside.times > 1:
            inside.times -= 1
            return True
        del occupied.inside[key]
        occupied.held -= inside.occupant.slots
        if inside.doubtful:
            occupied.doubtful -= inside.occupant.slots
        if not occupied.inside:
            del self._lanes[lane]
        if occupied.open:
            if key in occupied.open:
                self._close(occupied.open.pop(key), at)
            limit = 1 if lane.kind == "asset" else self._limits.get(lane)
            if limit is not None and occupied.held <= limit:
                self._close_all(occupied, at)
        return True

    def finish(self) -> None:
        """Nothing more happened: what is open has no end yet."""
        self.judging = True
        for occupied in self._lanes.values():
            self._close_all(occupied, None)

    def found(self, kind: str) -> tuple[Excess, ...]:
        """The excesses in lanes of this kind, by time: all that ``counts`` counts, or the first."""
        return tuple(sorted(self._found[kind], key=lambda excess: excess.started))

    def _close_all(self, occupied: _Occupied, at: float | None) -> None:
        for excess in occupied.open.values():
            self._close(excess, at)
        occupied.open.clear()

    def _close(self, excess: Excess, at: float | None) -> None:
        if not self.judging:
            return
        kind = excess.lane.kind
        self.counts[kind] += 1
        if len(self._found[kind]) < KEPT_MAX:
            self._found[kind].append(replace(excess, ended=at))


_UNKNOWN = -1


class _Inside:
    __slots__ = ("doubtful", "occupant", "times")

    def __init__(self, occupant: Occupant, doubtful: bool) -> None:  # noqa: FBT001
        self.occupant = occupant
        self.doubtful = doubtful
        self.times = 1


class _Occupied:
    """A lane that somebody is in.

    Attributes:
        held: Slots, the doubtful ones with them.
        open: Excesses that go on, by the key of who went in.
    """

    __slots__ = ("doubtful", "held", "inside", "open")

    def __init__(self) -> None:
        self.held = 0
        self.doubtful = 0
        self.inside: dict[Hashable, _Inside] = {}
        self.open: dict[Hashable, Excess] = {}
