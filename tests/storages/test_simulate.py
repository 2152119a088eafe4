"""``lifeguard simulate`` on what real storages wrote down."""

from __future__ import annotations

import importlib
import json

import dagster as dg
import pytest
from click.testing import CliRunner
from homes import eventually, limit
from test_queue_order import queue

from dagster_lifeguard.cli import main

HOUR = 3600.0


@dg.asset(pool="orders")
def orders() -> None: ...


defs = dg.Definitions([orders], jobs=[dg.define_asset_job("orders_job", [orders])])


def simulated(*options):
    result = CliRunner().invoke(main, ["simulate", *options, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_what_the_engine_wrote_down_is_played_with_another_limit(
    make_home, kind, monkeypatch, tmp_path
):
    home = make_home(kind)
    limit(home)
    with home.instance() as instance:
        job = defs.get_repository_def().get_job("orders_job")
        run_ids = [
            instance.create_run_for_job(job, tags={"dagster/priority": "1"}).run_id
            for _ in range(3)
        ]
        storage = instance.event_log_storage
        claims = [storage.claim_concurrency_slot("orders", r, "orders") for r in run_ids]
        assert [claim.is_claimed for claim in claims] == [True, False, False]
        for run_id, following in zip(run_ids, [*run_ids[1:], None], strict=True):
            storage.free_concurrency_slot_for_step(run_id, "orders")
            if following is not None:
                assert storage.claim_concurrency_slot("orders", following, "orders").is_claimed

    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    found = simulated("--set", "orders=2")
    (pool,) = found["pools"]
    assert (found["source"], found["executions"], found["asked"]) == ("ledger", 3, ["orders"])
    assert (pool["before"]["limit"], pool["after"]["limit"]) == (1, 2)
    assert (pool["before"]["most"], pool["after"]["most"]) == (1, 2)
    waits = pool["calibration"]["recorded"]
    assert pool["after"]["waits"]["p95"] <= pool["before"]["waits"]["p95"]
    assert (waits["count"], pool["calibration"]["played"]["count"]) == (3, 3)
    picture = tmp_path / "picture.svg"
    written = CliRunner().invoke(main, ["simulate", "--set", "orders=2", "--svg", str(picture)])
    assert "Wrote" in written.output
    assert "as it would have been: limit 2" in picture.read_text()
    (free,) = simulated("--without", "orders")["pools"]
    assert (free["after"]["limit"], free["after"]["waits"]["p95"]) == (None, 0.0)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_temporary_limit_of_the_past_is_played_until_its_end(make_home, kind, monkeypatch):
    home = make_home(kind)
    limit(home)
    with home.instance() as instance:
        job = defs.get_repository_def().get_job("orders_job")
        first, paused = (instance.create_run_for_job(job).run_id for _ in range(2))
        log = instance.event_log_storage
        assert log.claim_concurrency_slot("orders", first, "orders").is_claimed
        log.free_concurrency_slot_for_step(first, "orders")
        log.limit_until("orders", 0, log.lifeguard.engine.store.now() + HOUR)
        assert not log.claim_concurrency_slot("orders", paused, "orders").is_claimed
        log.limit_until("orders", 0, log.lifeguard.engine.store.now() + 0.5)
        eventually(lambda: log.claim_concurrency_slot("orders", paused, "orders").is_claimed)
        log.free_concurrency_slot_for_step(paused, "orders")
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    found = simulated("--set", "orders=1")
    (pool,) = found["pools"]
    assert (pool["before"]["limit"], pool["after"]["limit"]) == (1, 1)
    assert ["orders"] in [d["pools"] for d in found["doubts"] if d["code"] == "changed-meanwhile"]
    assert pool["calibration"]["played"] == pool["before"]["waits"]
    assert (pool["before"]["waits"]["count"], pool["before"]["waits"]["never"]) == (2, 0)
    assert pool["before"]["waits"]["p95"] > 0.0
    # Without the pause the second run had found the pool free.
    assert pool["after"]["waits"]["p95"] == 0.0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--set", "orders"), "is no setting"),
        (("--set", "orders=many"), "is no limit"),
        (("--set", "orders=-1"), "out of bounds"),
        (("--set", "orders.rate=often"), "is not a rate"),
        (("--set", "orders.order=random"), "is not an order"),
        (("--set", "nowhere=1"), "knows no pool 'nowhere'"),
    ],
)
def test_a_mistake_in_what_is_asked_is_told_in_a_line(make_home, monkeypatch, options, told):
    home = make_home("sqlite")
    limit(home)
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    result = CliRunner().invoke(main, ["simulate", *options])
    assert result.exit_code == 2
    assert told in result.output


