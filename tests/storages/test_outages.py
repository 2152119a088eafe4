"""A database that cannot be read or written: an error that says so, and nothing is granted."""

from __future__ import annotations

import sqlite3

import dagster as dg
import pytest

from dagster_lifeguard import engine as engine_module
from dagster_lifeguard.errors import SchemaError, StoreUnavailableError
from dagster_lifeguard.storage import event_log as event_log_module


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(engine_module, "_AGAIN_SECONDS_MAX", 1.0)
    monkeypatch.setattr(event_log_module, "_CONNECT_TRIES", 3)


def refuse_to_write(store) -> None:
    connection = store.connection.acquire()
    connection.execute("PRAGMA query_only = 1")  # As root, a file's mode stops nobody.
    store.connection.leave()


def test_a_file_that_cannot_be_written_fails_the_run_and_grants_nothing(make_home):
    ran = []

    @dg.asset(pool="orders")
    def orders():
        ran.append(1)

    with make_home("sqlite").instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots("orders", 1)
        refuse_to_write(log.lifeguard.engine.store)
        with pytest.raises(StoreUnavailableError, match="readonly"):
            dg.materialize([orders], instance=instance)
        assert ran == []
        (run,) = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.FAILURE


def test_a_server_that_is_gone_fails_the_claim(make_home, monkeypatch):
    with make_home("postgres").instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots("orders", 1)
        store = log.lifeguard.engine.store

        def gone():
            import psycopg2

            raise psycopg2.OperationalError("connection refused")

        monkeypatch.setattr(store.connection, "_connect", gone)
        store.connection.drop()
        with pytest.raises(StoreUnavailableError, match="nothing was granted"):
            log.claim_concurrency_slot("orders", "run", "step")


def test_tables_older_than_pools_are_an_error_that_names_the_remedy(make_home):
    with make_home("sqlite").instance() as instance:
        log = instance.event_log_storage
        with sqlite3.connect(log.path_for_shard("index")) as connection:
            connection.execute("DROP TABLE concurrency_limits")
        assert log.supports_global_concurrency_limits  # Else Dagster would not even ask.
        with pytest.raises(SchemaError, match="dagster instance migrate"):
            log.claim_concurrency_slot("orders", "run", "step")
