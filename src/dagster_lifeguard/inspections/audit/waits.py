"""The longest of many waits."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster_lifeguard.inspections.audit.audit_result import LongWait

LONGEST_MAX = 20
"""How many waits are told one by one."""


class LongWaits:
    """Keeps the longest, and counts those as long as ``long_seconds``."""

    def __init__(self, long_seconds: float) -> None:
        self.count = 0
        self._long_seconds = long_seconds
        self._longest: list[LongWait] = []

    def add(self, wait: LongWait) -> None:
        """Look at one."""
        if wait.seconds < self._long_seconds:
            return
        self.count += 1
        if len(self._longest) < LONGEST_MAX:
            heapq.heappush(self._longest, wait)
        elif wait > self._longest[0]:
            heapq.heapreplace(self._longest, wait)

    def longest(self) -> tuple[LongWait, ...]:
        """The longest, longest first."""
        return tuple(sorted(self._longest, reverse=True))