TWO_ASSETS = """
import dagster as dg


@dg.asset(pool="orders")
def orders(): ...


@dg.asset(pool="customers")
def customers(): ...


defs = dg.Definitions([orders, customers])
"""


def test_the_rules_of_another_file_are_played(make_home, monkeypatch, tmp_path):
    home = make_home("sqlite")
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    code, file = tmp_path / "two_assets.py", tmp_path / "other.yaml"
    code.write_text(TWO_ASSETS)
    file.write_text(
        "engine: lifeguard\npools:\n  shared: 2\nrules:\n"
        "  - {assets: '*', pools: [shared], override: true}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    two_assets = importlib.import_module("two_assets")
    with home.instance() as instance:
        instance.event_log_storage.set_concurrency_slots("orders", 1)
        instance.event_log_storage.set_concurrency_slots("customers", 1)
        assert dg.materialize([two_assets.orders, two_assets.customers], instance=instance).success
    found = simulated("--config", str(file), "-f", str(code))
    pools = {pool["pool"]: pool for pool in found["pools"]}
    assert set(pools) == {"orders", "customers", "shared"}
    assert pools["shared"]["after"]["waits"]["count"] == 2
    assert pools["shared"]["after"]["limit"] == 2
    assert pools["orders"]["after"]["waits"]["count"] == 0
    refused = CliRunner().invoke(main, ["simulate", "-f", str(code)])
    assert refused.exit_code == 2
    assert "--config" in refused.output


GRAPH_ASSET = """
import dagster as dg


@dg.op(pool="orders")
def load():
    return 1


@dg.op
def publish(loaded):
    return loaded


@dg.graph
def tidy(loaded):
    return publish.alias("last")(loaded)


@dg.graph_asset
def sales():
    return tidy(load())


defs = dg.Definitions([sales])
"""


def test_the_steps_of_a_graph_asset_get_the_pools_of_another_file(make_home, monkeypatch, tmp_path):
    home = make_home("sqlite")
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    code, file = tmp_path / "graph_asset.py", tmp_path / "other.yaml"
    code.write_text(GRAPH_ASSET)
    file.write_text(
        "engine: lifeguard\nrules:\n  - {assets: '*', pools: [shared], override: true}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    graph_asset = importlib.import_module("graph_asset")
    with home.instance() as instance:
        instance.event_log_storage.set_concurrency_slots("orders", 1)
        assert dg.materialize([graph_asset.sales], instance=instance).success
    found = simulated("--config", str(file), "-f", str(code))
    after = {pool["pool"]: pool["after"]["waits"]["count"] for pool in found["pools"]}
    assert after == {"orders": 0, "shared": 1}
    assert "rules-not-played" not in {doubt["code"] for doubt in found["doubts"]}
    file.write_text("engine: lifeguard\nrules:\n  - {assets: '*', pools: [shared]}\n")
    found = simulated("--config", str(file), "-f", str(code))
    # The op keeps the pool that it declares.
    assert {pool["pool"]: pool["after"]["waits"]["count"] for pool in found["pools"]} == {
        "orders": 1
    }


def test_a_picture_of_nothing_is_refused(make_home, monkeypatch, tmp_path):
    monkeypatch.setenv("DAGSTER_HOME", str(make_home("sqlite").path))
    picture = tmp_path / "picture.svg"
    result = CliRunner().invoke(main, ["simulate", "--svg", str(picture)])
    assert result.exit_code == 2
    assert "nothing to draw" in result.output
    assert not picture.exists()


def test_the_pools_of_another_file_are_played(make_home, monkeypatch, tmp_path):
    home = make_home("sqlite")
    limit(home)
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    with home.instance() as instance:
        run_id = queue(instance, "r", pool="orders", status=dg.DagsterRunStatus.STARTED)
        log = instance.event_log_storage
        assert log.claim_concurrency_slot("orders", run_id, "orders").is_claimed
        log.free_concurrency_slot_for_step(run_id, "orders")
    file = tmp_path / "other.yaml"
    file.write_text("engine: lifeguard\npools:\n  orders: {limit: 3, order: fair(backfill)}\n")
    (pool,) = simulated("--config", str(file))["pools"]
    assert (pool["before"]["limit"], pool["after"]["limit"]) == (1, 3)
    assert pool["after"]["order"] == "fair(backfill)"
    (pool,) = simulated("--config", str(file), "--set", "orders=2")["pools"]
    assert pool["after"]["limit"] == 2
    file.write_text("pools: {orders: many}\n")
    result = CliRunner().invoke(main, ["simulate", "--config", str(file)])
    assert result.exit_code == 2
    assert "other.yaml" in result.output


def test_without_a_run_queue_pools_hold_back_no_runs(make_home, monkeypatch):
    home = make_home(
        "sqlite",
        concurrency={"pools": {"granularity": "run"}},
        run_coordinator={
            "module": "dagster._core.run_coordinator",
            "class": "DefaultRunCoordinator",
        },
    )
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    result = CliRunner().invoke(main, ["simulate"])
    assert result.exit_code == 2
    assert "no run queue" in result.output


INTERVAL_SECONDS = 600
"""Of the queue's daemon: far longer than a slow machine needs to queue three runs."""


def pass_through_queue(instance, count):
    """Runs that were all queued, and then launched and executed one after another."""
    new = dg.DagsterRunStatus.NOT_STARTED
    run_ids = [queue(instance, f"r{n}", pool="orders", status=new) for n in range(count)]

    def report(run_id, name):
        instance.report_dagster_event(dg.DagsterEvent(f"PIPELINE_{name}", "job"), run_id=run_id)

    for run_id in run_ids:
        report(run_id, "ENQUEUED")
    for run_id in run_ids:
        for name in ("STARTING", "START", "SUCCESS"):
            report(run_id, name)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
@pytest.mark.parametrize("granularity", ["op", "run"])
def test_runs_pass_through_the_run_queue(make_home, kind, granularity, monkeypatch):
    home = make_home(
        kind,
        concurrency={"pools": {"granularity": granularity}, "runs": {"max_concurrent_runs": 1}},
        run_coordinator={
            "module": "dagster._core.run_coordinator",
            "class": "QueuedRunCoordinator",
            "config": {"dequeue_interval_seconds": INTERVAL_SECONDS},
        },
    )
    limit(home, 5)
    with home.instance() as instance:
        pass_through_queue(instance, 3)
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    found = simulated("--max-concurrent-runs", "2")["queue"]
    assert (found["before"]["max_concurrent_runs"], found["after"]["max_concurrent_runs"]) == (1, 2)
    assert found["calibration"]["recorded"]["count"] == 3
    assert (found["before"]["most"], found["after"]["most"]) == (1, 2)
    # The third run is launched at the daemon's third look, or at the second. The three were queued
    # seconds apart at the most, so that the longest wait may be another's by that much.
    sooner = found["before"]["waits"]["p95"] - found["after"]["waits"]["p95"]
    assert round(sooner / INTERVAL_SECONDS) == 1
    pools = simulated()["pools"]
    assert [pool["pool"] for pool in pools] == (["orders"] if granularity == "run" else [])
    printed = CliRunner().invoke(main, ["simulate", "--max-concurrent-runs", "2"])
    assert "runs, in the run queue" in printed.output
    assert "2 at once" in printed.output


def test_more_runs_at_once_are_refused_without_a_run_queue(make_home, monkeypatch):
    home = make_home(
        "sqlite",
        run_coordinator={
            "module": "dagster._core.run_coordinator",
            "class": "DefaultRunCoordinator",
        },
    )
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    result = CliRunner().invoke(main, ["simulate", "--max-concurrent-runs", "2"])
    assert result.exit_code == 2
    assert "has no run queue" in result.output
