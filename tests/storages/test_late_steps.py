"""A step that begins after its run worker has died and its slots have gone to another."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from homes import eventually, kill
from preloaded import ANEW

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.rules.model import Demand, TicketKey
from dagster_lifeguard.engine.store.memory.store import MemoryStore
from dagster_lifeguard.errors import LeaseLostError
from dagster_lifeguard.storage.claims import Claims
from dagster_lifeguard.storage.demands import RunPlan
from dagster_lifeguard.storage.progress import StepProgress
from dagster_lifeguard.storage.step_events import StepEvents
from dagster_lifeguard.storage.steps import Steps
from dagster_lifeguard.storage.tickets import Tickets


def state_of(pid: int) -> tuple[int, str]:
    """The parent of a process, and its state: Z when it has ended."""
    try:
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0, "Z"
    return int(parent), state


def step_process_of(worker: int) -> int | None:
    """The process in which a run worker is about to execute a step."""
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        pid = int(command.parent.name)
        if state_of(pid)[0] == worker and "spawn_main" in command.read_text():
            return pid
    return None


def is_told_what_to_do(step: int, worker: int) -> bool:
    """Whether the run worker has written all that its new step process will read of it.

    The worker closes its copy of the end that the step reads from when it has written.
    """
    command = Path(f"/proc/{step}/cmdline").read_text()
    (end,) = re.findall(r"pipe_handle=(\d+)", command)
    read_by_step, read_by_worker = (Path(f"/proc/{pid}/fd/{end}") for pid in (step, worker))
    try:
        return read_by_worker.readlink() != read_by_step.readlink()
    except FileNotFoundError:
        return True


def test_a_step_that_begins_too_late_is_not_executed(make_home, kind):
    home = make_home(kind, lease_seconds=3)
    with home.instance() as instance:
        instance.event_log_storage.set_concurrency_slots("orders", 1)
        # Its step is looked for by its command line, and caught while it still imports Dagster.
        first = home.materialize("held", EXECUTOR="multiprocess", **ANEW)
        step = eventually(lambda: step_process_of(first.popen.pid))
        kill(step, signal.SIGSTOP)
        eventually(lambda: is_told_what_to_do(step, first.popen.pid))
        kill(first.popen.pid)
        first.wait()
        (run,) = instance.get_runs()
        events = {e.event_type_value for e in events_of(instance, run.run_id)}
        assert "STEP_WORKER_STARTING" in events
        assert "STEP_WORKER_STARTED" not in events
        successor = home.materialize("second")
        home.started(asset="second")
        home.go("held")
        kill(step, signal.SIGCONT)
        eventually(lambda: state_of(step)[1] == "Z")
        assert "begins after the lease of its slots has run out" in first.output()
        assert list(home.control.glob("held.*")) == [home.control / "held.go"]
        home.go("second")
        assert successor.wait() == 0, successor.output()


def events_of(instance, run_id: str) -> list:
    return [entry.dagster_event for entry in instance.all_logs(run_id) if entry.is_dagster_event]


@pytest.mark.parametrize("on_lease_lost", ["terminate", "warn"])
def test_what_a_step_does_that_begins_too_late(make_home, caplog, on_lease_lost):
    key = TicketKey("run", "step")
    with make_home("sqlite").instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots("orders", 1)
        assert log.claim_concurrency_slot("orders", *key).is_claimed
        log.lifeguard.engine.leave()
        with log.index_connection() as connection:
            connection.exec_driver_sql("UPDATE lifeguard_sessions SET lease_until = 1")
        assert log.lifeguard.engine.store.expired_sessions(1)
        assert log.lifeguard.engine.reap() == 1

        steps = Steps(lambda: log.lifeguard.engine, on_lease_lost)
        if on_lease_lost == "terminate":
            with pytest.raises(LeaseLostError, match="Step step of run run begins after"):
                steps.started(key, None)
        else:
            steps.started(key, None)
            assert "begins after the lease" in caplog.text
        assert not steps.runs_here(key)
        steps.started(TicketKey("run", "other"), None)  # It never held anything.


def test_so_is_one_of_a_graph_asset_that_held_its_pool_as_a_whole():
    """It asks by the ticket of its graph, and that is the one whose lease ran out."""
    now = [0.0]
    store = MemoryStore(lambda: now[0])
    worker, successor, own = Engine(store), Engine(store), Engine(store)
    worker.change_pool("orders", limit=1)
    assert worker.claim("run", "graph", Demand.parse("orders")).granted
    now[0] += 40
    assert successor.claim("other", "step", Demand.parse("orders")).granted

    steps = Steps(lambda: own, "terminate")
    tickets = Tickets(
        own, lambda _: RunPlan({}, None), lambda _: frozenset(), lambda _: StepProgress()
    )
    events = StepEvents(own, Claims(own, lambda _: None, lambda _: {}), steps, tickets)
    with pytest.raises(LeaseLostError, match="lease of its slots has run out"):
        events.begins(TicketKey("run", "graph.load"))
    events.begins(TicketKey("run", "other.load"))
