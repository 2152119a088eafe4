"""One SQLite connection for a process: shared by its threads, never by its forks."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dagster_lifeguard.errors import StoreUnavailableError
from dagster_lifeguard.store.contract import TryAgainError

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY_SECONDS = 30
"""How long to wait for another writer; Dagster waits as long."""

# A connection that came over a fork is neither used nor closed, for closing it could undo locks
# of the parent; it is kept from the garbage collector here.
_inherited: list[sqlite3.Connection] = []


class SqliteConnection:
    """Opens when it is needed.

    Args:
        path: The database file.
        busy_seconds: How long to wait for another writer before ``TryAgainError``.
    """

    def __init__(self, path: str, busy_seconds: float) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._raw: sqlite3.Connection | None = None
        self._forget()

    def _forget(self) -> None:
        if self._raw is not None:
            _inherited.append(self._raw)
        self._raw = None
        self._pid = os.getpid()
        # Held through a transaction: the connection is one, the threads are several.
        self._mutex = threading.RLock()

    def acquire(self) -> sqlite3.Connection:
        """Take the connection for this thread until ``leave``."""
        if self._pid != os.getpid():
            self._forget()
        self._mutex.acquire()
        try:
            if self._raw is None:
                with self.errors():
                    self._raw = self._connect()
        except BaseException:
            self._mutex.release()
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
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    def close(self) -> None:
        """Close; the next use opens another."""
        if self._pid != os.getpid():
            self._forget()
        with self._mutex:
            if self._raw is not None:
                self._raw.close()
                self._raw = None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=self._busy_seconds,
            isolation_level=None,  # Transactions begin and end where the store says so.
            check_same_thread=False,  # The mutex sees to it.
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Tell apart what passes, when done again, from what does not."""
        try:
            yield
        except sqlite3.IntegrityError:
            raise  # Never expected: two winners of one slot, or two tickets of one step.
        except sqlite3.DatabaseError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise TryAgainError(str(error)) from error
            raise StoreUnavailableError(
                f"{self._path}: {error}.",
                remedy="Check that the file exists, is writable, and its disk is not full; "
                "nothing was granted.",
                names=[self._path],
            ) from error
