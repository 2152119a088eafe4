"""The tables, fresh and migrated; and what the databases themselves refuse."""

from __future__ import annotations

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg2
import pytest
import sqlalchemy as db
from homes import eventually

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.rules.model import Demand, Holding, TicketKey
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.engine.store.contract import Changes, Scope, TryAgainError
from dagster_lifeguard.engine.store.postgres.connection import connector
from dagster_lifeguard.engine.store.sql import newest_version
from dagster_lifeguard.engine.store.sqlite.store import SqliteStore
from dagster_lifeguard.errors import OldProcessesError, SchemaError, StoreUnavailableError
from places import age_session, new_postgres, new_sqlite
from versions import FIRST, SECOND


def test_migrating_again_changes_nothing(shared_place):
    store = shared_place.store()
    newest = newest_version(shared_place.kind)
    assert store.migrate() == store.migrate() == newest
    assert shared_place.sql("SELECT version FROM lifeguard_schema") == [(newest,)]
    store.close()


def test_both_databases_are_of_the_same_version():
    assert newest_version("sqlite") == newest_version("postgres")


def test_older_tables_are_brought_up_to_date_with_what_is_in_them(shared_place, second_version):
    engine = Engine(shared_place.store())
    engine.store.migrate()
    engine.change_pool("orders", limit=2)
    first = engine.claim("a", "step", Demand.of({"orders": 1}))
    second_version()

    later = Engine(shared_place.store())
    assert later.store.migrate() == SECOND
    assert shared_place.sql("SELECT note FROM lifeguard_pools") == [("made",)]
    assert shared_place.sql("SELECT version, usable_from FROM lifeguard_schema") == [(2, 1)]
    assert later.claim("b", "step", Demand.of({"orders": 1})).fence == first.fence + 1
    assert later.settings() == {"orders": PoolSettings(2)}
    engine.close()
    later.close()


def test_an_older_package_uses_newer_tables_that_say_that_it_may(shared_place, second_version):
    """Two processes that began before, one that begins after; on an open connection and a new one."""
    before, silent = Engine(shared_place.store()), Engine(shared_place.store())
    for engine in (before, silent):
        engine.store.migrate()
    before.change_pool("orders", limit=2, rate=Rate(1000, 1), fair_by="team")
    assert before.claim("a", "step", Demand.of({"orders": 1})).granted
    with second_version.in_force():
        later = Engine(shared_place.store())
        assert later.store.migrate() == SECOND
        assert later.claim("b", "step", Demand.of({"orders": 1})).granted

    after = Engine(shared_place.store())
    assert after.store.migrate() == SECOND
    assert shared_place.sql("SELECT version, usable_from FROM lifeguard_schema") == [(2, 1)]
    for engine, run_id in ((before, "c"), (silent, "d"), (after, "e")):
        assert not engine.claim(run_id, "step", Demand.of({"orders": 1})).granted
        assert engine.claim(run_id, "other", Demand.of({"new": 1})).granted
    assert {h.key.run_id for h in after.snapshot("orders").holdings} == {"a", "b"}
    assert before.adopt("b", "step") is not None
    before.release("a", "step")
    assert before.claim("c", "step", Demand.of({"orders": 1})).granted
    later.release("b", "step")
    assert [after.claim(run, "step", Demand.of({"orders": 1})).granted for run in "de"] == [
        True,
        False,
    ]
    assert set(shared_place.sql("SELECT tables FROM lifeguard_sessions")) == {(FIRST,), (SECOND,)}
    for engine in (before, silent, later, after):
        engine.close()


def test_a_package_that_newer_tables_are_not_for_is_refused(shared_place, second_version):
    """One that begins after them, and one that was there before and had no session meanwhile."""
    before = Engine(shared_place.store())
    before.store.migrate()
    before.change_pool("orders", limit=1)
    with second_version.in_force(for_all=False):
        Engine(shared_place.store()).store.migrate()
    for engine in (before, Engine(shared_place.store())):
        with pytest.raises(SchemaError, match="for packages that know version 2 or later"):
            engine.store.migrate()
    with pytest.raises(SchemaError, match="for packages that know version 2 or later"):
        before.claim("a", "step", Demand.of({"orders": 1}))
    assert shared_place.sql("SELECT count(*) FROM lifeguard_sessions") == [(0,)]


def test_tables_stay_as_they_are_while_a_process_lives_that_could_not_use_newer_ones(
    shared_place, second_version
):
    old, dead = Engine(shared_place.store()), Engine(shared_place.store())
    for engine in (old, dead):
        engine.store.migrate()
    old.change_pool("orders", limit=2)
    for number, engine in enumerate((old, dead)):
        assert engine.claim(str(number), "step", Demand.of({"orders": 1})).granted
    with second_version.in_force(for_all=False):
        later = Engine(shared_place.store())
        with pytest.raises(OldProcessesError, match=str(os.getpid())):
            later.store.migrate()
        assert shared_place.sql("SELECT version FROM lifeguard_schema") == [(FIRST,)]
        assert old.claim("2", "step", Demand.of({"other": 1})).granted
        old.close()
        age_session(shared_place, dead.session)  # And nobody has reaped it yet.
        assert later.store.migrate() == SECOND
        # Whoever was only silent does not come back.
        assert not dead.store.heartbeat(dead.session, 30.0)
        assert later.claim("3", "step", Demand.of({"orders": 2})).granted
    later.close()


