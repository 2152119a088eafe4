"""Limits until a time on real instances: real runs, Dagster's run queue, commands and findings."""

from __future__ import annotations

import json
import time
from contextlib import closing

import dagster as dg
import pytest
from click.testing import CliRunner
from homes import eventually, holders, limit, waiters
from test_queue_order import chosen, named, queue

from dagster_lifeguard.cli import main
from dagster_lifeguard.deployment.instance import InstanceDeployment
from dagster_lifeguard.deployment.open import open_deployment
from dagster_lifeguard.engine.rules.model import Demand, EntryKind
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
from dagster_lifeguard.engine.store.contract import TryAgainError
from dagster_lifeguard.errors import DeploymentError
from dagster_lifeguard.insight.pool_account import account_of
from dagster_lifeguard.inspections.alerts.conditions import Memory, look
from dagster_lifeguard.inspections.audit.deployment_audit import audit

ORDERS = Demand.of({"orders": 1})
HOUR = 3600.0


def soon(engine, seconds=0.5):
    return engine.store.now() + seconds


def lifeguard(home, monkeypatch, *arguments):
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    monkeypatch.setenv("COLUMNS", "200")
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def engine_of(make_home, kind):
    """A home whose pool ``orders`` has 1 slot, its instance, and the engine of that."""
    home = make_home(kind)
    limit(home)
    with home.instance() as instance:
        yield home, instance, instance.event_log_storage.lifeguard.engine


def test_a_step_starts_after_the_end_although_nobody_wakes_it(make_home, kind):
    """The process that paused the pool has ended; the step's run is the only one there is."""
    home = make_home(kind)
    limit(home)
    with home.instance() as instance:
        engine = instance.event_log_storage.lifeguard.engine
        until = soon(engine, 6.0)
        instance.event_log_storage.limit_until("orders", 0, until)
    run = home.materialize("held")
    home.go("held")
    assert run.wait() == 0, run.output()
    with home.instance() as instance:
        ledger = instance.event_log_storage.lifeguard.engine.store.ledger(pool="orders")
        (granted,) = (entry for entry in ledger if entry.kind is EntryKind.GRANTED)
        assert granted.at >= until
        assert instance.event_log_storage.get_concurrency_info("orders").slot_count == 1


def test_a_waiting_step_knows_the_end_and_explain_tells_it(make_home, kind, monkeypatch):
    home = make_home(kind)
    limit(home, 2)
    with home.instance() as instance:
        log = instance.event_log_storage
        log.limit_until("orders", 0, soon(log.lifeguard.engine, HOUR))
        run = home.materialize("held")
        home.go("held")
        ((run_id, step_key),) = eventually(lambda: waiters(instance))
        told = lifeguard(home, monkeypatch, "explain", f"{run_id}:{step_key}").output
        assert "0 until " in told, told
        assert ", then 2" in told
        until = soon(log.lifeguard.engine, 2.0)
        log.limit_until("orders", 0, until)
        assert run.wait() == 0, run.output()
        ledger = log.lifeguard.engine.store.ledger(pool="orders")
        (granted,) = (entry for entry in ledger if entry.kind is EntryKind.GRANTED)
        assert granted.at >= until


def test_dagster_is_told_the_limit_in_force(engine_of):
    _home, instance, engine = engine_of
    log = instance.event_log_storage

    def told():
        info = log.get_concurrency_info("orders")
        (pool,) = (found for found in log.get_pool_limits() if found.name == "orders")
        return info.slot_count, pool.limit, instance.get_concurrency_config().pool_config is None

    log.limit_until("orders", 3, soon(engine, HOUR))
    assert told()[:2] == (3, 3)
    log.limit_until("orders", 0, soon(engine))
    assert eventually(lambda: told()[:2] == (1, 1))


def test_what_dagsters_ui_sets_lasts_and_ends_a_temporary_limit(engine_of):
    _home, instance, engine = engine_of
    log = instance.event_log_storage
    log.limit_until("orders", 0, soon(engine, HOUR))
    log.set_concurrency_slots("orders", 4)
    assert engine.settings() == {"orders": PoolSettings(4)}
    log.limit_until("orders", 0, soon(engine, HOUR))
    log.delete_concurrency_limit("orders")
    assert engine.settings() == {}


