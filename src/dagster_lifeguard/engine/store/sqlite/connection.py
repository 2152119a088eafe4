"""One SQLite connection for a process: shared by its threads, closed while the process forks."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from dagster_lifeguard.engine import forks
from dagster_lifeguard.engine.store.contract import TryAgainError
from dagster_lifeguard.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOCK_PAUSE_SECONDS = (0.0005, 0.003)

BUSY_SECONDS = 30
"""How long to wait for another writer; Dagster waits as long."""


class _OpenFiles:
    """All open connections of this process, also those whose owner was dropped.

    To drop an ``sqlite3.Connection`` does not close it before the next garbage collection: it is
    part of a cycle. A fork in between would inherit an open handle, and a collection at the wrong
    time would close a handle while the process forks.
    """

    def __init__(self) -> None:
        self._open: set[sqlite3.Connection] = set()
        self._dropped: deque[sqlite3.Connection] = deque()
        self._inherited: list[sqlite3.Connection] = []
        forks.watch(self)

    def add(self, connection: sqlite3.Connection) -> None:
        """A connection was opened."""
        self._open.add(connection)

    def close(self, connection: sqlite3.Connection) -> None:
        """Close a connection; no fork may be under way."""
        connection.close()
        self._open.discard(connection)

    def drop(self, connection: sqlite3.Connection) -> None:
        """Close a connection whose owner is gone, or leave that to the next who calls.

        A garbage collection calls this, in any thread at any point: it must not wait for a lock.
        """
        self._dropped.append(connection)
        if forks.enter_at_once():
            try:
                self.close_dropped()
            finally:
                forks.leave()

    def close_dropped(self) -> None:
        """Close what was dropped; no fork may be under way."""
        with suppress(IndexError):
            while True:
                self.close(self._dropped.popleft())

    def before_fork(self) -> None:
        """Close all."""
        for connection in tuple(self._open):
            self.close(connection)

    def after_fork_in_child(self) -> None:
        """Keep what is open: to close it could undo locks of the parent."""
        self._inherited += self._open
        self._open, self._dropped = set(), deque()


_files = _OpenFiles()


class SqliteConnection:
    """Opens when it is needed.

    Args:
        path: The database file.
        busy_seconds: How long to wait for another writer before ``TryAgainError``.

    Attributes:
        opened: How many times it was opened so far.
    """

    def __init__(self, path: str, busy_seconds: float) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._raw: sqlite3.Connection | None = None
        # Held through a transaction: the connection is one, the threads are several.
        self._mutex = threading.RLock()
        self.opened = 0
        forks.watch(self)

    def __del__(self) -> None:
        if self._raw is not None:
            _files.drop(self._raw)

    def before_fork(self) -> None:
        """Close; the next use opens another."""
        self.close()

    def after_fork_in_child(self) -> None:
        """Begin anew."""
        self._raw = None
        self._mutex = threading.RLock()

    def acquire(self) -> sqlite3.Connection:
        """Take the connection for this thread until ``leave``."""
        forks.require_own_process()
        forks.enter()
        try:
            self._mutex.acquire()
        except BaseException:
            forks.leave()
            raise
        try:
            if self._raw is None:
                with self.errors():
                    self._raw = self._connect()
                self.opened += 1
        except BaseException:
            self._mutex.release()
            forks.leave()
            raise
        return self._raw

    def leave(self) -> None:
        """Give the connection back, undoing a transaction that was not committed."""
        try:
            # Some errors have ended it already.
            if self._raw is not None and self._raw.in_transaction:
                self._raw.execute("ROLLBACK")
        finally:
            self._mutex.release()
            forks.leave()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread."""
        connection = self.acquire()
        try:
            with self.errors():
                yield connection
        finally:
            self.leave()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The connection, in a transaction that has the write lock."""
        with self.reading() as connection:
            self.lock(connection)
            yield connection
            connection.execute("COMMIT")

    def lock(self, connection: sqlite3.Connection) -> None:
        """Begin a transaction that has the write lock.

        SQLite's own waiting sleeps for up to 100 ms at a time, long after the lock is free again.
        A transaction here takes about a millisecond, so that is how long to sleep; by chance, so
        that two who wait do not stay in step.
        """
        deadline = time.monotonic() + self._busy_seconds
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                is_late = time.monotonic() >= deadline or forks.is_fork_waiting()
                if not _is_busy(error) or is_late:
                    raise
                time.sleep(random.uniform(*_LOCK_PAUSE_SECONDS))  # noqa: S311 - no secret
            else:
                return

    def close(self) -> None:
        """Close; the next use opens another."""
        with self._mutex:
            if self._raw is not None:
                _files.close(self._raw)
                self._raw = None

    def _connect(self) -> sqlite3.Connection:
        _files.close_dropped()
        connection = sqlite3.connect(
            self._path,
            timeout=0,  # See ``lock``.
            isolation_level=None,  # Transactions begin and end where the store says so.
            check_same_thread=False,  # The mutex sees to it.
        )
        try:
            self._use_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        _files.add(connection)
        return connection

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        # SQLite does not wait for the lock that a change of journal needs; Dagster's file has
        # been changed long ago, unless several processes are the first at once.
        deadline = time.monotonic() + self._busy_seconds
        while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() >= deadline:
                    raise
                time.sleep(random.uniform(*_LOCK_PAUSE_SECONDS))  # noqa: S311 - no secret

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Tell apart what passes, when done again, from what does not."""
        try:
            yield
        except sqlite3.IntegrityError:
            raise  # Never expected: two winners of one slot, or two tickets of one step.
        except sqlite3.DatabaseError as error:
            if _is_busy(error):
                raise TryAgainError(str(error)) from error
            raise StoreUnavailableError(
                f"{self._path}: {error}.",
                remedy="Check that the file exists, is writable, and its disk is not full; "
                "nothing was granted.",
                names=[self._path],
            ) from error


def _is_busy(error: sqlite3.Error) -> bool:
    return "locked" in str(error) or "busy" in str(error)
