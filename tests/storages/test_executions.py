"""Real runs, real processes: never two executions of one asset at once, however they end."""

from __future__ import annotations

import os
import signal
import time

import dagster as dg
import pytest
from homes import eventually, kill

from dagster_lifeguard import history


def executions(instance: dg.DagsterInstance) -> tuple:
    return history.read_runs(instance)


def limit(home, slots: int = 1) -> None:
    with home.instance() as instance:
        instance.event_log_storage.set_concurrency_slots("orders", slots)


def holders(home, pool: str = "orders") -> list:
    with home.instance() as instance:
        return instance.event_log_storage.get_concurrency_info(pool).claimed_slots


@pytest.mark.parametrize(("count", "executor"), [(2, "multiprocess"), (8, "in_process")])
def test_materializations_at_once_take_turns(make_home, kind, count, executor):
    home = make_home(kind)
    limit(home)
    processes = [home.materialize("quick", EXECUTOR=executor) for _ in range(count)]
    for process in processes:
        assert process.wait(240) == 0, process.output()
    with home.instance() as instance:
        runs = history.read_runs(instance)
        assert [run.status for run in runs] == ["SUCCESS"] * count
        assert history.find_overlaps(runs, until=time.time()) == ()
    assert holders(home) == []


def test_a_retry_gives_back_and_claims_again(make_home, kind):
    home = make_home(kind)
    limit(home)
    process = home.materialize("stubborn")
    assert process.wait() == 0, process.output()
    with home.instance() as instance:
        ledger = instance.event_log_storage.lifeguard.engine.store.ledger()
        kinds = [entry.kind.value for entry in reversed(ledger) if entry.kind.value != "limit"]
        assert kinds == ["granted", "released"] * 3
        assert len({entry.fence for entry in ledger if entry.kind.value == "granted"}) == 3


def test_a_step_keeps_its_slot_when_only_its_run_worker_is_killed(make_home, kind):
    home = make_home(kind, lease_seconds=3)
    limit(home)
    first = home.materialize("held", EXECUTOR="multiprocess")
    (run_id, step_pid), *_ = home.started().items()
    with home.instance() as instance:
        eventually(lambda: len(owners(instance, run_id)) == 2)
        kill(first.popen.pid)
        first.wait()
        next_one = home.materialize("second")
        # Reaped: the step's own process is the only owner, and the pool is as full as before.
        eventually(lambda: len(owners(instance, run_id)) == 1)
        os.kill(step_pid, 0)
        assert [s.run_id for s in holders(home)] == [run_id]
        assert list(home.control.glob("second.*")) == []
        home.go("held")
        home.go("second")
        assert next_one.wait() == 0, next_one.output()
        step_ended = eventually(lambda: ended_at(instance, run_id))
        (begun,) = (
            s.started
            for r in history.read_runs(instance)
            for s in r.steps
            if s.step_key == "second"
        )
        assert begun >= step_ended


def owners(instance, run_id: str) -> frozenset:
    """The owners of the run's holding, once another process has claimed."""
    engine = instance.event_log_storage.lifeguard.engine
    engine.reap()
    holding = engine.ticket(run_id, "held")
    return holding.owners if holding is not None else frozenset()


def ended_at(instance, run_id: str) -> float | None:
    for record in instance.get_records_for_run(run_id).records:
        event = record.event_log_entry.dagster_event
        if event and event.event_type_value == "STEP_SUCCESS":
            return record.timestamp
    return None


def test_a_slot_is_free_when_worker_and_step_are_killed(make_home, kind):
    home = make_home(kind, lease_seconds=3)
    limit(home)
    first = home.materialize("held", EXECUTOR="multiprocess")
    ((_, step_pid),) = home.started().items()
    waiting = home.materialize("second")
    eventually(lambda: "blocked by limit" in waiting.output())
    kill(first.popen.pid)
    kill(step_pid)
    killed_at = time.time()
    home.go("second")
    ((run_id, _),) = home.started(asset="second").items()
    assert waiting.wait() == 0, waiting.output()
    with home.instance() as instance:
        (run,) = (
            history.read_runs(instance, run_ids=[run_id])
            if False
            else [r for r in history.read_runs(instance) if r.run_id == run_id]
        )
        # No daemon runs. Lease 3 s, and 5 s for those who wait to look again.
        assert run.steps[0].started - killed_at < 3 + 5 + 5


def test_a_holder_that_was_stopped_too_long_is_ended_when_it_goes_on(make_home, kind):
    home = make_home(kind, lease_seconds=3)
    limit(home)
    first = home.materialize("held", EXECUTOR="multiprocess")
    ((run_id, step_pid),) = home.started().items()
    with home.instance() as instance:
        eventually(lambda: len(owners(instance, run_id)) == 2)
    for pid in (first.popen.pid, step_pid):
        kill(pid, signal.SIGSTOP)
    try:
        successor = home.materialize("second")
        ((second_id, _),) = home.started(asset="second").items()
    finally:
        for pid in (step_pid, first.popen.pid):
            kill(pid, signal.SIGCONT)
    # It would end by itself only after its time is up.
    assert first.wait(60) != 0
    assert "DagsterExecutionInterruptedError" in first.output()
    assert "was silent for longer than its lease" in first.output()
    assert [s.run_id for s in holders(home)] == [second_id]
    home.go("second")
    assert successor.wait() == 0, successor.output()
    with home.instance() as instance:
        ledger = instance.event_log_storage.lifeguard.engine.store.ledger()
        fences = {e.run_id: e.fence for e in ledger if e.kind.value == "granted"}
        assert fences[run_id] < fences[second_id]


def test_an_in_process_step_that_was_stopped_too_long_is_ended(make_home):
    home = make_home("sqlite", lease_seconds=3)
    limit(home)
    first = home.materialize("held")
    home.started()
    kill(first.popen.pid, signal.SIGSTOP)
    try:
        successor = home.materialize("second")
        home.started(asset="second")
    finally:
        kill(first.popen.pid, signal.SIGCONT)
    assert first.wait(60) != 0
    assert "was silent for longer than its lease" in first.output()
    home.go("second")
    assert successor.wait() == 0, successor.output()