def test_dagsters_tables_hold_the_lasting_limit(engine_of):
    """So nobody has to write them at the end, and the stock storage knows of nothing else."""
    _home, instance, engine = engine_of
    log = instance.event_log_storage
    log.limit_until("orders", 3, soon(engine, HOUR))
    assert log.lifeguard.stock_slots.unmatched() == ()
    import sqlalchemy as db

    with log.index_connection() as connection:
        limits = connection.execute(db.text('SELECT "limit" FROM concurrency_limits')).fetchall()
        slots = connection.execute(db.text("SELECT count(*) FROM concurrency_slots")).fetchall()
    assert ([tuple(row) for row in limits], [tuple(row) for row in slots]) == ([(1,)], [(1,)])


@pytest.mark.parametrize("granularity", ["op", "run"])
def test_dagsters_run_queue_goes_by_the_limit_in_force(make_home, kind, granularity):
    pools = {"granularity": granularity}
    home = make_home(kind, concurrency={"pools": pools, "runs": {"max_concurrent_runs": 9}})
    with home.instance() as instance:
        log = instance.event_log_storage
        engine = log.lifeguard.engine
        log.set_concurrency_slots("orders", 2)
        for name in "abcd":
            queue(instance, name, pool="orders")
        log.limit_until("orders", 0, soon(engine, HOUR))
        assert named(chosen(instance)) == []
        log.limit_until("orders", 3, soon(engine, HOUR))
        assert named(chosen(instance)) == ["a", "b", "c"]
        log.limit_until("orders", 0, soon(engine))
        assert eventually(lambda: named(chosen(instance)) == ["a", "b"])


def test_a_pool_without_a_limit_of_its_own_is_paused_for_a_while(make_home, kind):
    """Under granularity run, too, the run queue has to learn of the pool first."""
    pools = {"granularity": "run", "default_limit": 2}
    home = make_home(kind, concurrency={"pools": pools, "runs": {"max_concurrent_runs": 9}})
    with home.instance() as instance:
        log = instance.event_log_storage
        for name in "abc":
            queue(instance, name, pool="orders")
        log.limit_until("orders", 0, soon(log.lifeguard.engine, HOUR))
        assert named(chosen(instance)) == []
        log.limit_until("orders", 1, soon(log.lifeguard.engine, HOUR))
        assert named(chosen(instance)) == ["a"]
        log.limit_until("orders", 0, soon(log.lifeguard.engine))
        assert eventually(lambda: named(chosen(instance)) == ["a", "b"])


# ---- what is found -------------------------------------------------------------------------------


def test_the_time_above_the_old_limit_and_the_drain_are_no_findings(engine_of):
    _home, instance, engine = engine_of
    deployment = InstanceDeployment(instance, "it")
    began = time.time()
    engine.limit_until("orders", 3, soon(engine, HOUR))
    for run_id in "abc":
        assert engine.claim(run_id, "step", ORDERS).granted
    alerts, memory = look(deployment, Memory(), wait_seconds=HOUR, audited_seconds=0)
    assert "LifeguardPoolOverLimit" not in {alert.rule for alert in alerts}
    engine.limit_until("orders", 3, soon(engine))
    eventually(lambda: engine.snapshot("orders").settings.limit == 1)
    assert not engine.claim("d", "step", ORDERS).granted
    (state,) = deployment.pools(["orders"])
    assert (state.held, state.limit) == (3, 1)
    assert audit(deployment, since=began - 60.0, until=time.time()).finding_count == 0
    for memory_before in (
        memory,
        look(deployment, memory, wait_seconds=HOUR, audited_seconds=0)[1],
    ):
        alerts, _ = look(deployment, memory_before, wait_seconds=HOUR, audited_seconds=60.0)
        assert "LifeguardPoolOverLimit" not in {alert.rule for alert in alerts}


def test_a_limit_that_rose_and_fell_between_two_looks_is_no_alert(engine_of):
    _home, instance, engine = engine_of
    deployment = InstanceDeployment(instance, "it")
    assert engine.claim("a", "step", ORDERS).granted
    _, memory = look(deployment, Memory(), wait_seconds=HOUR, audited_seconds=0)
    assert memory.over["orders"] == (1, 0)
    engine.limit_until("orders", 3, soon(engine, HOUR))
    assert engine.claim("b", "step", ORDERS).granted
    engine.limit_until("orders", 3, soon(engine, 0.2))
    eventually(lambda: engine.snapshot("orders").settings.limit == 1)
    alerts, memory = look(deployment, memory, wait_seconds=HOUR, audited_seconds=0)
    assert [alert.rule for alert in alerts] == []
    assert memory.over["orders"] == (1, 1)


