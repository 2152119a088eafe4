"""Steps that Celery workers execute: ``make test-celery``, which installs what this needs."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from celery_fleet import Fleet, Redis
from click.testing import CliRunner
from deployment_on_hosts import POOL
from homes import eventually, holders, kill, limit, waiters
from marks import fences_grow

from dagster_lifeguard.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from marks import Execution

for module in ("dagster_celery", "redis"):
    pytest.importorskip(module, reason="make test-celery installs it")

LEASE_SECONDS = 6.0
BRIEF = 4
RUNS = ("one", "two", "three")


@pytest.fixture
def start(deploy, network, monkeypatch) -> Iterator[Callable[..., Fleet]]:
    """Starts a broker, a database, and two workers on two hosts."""
    fleets = []

    def make(children: int = 1, slots: int = 1, *, stock: bool = False) -> Fleet:
        fleet = Fleet(deploy(LEASE_SECONDS, stock=stock), Redis(network["db"]))
        fleets.append(fleet)
        monkeypatch.setenv("DAGSTER_HOME", str(fleet.hosts.home.path))
        limit(fleet.hosts.home, slots, POOL)
        for host in ("one", "two"):
            fleet.start_worker(host, children)
        return fleet

    yield make
    for fleet in fleets:
        fleet.close()


def most_at_once(executions: Sequence[Execution]) -> int:
    """By what user code left, the most executions at one moment."""
    moments = [(e.begun, 1) for e in executions] + [(e.last, -1) for e in executions]
    now = most = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most


def lifeguard(*arguments: str):
    return CliRunner().invoke(main, list(arguments))


def findings(code: str) -> list[dict]:
    found = json.loads(lifeguard("doctor", "--json").stdout)["findings"]
    return [finding for finding in found if finding["code"] == code]


def run_of(fleet: Fleet, step: str) -> dg.DagsterRun:
    """The one run with this step."""
    with fleet.hosts.home.instance() as instance:
        (run,) = [r for r in instance.get_runs() if dg.AssetKey(step) in (r.asset_selection or ())]
        return run


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("storage", ["engine", "stock"])
def test_runs_share_the_pool(start, storage, slots):
    """Three runs on three hosts, two workers with three children each; the limit is the engine's."""
    fleet = start(children=3, slots=slots, stock=storage == "stock")
    began = time.monotonic()
    runs = [fleet.run(host, "brief") for host in RUNS]
    for run in runs:
        assert run.wait() == 0, run.output()
    executions = fleet.hosts.marks.executions()
    most = most_at_once(executions)
    print(  # noqa: T201 - shown with -rP
        f"celery, {storage}, {slots} slots: {len(executions)} executions, "
        f"at most {most} at once, {time.monotonic() - began:.0f} s"
    )
    assert len(executions) == len(RUNS) * BRIEF
    assert {e.how for e in executions} == {"end"}
    if storage == "engine":
        assert most <= slots
        assert len({e.fence for e in executions}) == len(executions)
        if slots == 1:
            assert fences_grow(executions)
        with fleet.hosts.home.instance() as instance:
            assert not holders(instance)
            assert not waiters(instance)


def test_a_killed_child_of_a_worker_fails_its_run_and_frees_the_slot(start):
    """Celery tells the run worker that the child is gone."""
    fleet = start()
    first = fleet.run("one", "first")
    execution = fleet.hosts.executes("first")
    after = fleet.run("two", "next")
    fleet.hosts.waits("next")
    kill(execution.pid)
    assert first.wait() != 0
    fleet.hosts.go("next")
    assert after.wait() == 0, after.output()
    fleet.hosts.assert_one_at_a_time()


