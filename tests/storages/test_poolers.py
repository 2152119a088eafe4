"""PgBouncer between Dagster and PostgreSQL: what works through it, what is refused, what leaks."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing

import psycopg2
import pytest
import sqlalchemy
from click.testing import CliRunner
from homes import Home, eventually, limit, waiters

from dagster_lifeguard.cli import main
from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.model import Demand
from dagster_lifeguard.engine.store.postgres import pooler as postgres_pooler
from dagster_lifeguard.engine.store.postgres.connection import connector
from dagster_lifeguard.engine.store.postgres.store import PostgresStore
from dagster_lifeguard.errors import ConfigError, PoolerError
from poolers import pooler

ORDERS = Demand.of({"orders": 1})
PATIENT = EngineOptions(look_again_seconds=600, abandon_seconds=6000)
"""Only a wake-up makes a waiter look again."""

OURS = ("enable_seqscan", "lock_timeout", "plan_cache_mode", "jit", "client_min_messages")
CLIENTS = 8


def settings(url: str) -> list[str]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True  # A transaction is refused in statement mode.
        return _settings(cursor)


def settings_of(url: str) -> list[list[str]]:
    """The settings that several clients meet at once."""
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(psycopg2.connect(url))) for _ in range(CLIENTS)]
        return [_settings(client.cursor()) for client in clients]


def assert_nothing_leaked(home: Home, pooled: str, server: str) -> None:
    """Clients of the pooler, more than used it at once before, meet the server's own settings."""
    expected = settings(in_database_of(home, server))
    assert settings_of(pooled) == [expected] * CLIENTS


def _settings(cursor) -> list[str]:
    cursor.execute(f"SELECT {','.join(f'current_setting({name!r})' for name in OURS)}")
    return list(cursor.fetchone())


def in_database_of(home: Home, url: str) -> str:
    """The database of a home by another way."""
    ((_, config),) = home.stock.items()
    name = sqlalchemy.make_url(config["postgres_url"]).database
    return sqlalchemy.make_url(url).set(database=name).render_as_string(hide_password=False)


def give_direct_url(home: Home, url: str) -> None:
    storage = home.storage()
    storage["custom"]["config"]["lifeguard"]["direct_url"] = url
    home.settings["storage"] = storage
    home.write()


def take_turns(home: Home) -> None:
    """Two runs want the one slot; the second is let in after the first, and both end well."""
    limit(home)
    first, second = home.materialize("held"), home.materialize("held")
    home.started(1)
    with home.instance() as instance:
        eventually(lambda: len(waiters(instance)) == 1)
    assert len(home.begun()) == 1
    home.go()
    assert first.wait() == 0, first.output()
    assert second.wait() == 0, second.output()


def test_runs_take_turns_through_a_pooler_in_session_mode(make_home, postgres_url):
    with pooler(postgres_url, "session", 40) as url:
        take_turns(make_home("postgres", server=url))


def test_a_waiter_is_woken_through_a_pooler_in_session_mode(make_home, postgres_url):
    with pooler(postgres_url, "session", 20) as url:
        home = make_home("postgres", server=url)
        with home.instance() as instance:
            instance.event_log_storage.lifeguard.engine.change_pool("orders", limit=1)
        pooled = in_database_of(home, url)
        holds, waits = (Engine(PostgresStore(connector(pooled)), PATIENT) for _ in range(2))
        assert holds.claim("holds", "step", ORDERS).granted
        assert not waits.claim("waits", "step", ORDERS).granted
        holds.release("holds", "step")
        assert waits.wait("waits", "step", 300)
        assert waits.claim("waits", "step", ORDERS).granted
        holds.close()
        waits.close()
        assert_nothing_leaked(home, pooled, postgres_url)


def test_runs_take_turns_by_the_direct_url_beside_a_pooler(make_home, postgres_url):
    """Dagster's own connections go through the pooler, and meet nothing of the engine's."""
    with pooler(postgres_url, "transaction", 12) as url:
        home = make_home("postgres", server=url)
        give_direct_url(home, in_database_of(home, postgres_url))
        take_turns(home)
        assert_nothing_leaked(home, in_database_of(home, url), postgres_url)
        doctor = CliRunner(env={"DAGSTER_HOME": str(home.path)}).invoke(main, ["doctor", "--json"])
        assert "engine-connection" not in {f["code"] for f in json.loads(doctor.output)["findings"]}


@pytest.mark.parametrize("seen", ["one session for two", "several for one", "no wake-up"])
def test_a_pooler_in_transaction_mode_is_refused(make_home, postgres_url, monkeypatch, seen):
    """At the first claim and by the doctor, by whatever it is told from one that may be used."""
    if seen == "no wake-up":
        monkeypatch.setattr(postgres_pooler, "_ROUNDS", 0)
        monkeypatch.setattr(postgres_pooler, "_WAKE_UP_SECONDS", 0.5)
    with pooler(postgres_url, "transaction", 12, by_turns=seen == "several for one") as url:
        home = make_home("postgres", server=url)
        pooled = in_database_of(home, url)
        settings_of(pooled)  # The pooler has idle sessions from now on.
        with home.instance() as instance, pytest.raises(PoolerError) as refused:
            instance.event_log_storage.claim_concurrency_slot("orders", "run", "step")
        assert "direct_url" in refused.value.remedy
        assert_nothing_leaked(home, pooled, postgres_url)
        doctor = CliRunner(env={"DAGSTER_HOME": str(home.path)}).invoke(main, ["doctor", "--json"])
        told = [
            f for f in json.loads(doctor.output)["findings"] if f["code"] == "engine-connection"
        ]
        assert [(f["message"], f["remedy"]) for f in told] == [
            (refused.value.message, refused.value.remedy)
        ]


def test_a_pooler_in_statement_mode_is_refused(postgres_url):
    """Dagster itself begins transactions there, and is refused; so are scripts."""
    with pooler(postgres_url, "statement", 12) as url:
        store = PostgresStore(connector(url))
        for _ in range(2):  # And again.
            with pytest.raises(PoolerError):
                store.settings()
        assert settings(url) == settings(postgres_url)
        with pytest.raises(psycopg2.OperationalError), closing(psycopg2.connect(url)) as client:
            client.cursor().execute("SELECT 1")  # As Dagster does, after BEGIN.


def test_the_engine_is_not_enabled_behind_such_a_pooler(make_home, postgres_url):
    with pooler(postgres_url, "transaction", 12) as url:
        home = make_home("postgres", server=url, stock=True)
        before = (home.path / "dagster.yaml").read_text()
        enable = CliRunner(env={"DAGSTER_HOME": str(home.path)}).invoke(
            main, ["engine", "enable", "--yes"]
        )
        assert enable.exit_code == 2, enable.output
        assert "direct_url" in enable.output
        assert (home.path / "dagster.yaml").read_text() == before


def test_a_direct_url_to_another_database_is_refused(make_home, postgres_url):
    home = make_home("postgres")
    give_direct_url(home, postgres_url)
    with home.instance() as instance, pytest.raises(ConfigError, match="another database"):
        instance.event_log_storage.claim_concurrency_slot("orders", "run", "step")
