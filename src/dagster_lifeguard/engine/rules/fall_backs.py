"""The ends of temporary limits, which have no rows in the ledger because no process acts then."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.model import Entry, EntryKind
from dagster_lifeguard.engine.rules.pool_settings import FallBack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class FallBacks:
    """Adds an entry of the limit to what the ledger tells, wherever a temporary limit ended.

    An entry is judged by its own time, as the engine decided it. So if the clock was set back over
    the end, the temporary limit is told again.
    """

    def __init__(self) -> None:
        self._temporary: dict[str, tuple[Entry, FallBack]] = {}
        self._over: set[str] = set()

    def among(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """The entries, each end before the first entry of its pool that came after it.

        Args:
            entries: Of each pool in the order of their commits.
        """
        for entry in entries:
            pool = entry.pool
            if pool in self._temporary:
                told, fall_back = self._temporary[pool]
                is_over = fall_back.at <= entry.at
                if is_over and pool not in self._over:
                    self._over.add(pool)
                    yield _end(told, fall_back)
                elif pool in self._over and not is_over:
                    self._over.discard(pool)
                    yield replace(told, at=entry.at)
            if entry.kind is EntryKind.LIMIT:
                self._over.discard(pool)
                self._temporary.pop(pool, None)
                if entry.detail:
                    self._temporary[pool] = entry, FallBack.read(entry.detail)
            yield entry

    def rest(self, until: float) -> Iterator[Entry]:
        """The ends up to this time of pools that had no entry since, the first end first."""
        ended = [
            _end(told, fall_back)
            for pool, (told, fall_back) in self._temporary.items()
            if pool not in self._over and fall_back.at <= until
        ]
        self._over.update(entry.pool for entry in ended)
        yield from sorted(ended, key=lambda entry: entry.at)


def _end(told: Entry, fall_back: FallBack) -> Entry:
    return replace(told, at=fall_back.at, limit=fall_back.limit, detail=None, session="")
