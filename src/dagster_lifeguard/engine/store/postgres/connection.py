"""One PostgreSQL connection for a process: shared by its threads, never by its forks."""

from __future__ import annotations

import logging
import select
import threading
import time
from collections import deque
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg2
import psycopg2.errors
import psycopg2.extensions
from sqlalchemy import make_url

from dagster_lifeguard.engine import forks
from dagster_lifeguard.engine.store.contract import TryAgainError
from dagster_lifeguard.engine.store.postgres.pooler import owned_server_process, refused
from dagster_lifeguard.engine.store.sql import statements
from dagster_lifeguard.errors import StoreUnavailableError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)

# Everything here is looked up by key and read along an index, whatever the tables hold, so the
# plans are made once and are the same for ten tickets waiting as for a hundred thousand: no scans,
# no sorts of a whole queue, no planning anew (which takes longer than the query). A process that
# is stopped within a transaction must not hold its locks for long.
_SETTINGS = {
    "application_name": "dagster-lifeguard",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_sort": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
    "client_min_messages": "warning",
}

# On the server process named and on no other: a pooler may answer with one that others use too.
_SET = """SELECT set_config(name, value, false)
FROM unnest(%s::text[], %s::text[]) AS setting (name, value) WHERE pg_backend_pid() = %s"""


def connector(url: str, lease_seconds: float = 30.0) -> Callable[[], Any]:
    """What opens psycopg2 connections to an SQLAlchemy URL, whatever driver that names.

    A server that does not answer is given up after 10 s, and a machine that is gone while it is
    asked something after 20 s, unless the URL says otherwise; with a shorter lease than 30 s so
    much earlier, for a process should learn in time that it cannot extend it.

    Args:
        url: The URL.
        lease_seconds: The lease that is extended over such a connection.
    """
    lease = min(lease_seconds, 30.0)
    patience = {
        "connect_timeout": max(2, int(lease / 3)),  # In seconds; libpq takes no less than 2.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 2,
        "tcp_user_timeout": int(lease * 2000 / 3),  # In milliseconds.
    }
    parsed = make_url(url).set(drivername="postgresql+psycopg2")
    dialect: Any = parsed.get_dialect()()
    arguments, options = dialect.create_connect_args(parsed)
    for name, value in patience.items():
        options.setdefault(name, value)
    return lambda: psycopg2.connect(*arguments, **options)


class Statement(NamedTuple):
    """A statement with a ``%s`` for each of its arguments."""

    text: str
    arguments: tuple[object, ...] = ()


BEGIN, COMMIT, ROLLBACK = Statement("BEGIN"), Statement("COMMIT"), Statement("ROLLBACK")


def call(name: str, *arguments: object) -> Statement:
    """What runs a prepared statement."""
    return Statement(_call_text(name, len(arguments)), arguments)


@cache
def _call_text(name: str, count: int) -> str:
    marks = ",".join(["%s"] * count)
    return f"EXECUTE lifeguard_{name}({marks})" if count else f"EXECUTE lifeguard_{name}"


