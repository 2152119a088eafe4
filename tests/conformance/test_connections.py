"""What the stores ask of their connections: commits that last, and locks that nobody keeps."""

from __future__ import annotations

import sqlite3

import pytest

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.model import Demand
from dagster_lifeguard.engine.store import postgres_connection
from dagster_lifeguard.engine.store.contract import Changes, Scope, TryAgainError
from dagster_lifeguard.engine.store.postgres_connection import Statement
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
        store.limits()
        ((setting, unit),) = store.connection.execute([ask])
        assert unit == "ms"
        assert 0 < setting / 1000 < EngineOptions().lease_seconds
        store.close()


def test_a_process_that_is_stopped_within_a_transaction_loses_its_locks(place, monkeypatch):
    name = "idle_in_transaction_session_timeout"
    assert postgres_connection._SETTINGS[name] == "10s"
    monkeypatch.setitem(postgres_connection._SETTINGS, name, "300ms")
    stopped, goes_on = place.store(), Engine(place.store())
    goes_on.set_limit("orders", 1)
    with stopped.begin(Scope(("orders",))) as transaction:
        assert goes_on.claim("a", "step", ORDERS).granted
        with pytest.raises(TryAgainError):
            transaction.commit(Changes(limits=(("orders", 5),)))
    assert [row.limit for row in goes_on.limits()] == [1]
    stopped.close()
    goes_on.close()
