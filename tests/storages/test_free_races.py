"""A process that comes back while its slots are being freed: it keeps them, or is told."""

from __future__ import annotations

import signal
from contextlib import closing

import pytest
import sqlalchemy as db
from click.testing import CliRunner
from homes import eventually, holders, kill, limit

from dagster_lifeguard.cli import main
from dagster_lifeguard.deployment.open import open_deployment
from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.rules.model import Demand
from dagster_lifeguard.storage.switch import store_of
from dagster_lifeguard.web.actions import Actions
from dagster_lifeguard.web.changes import ChangeLog
from dagster_lifeguard.web.errors import RequestRefusedError

LEASE_SECONDS = 3


@pytest.fixture
def home(make_home, kind, monkeypatch):
    made = make_home(kind, lease_seconds=LEASE_SECONDS)
    monkeypatch.setenv("DAGSTER_HOME", str(made.path))
    limit(made)
    return made


@pytest.fixture
def silent(home):
    """A run whose process is stopped, and whose lease is over."""
    process = home.materialize("held")
    ((run_id, pid),) = home.started().items()
    kill(pid, signal.SIGSTOP)
    with home.instance() as instance:
        eventually(lambda: not holders(instance))
    return process, run_id, pid


def answer(monkeypatch, person) -> None:
    """What a person does while the question is on the screen; then the answer is yes."""
    monkeypatch.setattr("dagster_lifeguard.cli.free.consented", lambda *_, **__: person() or True)


def test_a_holder_that_comes_back_while_the_question_is_asked_keeps_its_slot(
    home, silent, monkeypatch
):
    process, run_id, pid = silent
    with home.instance() as instance:

        def come_back() -> None:
            kill(pid, signal.SIGCONT)
            eventually(lambda: holders(instance))

        answer(monkeypatch, come_back)
        result = CliRunner().invoke(main, ["free", "orders"])

        assert (result.exit_code, "Kept 1 step" in result.output) == (1, True), result.output
        first, second = (part for part in result.output.split("run ") if part[:8] == run_id[:8])
        assert ("not alive" in first, "not alive" in second) == (True, False)
        assert holders(instance) == [(run_id, "held")]
        home.go()
        assert process.wait() == 0, process.output()


def test_a_holder_that_comes_back_after_it_was_freed_is_told(home, silent, monkeypatch):
    process, run_id, pid = silent
    answer(monkeypatch, lambda: None)
    result = CliRunner().invoke(main, ["free", run_id])
    assert (result.exit_code, "Freed 1 step" in result.output) == (0, True), result.output
    with home.instance() as instance:
        found = instance.event_log_storage.lifeguard.engine
        assert found.ticket(run_id, "held") is None

        kill(pid, signal.SIGCONT)

        assert process.wait() != 0
        assert "was silent for longer than its lease" in process.output()


class TestInTheMomentOfFreeing:
    """A session whose lease is over is extended between the judgement and the transaction."""

    @pytest.fixture
    def deployment(self, home):
        with closing(open_deployment()) as found:
            yield found

    @pytest.fixture
    def late(self, deployment):
        log = deployment.instance.event_log_storage
        engine = Engine(store_of(log))
        engine.claim("run1", "step", Demand.of({"orders": 1}))
        engine.leave()  # It is extended by hand from here on.
        (session,) = log.lifeguard.engine.ticket("run1", "step").owners
        with log.index_transaction() as connection:
            connection.execute(db.text("UPDATE lifeguard_sessions SET lease_until = 1"))
        assert log.lifeguard.engine.ticket("run1", "step").is_over

        def come_back(point: str) -> None:
            if point == "begin":
                assert engine.store.heartbeat(session, 30.0)

        log.lifeguard.engine._transactions._passing = come_back
        yield engine
        engine.store.close()

    def test_the_deployment_keeps_it(self, deployment, late):
        judged = deployment.free("run1", "step")
        assert (judged.alive, judged.is_safe) == (True, False)
        assert deployment.pools()[0].held == 1

    def test_the_page_says_so(self, deployment, late, tmp_path):
        actions = Actions(deployment, ChangeLog(tmp_path / "changes.jsonl"))
        assert actions.show_free({"subject": "orders"}).safe == 1
        with pytest.raises(RequestRefusedError, match="a process came back"):
            actions.free({"subject": "orders"}, None)
        assert deployment.pools()[0].held == 1

    def test_what_is_forced_is_freed_all_the_same(self, deployment, late):
        deployment.free("run1", "step", force=True)
        assert deployment.pools()[0].held == 0
