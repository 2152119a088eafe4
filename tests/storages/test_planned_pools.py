"""Real runs whose pools are known when a step claims: selections, partitions, whole graph assets."""

from __future__ import annotations

import json
import sys
from inspect import signature
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.api import create_execution_plan
from dagster._core.op_concurrency_limits_counter import GlobalOpConcurrencyLimitsCounter
from homes import eventually, holders, limit, waiters

from dagster_lifeguard import Policy, Rule

PLANNED = Path(__file__).with_name("planned.py")


@pytest.fixture
def home(make_home, kind):
    home = make_home(kind, concurrency={"pools": {"default_limit": 1}})
    limit(home, 5, "warehouse")
    return home


def materialize(home, selection, *options, **environment):
    command = ("dagster", "asset", "materialize", "-f", str(PLANNED), "--select", selection)
    return home.start(*command, *options, **environment)


def succeed(*processes):
    for process in processes:
        assert process.wait() == 0, process.output()


def grants(instance, pool):
    ledger = instance.event_log_storage.lifeguard.engine.store.ledger(pool=pool)
    return [
        (entry.kind.value, entry.step_key, entry.slots)
        for entry in reversed(ledger)
        if entry.kind.value != "limit"
    ]


def shown(home, *options):
    """The pools that ``lifeguard status`` shows."""
    found = json.loads(home.run("lifeguard", "status", "--json", *options))
    return {pool["pool"] for pool in found["pools"]}


def test_runs_of_a_multi_asset_take_turns_where_their_selections_meet(home):
    a = materialize(home, "model/a")
    home.started(1, "models")
    b = materialize(home, "model/b", EXECUTOR="multiprocess")
    began = home.started(2, "models")
    both = materialize(home, "model/b,model/c")
    with home.instance() as instance:
        ((waiting, _),) = eventually(lambda: waiters(instance, "model/b"))
        assert waiting not in began
        assert len(holders(instance, "warehouse")) == 2
        home.go("models")
        succeed(a, b, both)
        for pool, runs in (("model/a", 1), ("model/b", 2), ("model/c", 1)):
            assert (
                grants(instance, pool)
                == [
                    ("granted", "models", 1),
                    ("released", "models", 1),
                ]
                * runs
            )
        assert {slots for _, _, slots in grants(instance, "warehouse")} == {2}


def test_runs_of_a_partitioned_asset_take_turns_where_their_partitions_meet(home):
    one = materialize(home, "daily", "--partition", "2024-01-01")
    home.started(1, "daily")
    other = materialize(home, "daily", "--partition", "2024-01-02")
    began = home.started(2, "daily")
    same = materialize(home, "daily", "--partition", "2024-01-02")
    with home.instance() as instance:
        ((again, _),) = eventually(lambda: waiters(instance, "daily[2024-01-02]"))
        whole = materialize(home, "daily", "--partition-range", "2024-01-01...2024-03-31")
        ((long, _),) = eventually(lambda: waiters(instance, "{all}daily[*]"))
        assert {again, long}.isdisjoint(began)
        partitions = {"daily[2024-01-01]", "daily[2024-01-02]"}
        assert shown(home) == {"warehouse", "{all}daily[*]", *partitions}
        home.go("daily")
        succeed(one, other, same, whole)
        assert (
            grants(instance, "daily[2024-01-02]")
            == [
                ("granted", "daily", 1),
                ("released", "daily", 1),
            ]
            * 2
        )
        assert ("granted", "daily", 1000) in grants(instance, "{all}daily[*]")
        # No step holds, waits for or plans the pools of partitions any more: used lately, they show.
        assert shown(home) == {"warehouse", *partitions}
        assert shown(home, "--window", "0") == {"warehouse"}


def test_the_run_queue_blocks_a_run_whose_partition_is_held(home):
    defs = Policy(engine="lifeguard", rules=[Rule(assets="*", pools=["daily[{partition}]"])]).apply(
        dg.Definitions([dg.AssetSpec("other"), _daily])
    )
    job = defs.get_repository_def().get_job("__ASSET_JOB")
    with home.instance() as instance:
        log = instance.event_log_storage

        def stored(tags):
            plan = create_execution_plan(job, tags=tags)
            return instance.create_run_for_job(job, execution_plan=plan, tags=tags)

        one, same, other = (
            stored({"dagster/partition": f"2024-01-{day}"}) for day in ("01", "01", "02")
        )
        whole = stored(
            {
                "dagster/asset_partition_range_start": "2024-01-01",
                "dagster/asset_partition_range_end": "2024-03-31",
            }
        )
        assert log.claim_concurrency_slot(
            "{hold:step}daily[{partition}]", one.run_id, "_daily"
        ).is_claimed
        queued = [same, other, whole]
        known = {
            "concurrency_keys": log.get_concurrency_keys(),
            "pool_limits": log.get_pool_limits(),
        }
        asked = signature(GlobalOpConcurrencyLimitsCounter).parameters.keys() & known
        counter = GlobalOpConcurrencyLimitsCounter(
            instance, queued, [], **{name: known[name] for name in asked}
        )
        assert [counter.is_blocked(run) for run in queued] == [True, False, False]
        assert whole.run_op_concurrency.root_key_counts == {"{all}daily[*]": 1000}


