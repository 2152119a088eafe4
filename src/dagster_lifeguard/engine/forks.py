"""Makes forks safe: a child inherits no open handle, no held lock and no slot of its parent.

A forked child has the parent's memory and one of its threads. These parts of it are dangerous:

- SQLite's record of the file locks that the process holds. The child does not hold them, so it
  would take none; and the parent's last close would delete the journal under the child. So every
  handle on the engine's files is closed before the fork, and opened again when it is needed.
- Locks of other threads, which no thread of the child would release. Each is new in the child.
- Connections, sessions and slots. They stay the parent's.

Only forks through Python are seen (``os.fork``, ``multiprocessing`` with fork). A child that was
forked by other means finds the parent's process id in its connections and is refused.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol
from weakref import ref

from dagster_lifeguard.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 5.0
"""How long a fork waits for other threads to finish with their files."""


class Forked(Protocol):
    """Something that a fork must not find as it is. The forking thread makes each call."""

    def before_fork(self) -> None:
        """Let go of what must not be there twice. No other thread is within ``using_files``."""

    def after_fork_in_child(self) -> None:
        """Begin anew: the other threads are gone."""


class ProcessLock:
    """A lock for the threads of one process. In a fork it is free."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        watch(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def locked(self) -> bool:
        """Whether some thread has it."""
        return self._lock.locked()

    def before_fork(self) -> None:
        """See ``Forked``."""

    def after_fork_in_child(self) -> None:
        """See ``Forked``."""
        self._lock = threading.Lock()


class _Forks:
    """Holds a fork off until no thread uses a file, and tells those concerned.

    Attributes:
        is_waiting: A fork waits for that moment, or is under way: do not begin to use a file, and
            do not wait for another process meanwhile.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._concerned: list[ref[Forked]] = []
        self._depth: dict[int, int] = {}
        self._is_safe = True
        self._is_torn = False
        self._pid = os.getpid()
        self.is_waiting = False

    def watch(self, found: Forked) -> None:
        with self._changed:
            self._concerned = [known for known in self._concerned if known() is not None]
            self._concerned.append(ref(found))

    def require_own_process(self) -> None:
        if self._pid != os.getpid():
            raise StoreUnavailableError(
                "This process was forked without Python's knowledge, so it has the connections "
                "of another.",
                remedy="Start it with os.fork, multiprocessing or subprocess.",
            )

    def enter(self) -> None:
        me = threading.get_ident()
        with self._changed:
            while self.is_waiting and me not in self._depth:
                self._changed.wait()
            if self._is_torn:
                raise StoreUnavailableError(
                    "This process was forked while its parent used the SQLite database, and "
                    "SQLite's locks do not survive that.",
                    remedy="Fork while no thread uses Dagster, or start the process with spawn.",
                )
            self._depth[me] = self._depth.get(me, 0) + 1

    def enter_at_once(self) -> bool:
        if not self._changed.acquire(blocking=False):
            return False
        try:
            if self.is_waiting:
                return False
            me = threading.get_ident()
            self._depth[me] = self._depth.get(me, 0) + 1
            return True
        finally:
            self._changed.release()

    def leave(self) -> None:
        me = threading.get_ident()
        with self._changed:
            self._depth[me] -= 1
            if not self._depth[me]:
                del self._depth[me]
                self._changed.notify_all()

    # ---- called by Python, in the thread that forks --------------------------------------------

    def before(self) -> None:
        self._changed.acquire()  # Until the fork is done, no thread may begin or end a use.
        while self.is_waiting:
            self._changed.wait()
        self.is_waiting = True
        deadline = time.monotonic() + _PATIENCE_SECONDS
        # Its own use does not end while it waits.
        while self._depth and self._depth.keys() != {threading.get_ident()}:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._changed.wait(left)
        self._is_safe = not self._depth
        if self._is_safe:
            try:
                for found in self._alive():
                    found.before_fork()
            except Exception:
                self._is_safe = False
                logger.exception("A file stays open while the process forks")

    def in_parent(self) -> None:
        self.is_waiting = False
        self._changed.notify_all()
        self._changed.release()

    def in_child(self) -> None:
        self._is_torn = self._is_torn or not self._is_safe
        self._depth = {me: n for me, n in self._depth.items() if me == threading.get_ident()}
        self._pid = os.getpid()
        self._changed = threading.Condition(threading.Lock())
        self.is_waiting = False
        for found in self._alive():
            found.after_fork_in_child()

    def _alive(self) -> list[Forked]:
        return [found for known in self._concerned if (found := known()) is not None]


_forks = _Forks()


def watch(found: Forked) -> None:
    """Tell this of forks, for as long as it lives."""
    _forks.watch(found)


def require_own_process() -> None:
    """Refuse to go on in a child that was forked by other means than Python's.

    Raises:
        StoreUnavailableError: This is one.
    """
    _forks.require_own_process()


def enter() -> None:
    """Begin to use SQLite files, until ``leave``; see ``using_files``."""
    _forks.enter()


def enter_at_once() -> bool:
    """Like ``enter``, but False instead of waiting for a lock or a fork."""
    return _forks.enter_at_once()


def leave() -> None:
    """End what ``enter`` began."""
    _forks.leave()


def is_fork_waiting() -> bool:
    """Whether a thread of this process waits to fork: leave ``using_files`` soon."""
    return _forks.is_waiting


@contextmanager
def using_files() -> Iterator[None]:
    """Use SQLite files. A fork waits for the end of it, at most ``_PATIENCE_SECONDS``.

    Raises:
        StoreUnavailableError: This process was forked while its parent was using such files.
    """
    enter()
    try:
        yield
    finally:
        leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_forks.before, after_in_parent=_forks.in_parent, after_in_child=_forks.in_child
    )