def test_a_session_that_is_opened_during_a_change_of_the_tables_sees_it(postgres_url):
    """It waits for the lock that such a change holds, and looks only after it."""
    place = new_postgres(postgres_url)
    engine = Engine(place.store())
    engine.store.migrate()
    waiting = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 1734440037 "
        "AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with closing(psycopg2.connect(place.url)) as change, ThreadPoolExecutor() as threads:
        cursor = change.cursor()
        cursor.execute("SELECT pg_advisory_xact_lock(1734440037)")
        claim = threads.submit(engine.claim, "a", "step", Demand.of({"orders": 1}))
        eventually(lambda: place.sql(waiting) == [(1,)])
        cursor.execute("UPDATE lifeguard_schema SET version = 2, usable_from = 2")
        change.commit()
        with pytest.raises(SchemaError, match="for packages that know version 2 or later"):
            claim.result()
    assert place.sql("SELECT count(*) FROM lifeguard_sessions") == [(0,)]


def test_a_dump_that_reads_for_long_keeps_a_new_version_out_and_nobody_else(
    postgres_url, second_version
):
    place = new_postgres(postgres_url)
    engine = Engine(place.store())
    engine.store.migrate()
    assert engine.claim("a", "step", Demand.of({"orders": 1})).granted
    with closing(psycopg2.connect(place.url)) as dump, second_version.in_force():
        dump.cursor().execute("LOCK TABLE lifeguard_pools IN ACCESS SHARE MODE")
        with pytest.raises(TryAgainError, match="lock timeout"):
            place.store().migrate()
        assert engine.claim("b", "step", Demand.of({"orders": 1})).granted
        dump.rollback()
        assert place.store().migrate() == SECOND
    engine.close()


def test_two_winners_of_one_slot_are_an_error_and_nothing_is_written(place):
    store = place.store()
    store.migrate()
    engine = Engine(store)
    engine.change_pool("orders", limit=1)
    engine.claim("a", "step", Demand.of({"orders": 1}))
    before = store.snapshots(["orders"]), store.ledger()

    stolen = Holding(TicketKey("b", "step"), {"orders": (1,)}, fence=99)
    with (
        store.begin(Scope(("orders",), session=engine.session)) as transaction,
        pytest.raises((sqlite3.IntegrityError, psycopg2.IntegrityError, AssertionError)),
    ):
        transaction.commit(Changes(session=engine.session, grant=stolen))

    assert (store.snapshots(["orders"]), store.ledger()) == before
    engine.close()


def test_a_transaction_that_is_left_changes_nothing(place):
    store = place.store()
    store.migrate()
    engine = Engine(store)
    engine.change_pool("orders", limit=1)
    before = store.snapshots(["orders"]), store.ledger()

    with store.begin(Scope(("orders", "new"))) as transaction:
        assert set(transaction.view.pools) == {"orders", "new"}
    with pytest.raises(ZeroDivisionError), store.begin(Scope(("orders",))):
        1 / 0  # noqa: B018

    assert (store.snapshots(["orders"]), store.ledger()) == before
    # And it gave its locks back.
    assert engine.claim("a", "step", Demand.of({"orders": 1})).granted
    engine.close()


def test_a_database_that_cannot_be_written_grants_nothing_and_says_so(tmp_path):
    place = new_sqlite(tmp_path)
    engine = Engine(place.store())
    with pytest.raises(StoreUnavailableError, match=r"lifeguard_"):
        engine.claim("a", "step", Demand.of({"orders": 1}))
    missing = Engine(SqliteStore(tmp_path / "no" / "such" / "folder.db"))
    with pytest.raises(StoreUnavailableError, match=r"folder\.db"):
        missing.claim("a", "step", Demand.of({"orders": 1}))


def test_a_read_only_postgres_grants_nothing_and_says_so(postgres_url):
    place = new_postgres(postgres_url)
    place.store().migrate()
    url = place.url + "%20-cdefault_transaction_read_only%3Don"
    engine = Engine(type(place)(url).store())
    with pytest.raises(StoreUnavailableError, match=r"read-only"):
        engine.claim("a", "step", Demand.of({"orders": 1}))
    with pytest.raises(StoreUnavailableError):
        Engine(new_postgres(postgres_url).store()).settings()


def test_a_table_that_is_gone_is_named_by_every_new_connection_that_tries_again(postgres_url):
    place = new_postgres(postgres_url)
    engine = Engine(place.store())
    engine.store.migrate()
    engine.change_pool("orders", limit=1)
    place.sql("DROP TABLE lifeguard_ledger")
    engine.store.close()
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match=r"lifeguard_ledger"):
            engine.claim("a", "step", Demand.of({"orders": 1}))


def test_a_silent_network_is_not_waited_for_longer_than_20_seconds(postgres_url):
    def parameters(url):
        with closing(connector(url)()) as connection:
            return connection.info.dsn_parameters

    told = parameters(postgres_url)
    seconds = [int(told[f"keepalives_{name}"]) for name in ("idle", "interval", "count")]
    assert seconds[0] + seconds[1] * seconds[2] == 20
    assert told["tcp_user_timeout"] == "20000"
    assert told["connect_timeout"] == "10"
    asked = db.make_url(postgres_url).update_query_dict({"tcp_user_timeout": "7"})
    assert parameters(asked.render_as_string(hide_password=False))["tcp_user_timeout"] == "7"
