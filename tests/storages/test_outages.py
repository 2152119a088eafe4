"""A database that is away: waited for, then an error that says so, and nothing is granted."""

from __future__ import annotations

import socket
import sqlite3
from pathlib import Path

import dagster as dg
import psycopg2
import pytest
import sqlalchemy as db
from homes import eventually

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.rules.model import Demand
from dagster_lifeguard.engine.store import retry as retry_module
from dagster_lifeguard.engine.store.postgres.connection import connector
from dagster_lifeguard.engine.store.postgres.store import PostgresStore
from dagster_lifeguard.errors import OldSchemaError, StoreUnavailableError
from servers import own_server

IMPATIENT = Path(__file__).with_name("impatient.py")


@pytest.fixture
def server():
    with own_server() as made:
        yield made


@pytest.fixture
def impatient(monkeypatch):
    """Half a minute is too long for a test."""
    monkeypatch.setattr(retry_module, "SECONDS_MAX", 1.0)
    return 6.0  # A lease with which a try to connect takes 2 s.


@pytest.mark.parametrize("executor", ["in_process", "multiprocess"])
def test_a_run_that_waits_outlives_the_restarts_of_its_server(make_home, server, executor):
    home = make_home("postgres", server=server.url)
    with home.instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots("orders", 1)
        assert log.claim_concurrency_slot("orders", "holder", "step").is_claimed
        process = home.materialize("quick", EXECUTOR=executor)
        eventually(lambda: log.lifeguard.engine.snapshot("orders").waiting)
        for how in ("fast", "immediate"):
            server.restart(how)
            assert log.claim_concurrency_slot("orders", "holder", "step").is_claimed
        assert process.popen.poll() is None

        log.free_concurrency_slot_for_step("holder", "step")

        assert process.wait() == 0, process.output()
        ledger = log.lifeguard.engine.store.ledger(pool="orders")
        (run,) = instance.get_runs()
        told = [(e.kind.value, e.run_id) for e in reversed(ledger) if e.run_id]
        assert told == [
            ("granted", "holder"),
            ("released", "holder"),
            ("granted", run.run_id),
            ("released", run.run_id),
        ]


def test_a_run_that_waits_fails_when_its_server_stays_away_and_runs_nothing(make_home, server):
    home = make_home("postgres", server=server.url, lease_seconds=3)
    with home.instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots("orders", 1)
        assert log.claim_concurrency_slot("orders", "holder", "step").is_claimed
        command = ("dagster", "asset", "materialize", "-f", str(IMPATIENT), "--select", "held")
        process = home.start(*command)
        eventually(lambda: log.lifeguard.engine.snapshot("orders").waiting)

        server.stop("immediate")

        # Dagster loses the error, for its event log is away too; the process says it all the same.
        assert process.wait() != 0
        lines = [line for line in process.output().splitlines() if " gets no slot: " in line]
        assert len(lines) == 1, process.output()
        assert "The engine's database did not answer" in lines[0]
        assert lines[0].endswith("reachable; nothing was granted.")
        assert list(home.control.glob("held.*")) == []

        server.start()
        log.free_concurrency_slot_for_step("holder", "step")
        home.run(*command[:-1], "quick")


@pytest.mark.parametrize("claimed_before", [False, True])
def test_a_server_that_is_stopped_fails_the_claim(make_home, server, impatient, claimed_before):
    home = make_home("postgres", server=server.url, lease_seconds=impatient)
    with home.instance() as instance:
        instance.event_log_storage.set_concurrency_slots("orders", 1)
    with home.instance() as instance:
        log = instance.event_log_storage
        if claimed_before:
            assert log.claim_concurrency_slot("orders", "before", "step").is_claimed
            log.free_concurrency_slot_for_step("before", "step")
        server.stop()

        with pytest.raises(StoreUnavailableError, match="did not answer") as told:
            log.claim_concurrency_slot("orders", "run", "step")

        assert told.value.remedy == "Check that it runs and is reachable; nothing was granted."
        assert "\n" not in told.value.message
        server.start()
        assert log.get_concurrency_info("orders").claimed_slots == []
        assert log.claim_concurrency_slot("orders", "run", "step").is_claimed


@pytest.mark.parametrize("listens", [False, True])
def test_a_port_where_no_server_answers_fails_the_claim(impatient, listens):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if listens:
            taken.listen()  # Lets everybody connect, and never says a word.
        url = db.URL.create("postgresql", host="127.0.0.1", port=taken.getsockname()[1])
        address = url.render_as_string(hide_password=False)
        engine = Engine(PostgresStore(connector(address, impatient)))
        with pytest.raises(StoreUnavailableError, match="timeout" if listens else "refused"):
            engine.claim("run", "step", Demand.of({"orders": 1}))


@pytest.mark.parametrize(("lease", "silent", "connects"), [(6.0, 4000, 2), (90.0, 20000, 10)])
def test_a_silent_network_is_given_up_in_time_to_give_up_the_lease(
    make_home, monkeypatch, lease, silent, connects
):
    home, connect, asked = make_home("postgres", lease_seconds=lease), psycopg2.connect, []

    def noting(*arguments, **options):
        asked.append(options)
        return connect(*arguments, **options)

    with home.instance() as instance, monkeypatch.context() as patched:
        store = instance.event_log_storage.make_store()
        patched.setattr(psycopg2, "connect", noting)
        store.migrate()
        store.close()
    (options,) = asked
    assert (options["tcp_user_timeout"], options["connect_timeout"]) == (silent, connects)


@pytest.mark.parametrize("table", ["lifeguard_holdings", "lifeguard_sessions"])
def test_tables_that_are_gone_fail_the_run_and_execute_nothing(make_home, kind, table):
    ran = []

    @dg.asset(pool="orders")
    def orders():
        ran.append(1)

    with make_home(kind).instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots("orders", 1)
        with log.index_connection() as connection:
            connection.exec_driver_sql(f"DROP TABLE {table}")
        with pytest.raises(StoreUnavailableError, match=table) as told:
            dg.materialize([orders], instance=instance)
        assert "nothing was granted" in told.value.remedy
        assert ran == []
        (run,) = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.FAILURE


def test_tables_older_than_pools_are_an_error_that_names_the_remedy(make_home):
    with make_home("sqlite").instance() as instance:
        log = instance.event_log_storage
        with sqlite3.connect(log.path_for_shard("index")) as connection:
            connection.execute("DROP TABLE concurrency_limits")
        assert log.supports_global_concurrency_limits  # Else Dagster would not even ask.
        with pytest.raises(OldSchemaError, match="dagster instance migrate"):
            log.claim_concurrency_slot("orders", "run", "step")
