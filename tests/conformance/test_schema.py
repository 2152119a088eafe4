"""The tables, fresh and migrated; and what the databases themselves refuse."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import psycopg2
import pytest
import sqlalchemy as db

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.rules.model import Demand, Holding, TicketKey
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
from dagster_lifeguard.engine.store.contract import Changes, Scope
from dagster_lifeguard.engine.store.postgres.store import connector
from dagster_lifeguard.engine.store.sql import newest_version
from dagster_lifeguard.engine.store.sqlite.store import SqliteStore
from dagster_lifeguard.errors import SchemaError, StoreUnavailableError
from places import new_postgres, new_sqlite


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
    assert later.store.migrate() == 2
    assert shared_place.sql("SELECT note FROM lifeguard_pools") == [("made",)]
    assert later.claim("b", "step", Demand.of({"orders": 1})).fence == first.fence + 1
    assert later.settings() == {"orders": PoolSettings(2)}
    engine.close()
    later.close()


def test_tables_of_a_newer_version_are_refused(shared_place):
    shared_place.store().migrate()
    shared_place.sql("UPDATE lifeguard_schema SET version = 99")

    with pytest.raises(SchemaError, match="99"):
        shared_place.store().migrate()


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
