"""What the stores ask of their connections: commits that last, and locks that nobody keeps."""

from __future__ import annotations

import sqlite3
import threading

import pytest
import sqlalchemy as db

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.model import Demand
from dagster_lifeguard.engine.store import retry
from dagster_lifeguard.engine.store.contract import Changes, Scope, TryAgainError
from dagster_lifeguard.engine.store.postgres import connection as postgres_connection
from dagster_lifeguard.engine.store.postgres.connection import Statement, connector
from dagster_lifeguard.engine.store.postgres.store import PostgresStore
from dagster_lifeguard.errors import StoreUnavailableError
from places import new_postgres, new_sqlite

ORDERS = Demand.of({"orders": 1})
FULL = 2


def test_a_commit_on_sqlite_is_on_disk_however_sqlite_was_built(tmp_path, monkeypatch):
    """Some builds sync less by default in WAL mode: then a granted slot is lost with the power."""
    connect = sqlite3.connect

    def connect_to_another_build(*args, **kwargs):
        connection = connect(*args, **kwargs)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_to_another_build)
    store = new_sqlite(tmp_path).store()
    for _ in range(2):  # And again after it was opened anew.
        with store.connection.writing() as connection:
            assert connection.execute("PRAGMA synchronous").fetchone() == (FULL,)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        store.close()


@pytest.fixture
def place(postgres_url):
    found = new_postgres(postgres_url)
    found.store().migrate()
    return found


@pytest.mark.parametrize("name", ["idle_in_transaction_session_timeout", "lock_timeout"])
def test_a_stopped_process_keeps_its_locks_on_postgres_for_less_than_a_lease(place, name):
    store = place.store()
    ask = Statement("SELECT setting::integer, unit FROM pg_settings WHERE name = %s", (name,))
    for _ in range(2):  # And again after the connection was lost.
        store.settings()
        ((setting, unit),) = store.connection.execute([ask])
        assert unit == "ms"
        assert 0 < setting / 1000 < EngineOptions().lease_seconds
        store.close()


def test_a_process_that_is_stopped_within_a_transaction_loses_its_locks(place, monkeypatch):
    name = "idle_in_transaction_session_timeout"
    assert postgres_connection._SETTINGS[name] == "10s"
    monkeypatch.setitem(postgres_connection._SETTINGS, name, "300ms")
    stopped, goes_on = place.store(), Engine(place.store())
    goes_on.change_pool("orders", limit=1)
    with stopped.begin(Scope(("orders",))) as transaction:
        assert goes_on.claim("a", "step", ORDERS).granted
        with pytest.raises(TryAgainError):
            transaction.commit(Changes(due=(("orders", 5),)))
    assert [found.limit for found in goes_on.settings().values()] == [1]
    stopped.close()
    goes_on.close()


class Guest:
    """A user of the database that may have so many connections, and no more.

    To it the server says the same as to anybody when ``max_connections`` are open.
    """

    def __init__(self, place, connections_max):
        self._place = place
        self.name = "guest_" + place.sql("SELECT current_schema()")[0][0]
        self._url = db.make_url(place.url).set(username=self.name).render_as_string()
        self.refused = threading.Semaphore(0)
        place.sql(f"CREATE ROLE {self.name} LOGIN CONNECTION LIMIT {connections_max}")
        for kind in ("SCHEMA", "ALL TABLES IN SCHEMA", "ALL SEQUENCES IN SCHEMA"):
            schema = self.name.removeprefix("guest_")
            place.sql(f"GRANT ALL ON {kind} {schema} TO {self.name}")

    def engine(self) -> Engine:
        connect = connector(self._url)

        def connect_or_tell():
            try:
                return connect()
            except Exception:
                self.refused.release()
                raise

        return Engine(PostgresStore(connect_or_tell))

    def connections(self) -> int:
        asked = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{self.name}'"
        return self._place.sql(asked)[0][0]


def test_a_process_has_a_connection_while_it_holds_or_waits_and_none_without(place):
    place.sql("INSERT INTO concurrency_limits (concurrency_key, \"limit\") VALUES ('orders', 1)")
    guest = Guest(place, connections_max=5)
    holder, waiter = guest.engine(), guest.engine()
    assert guest.connections() == 0
    assert holder.claim("a", "step", ORDERS).granted
    assert guest.connections() == 1
    assert not waiter.claim("b", "step", ORDERS).granted
    assert not waiter.claim("c", "step", ORDERS).granted
    assert guest.connections() == 2
    holder.release("a", "step")
    holder.close()
    waiter.close()
    assert guest.connections() == 0


def test_a_process_that_only_looked_has_no_connection_once_it_is_done(place):
    place.store().migrate()
    guest = Guest(place, connections_max=5)
    looks = guest.engine()
    assert looks.settings() == {}
    assert guest.connections() == 1
    looks.close()
    assert guest.connections() == 0


def test_who_finds_no_connection_waits_for_one_and_who_holds_goes_on(place, monkeypatch):
    place.sql("INSERT INTO concurrency_limits (concurrency_key, \"limit\") VALUES ('orders', 2)")
    guest = Guest(place, connections_max=1)
    holder, newcomer = guest.engine(), guest.engine()
    assert holder.claim("a", "step", ORDERS).granted
    verdicts = []
    claims = threading.Thread(
        target=lambda: verdicts.append(newcomer.claim("b", "step", ORDERS)), daemon=True
    )
    claims.start()
    for _ in range(2):
        assert guest.refused.acquire(timeout=300)
        assert holder.heartbeat()
    assert not verdicts
    assert holder.release("a", "step")
    assert holder.claim("a", "again", ORDERS).granted
    assert holder.release("a", "again")
    holder.close()
    claims.join(300)
    assert verdicts[0].granted

    monkeypatch.setattr(retry, "SECONDS_MAX", 0.0)
    with pytest.raises(StoreUnavailableError, match="too many connections"):
        guest.engine().claim("c", "step", ORDERS)
    assert newcomer.heartbeat()
    newcomer.close()
