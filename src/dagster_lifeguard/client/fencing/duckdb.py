"""Tables in DuckDB that refuse a late writer.

Guarantees:
    A transaction that has guarded a table commits only if no larger fence was committed for that
    table before. If several transactions of one process guard a table at once, DuckDB lets one
    commit and fails the others.

Not guaranteed:
    - Anything about a writer without a guard, or a writer that holds no pool with the others.
    - That the next writer can open the file while another process has it open for writing, stopped
      or not: DuckDB refuses it. So open the file only to write, and close it afterwards.
"""

from __future__ import annotations

from typing import Any

from dagster_lifeguard.client.fencing import tables
from dagster_lifeguard.client.fencing.refusal import late


def guard_table(connection: Any, table: str, fence: int) -> None:
    """Let this transaction write a table only if no later holder has written it.

    To be called in the transaction that writes, before it writes. The fences are in the table
    ``lifeguard_fences`` of the same schema, which is made when it is first needed.

    Args:
        connection: Of DuckDB, in a transaction (``connection.begin()``).
        table: ``table`` or ``schema.table``, without quotes. Without a schema, the one in which
            the connection would create it.
        fence: Of ``dagster_lifeguard.fence``.

    Raises:
        LateWriterError: A larger fence was here before. Roll back.
        ConfigError: The connection is not in a transaction, or the name is none.
    """
    sink = tables.Sink.parse(table)
    if _one(connection, "SELECT txid_current()") != _one(connection, "SELECT txid_current()"):
        raise tables.not_in_a_transaction(table)
    schema = sink.schema or _one(connection, "SELECT current_schema()")[0]
    fences = tables.fences_in(schema)
    connection.execute(tables.create_fences(fences))
    written = _one(connection, tables.write_fence(fences, "?"), sink.name, fence)
    if not written:
        seen = _one(connection, tables.read_fence(fences, "?"), sink.name)
        raise late(f"{schema}.{sink.name}", fence, seen[0])


def _one(connection: Any, statement: str, *arguments: object) -> Any:
    """The first row that a statement returns, if any."""
    return connection.execute(statement, list(arguments)).fetchone()
