"""How many threads, sessions and connections a process has, however many instances it makes."""

from __future__ import annotations

import gc
import os
import sys
import threading
from contextlib import closing
from pathlib import Path

import dagster as dg
import psutil
import psycopg2
import pytest
from homes import eventually, limit

from dagster_lifeguard import LifeguardClient
from dagster_lifeguard.engine.store.contract import TryAgainError


def sessions(instance: dg.DagsterInstance) -> list[str]:
    with instance.event_log_storage.index_connection() as connection:
        found = connection.exec_driver_sql("SELECT session FROM lifeguard_sessions").fetchall()
    return [session for (session,) in found]


def connections(home) -> int:
    """How many connections of the engine are open, as the database or the system tells."""
    if home.kind == "sqlite":
        ours = [file for file in psutil.Process().open_files() if str(home.path) in file.path]
        return sum(Path(file.path).name == "index.db" for file in ours)
    ((_, config),) = home.stock.items()
    url = config["postgres_url"].replace("+psycopg2", "")
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE application_name = 'dagster-lifeguard' AND datname = current_database()"
        )
        return cursor.fetchone()[0]


def leases() -> int:
    return sum(thread.name == "lifeguard-lease" for thread in threading.enumerate())


def claim(instance: dg.DagsterInstance, run_id: str) -> bool:
    return instance.event_log_storage.claim_concurrency_slot("orders", run_id, "step").is_claimed


@pytest.mark.skipif(sys.platform != "linux", reason="counts what the Linux kernel lists")
@pytest.mark.parametrize("count", [1, 10, 1000 if "LIFEGUARD_TORTURE" in os.environ else 50])
def test_however_many_instances_a_process_makes_it_has_one_session(make_home, kind, count):
    home = make_home(kind, lease_seconds=600)
    limit(home, 1000)
    before = leases()
    with home.instance() as observer:
        ref = observer.get_ref()
        for number in range(count):
            instance = dg.DagsterInstance.from_ref(ref)
            assert claim(instance, f"run{number}")
            if number % 2:  # As a task that ends well, and as one that is dropped.
                instance.event_log_storage.free_concurrency_slot_for_step(f"run{number}", "step")
            del instance
        gc.collect()
        assert claim(observer, "last")
        assert leases() - before == 1
        # SQLite keeps a file open besides, which Dagster's next use of it takes.
        assert connections(home) <= (2 if kind == "sqlite" else 1)
        assert len(sessions(observer)) == 1


def test_instances_that_hold_at_once_share_a_session_and_free_their_own(make_home, kind):
    home = make_home(kind, lease_seconds=600)
    limit(home, 2)
    with home.instance() as one, home.instance() as other:
        assert claim(one, "a")
        assert claim(other, "b")
        assert len(sessions(one)) == 1
        assert not claim(one, "c")
        # One instance ends while it holds: its slot is left to the lease, the other's is not.
        one.dispose()
        found = {h.key.run_id: h.owners for h in _holdings(other)}
        (session,) = found["b"]
        assert found["a"].isdisjoint({session})
        assert len(found) == 2
        assert _waiting(other) == []


def test_each_instance_sees_the_slots_that_are_held_on_dagsters_own_storage(make_home, kind):
    """Also one that joins a session which another instance of its process has opened."""
    home = make_home(kind, lease_seconds=600)
    limit(home, 1)
    with home.instance() as one, home.instance() as other:
        assert claim(one, "a")
        one.event_log_storage.free_concurrency_slot_for_step("a", "step")
        run = dg.DagsterRun(job_name="j", run_id="stock", status=dg.DagsterRunStatus.STARTED)
        one.add_run(run)
        with one.event_log_storage.index_transaction() as connection:
            connection.exec_driver_sql(
                "DROP TRIGGER IF EXISTS lifeguard_gate"
                + (" ON concurrency_slots" if kind == "postgres" else "")
            )
            connection.exec_driver_sql(
                "UPDATE concurrency_slots SET run_id = 'stock', step_key = 'step'"
            )
        assert not claim(other, "b")
        one.event_log_storage.dispose()
        with other.event_log_storage.index_transaction() as connection:
            connection.exec_driver_sql("UPDATE concurrency_slots SET run_id = NULL")
        eventually(lambda: claim(other, "b"))


def test_an_instance_that_nobody_refers_to_leaves_what_it_holds_to_the_lease(make_home, kind):
    home = make_home(kind, lease_seconds=3)
    limit(home, 2)
    with home.instance() as other:
        dropped = dg.DagsterInstance.from_ref(other.get_ref())
        assert claim(other, "kept")
        assert claim(dropped, "dropped")
        assert not claim(dropped, "waits")
        del dropped
        gc.collect()
        # Nothing but the heartbeats and the lease: the queue has nobody else.
        eventually(lambda: claim(other, "next"))
        assert {h.key.run_id for h in _holdings(other)} == {"kept", "next"}
        eventually(lambda: _waiting(other) == [])


def test_a_session_under_which_nothing_is_held_ends_by_itself(make_home, kind):
    home = make_home(kind, lease_seconds=1)
    limit(home, 1)
    before = leases()
    with home.instance() as instance, home.instance() as observer:
        assert claim(instance, "a")
        assert sessions(observer)
        instance.event_log_storage.free_concurrency_slot_for_step("a", "step")
        eventually(lambda: not sessions(observer))
        eventually(lambda: leases() == before)
        if sys.platform == "linux":
            eventually(lambda: connections(home) == 0)
        assert claim(instance, "b")


def test_a_session_is_not_ended_under_what_is_granted_meanwhile(make_home, kind):
    """Between the look whether it is needed and its end, another thread is let in."""
    home = make_home(kind, lease_seconds=600)
    limit(home, 1)
    with home.instance() as instance:
        parts = instance.event_log_storage.lifeguard
        assert claim(instance, "a")
        session = parts.engine.session
        own = parts.engine._own
        own.held.clear()  # As if the grant had been committed, and not yet been noted.
        own._session._used_at = 0.0
        own._session.tidy()
        assert parts.engine.session is None
        assert [h.owners for h in _holdings(instance)] == [{session}]
        assert claim(instance, "a")
        assert parts.engine.session in _holdings(instance)[0].owners


def test_a_database_that_is_away_does_not_keep_an_instance_from_ending(
    make_home, kind, monkeypatch
):
    home = make_home(kind, lease_seconds=600)
    limit(home, 1)
    with home.instance() as instance:
        assert claim(instance, "a")
        engine = instance.event_log_storage.lifeguard.engine

        def away(*args, **kwargs):
            raise TryAgainError("the server restarts")

        monkeypatch.setattr(engine.store, "begin", away)
        instance.dispose()
        assert engine.session is None


def test_clients_of_one_process_share_a_session(make_home, kind, monkeypatch):
    home = make_home(kind)
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    limit(home, 5)
    with home.instance() as observer:
        with LifeguardClient.from_home() as one, one.slots("orders"):
            with LifeguardClient.from_home() as two, two.slots("orders"):
                assert len(sessions(observer)) == 1
                assert len(_holdings(observer)) == 2
            assert len(_holdings(observer)) == 1
        assert _holdings(observer) == []


def _holdings(instance):
    return list(instance.event_log_storage.lifeguard.engine.snapshot("orders").holdings)


def _waiting(instance):
    return list(instance.event_log_storage.lifeguard.engine.snapshot("orders").waiting)
