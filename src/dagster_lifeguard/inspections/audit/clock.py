"""Where the clock of the database stepped back, as the entries of each pool tell."""

from __future__ import annotations


class ClockSteps:
    """Looks at entries in the order of their commits, by which a clock only goes forth.

    That it went forth too far cannot be seen: it looks like a time in which nothing happened.

    Attributes:
        pools: Those of which an entry is older than the one before it.
    """

    def __init__(self) -> None:
        self.pools: set[str] = set()
        self._last: dict[str, float] = {}

    def entry(self, pool: str, at: float) -> None:
        """An entry was written at this time."""
        if at < self._last.get(pool, at):
            self.pools.add(pool)
        self._last[pool] = at
