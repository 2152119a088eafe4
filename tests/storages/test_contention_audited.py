"""The audit of real instances under real contention: one that exceeds its limit, one that does not.

Processes claim at one instant, as run workers do, and those that are let in report their steps. An
oracle outside the database notes who was in together.
"""

from __future__ import annotations

import json
import multiprocessing as mp
import time
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster._core.execution.plan.objects import StepSuccessData
from homes import PATIENT_SECONDS, limit

from dagster_lifeguard.cli import main
from dagster_lifeguard.deployment.instance import InstanceDeployment
from dagster_lifeguard.inspections.audit.deployment_audit import audit

if TYPE_CHECKING:
    from homes import Home

PROCESSES = 2
ROUNDS_MAX = 100


@dg.asset(pool="orders")
def held() -> None: ...


defs = dg.Definitions([held], jobs=[dg.define_asset_job("held_job", [held])])


def contend(home: str, barrier: Any, inside: Any, orders: Any, told: Any) -> None:
    """Claim once in each round; whoever is let in executes until all have had their answer."""
    job: Any = defs.get_repository_def().get_job("held_job")
    with dg.DagsterInstance.from_config(home) as instance:
        storage: Any = instance.event_log_storage
        while orders.recv():
            run_id = instance.create_run_for_job(job).run_id

            def report(kind: dg.DagsterEventType, data: Any = None, run_id: str = run_id) -> None:
                event = dg.DagsterEvent(
                    kind.value, "held_job", step_key="held", event_specific_data=data
                )
                instance.report_dagster_event(event, run_id=run_id)

            barrier.wait(PATIENT_SECONDS)
            is_in = storage.claim_concurrency_slot("orders", run_id, "held").is_claimed
            if is_in:
                report(dg.DagsterEventType.STEP_START)
                with inside.get_lock():
                    inside.value += 1
            barrier.wait(PATIENT_SECONDS)
            together = inside.value
            barrier.wait(PATIENT_SECONDS)
            if is_in:
                with inside.get_lock():
                    inside.value -= 1
                report(dg.DagsterEventType.STEP_SUCCESS, StepSuccessData(duration_ms=1.0))
            barrier.wait(PATIENT_SECONDS)
            storage.free_concurrency_slot_for_step(run_id, "held")
            told.put((run_id, is_in, together))


def contention(home: Home, rounds: int, until_exceeded: bool) -> list[list[str]]:
    """The runs that were in together, round by round, as the oracle saw them."""
    context = mp.get_context("spawn")
    barrier, inside = context.Barrier(PROCESSES), context.Value("i", 0)
    told = context.Queue()
    pipes = [context.Pipe(duplex=False) for _ in range(PROCESSES)]
    processes = [
        context.Process(
            target=contend, args=(str(home.path), barrier, inside, pipe, told), daemon=True
        )
        for pipe, _ in pipes
    ]
    for process in processes:
        process.start()
    seen = []
    for _ in range(rounds):
        for _, order in pipes:
            order.send(True)
        answers = [told.get(timeout=PATIENT_SECONDS) for _ in range(PROCESSES)]
        seen.append([run_id for run_id, is_in, _ in answers if is_in])
        assert {together for _, _, together in answers} == {len(seen[-1])}
        if until_exceeded and len(seen[-1]) > 1:
            break
    for _, order in pipes:
        order.send(False)
    for process in processes:
        process.join(PATIENT_SECONDS)
        assert process.exitcode == 0
    return seen


def audited(home: Home, **how: Any) -> Any:
    with home.instance() as instance:
        now = time.time()
        return audit(InstanceDeployment(instance, "home"), since=now - 3600, until=now, **how)


def test_over_admission_of_the_stock_storage_is_found(make_home, monkeypatch):
    home = make_home("sqlite", stock=True)
    limit(home)
    seen = contention(home, ROUNDS_MAX, until_exceeded=True)
    together = seen[-1]
    assert len(together) == PROCESSES, "the stock storage kept the limit: nothing was provoked"

    report = audited(home)
    (excess,) = report.limits.excesses
    assert (report.verdict, report.limits.source) == ("exceeded", "event-logs")
    assert sorted(occupant.run_id for occupant in excess.occupants) == sorted(together)
    assert (excess.lane.name, excess.limit, excess.held) == ("orders", 1, 2)
    assert report.limits.executions == sum(len(ins) for ins in seen)
    (duplicate,) = report.executions.duplicates
    assert (duplicate.lane.kind, duplicate.lane.name) == ("asset", "held")

    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    result = CliRunner().invoke(main, ["audit", "--since", "1h"])
    assert result.exit_code == 1, result.output
    assert "2 of 1 slots" in result.output
    assert all(f"run {run_id} step held" in result.output for run_id in together)
    assert "limits exceeded once" in " ".join(result.output.split())
    result = CliRunner().invoke(main, ["audit", "--since", "1h", "--json"])
    found = json.loads(result.stdout)
    assert (result.exit_code, found["verdict"], found["limits"]["exceeded"]) == (1, "exceeded", 1)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_an_engine_under_the_same_load_is_clean_by_its_ledger_and_by_event_logs(
    make_home, kind, monkeypatch
):
    home = make_home(kind)
    limit(home)
    seen = contention(home, 6, until_exceeded=False)
    assert [len(ins) for ins in seen] == [1] * 6

    for by in ("ledger", "event-logs"):
        report = audited(home, by=by)
        assert (report.limits.source, report.verdict) == (by, "kept")
        assert (report.limits.executions, report.limits.pools) == (6, 1)
        assert report.executions.duplicate_count == 0
    assert audited(home).limits.source == "ledger"

    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    result = CliRunner().invoke(main, ["audit", "--pool", "orders"])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "Audited 6 executions of 1 pool from" in said
    assert "by the engine's ledger: no limit exceeded." in said


def test_nothing_executed_is_no_proof_and_names_are_helped_with(home):
    result = CliRunner().invoke(main, ["audit"])
    assert result.exit_code == 0, result.output
    assert "nothing was executed that a limit could be judged by" in " ".join(result.output.split())

    with dg.DagsterInstance.get() as instance:
        instance.event_log_storage.set_concurrency_slots("warehouse", 1)
    result = CliRunner().invoke(main, ["audit", "--pool", "warehuose"])
    assert result.exit_code == 2
    assert "warehouse" in result.output
    result = CliRunner().invoke(main, ["audit", "--by", "ledger"])
    assert (result.exit_code, "has no ledger" in result.output) == (2, True)
    result = CliRunner().invoke(main, ["audit", "--since", "lately"])
    assert (result.exit_code, "no duration" in result.output) == (2, True)
