"""The clock of a world: a heap of what happens, and when."""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import Any

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
    """What will happen. Two events of one kind at one moment happen in the order of ``at``."""

    __slots__ = ("_added", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, Any]] = []
        self._added = 0

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, moment: float, kind: int, what: object) -> None:
        """Let something happen at a moment; nothing happens at an infinite one."""
        if moment == inf:
            return
        self._added += 1
        heappush(self._heap, (moment, kind, self._added, what))

    def next(self) -> tuple[float, int, int, Any]:
        """Remove and return the next event: when, its kind, a number, and what it is about."""
        return heappop(self._heap)
