"""Past executions under the rules of another lifeguard.yaml."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg
from test_simulation import codes, in_line, of_pool, recorded, run, step

from dagster_lifeguard.compat.health import RunQueue
from dagster_lifeguard.deployment.contract import PlannedStep
from dagster_lifeguard.engine.rules.model import Demand
from dagster_lifeguard.engine.rules.pool_expressions import op_pool, parse_expression
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
from dagster_lifeguard.insight.simulation.answer import simulate
from dagster_lifeguard.insight.simulation.arrivals import PARTITION_TAG, Submission
from dagster_lifeguard.insight.simulation.other_rules import Texts, under_rules
from dagster_lifeguard.insight.simulation.recording import UNLIMITED
from dagster_lifeguard.insight.simulation.run_queue import QueuePlay
from dagster_lifeguard.policy.assignments import Assignments
from dagster_lifeguard.policy.config import Config, Rule


def planned(*steps):
    asked = []

    def of(run_id):
        asked.append(run_id)
        return [PlannedStep(key, None, assets) for key, *assets in steps]

    return of, asked


def test_each_execution_asks_for_what_the_rules_give_its_asset():
    pasts = [
        run(
            f"{key}{n}",
            step(f"{key}{n}", 100.0 if n or key == "t" else None, started, ended, key=key),
        )
        for n in range(10)
        for key, started, ended in (
            ("s", 100.0 + n * 20, 110.0 + n * 20),
            ("t", 110.0 + n * 20, 120.0 + n * 20),
        )
    ]
    recording = recorded(*pasts)
    of, asked = planned(("s", "sales"), ("t", "taxes"))
    other = under_rules(recording, Texts({"sales": "sales_pool", "taxes": None}, {}), of)
    assert len(asked) == 1  # One plan tells of all its steps.
    assert set(other.demands.values()) == {Demand.of({"sales_pool": 1}), None}
    answer = simulate(recording, {"sales_pool": {"limit": 1}}, other=other)
    before, after = of_pool(answer), of_pool(answer, "sales_pool")
    assert before.before.waits.count == 20
    assert before.after.waits.count == 0
    assert after.before.waits.count == 0
    # Ten that ask at once and hold for ten seconds; the others wait for nobody any more.
    assert after.after.waits.p95 == 90.0
    assert {found.step_key for found in answer.gaining} == {"s", "t"}
    assert UNLIMITED.pools[0] not in {found.pool for found in answer.pools}


def test_what_makes_no_asset_of_the_definitions_keeps_its_pool_and_is_told():
    recording = recorded(*in_line())
    of, _ = planned(("s", "unknown"))
    other = under_rules(recording, Texts({"sales": "sales_pool"}, {}), of)
    assert other.demands == {}
    (doubt,) = other.doubts
    assert doubt.code == "rules-not-played"
    assert "20 executions of 20 ask for the pools that they asked for" in doubt.message
    assert "rules-not-played" in codes(simulate(recording, {}, other=other))
    ledger = under_rules(replace(recording, source="ledger"), Texts({"unknown": "w"}, {}), of)
    assert [doubt.code for doubt in ledger.doubts] == ["pools-for-the-first-time"]


def test_partitions_fill_in_the_pools_of_a_rule():
    tags = {f"r{n}": {PARTITION_TAG: f"2026-01-{1 + n % 2:02}"} for n in range(20)}
    recording = recorded(*in_line(), tags_of=lambda ids: {run_id: tags[run_id] for run_id in ids})
    of, _ = planned(("s", "sales"))
    text = op_pool(parse_expression("sales[{partition}]"))
    other = under_rules(recording, Texts({"sales": text}, {}), of)
    pools = {pool for demand in other.demands.values() for pool in demand.pools}
    assert {"sales[2026-01-01]", "sales[2026-01-02]"} < pools
    limits = {pool: {"limit": 1} for pool in pools if not pool.startswith("{")}
    answer = simulate(recording, limits, other=other)
    # Two lines of ten in place of one of twenty.
    assert of_pool(answer, "sales[2026-01-01]").after.waits.p95 == 90.0


def test_the_run_queue_heeds_the_pools_of_the_rules():
    recording = recorded(*in_line(3))
    submissions = tuple(
        Submission(f"r{n}", 100.0, 0.0, 0.0, pools=frozenset("w"), first_pools={"w": 1})
        for n in range(3)
    )
    rules = RunQueue(-1, (), heeds_pools=True, buffer=0)
    arrivals = tuple(a._replace(run=n, at=0.0) for n, a in enumerate(recording.arrivals))
    recording = replace(
        recording, arrivals=arrivals, queue=QueuePlay(submissions, rules), queued=(0.0,) * 3
    )
    new = recording.with_demands({0: Demand.of({"x": 2}), 1: None})
    assert [s.pools for s in new.queue.submissions] == [{"x"}, set(), {"w"}]
    assert [s.first_pools for s in new.queue.submissions] == [{"x": 2}, None, {"w": 1}]
    assert new.arrivals[1].demand == UNLIMITED
    assert recording.with_demands({}) is recording


def test_a_pool_of_the_rules_without_a_limit_lets_all_in():
    recording = recorded(*in_line(), live={"w": PoolSettings(1)})
    of, _ = planned(("s", "sales"))
    other = under_rules(recording, Texts({"sales": "free"}, {}), of)
    answer = simulate(recording, {"free": {"limit": None}}, other=other)
    assert of_pool(answer, "free").after.waits.p95 == 0.0


def test_each_step_of_a_graph_asset_asks_for_what_the_rules_give_its_op():
    keys = ("g.load", "g.sub.clean[a]", "g.sub.clean[b]", "g.publish")
    recording = recorded(
        run("r", *(step("r", None, 100.0 + n, 101.0 + n, key=key) for n, key in enumerate(keys)))
    )
    of, _ = planned(("g.load",), ("g.sub.clean[?]",), ("g.publish", "g"))
    texts = Texts({}, {"g.load": "api", "g.sub.clean": None, "g.publish": "sales"})
    other = under_rules(recording, texts, of)
    asked = {recording.arrivals[place].key.step_key: d for place, d in other.demands.items()}
    assert asked == {
        "g.load": Demand.of({"api": 1}),
        "g.sub.clean[a]": None,
        "g.sub.clean[b]": None,
        "g.publish": Demand.of({"sales": 1}),
    }
    assert "rules-not-played" not in {doubt.code for doubt in other.doubts}


def test_a_graph_that_held_its_pools_as_a_whole_asks_for_what_all_its_steps_get():
    recording = recorded(run("r", step("r", None, 100.0, 110.0, key="g")))
    of, _ = planned(("g.load",), ("g.publish", "g"))
    same = under_rules(recording, Texts({}, {"g.load": "api", "g.publish": "api"}), of)
    assert same.demands == {0: Demand.of({"api": 1})}
    differing = under_rules(recording, Texts({}, {"g.load": "api", "g.publish": "x"}), of)
    assert differing.demands == {}
    assert [doubt.code for doubt in differing.doubts] == ["rules-not-played"]


def test_the_rules_know_the_steps_of_a_graph_asset_by_dagsters_keys():
    @dg.op(pool="own")
    def load():
        return 1

    @dg.op
    def clean(loaded):
        return loaded

    @dg.graph
    def tidy(loaded):
        return clean.alias("last")(clean(loaded))

    @dg.graph_asset
    def sales():
        return tidy(load())

    @dg.asset
    def plain(): ...

    result = dg.materialize([sales, plain])
    keys = {event.step_key for event in result.get_step_success_events()}
    config = Config(rules=(Rule(assets="*", pools=("shared",)),))
    texts = Texts.given(Assignments(config, [sales, plain]).assignments())
    assert {*texts.of_steps, "plain"} == keys
    assert texts.of_steps == {
        "sales.load": "own",
        "sales.tidy.clean": "shared",
        "sales.tidy.last": "shared",
    }
    assert texts.of_assets == {"plain": "shared"}
