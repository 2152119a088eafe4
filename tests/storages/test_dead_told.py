"""What ``explain``, ``status`` and ``doctor`` say of a process that was killed."""

from __future__ import annotations

import json

import dagster as dg
import pytest
from click.testing import CliRunner
from homes import eventually, holders, limit, owners, waiters

from dagster_lifeguard.cli import main

LEASE_SECONDS = 3


@pytest.fixture
def home(make_home, kind, monkeypatch):
    made = make_home(kind, lease_seconds=LEASE_SECONDS)
    monkeypatch.setenv("DAGSTER_HOME", str(made.path))
    limit(made)
    return made


def lifeguard(*arguments: str):
    return CliRunner().invoke(main, list(arguments))


def findings(code: str) -> list[dict]:
    found = json.loads(lifeguard("doctor", "--json").stdout)["findings"]
    return [finding for finding in found if finding["code"] == code]


def test_a_killed_holder_and_a_killed_waiter_are_told_as_over(home):
    holder = home.materialize("held")
    ((held_by, _),) = home.started().items()
    with home.instance() as instance:
        waiter = home.materialize("second")
        ((waited_by, _),) = eventually(lambda: waiters(instance))
        assert findings("lease-over") == []
        waiter.end()
        holder.end()
        instance.report_run_failed(instance.get_run_by_id(waited_by))
        eventually(lambda: not (holders(instance) or waiters(instance)))

        (finding,) = findings("lease-over")
        assert finding["severity"] == "note"
        assert finding["names"] == ["orders", held_by, waited_by]
        shown = json.loads(lifeguard("status", "orders", "--json").stdout)
        assert (shown["summary"]["held"], shown["summary"]["waiting"]) == (0, 0)
        text = " ".join(lifeguard("explain", waited_by).output.split())
        assert "its run is failure since" in text
        assert "orders is not blocked: the next claim takes back" in text
        assert "any moment" not in text

        fixes = json.loads(lifeguard("doctor", "--fix", "--yes", "--json").stdout)["fixes"]
        assert [fix["outcome"] for fix in fixes if fix["code"] == "lease-over"] == ["done", "done"]
        assert instance.event_log_storage.lifeguard.engine.busy_pools(with_over=True) == ()
        assert findings("lease-over") == []


def test_a_dead_step_whose_run_worker_lives_is_told(home, tmp_path):
    """Its run worker is a process of an executor that asks for the step seldom: this one."""
    code = tmp_path / "step.py"
    code.write_text(STEP)
    with home.instance() as instance:
        log = instance.event_log_storage
        run_id = "11111111-0000-0000-0000-000000000000"
        status = dg.DagsterRunStatus.STARTED
        instance.add_run(dg.DagsterRun(job_name="job", run_id=run_id, status=status))
        assert log.claim_concurrency_slot("orders", run_id, "held").is_claimed
        step = home.start("python", str(code), run_id)
        eventually(lambda: len(owners(instance, run_id)) == 2)
        assert findings("step-dead") == []

        step.end()

        (finding,) = eventually(lambda: findings("step-dead"))
        assert finding["names"] == ["orders", run_id, "held"]
        assert f":{step.popen.pid}: its lease" in finding["evidence"][0]
        log.lifeguard.engine.reap()  # As any claim in the deployment does.
        assert findings("step-dead") == [finding]
        assert findings("lease-over") == []
        (holder,) = json.loads(lifeguard("status", "orders", "--json").stdout)["holders"]
        assert holder["lost"].endswith(f":{step.popen.pid}")
        assert "step dead" in " ".join(lifeguard("status", "orders").output.split())
        log.free_concurrency_slot_for_step(run_id, "held")
        assert findings("step-dead") == []


def test_a_process_keeps_no_slot_of_a_step_that_ended(home, tmp_path):
    """Its run worker is gone, and it lives on, as a worker of Celery does."""
    code = tmp_path / "step.py"
    code.write_text(STEP)
    run_id = "11111111-0000-0000-0000-000000000000"
    with home.instance() as instance:
        log = instance.event_log_storage
        status = dg.DagsterRunStatus.STARTED
        instance.add_run(dg.DagsterRun(job_name="job", run_id=run_id, status=status))
        assert log.claim_concurrency_slot("orders", run_id, "held").is_claimed
        step = home.start("python", str(code), run_id)
        eventually(lambda: len(owners(instance, run_id)) == 2)
    with home.instance() as instance:
        assert len(holders(instance)) == 1
        home.go()
        eventually((home.control / "held.over").exists)
        eventually(lambda: not holders(instance))
        assert step.popen.poll() is None, step.output()


STEP = """
import os, pathlib, sys, time
import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.plan.objects import StepSuccessData

def store(instance, kind, data=None):
    event = DagsterEvent(kind.value, "job", step_key="held", event_specific_data=data)
    instance.event_log_storage.store_event(
        EventLogEntry(None, "info", "", sys.argv[1], time.time(), "held", "job", event)
    )

with dg.DagsterInstance.get() as instance:
    store(instance, DagsterEventType.STEP_START)
    while not pathlib.Path(os.environ["CONTROL"], "held.go").exists():
        time.sleep(0.05)
    store(instance, DagsterEventType.STEP_SUCCESS, StepSuccessData(1.0))
    pathlib.Path(os.environ["CONTROL"], "held.over").touch()
    time.sleep(600)
"""
