"""The engine's tables in a PostgreSQL database: their versions, and how one becomes the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.engine.store.postgres.connection import BEGIN, COMMIT, Statement
from dagster_lifeguard.engine.store.sql import newest_version, script, usable_from
from dagster_lifeguard.engine.store.upkeep import (
    NO_TABLES,
    Tables,
    needs_old_processes_gone,
    refuse_old_processes,
    versions_after,
)

if TYPE_CHECKING:
    from dagster_lifeguard.engine.store.postgres.connection import PostgresConnection

_LOCK = 0x6C696665  # "life"
_GATE = 1734440037  # That of the statement ``lock_gate``.
_PLACE = "The engine's tables"


def migrate(connection: PostgresConnection) -> int:
    """Make the tables, or bring them to the newest version; see ``Store.migrate``."""
    newest = newest_version("postgres")
    connection.acquire()
    try:
        # The lock is the transaction's: a second process waits, then finds all done.
        lock = Statement("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        connection.execute([BEGIN, Statement("SET LOCAL lock_timeout = 0"), lock])
        found = _found(connection)
        steps = versions_after(found, "postgres", _PLACE)
        if steps:
            # Who reads a table for long, such as a dump, keeps out a change of it, and the change
            # everybody who comes after: give up and try again.
            connection.execute([Statement("SET LOCAL lock_timeout = '5s'")])
            _refuse_old_processes(connection, found)
            for step in steps:
                connection.execute([Statement(text) for text in script("postgres", step)])
            forget = Statement("DELETE FROM lifeguard_schema")
            now = (newest, usable_from("postgres", newest))
            record = Statement(
                "INSERT INTO lifeguard_schema (version, usable_from) VALUES (%s, %s)", now
            )
            connection.execute([forget, record])
        connection.execute([COMMIT])
    finally:
        connection.roll_back()
        connection.mutex.release()
    return max(found.version, newest)


def _found(connection: PostgresConnection) -> Tables:
    ((table,),) = connection.execute([Statement("SELECT to_regclass('lifeguard_schema')::text")])
    if table is None:
        return NO_TABLES
    read = Statement("SELECT version, usable_from FROM lifeguard_schema")
    return Tables(*connection.execute([read])[0])


def _refuse_old_processes(connection: PostgresConnection, found: Tables) -> None:
    needed = needs_old_processes_gone(found, "postgres")
    if needed is None:
        return
    # No session is opened until the end of the transaction, and what is silent stays over.
    gate = Statement("SELECT pg_advisory_xact_lock(%s)", (_GATE,))
    revoke = Statement(
        "UPDATE lifeguard_sessions SET lease_until = 0 WHERE tables < %s "
        "AND lease_until <= extract(epoch FROM clock_timestamp())",
        (needed,),
    )
    alive = Statement(
        "SELECT label FROM lifeguard_sessions WHERE tables < %s AND lease_until > 0 "
        "ORDER BY started_at",
        (needed,),
    )
    labels = [label for (label,) in connection.execute([gate, revoke, alive])]
    refuse_old_processes(labels, found, _PLACE)
