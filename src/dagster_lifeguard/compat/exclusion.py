"""One process at a time: a lock in the instance's database."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as db
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dagster as dg

WAIT_SECONDS = 30
"""How long to wait for the lock."""

_KEY = int.from_bytes(b"lifeguar", "big")
_of_this_process = threading.Lock()


@contextmanager
def exclusion(instance: dg.DagsterInstance) -> Iterator[None]:
    """Be the only one in this section, among all processes of the instance.

    It is the same lock over the stock storage and over ours, for both use one database. It goes
    with the connection, so a process that dies gives it up. On PostgreSQL it is an advisory lock
    of a transaction, which any pool of connections lets through; on SQLite an empty file beside
    that of the runs. Over a storage of another kind it excludes the threads of this process only.

    Relies on: ``SqliteRunStorage._conn_string``, ``SqlRunStorage.connect`` (1.10.0).

    Raises:
        sqlite3.Error: The lock was not to be had for ``WAIT_SECONDS``, or not at all.
        sqlalchemy.exc.SQLAlchemyError: The same on PostgreSQL.
    """
    storage: Any = cast("Any", instance).run_storage
    if isinstance(storage, SqliteRunStorage):
        with _file(storage):
            yield
    elif isinstance(storage, SqlRunStorage) and _is_postgres(storage):
        with _advisory(storage):
            yield
    else:
        with _of_this_process:
            yield


def _is_postgres(storage: Any) -> bool:
    with storage.connect() as connection:
        return bool(connection.dialect.name == "postgresql")


@contextmanager
def _file(storage: Any) -> Iterator[None]:
    runs = db.make_url(storage._conn_string).database
    assert runs is not None
    path = Path(runs).with_name("lifeguard_submissions.db")
    with closing(sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield


@contextmanager
def _advisory(storage: Any) -> Iterator[None]:
    with storage.connect() as plain:
        connection = plain.execution_options(isolation_level="READ COMMITTED")
        connection.execute(db.text(f"SET LOCAL lock_timeout = '{WAIT_SECONDS}s'"))
        connection.execute(db.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        connection.execute(db.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _KEY})
        try:
            yield
        finally:
            with suppress(db.exc.SQLAlchemyError):  # a connection that broke has given it up
                connection.rollback()