def test_a_step_above_the_limit_after_the_end_is_found(engine_of):
    """The audit knows when the limit fell: what a broken engine grants then is too much."""
    _home, instance, engine = engine_of
    deployment = InstanceDeployment(instance, "it")
    until = soon(engine)
    engine.limit_until("orders", 2, until)
    assert engine.claim("a", "step", ORDERS).granted
    eventually(lambda: engine.snapshot("orders").settings.limit == 1)
    engine.change_pool("orders", limit=2)
    assert engine.claim("b", "step", ORDERS).granted
    found = audit(deployment, since=until - 60.0, until=time.time()).limits
    assert found.excesses == ()
    # Without the row that tells of the higher limit, as if it had never been set.
    where = "kind = 'limit' AND \"limit\" = 2 AND detail IS NULL"
    change(engine, f"DELETE FROM lifeguard_ledger WHERE {where}")
    (excess,) = audit(deployment, since=until - 60.0, until=time.time()).limits.excesses
    assert (excess.limit, excess.held) == (1, 2)


def change(engine, statement):
    store = engine.store
    if hasattr(store, "path"):
        import sqlite3

        with closing(sqlite3.connect(store.path, timeout=60)) as connection:
            connection.execute(statement)
            connection.commit()
        return
    from dagster_lifeguard.engine.store.postgres.connection import Statement

    with store._using():
        try:
            store.connection.execute([Statement(statement, ())])
        except TryAgainError as error:
            raise AssertionError(statement) from error


def test_the_history_of_the_limit_has_its_end(engine_of):
    _home, instance, engine = engine_of
    deployment = InstanceDeployment(instance, "it")
    until = soon(engine)
    engine.limit_until("orders", 3, until)
    eventually(lambda: engine.snapshot("orders").settings.limit == 1)
    account = account_of(deployment, deployment.settings(), "orders", 0.0)
    told = [(change.limit, change.until) for change in account.changes]
    assert told == [(1, None), (3, until), (1, None)]
    assert account.changes[0].at == until


# ---- commands ------------------------------------------------------------------------------------


def test_the_command_sets_a_limit_until_a_time_and_ends_it(engine_of, monkeypatch):
    home, _instance, engine = engine_of
    assert engine.claim("a", "step", ORDERS).granted
    assert not engine.claim("b", "step", ORDERS).granted
    shown = lifeguard(home, monkeypatch, "limit", "orders", "3", "--until", "2h", "--yes")
    assert shown.exit_code == 0, shown.output
    assert "orders: limit 1 becomes 3 until " in shown.output
    assert ", then 1." in shown.output
    assert "1 of 1 waiting step will start: b:step" in shown.output
    settings = engine.settings()["orders"]
    assert (settings.limit, settings.lasting_limit) == (3, 1)
    assert settings.fall_back.at == pytest.approx(time.time() + 7200.0, abs=600.0)

    for command in (("status", "orders"), ("status",)):
        told = lifeguard(home, monkeypatch, *command).output
        assert "until " in told, told
    told = json.loads(lifeguard(home, monkeypatch, "status", "orders", "--json").output)
    assert told["summary"]["fall_back"] == {"at": settings.fall_back.at, "limit": 1}

    back = lifeguard(home, monkeypatch, "limit", "orders", "--back", "--yes", "--json")
    told = json.loads(back.output)
    assert (told["before"], told["limit"], told["until"]) == (3, 1, None)
    assert engine.settings() == {"orders": PoolSettings(1)}
    back = lifeguard(home, monkeypatch, "limit", "orders", "--back", "--yes")
    assert (back.exit_code, back.output) == (0, "orders has no temporary limit.\n")


def test_the_command_asks_first_and_may_set_a_limit_that_lasts(engine_of, monkeypatch):
    home, _instance, engine = engine_of
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    refused = CliRunner().invoke(main, ["limit", "orders", "5"], input="n\n")
    assert "Nothing was changed" in refused.output
    assert engine.settings() == {"orders": PoolSettings(1)}
    assert lifeguard(home, monkeypatch, "limit", "orders", "5", "--yes").exit_code == 0
    assert engine.settings() == {"orders": PoolSettings(5)}
    same = lifeguard(home, monkeypatch, "limit", "orders", "5", "--yes")
    assert same.output == "orders has this limit already.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("orders",), "Give a limit, or --back."),
        (("orders", "3", "--back"), "Give a limit, or --back."),
        (("orders", "--back", "--until", "2h"), "leave out --until"),
        (("orders", "3", "--json"), "say --yes with --json"),
        (("orders", "3", "--until", "tomorrow"), "is no end of a limit"),
        (("orders", "3", "--until", "2001-01-01 06:00"), "is over already"),
        (("orders", "1001", "--until", "2h", "--yes"), "out of bounds"),
    ],
)
def test_the_command_refuses_what_it_cannot_set(engine_of, monkeypatch, arguments, message):
    home, _instance, engine = engine_of
    refused = lifeguard(home, monkeypatch, "limit", *arguments)
    assert refused.exit_code == 2
    assert message in refused.output
    assert engine.settings() == {"orders": PoolSettings(1)}


