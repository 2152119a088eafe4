"""Run workers and steps that are killed or stopped: who has the slot then, and from when on."""

from __future__ import annotations

import json
import os
import time

import pytest
from click.testing import CliRunner
from homes import eventually, holders, kill, limit, owners, stopped, waiters

from dagster_lifeguard.cli import main
from dagster_lifeguard.deployment import history
from dagster_lifeguard.engine.rules.model import EntryKind

LEASE_SECONDS = 3
APART = ["multiprocess", "step_delegating"]
"""The executors whose steps have processes of their own."""


@pytest.mark.parametrize("executor", APART)
def test_a_step_keeps_its_slot_when_only_its_run_worker_is_killed(make_home, kind, executor):
    home = make_home(kind, lease_seconds=LEASE_SECONDS)
    limit(home)
    first = home.materialize("held", EXECUTOR=executor)
    ((run_id, step_pid),) = home.started().items()
    with home.instance() as instance:
        eventually(lambda: len(owners(instance, run_id)) == 2)
        kill(first.popen.pid)
        first.wait()
        next_one = home.materialize("second")
        # Reaped: the step's own process is the only owner, and the pool is as full as before.
        eventually(lambda: len(owners(instance, run_id)) == 1)
        eventually(lambda: waiters(instance))
        os.kill(step_pid, 0)
        assert holders(instance) == [(run_id, "held")]
        assert home.begun("second") == {}
        home.go("held")
        home.go("second")
        assert next_one.wait() == 0, next_one.output()
        runs = history.read_runs(instance)
        assert [len(run.steps) for run in runs] == [1, 1]
        assert runs[0].steps[0].outcome is history.Outcome.SUCCESS
        assert runs[0].steps[0].ended <= runs[1].steps[0].started


@pytest.mark.parametrize("executor", APART)
def test_a_slot_is_free_when_worker_and_step_are_killed(make_home, kind, executor):
    home = make_home(kind, lease_seconds=LEASE_SECONDS)
    limit(home)
    first = home.materialize("held", EXECUTOR=executor)
    ((run_id, step_pid),) = home.started().items()
    with home.instance() as instance:
        eventually(lambda: len(owners(instance, run_id)) == 2)
        successor = home.materialize("second", EXECUTOR=executor)
        ((next_id, _),) = eventually(lambda: waiters(instance))
        kill(first.popen.pid)
        kill(step_pid)
        killed_at = time.time()
        home.go("second")
        assert successor.wait() == 0, successor.output()
        # No daemon runs. By the database's clock, which is this machine's.
        assert granted(instance)[next_id].at <= killed_at + LEASE_SECONDS + 5
        assert granted(instance)[next_id].fence > granted(instance)[run_id].fence


@pytest.mark.parametrize("executor", APART)
def test_a_holder_that_was_stopped_too_long_is_ended_when_it_goes_on(make_home, kind, executor):
    home = make_home(kind, lease_seconds=LEASE_SECONDS)
    limit(home)
    first = home.materialize("held", EXECUTOR=executor)
    with home.instance() as instance:
        run_id, successor, next_id = superseded(home, instance, first)
        # It would end by itself only after its time is up.
        assert first.wait() != 0
        assert "DagsterExecutionInterruptedError" in first.output()
        assert "was silent for longer than its lease" in first.output()
        assert holders(instance) == [(next_id, "second")]
        home.go("second")
        assert successor.wait() == 0, successor.output()
        assert granted(instance)[run_id].fence < granted(instance)[next_id].fence


def test_an_in_process_step_that_was_stopped_too_long_is_ended(make_home):
    home = make_home("sqlite", lease_seconds=LEASE_SECONDS)
    limit(home)
    first = home.materialize("held")
    with home.instance() as instance:
        _, successor, _ = superseded(home, instance, first)
        assert first.wait() != 0
        assert "was silent for longer than its lease" in first.output()
        home.go("second")
        assert successor.wait() == 0, successor.output()


@pytest.mark.parametrize("executor", ["in_process", *APART])
def test_a_step_that_ignores_its_interruption_is_killed(make_home, executor):
    """On one database: nothing in it depends on which."""
    home = make_home("sqlite", lease_seconds=LEASE_SECONDS)
    limit(home)
    first = home.materialize("deaf", EXECUTOR=executor, GRACE_SECONDS="1")
    with home.instance() as instance:
        _, successor, next_id = superseded(home, instance, first, "deaf")
        assert first.wait() != 0
        assert "interrupted, and going on" in first.output()
        assert "did not end within 1.0 s" in first.output()
        (pid,) = home.begun("deaf").values()
        eventually(lambda: not exists(pid))
        assert holders(instance) == [(next_id, "second")]
        home.go("second")
        assert successor.wait() == 0, successor.output()


@pytest.mark.parametrize("executor", ["in_process", *APART])
def test_a_step_goes_on_with_a_warning_where_that_is_asked_for(make_home, executor, monkeypatch):
    """On one database: nothing in it depends on which. The audit finds that it went on."""
    home = make_home("sqlite", lease_seconds=LEASE_SECONDS, on_lease_lost="warn")
    limit(home)
    first = home.materialize("held", EXECUTOR=executor)
    with home.instance() as instance:
        run_id, successor, next_id = superseded(home, instance, first)
        eventually(lambda: "It goes on" in first.output())
        assert "on_lease_lost is warn" in first.output()
        # Until it has been at work for longer than it held its slot, which proves what it did.
        (lost,) = instance.event_log_storage.lifeguard.engine.store.entries(kind=EntryKind.EXPIRED)
        started = history.read_runs(instance, [run_id])[0].steps[0].started
        eventually(lambda: time.time() > started + lost.seconds)
        home.go("held")
        assert first.wait() == 0, first.output()
        # What it gives back at its end is not its successor's.
        assert holders(instance) == [(next_id, "second")]
        home.go("second")
        assert successor.wait() == 0, successor.output()
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    found = CliRunner().invoke(main, ["audit", "--json"])
    report = json.loads(found.stdout)
    assert (found.exit_code, report["verdict"], report["limits"]["found"]) == (1, "unsafe", [])
    (late,) = report["leases"]["found"]
    assert (late["run_id"], late["step_key"], late["pools"]) == (run_id, "held", ["orders"])
    assert (late["fence"], late["expired"], late["event"]) == (lost.fence, lost.at, "STEP_SUCCESS")
    assert report["leases"]["caveats"] == []
    text = CliRunner().invoke(main, ["audit"]).output
    assert "1 step went on after the lease was over." in text
    assert f"run {run_id} step held" in text


def superseded(home, instance, first, asset: str = "held"):
    """Stop a holder until another holds its slot: its run, and the other's process and run."""
    ((run_id, step_pid),) = home.started(asset=asset).items()
    with stopped(instance, run_id, asset, {first.popen.pid, step_pid}):
        successor = home.materialize("second")
        ((next_id, _),) = home.started(asset="second").items()
    return run_id, successor, next_id


def granted(instance) -> dict:
    """What the ledger says of each run's grant."""
    ledger = instance.event_log_storage.lifeguard.engine.store.ledger()
    return {entry.run_id: entry for entry in ledger if entry.kind.value == "granted"}


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
