"""Which rows of the reference store are locked: as PostgreSQL's statements lock them.

A transaction locks its pools for itself. The session that asks is shared: it cannot be ended
meanwhile, though it may ask twice at once, and its heartbeats pass. A session that is to be ended
is locked for the transaction alone, and skipped if it is locked already.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Iterable

    from dagster_lifeguard.engine.store.contract import Scope


class Locks:
    """The locks of all transactions under way.

    Args:
        mutex: Held by the caller of each method. Whoever waits for a lock waits with it.
    """

    def __init__(self, mutex: threading.Condition) -> None:
        self._mutex = mutex
        self._pools: set[str] = set()
        self._asking: Counter[str] = Counter()
        self._ending: set[str] = set()

    def take(self, scope: Scope, endable: Callable[[Scope], Iterable[str]]) -> tuple[str, ...]:
        """Wait until the scope's pools and its session are free, and lock them all at once.

        Args:
            scope: The scope.
            endable: The sessions of the scope that exist and may be ended.

        Returns:
            The sessions that are locked to be ended.
        """
        while not self._is_free(scope):
            self._mutex.wait()
        self._pools.update(scope.pools)
        if scope.session:
            self._asking[scope.session] += 1
        if not scope.ended:
            return ()
        ended = tuple(session for session in endable(scope) if not self.is_locked(session))
        self._ending.update(ended)
        return ended

    def _is_free(self, scope: Scope) -> bool:
        return scope.session not in self._ending and self._pools.isdisjoint(scope.pools)

    def give_back(self, scope: Scope, ended: Collection[str]) -> None:
        """Unlock what ``take`` locked."""
        self._pools.difference_update(scope.pools)
        self._asking[scope.session] -= 1
        if self._asking[scope.session] <= 0:
            del self._asking[scope.session]
        self._ending.difference_update(ended)
        self._mutex.notify_all()

    def is_locked(self, session: str) -> bool:
        """Whether a transaction ends this session, or asks under it."""
        return session in self._ending or session in self._asking

    def wait_for_end_of(self, session: str) -> None:
        """Wait while a transaction ends this session."""
        while session in self._ending:
            self._mutex.wait()
