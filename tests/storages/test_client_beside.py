"""An engine on a database of its own, beside a Dagster whose storage is not touched, as in Dagster+."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from homes import eventually

from dagster_lifeguard import LifeguardClient
from dagster_lifeguard.cli import main
from dagster_lifeguard.errors import ConfigError, SlotsTimeoutError, StoreUnavailableError

BESIDE = Path(__file__).with_name("beside.py")


def url_of(home) -> str:
    """The database of a home, as a user writes it."""
    return home.stock["postgres"]["postgres_url"].replace("+psycopg2", "")


def test_steps_of_several_processes_share_a_pool_that_their_dagster_does_not_know(make_home):
    dagster, database = make_home("sqlite", stock=True), make_home("postgres")
    url = url_of(database)
    with dagster.instance():
        pass  # Dagster cannot make its files in two processes at once.
    with LifeguardClient.from_url(url, "script", default_limit=1) as client:
        with client.slots("stripe_api"):
            runs = [dagster.materialize("asks", BESIDE, LIFEGUARD_DATABASE=url) for _ in range(2)]
            with database.instance() as instance:
                engine = instance.event_log_storage.lifeguard.engine
                waiting = eventually(lambda: _waiting(engine, 2))
                assert dagster.begun("asks") == {}
        (first,) = dagster.started(asset="asks")
        assert first in {ticket.key.run_id for ticket in waiting}
        # Its own Dagster knows nothing of it, and the database tells everything.
        told = CliRunner(env={"DAGSTER_HOME": str(database.path)}).invoke(
            main, ["engine", "status"]
        )
        assert f"stripe_api: 1 slot, run {first} step asks" in told.output
        told = CliRunner(env={"DAGSTER_HOME": str(dagster.path)}).invoke(main, ["engine", "status"])
        assert "(not the engine)" in told.output
        assert "holders      0" in told.output
        with pytest.raises(SlotsTimeoutError), client.slots("stripe_api", timeout=0):
            pass
        assert len(dagster.begun("asks")) == 1
        dagster.go("asks")
        assert [run.wait() for run in runs] == [0, 0], [run.output() for run in runs]
        assert len(dagster.begun("asks")) == 2
        with client.slots("stripe_api", timeout=60) as held:
            assert held.fence == 4


def _waiting(engine, count):
    found = engine.snapshot("stripe_api").waiting
    return found if len(found) == count else ()


@pytest.mark.parametrize("url", ["sqlite:///x", "mysql://u:secret@h/d", "secret", ""])
def test_what_is_no_url_of_postgresql_is_refused_without_telling_it(url):
    with pytest.raises(ConfigError, match="no URL of a PostgreSQL database") as told:
        LifeguardClient.from_url(url)
    assert "secret" not in str(told.value)


def test_a_database_that_does_not_answer_is_told(make_home):
    url = url_of(make_home("postgres"))
    head, _, tail = url.rpartition("/")
    missing = f"{head}/no_such_database{tail[tail.index('?') :]}"
    with pytest.raises(StoreUnavailableError, match="did not answer"):
        LifeguardClient.from_url(missing)
