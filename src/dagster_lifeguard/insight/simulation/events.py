"""The clock of a world: a heap of what happens, and when."""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

(
    END,
    RUN_END,
    CHANGE,
    SUBMIT,
    ARRIVE,
    LOOK,
    LOOK_AT_POOL,
    BEGUN,
    LOOK_AT_QUEUE,
) = range(9)
"""The kinds of events. What happens at one moment happens in this order."""


class Events:
    """What will happen: a heap, and in order what was known when the first event was taken.

    Two events of one kind at one moment happen in the order of ``at``.
    """

    __slots__ = ("_added", "_heap", "_known")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, Any]] = []
        self._known: list[tuple[float, int, int, Any]] = []
        self._added = 0

    def __len__(self) -> int:
        return len(self._heap) + len(self._known)

    def __iter__(self) -> Iterator[tuple[float, int, int, Any]]:
        """Remove the next event until none is left: when, its kind, a number, what it is about."""
        self._known, self._heap = sorted(self._heap, reverse=True), []
        heap, known = self._heap, self._known
        while heap or known:
            if not heap or (known and known[-1] < heap[0]):
                yield known.pop()
            else:
                yield heappop(heap)

    def at(self, moment: float, kind: int, what: object) -> None:
        """Let something happen at a moment; nothing happens at an infinite one."""
        if moment == inf:
            return
        self._added += 1
        heappush(self._heap, (moment, kind, self._added, what))
