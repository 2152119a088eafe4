"""What a verb costs, counted: the same on every machine, however busy it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dagster_lifeguard.engine.store.postgres.store import PostgresStore
from dagster_lifeguard.engine.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from dagster_lifeguard.engine.engine import Engine

_READ = """SELECT
  (SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_user_tables WHERE schemaname = %(schema)s)
  + (SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_user_indexes WHERE schemaname = %(schema)s)
"""


class Work(NamedTuple):
    """What was done.

    Attributes:
        statements: SQL statements sent.
        visits: On PostgreSQL the rows and index entries that scans came by; on SQLite the steps of
            its virtual machine, a few for each row.
    """

    statements: int
    visits: int


def work_of(engine: Engine, verb: Callable[[], object]) -> Work:
    """What a verb of the engine costs; nothing else may use its store meanwhile."""
    store = engine.store
    if isinstance(store, SqliteStore):
        return _on_sqlite(store, verb)
    assert isinstance(store, PostgresStore)
    return _on_postgres(store, verb)


def _on_sqlite(store: SqliteStore, verb: Callable[[], object]) -> Work:
    statements, steps = 0, 0

    def sent(_: str) -> None:
        nonlocal statements
        statements += 1

    def stepped() -> int:
        nonlocal steps
        steps += 1
        return 0

    with store.connection.reading() as connection:
        connection.set_trace_callback(sent)
        connection.set_progress_handler(stepped, 1)
    try:
        verb()
    finally:
        with store.connection.reading() as connection:
            connection.set_trace_callback(None)
            connection.set_progress_handler(None, 0)
    return Work(statements, steps)


def _on_postgres(store: PostgresStore, verb: Callable[[], object]) -> Work:
    connection = store.connection

    def own(text: str, **arguments: object) -> Any:
        with connection._raw.cursor() as cursor:
            cursor.execute(text, arguments)
            return cursor.fetchone()[0]

    connection.acquire()
    connection.mutex.release()
    schema = own("SELECT current_schema()")

    def visits() -> int:
        own("SELECT pg_stat_force_next_flush()")  # With the end of this statement.
        own("SELECT pg_stat_clear_snapshot()")
        return int(own(_READ, schema=schema))

    before, sent = visits(), connection.statements
    verb()
    return Work(connection.statements - sent, visits() - before)