class PostgresConnection:
    """Opens when it is needed, and again after it was lost.

    Args:
        connect: Opens a psycopg2 connection.

    Attributes:
        mutex: Held by the thread that uses the connection, through a whole transaction.
        statements: Statements sent so far.
        round_trips: Messages sent so far.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._begin()
        forks.watch(self)

    def before_fork(self) -> None:
        """Nothing: the child opens a connection of its own."""

    def after_fork_in_child(self) -> None:
        """Begin anew. psycopg2 leaves the parent's connection alone when it is collected here."""
        self._begin()

    def _begin(self) -> None:
        self._prepared_on: Any = None
        self._raw: Any = None
        self._cursor: Any = None
        self._channel: str | None = None
        self._notified: deque[str] = deque()
        self._missed = False
        self.mutex = threading.RLock()
        self.statements = 0
        self.round_trips = 0

    def acquire(self) -> None:
        """Take the connection for this thread.

        Raises:
            TryAgainError: It cannot be opened.
            PoolerError: A pooler lends each of its transactions another session of the server.
        """
        forks.require_own_process()
        self.mutex.acquire()
        try:
            if self._raw is None or self._raw.closed:
                self._open()
        except BaseException:
            self.mutex.release()
            raise

    def _open(self) -> None:
        try:
            raw = self._connect()
        except psycopg2.OperationalError as error:
            raise TryAgainError(first_line(error)) from error
        raw.autocommit = True  # Transactions begin and end where the statements say so.
        self._raw = raw
        self._cursor = raw.cursor()
        try:
            self._set_up(raw)
        except BaseException:
            self.drop()
            raise
        if self._channel is not None:
            self.listen(self._channel)
            self._missed = True

    def _set_up(self, raw: Any) -> None:
        """Set this session's settings, once it is certain to be this process's own.

        Raises:
            PoolerError: It is not.
        """
        if not self._set(raw.info.backend_pid):
            # Another process answers than the one that welcomed this one: a pooler is in between.
            try:
                server_process = owned_server_process(raw, self._connect)
            except psycopg2.OperationalError as error:
                raise TryAgainError(first_line(error)) from error
            if server_process is None or not self._set(server_process):
                raise refused()

    def _set(self, server_process: int) -> bool:
        names, values = list(_SETTINGS), list(_SETTINGS.values())
        return bool(self.execute([Statement(_SET, (names, values, server_process))]))

    def prepare(self) -> None:
        """Prepare the statements, on a connection that has not done so; the tables must exist."""
        if self._prepared_on is not self._raw:
            texts = [
                f"PREPARE lifeguard_{name} AS {sql}" for name, sql in statements("postgres").items()
            ]
            # Those before one that fails, for a table that is not there, are prepared all the same.
            self.execute([Statement(text) for text in ("DEALLOCATE ALL", *texts)])
            self._prepared_on = self._raw

    def execute(self, statements: Sequence[Statement]) -> list[tuple[Any, ...]]:
        """Send statements in one message; the rows of the last.

        Raises:
            TryAgainError: The connection was lost, or a lock was not to be had.
            StoreUnavailableError: The database cannot do it: read-only, tables missing.
        """
        self.statements += len(statements)
        self.round_trips += 1
        message = ";".join([text for text, _ in statements])
        arguments = [argument for _, more in statements for argument in more]
        cursor = self._cursor
        try:
            cursor.execute(message, arguments or None)
            found: list[tuple[Any, ...]] = cursor.fetchall() if cursor.description else []
        except (
            psycopg2.OperationalError,  # Also deadlocks, lock timeouts and shutdowns.
            psycopg2.InterfaceError,
            psycopg2.errors.IdleInTransactionSessionTimeout,
        ) as error:
            raise TryAgainError(first_line(error)) from error
        except psycopg2.IntegrityError:
            raise  # Never expected: two winners of one slot, or two tickets of one step.
        except psycopg2.DatabaseError as error:
            if error.pgcode is None:  # Not the server's word: it died over the statement.
                raise TryAgainError(first_line(error)) from error
            raise StoreUnavailableError(
                f"The engine's database refused: {first_line(error)}.",
                remedy="Check that it is writable and holds the lifeguard_ tables; "
                "nothing was granted.",
            ) from error
        finally:
            self._collect()
        return found

    def roll_back(self) -> None:
        """End a transaction that was not committed; a lost connection has ended it already."""
        raw = self._raw
        if raw is None or raw.closed:
            return
        if raw.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE:
            return
        try:
            self.execute([ROLLBACK])
        except TryAgainError as error:
            logger.info("Dropping a connection that cannot roll back: %s", error)
            self.drop()

    def listen(self, channel: str) -> None:
        """Receive what is notified on this channel from now on, over lost connections too."""
        self.execute([Statement(f'LISTEN "{channel}"')])
        self._channel = channel

    def notified(self, timeout_seconds: float) -> list[str]:
        """The payloads that arrived, after waiting for some at most so long."""
        if self._raw is None or self._raw.closed:
            self.acquire()
            self.mutex.release()
        if not self._notified:
            # Without the mutex: other threads go on, and may receive for this one.
            poll = select.poll()
            try:
                poll.register(self._raw.fileno(), select.POLLIN)
                whole_ms, rest_ms = divmod(timeout_seconds * 1000, 1)
                ready = poll.poll(whole_ms)
                if not ready and not whole_ms:
                    time.sleep(rest_ms / 1000)  # It counts in whole milliseconds, rounded up.
                if ready:
                    with self.mutex:
                        self._raw.poll()
                        self._collect()
            except (psycopg2.Error, ValueError, AttributeError) as error:
                self.drop()
                raise TryAgainError(first_line(error)) from error
        found = []
        while self._notified:
            found.append(self._notified.popleft())
        return found

    def takes_missed(self) -> bool:
        """Whether notifications may have been missed, since a connection was lost; told once."""
        missed, self._missed = self._missed, False
        return missed

    def _collect(self) -> None:
        raw = self._raw
        if raw is None:
            return
        while raw.notifies:
            self._notified.append(raw.notifies.pop(0).payload)

    def drop(self) -> None:
        """Close the connection; the next use opens another."""
        with self.mutex:
            raw, self._raw = self._raw, None
            if raw is not None:
                raw.close()
