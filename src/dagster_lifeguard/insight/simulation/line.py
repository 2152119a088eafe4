"""The queue of one pool, from which a decision gets the front alone."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.order import members_to_see, ranked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dagster_lifeguard.engine.rules.model import QueuedTicket

_Place = tuple[int, int, "QueuedTicket"]


class Line:
    """Waiters by group; within a group by priority, then by number.

    A pool whose order is not fair has one group. A newcomer mostly stands last and leaves first,
    so both ends cost the same however long the queue is.
    """

    def __init__(self) -> None:
        self._groups: dict[str, deque[_Place]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[QueuedTicket]:
        return (waiter for places in self._groups.values() for _, _, waiter in places)

    @property
    def groups(self) -> set[str]:
        """The groups of which a waiter is in line."""
        return set(self._groups)

    def add(self, waiter: QueuedTicket) -> None:
        """Put a waiter at its place."""
        place = (-waiter.priority, waiter.number, waiter)
        places = self._groups.setdefault(waiter.group, deque())
        self._count += 1
        if not places or places[-1] < place:
            places.append(place)
        elif place < places[0]:
            places.appendleft(place)
        else:
            places.insert(next(i for i, other in enumerate(places) if place < other), place)

    def remove(self, waiter: QueuedTicket) -> None:
        """Take a waiter out."""
        places = self._groups[waiter.group]
        self._count -= 1
        if places[0][2] is waiter:
            places.popleft()
        else:
            places.remove((-waiter.priority, waiter.number, waiter))
        if not places:
            del self._groups[waiter.group]

    @property
    def heads(self) -> Iterator[QueuedTicket]:
        """The first waiter of each group; of a pool whose order is not fair, the best-ranked."""
        return iter([places[0][2] for places in self._groups.values()])

    def in_order(self, count: int) -> Iterator[QueuedTicket]:
        """The first waiters of a pool whose order is not fair, best first."""
        places = next(iter(self._groups.values()), ())
        return (waiter for _, _, waiter in islice(places, count))

    def head(self, group: str) -> QueuedTicket | None:
        """The first waiter of a group; None without any."""
        places = self._groups.get(group)
        return None if places is None else places[0][2]

    def nth(self, number: int) -> QueuedTicket | None:
        """The waiter at this place, counted from 1, where the order is not fair."""
        places = next(iter(self._groups.values()), ())
        return next((waiter for _, _, waiter in islice(places, number - 1, None)), None)

    def front(
        self,
        count: int,
        held: Mapping[str, int] | None = None,
        turns: Mapping[str, int] | None = None,
        turn: int = 0,
    ) -> tuple[QueuedTicket, ...]:
        """The ``count`` best-ranked waiters, best first.

        Args:
            count: How many, at most.
            held: Slots held by each group where the order is fair; None where it is not.
            turns: Where the turn of each group begins; of a missing group, with the pool's.
            turn: The pool's turn.
        """
        if held is None:
            return tuple(self.in_order(count))
        heads = ranked((places[0][2] for places in self._groups.values()), held, turns, turn)
        seen = (
            waiter
            for head, members in members_to_see(heads, count)
            for _, _, waiter in islice(self._groups[head.group], members)
        )
        return tuple(waiter for _, waiter in ranked(seen, held, turns, turn)[:count])
