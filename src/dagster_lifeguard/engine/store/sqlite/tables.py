"""The engine's tables in an SQLite file: their versions, and how one becomes the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.engine.store.clock import clock
from dagster_lifeguard.engine.store.sql import newest_version, script, usable_from
from dagster_lifeguard.engine.store.upkeep import (
    NO_TABLES,
    Tables,
    needs_old_processes_gone,
    refuse_old_processes,
    versions_after,
)

if TYPE_CHECKING:
    import sqlite3

    from dagster_lifeguard.engine.store.sqlite.connection import SqliteConnection


def migrate(file: SqliteConnection, path: str) -> int:
    """Make the tables, or bring them to the newest version; see ``Store.migrate``.

    Args:
        file: The file.
        path: What an error calls it.
    """
    newest, place = newest_version("sqlite"), f"The engine's tables in {path}"
    with file.writing() as connection:
        found = _found(connection)
        steps = versions_after(found, "sqlite", place)
        if steps:
            _refuse_old_processes(connection, found, place)
            for step in steps:
                for statement in script("sqlite", step):
                    connection.execute(statement)
            connection.execute("DELETE FROM lifeguard_schema")
            connection.execute(
                "INSERT INTO lifeguard_schema (version, usable_from) VALUES (?, ?)",
                (newest, usable_from("sqlite", newest)),
            )
    return max(found.version, newest)


def _found(connection: sqlite3.Connection) -> Tables:
    find = "SELECT 1 FROM sqlite_master WHERE name = 'lifeguard_schema'"
    if not connection.execute(find).fetchone():
        return NO_TABLES
    read = "SELECT version, usable_from FROM lifeguard_schema"
    return Tables(*connection.execute(read).fetchone())


def _refuse_old_processes(connection: sqlite3.Connection, found: Tables, place: str) -> None:
    needed = needs_old_processes_gone(found, "sqlite")
    if needed is None:
        return
    # What is silent stays over.
    connection.execute(
        "UPDATE lifeguard_sessions SET lease_until = 0 WHERE tables < ? AND lease_until <= ?",
        (needed, clock()),
    )
    alive = (
        "SELECT label FROM lifeguard_sessions WHERE tables < ? AND lease_until > 0 "
        "ORDER BY started_at"
    )
    labels = [label for (label,) in connection.execute(alive, (needed,))]
    refuse_old_processes(labels, found, place)