def test_a_killed_worker_is_told_and_its_slot_can_be_freed(start):
    """Celery never tells the run worker, which waits on; the lease of the step's process tells."""
    fleet = start()
    fleet.run("three", "first")
    execution = fleet.hosts.executes("first")
    label = f":{execution.pid}"
    after = fleet.run("three", "next")
    fleet.hosts.waits("next")
    (host,) = [h for h, worker in fleet.workers.items() if execution.pid in children(worker)]
    fleet.kill_worker(host)

    (finding,) = eventually(lambda: findings("step-dead"))
    run = run_of(fleet, "first")
    assert finding["names"] == [POOL, run.run_id, "first"]
    assert f"{label}: its lease has run out" in finding["evidence"][0]
    blocked = " ".join(lifeguard("explain", run_of(fleet, "next").run_id).output.split())
    assert f"{label} is dead or silent" in blocked
    fleet.hosts.watch("first")  # Its run worker still waits, and so keeps the slot.
    assert not fleet.hosts.marks.executions("next")

    freed = lifeguard("free", f"{run.run_id}:first", "--force", "--yes")
    assert freed.exit_code == 0, freed.output
    fleet.hosts.go("next")
    assert after.wait() == 0, after.output()
    fleet.hosts.assert_one_at_a_time()


def test_a_broker_that_starts_again_costs_no_slot(start):
    fleet = start()
    first = fleet.run("one", "first")
    fleet.hosts.executes("first")
    after = fleet.run("two", "next")
    fleet.hosts.waits("next")
    fleet.redis.restart()
    fleet.hosts.go("first")
    fleet.hosts.go("next")
    ends = [first.wait(), after.wait()]
    print(f"celery, broker restarted: run workers ended with {ends}")  # noqa: T201
    fleet.hosts.assert_one_at_a_time()
    with fleet.hosts.home.instance() as instance:
        eventually(lambda: instance.event_log_storage.lifeguard.engine.reap() or True)
        eventually(lambda: not holders(instance) and not waiters(instance))


def test_a_run_worker_fails_its_run_when_the_broker_is_away_as_it_asks_for_a_result(start):
    """Its step executes on, and keeps its slot to its end; who waits for the pool asks no broker."""
    fleet = start()
    first = fleet.run("one", "first")
    fleet.hosts.executes("first")
    after = fleet.run("two", "next")
    fleet.hosts.waits("next")
    fleet.redis.stop()
    assert first.wait() != 0
    assert "redis.exceptions.ConnectionError" in first.output()
    fleet.redis.start()
    assert not fleet.hosts.marks.executions("next")
    fleet.hosts.go("first")
    fleet.hosts.go("next")
    assert after.wait() == 0, after.output()
    fleet.hosts.assert_one_at_a_time()


def test_a_run_worker_that_is_told_to_asks_again_for_a_result(start, tmp_path):
    fleet = start()
    log = tmp_path / "celery.log"
    first = fleet.run("one", "first", ALWAYS_RETRY=str(log))
    fleet.hosts.executes("first")
    fleet.redis.stop()
    eventually(lambda: fleet.hosts.watch("first") or "Failed operation" in log.read_text())
    fleet.redis.start()
    fleet.hosts.go("first")
    assert first.wait() == 0, first.output()


def test_a_canceled_run_gives_back_what_it_holds_and_waits_for(start):
    """What executes on a worker goes on to its end, and holds its slot until then."""
    fleet = start()
    first = fleet.run("one", "first")
    fleet.hosts.executes("first")
    waiting = fleet.run("two", "next")
    fleet.hosts.waits("next")
    fleet.cancel(waiting)
    waiting.wait()
    with fleet.hosts.home.instance() as instance:
        eventually(lambda: not waiters(instance))
        fleet.cancel(first)
        eventually(lambda: "revoking active tasks" in first.output())
        assert len(holders(instance)) == 1
        fleet.hosts.go("first")
        first.wait()
        eventually(lambda: not holders(instance))
    assert [e.name for e in fleet.hosts.marks.executions()] == ["first"]


def children(worker) -> set[int]:
    import psutil

    return {child.pid for child in psutil.Process(worker.popen.pid).children(recursive=True)}
