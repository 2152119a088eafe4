"""Databases to test on: each a value that another process can open too."""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as db
from dagster._core.storage.event_log.schema import (
    ConcurrencyLimitsTable,
    SqlEventLogStorageMetadata,
)

from dagster_lifeguard.engine.rules.pool_settings import NOTHING_SET
from dagster_lifeguard.engine.store.memory.store import MemoryStore
from dagster_lifeguard.engine.store.postgres.connection import connector
from dagster_lifeguard.engine.store.postgres.store import PostgresStore
from dagster_lifeguard.engine.store.sqlite.store import SqliteStore

_numbers = itertools.count()


def create_dagster_tables(url: str, *, all_tables: bool = False) -> None:
    """Make Dagster's tables the way Dagster does."""
    database = db.create_engine(
        db.make_url(url).set(drivername="postgresql+psycopg2") if url[:4] == "post" else url,
        poolclass=db.pool.NullPool,
    )
    tables = None if all_tables else [ConcurrencyLimitsTable]
    SqlEventLogStorageMetadata.create_all(database, tables=tables)
    database.dispose()


@dataclass(frozen=True)
class SqlitePlace:
    path: str
    kind = "sqlite"

    def store(self) -> SqliteStore:
        return SqliteStore(self.path)

    def make_stock_tables(self) -> None:
        create_dagster_tables(f"sqlite:///{self.path}", all_tables=True)

    def sql(self, text: str) -> list[Any]:
        with closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as connection:
            return connection.execute(text).fetchall()


@dataclass(frozen=True)
class PostgresPlace:
    url: str
    kind = "postgres"

    def store(self) -> PostgresStore:
        return PostgresStore(connector(self.url))

    def make_stock_tables(self) -> None:
        create_dagster_tables(self.url, all_tables=True)

    def sql(self, text: str) -> list[Any]:
        with closing(connector(self.url)()) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(text)
                return cursor.fetchall() if cursor.description else []


class MemoryPlace:
    kind = "memory"

    def __init__(self) -> None:
        self._store = MemoryStore()

    def store(self) -> MemoryStore:
        return self._store


Place = SqlitePlace | PostgresPlace | MemoryPlace
SharedPlace = SqlitePlace | PostgresPlace


def new_sqlite(folder: Path) -> SqlitePlace:
    own = folder / f"place{next(_numbers)}"
    own.mkdir()
    place = SqlitePlace(str(own / "index.db"))  # By this name Dagster's own storage finds it.
    Path(place.path).write_bytes(_empty_sqlite())
    return place


@cache
def _empty_sqlite() -> bytes:
    """A file with Dagster's table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        create_dagster_tables(f"sqlite:///{path}")
        return path.read_bytes()


def new_postgres(server_url: str) -> PostgresPlace:
    """A schema of its own: as good as a database for what is tested, and made much faster."""
    name = f"place{next(_numbers)}"
    PostgresPlace(server_url).sql(f"CREATE SCHEMA {name}")
    url = db.make_url(server_url).update_query_dict({"options": f"-csearch_path={name}"})
    place = PostgresPlace(url.render_as_string(hide_password=False))
    create_dagster_tables(place.url)
    return place


def age_session(place: Place, session: str, seconds: float = 1e6) -> None:
    """Move a session's lease into the past, as if its process had been silent for long."""
    if isinstance(place, MemoryPlace):
        leases = place.store().rows.lease_until
        if session in leases:  # As in SQL: one that was reaped cannot age.
            leases[session] -= seconds
    else:
        place.sql(
            f"UPDATE lifeguard_sessions SET lease_until = lease_until - {seconds} "
            f"WHERE session = '{session}'"
        )


def revoke_session(place: Place, session: str) -> None:
    """End a session's lease so that no heartbeat brings it back, as the stock slots' gate does."""
    if isinstance(place, MemoryPlace):
        place.store().rows.lease_until[session] = 0.0
    else:
        place.sql(f"UPDATE lifeguard_sessions SET lease_until = 0 WHERE session = '{session}'")


def age_ticket(place: Place, run_id: str, seconds: float) -> None:
    """Move the begin of a run's waiting into the past."""
    if isinstance(place, MemoryPlace):
        import dataclasses

        rows = place.store().rows
        for key, ticket in tuple(rows.tickets.items()):
            if key.run_id == run_id:
                rows.put_ticket(dataclasses.replace(ticket, since=ticket.since - seconds))
    else:
        place.sql(f"UPDATE lifeguard_tickets SET since = since - {seconds} WHERE run_id='{run_id}'")


def age_rate(place: Place, pool: str, seconds: float) -> None:
    """Move what a rate counts with into the past, as if so much time had gone by."""
    ns = int(seconds * 1e9)
    if isinstance(place, MemoryPlace):
        due = place.store().rows.due_ns
        due[pool] = due.get(pool, 0) - ns
    else:
        place.sql(f"UPDATE lifeguard_pools SET due_ns = due_ns - {ns} WHERE pool = '{pool}'")


def age_temporary_limit(place: Place, pool: str, seconds: float) -> None:
    """Move the end of a temporary limit into the past, as if so much time had gone by."""
    if isinstance(place, MemoryPlace):
        settings = place.store().rows.settings
        fall_back = settings[pool].fall_back
        assert fall_back is not None, f"{pool} has no temporary limit"
        earlier = replace(fall_back, at=fall_back.at - seconds)
        settings[pool] = replace(settings[pool], fall_back=earlier)
    else:
        place.sql(
            f"UPDATE lifeguard_pools SET temporary_until = temporary_until - {seconds} "
            f"WHERE pool = '{pool}'"
        )


def set_clock_back(place: Place, pool: str, seconds: float) -> None:
    """Leave what a rate counts with so far ahead, as a clock that is set back does."""
    age_rate(place, pool, -seconds)


def write_limit_as_another_would(place: Place, pool: str, limit: int) -> None:
    """Write Dagster's table behind the engine's back, as a stock process does."""
    if isinstance(place, MemoryPlace):
        settings = place.store().rows.settings
        settings[pool] = settings.get(pool, NOTHING_SET).with_lasting_limit(limit)
    else:
        place.sql(f"DELETE FROM concurrency_limits WHERE concurrency_key = '{pool}'")
        place.sql(
            'INSERT INTO concurrency_limits (concurrency_key, "limit", using_default_limit) '
            f"VALUES ('{pool}', {limit}, false)"
        )


def write_default_as_stock_does(place: Place, pool: str, limit: int) -> None:
    """Write the default limit of a pool down in Dagster's table, which only a database has."""
    if not isinstance(place, MemoryPlace):
        place.sql(
            'INSERT INTO concurrency_limits (concurrency_key, "limit", using_default_limit) '
            f"VALUES ('{pool}', {limit}, true)"
        )