def test_on_dagsters_own_storage_it_is_refused(make_home, kind, monkeypatch):
    home = make_home(kind, stock=True)
    limit(home)
    refused = lifeguard(home, monkeypatch, "limit", "orders", "3", "--until", "2h", "--yes")
    assert refused.exit_code == 2
    assert refused.output.startswith("Error: A limit until a time needs the engine, and is set")
    with closing(open_deployment()) as deployment:
        with pytest.raises(DeploymentError, match="needs the engine"):
            deployment.set_limit("orders", 3, time.time() + HOUR)
        assert lifeguard(home, monkeypatch, "limit", "orders", "3", "--yes").exit_code == 0
        assert deployment.pool_settings() == {"orders": PoolSettings(3)}


def test_plan_shows_a_temporary_limit_and_apply_leaves_it_alone(engine_of, monkeypatch, tmp_path):
    home, _instance, engine = engine_of
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "lifeguard.yaml"
    file.write_text("pools: {orders: 1}\n")
    until = soon(engine, HOUR)
    engine.limit_until("orders", 12, until)

    shown = lifeguard(home, monkeypatch, "plan", "--check")
    assert shown.exit_code == 0, shown.output
    assert "1, temporarily 12 until " in shown.output
    assert "as declared" in shown.output
    (row,) = json.loads(lifeguard(home, monkeypatch, "plan", "--json").output)["pools"]
    assert row["temporary"] == {"limit": 12, "until": until, "then": 1}
    assert row["action"] == "none"
    assert lifeguard(home, monkeypatch, "apply", "--yes").exit_code == 0
    assert engine.settings()["orders"].limit == 12

    assert engine.claim("a", "step", Demand.of({"orders": 12})).granted
    file.write_text("pools: {orders: 4}\n")
    shown = lifeguard(home, monkeypatch, "plan", "--check")
    assert shown.exit_code == 1
    assert "set 4" in shown.output
    assert "The new limit is in force once the temporary limit ends: orders." in shown.output
    assert "stay held" not in shown.output  # Nothing drains before the end.
    assert lifeguard(home, monkeypatch, "apply", "--yes").exit_code == 0
    settings = engine.settings()["orders"]
    assert (settings.limit, settings.lasting_limit, settings.fall_back.at) == (12, 4, until)
    assert lifeguard(home, monkeypatch, "plan", "--check").exit_code == 0

    assert lifeguard(home, monkeypatch, "pull", "--yes").exit_code == 0
    assert file.read_text() == "pools: {orders: 4}\n"


def test_what_waits_and_holds_is_told_with_the_limit_in_force(engine_of):
    _home, instance, engine = engine_of
    engine.limit_until("orders", 0, soon(engine, HOUR))
    assert not engine.claim("a", "step", ORDERS).granted
    assert (holders(instance), waiters(instance)) == ([], [("a", "step")])
    deployment = InstanceDeployment(instance, "it")
    (state,) = deployment.pools(["orders"])
    assert (state.limit, state.settings.lasting_limit, state.from_default) == (0, 1, False)
    assert isinstance(instance, dg.DagsterInstance)


def test_the_doctor_tells_when_a_pause_ends(make_home, kind, monkeypatch):
    home = make_home(kind)
    limit(home, 2)
    with home.instance() as instance:
        log = instance.event_log_storage
        log.limit_until("orders", 0, soon(log.lifeguard.engine, HOUR))
        run = home.materialize("held")
        home.go("held")
        eventually(lambda: waiters(instance))
        told = json.loads(lifeguard(home, monkeypatch, "doctor", "--json").output)
        (paused,) = (found for found in told["findings"] if found["code"] == "limit-zero")
        assert paused["message"].startswith("The limit of orders is 0 until ")
        assert paused["commands"] == ["lifeguard limit orders --back"]
        back = lifeguard(home, monkeypatch, "limit", "orders", "--back", "--yes")
        assert back.exit_code == 0
        assert run.wait() == 0, run.output()