@dg.asset(
    partitions_def=dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-04-01"),
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def _daily(): ...


@pytest.mark.parametrize("executor", ["in_process", "multiprocess"])
def test_runs_of_a_graph_asset_that_holds_its_pool_never_interleave(home, executor):
    one = materialize(home, "graph", EXECUTOR=executor)
    began = home.started(1, "first")
    other = materialize(home, "graph", EXECUTOR=executor)
    with home.instance() as instance:
        eventually(lambda: waiters(instance, "graph"))
        home.go("first")
        assert home.started(1, "second").keys() == began.keys()  # After a try that failed.
        assert home.begun("first") == began
        assert home.begun("fence1").keys() == began.keys()
        assert holders(instance, "graph") == [(*began, "graph")]
        assert len(waiters(instance, "graph")) == 1
        home.go("second")
        succeed(one, other)
        turns = [("granted", "graph", 1), ("released", "graph", 1)] * 2
        assert grants(instance, "graph") == turns
        assert home.begun("fence2").keys().isdisjoint(began)
        assert len(home.begun("fence2")) == 1


@pytest.mark.parametrize("executor", ["in_process", "multiprocess"])
def test_a_graph_asset_that_fails_gives_its_pool_back_at_once(home, executor):
    home.go("first")
    failing = materialize(home, "graph", EXECUTOR=executor, FAIL="yes")
    assert failing.wait() == 1, failing.output()
    with home.instance() as instance:
        turn = [("granted", "graph", 1), ("released", "graph", 1)]
        assert grants(instance, "graph") == turn


@pytest.mark.parametrize(
    ("kind", "executor"), [("sqlite", "multiprocess"), ("postgres", "in_process")]
)
def test_a_graph_asset_with_mapped_steps_holds_until_none_of_them_can_execute(home, executor):
    def turns(*holders):
        with home.instance() as instance:
            told = [(kind, step) for step in holders for kind in ("granted", "released")]
            assert [entry[:2] for entry in grants(instance, "mapped")] == told

    first = home.start(sys.executable, str(PLANNED), EXECUTOR=executor)
    assert first.wait() == 1, first.output()
    (run_id,) = home.begun("each_b")
    assert home.begun("beside").keys() == {run_id}
    turns("mapped", "beside")

    home.go("mend")
    again = home.start(sys.executable, str(PLANNED), run_id, EXECUTOR=executor)
    succeed(again)
    assert len(home.begun("each_b")) == 2
    assert len(home.begun("each_a")) == 1
    turns("mapped", "beside", "mapped")


@pytest.mark.parametrize(
    ("kind", "executor"), [("sqlite", "multiprocess"), ("postgres", "in_process")]
)
def test_a_graph_asset_asks_once_what_it_needs_of_its_run_has_ended(home, executor):
    """Its first step could begin at once, and would keep ``source`` from its pool for ever."""
    run = materialize(home, "raw,source,fed", EXECUTOR=executor)
    home.started(1, "raw")
    assert home.begun("early") == {}
    home.go("raw")
    succeed(run)
    assert len(home.begun("early")) == 1
    with home.instance() as instance:
        assert grants(instance, "fed") == [
            (kind, step, 1) for step in ("source", "fed") for kind in ("granted", "released")
        ]


@pytest.mark.parametrize(
    ("kind", "executor"), [("sqlite", "multiprocess"), ("postgres", "in_process")]
)
def test_slots_inside_a_graph_asset_that_holds_its_pool(home, executor):
    limit(home, pool="api")
    run = materialize(home, "charges", EXECUTOR=executor)
    (run_id,) = home.started(1, "charge")
    with home.instance() as instance:
        inside = home.control.joinpath("charge.key").read_text()
        assert inside.startswith("charges[slots:")
        assert holders(instance, "api") == [(run_id, inside)]
        assert holders(instance, "charges") == [(run_id, "charges")]
        home.go("charge")
        succeed(run)
        # Its own pool is held by the whole of it, this step too.
        told = home.control.joinpath("charge.outcome").read_text()
        assert told.endswith("waits for slots of charges that it holds itself, for ever.")
        assert grants(instance, "api") == [("granted", inside, 1), ("released", inside, 1)]
        turn = [("granted", "charges", 1), ("released", "charges", 1)]
        assert grants(instance, "charges") == turn
