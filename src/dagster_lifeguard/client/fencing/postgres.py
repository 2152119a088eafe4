"""Tables in PostgreSQL that refuse a late writer.

Guarantees:
    A transaction that has guarded a table commits only if no larger fence was committed for that
    table before. Transactions that guard one table take turns, from their guard to their end, so no
    larger fence is committed meanwhile. This holds at every isolation level; above READ COMMITTED
    the loser of a race may get a serialization error instead.

Not guaranteed:
    - Anything about a writer without a guard, or a writer that holds no pool with the others.
    - That the next writer need not wait: it waits for an open transaction that has guarded the
      table, even if that transaction's process is stopped.
      ``idle_in_transaction_session_timeout`` makes the server end such a transaction, and then
      nothing of it is written.
"""

from __future__ import annotations

from typing import Any

from dagster_lifeguard.client.fencing import tables
from dagster_lifeguard.client.fencing.refusal import late

_ALONE = "SELECT pg_advisory_xact_lock(1718510179)"
"""Two that make the same table at once would collide in the catalogue. The number says "fenc"."""


def guard_table(connection: Any, table: str, fence: int) -> None:
    """Let this transaction write a table only if no later holder has written it.

    To be called in the transaction that writes, before it writes. The fences are in the table
    ``lifeguard_fences`` of the same schema, which is made when it is first needed.

    Args:
        connection: Of psycopg2, psycopg 3 or SQLAlchemy over one of them.
        table: ``table`` or ``schema.table``, as the database spells it and without quotes. Without
            a schema, the one in which the connection would create it.
        fence: Of ``dagster_lifeguard.fence``.

    Raises:
        LateWriterError: A larger fence was here before. Roll back.
        ConfigError: The connection is not in a transaction, or the name is none.
    """
    sink = tables.Sink.parse(table)
    schema = sink.schema or _one(connection, "SELECT current_schema()")[0]
    fences = tables.fences_in(schema)
    if _one(connection, "SELECT to_regclass(%s)", fences)[0] is None:
        _one(connection, _ALONE)
        _one(connection, tables.create_fences(fences))
    escaped = fences.replace("%", "%%")
    written = _one(connection, tables.write_fence(escaped, "%s"), sink.name, fence)
    if not written:
        seen = _one(connection, tables.read_fence(escaped, "%s"), sink.name)
        raise late(f"{schema}.{sink.name}", fence, seen[0])
    # The statement above gave this transaction a number, unless it was a transaction of its own.
    if _one(connection, "SELECT txid_current_if_assigned()")[0] is None:
        raise tables.not_in_a_transaction(table)


def _one(connection: Any, statement: str, *arguments: object) -> Any:
    """The first row that a statement returns, if any."""
    if hasattr(connection, "exec_driver_sql"):  # SQLAlchemy
        result = connection.exec_driver_sql(statement, arguments or None)
        return result.fetchone() if result.returns_rows else None
    with connection.cursor() as cursor:
        cursor.execute(statement, arguments or None)
        return cursor.fetchone() if cursor.description else None
