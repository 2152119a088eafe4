"""Ops that several assets use: each use has its own pool."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.api import create_execution_plan
from dagster._core.op_concurrency_limits_counter import (
    compute_run_op_concurrency_info_for_snapshot,
)
from dagster._core.snap import snapshot_from_execution_plan

import catalogue
from dagster_lifeguard import Policy, Rule, apply_per_asset_concurrency
from dagster_lifeguard.compat.ops import CONCURRENCY_KEY_TAG, leaf_ops
from dagster_lifeguard.policy.assignments import Assignments

OWN = Rule(assets="*", pools=["{asset}"])


@dg.op
def fetch() -> int:
    return 1


@dg.op
def keep(value: int) -> int:
    return value


def graph_asset(name: str, compose: Any) -> dg.AssetsDefinition:
    return dg.graph_asset(name=name)(compose)


def steps(defs: dg.Definitions, job: str | None = None) -> dict[str, str]:
    """What each step claims, as Dagster tells its executors and its run queue."""
    repository = defs.get_repository_def()
    found = repository.get_job(job or next(iter(repository.get_implicit_asset_job_names())))
    plan = create_execution_plan(found)
    snapshot = snapshot_from_execution_plan(plan, found.get_job_snapshot_id())
    queued = compute_run_op_concurrency_info_for_snapshot(snapshot)
    claimed = {
        step.key: pool for step in plan.steps if (pool := step.pool or step.tags.get(CONCURRENCY_KEY_TAG))
    }  # fmt: skip
    assert (queued.all_pools if queued else set()) == set(claimed.values())
    return claimed


def defs(*assets: Any, **more: Any) -> dg.Definitions:
    return dg.Definitions(assets=assets, **more)


LEFT = graph_asset("left", lambda: keep(fetch()))
RIGHT = graph_asset("right", lambda: keep(fetch()))


class TestEachUse:
    def test_has_the_pool_of_its_asset(self) -> None:
        new = apply_per_asset_concurrency(defs(LEFT, RIGHT))
        assert steps(new) == {
            "left.fetch": "left",
            "left.keep": "left",
            "right.fetch": "right",
            "right.keep": "right",
        }

    def test_also_where_rules_of_the_engine_say_what(self) -> None:
        policy = Policy(
            engine="lifeguard",
            rules=[Rule(assets="key:left", pools=["{asset}", "w*2"], hold="asset"), OWN],
        )
        held = "{hold:asset}left+w*2"
        assert steps(policy.apply(defs(LEFT, RIGHT))) == {
            "left.fetch": held,
            "left.keep": held,
            "right.fetch": "right",
            "right.keep": "right",
        }

    def test_or_none_where_that_is_what_is_asked_for(self) -> None:
        policy = Policy(rules=[Rule(assets="key:left", pools=[]), OWN])
        assert steps(policy.apply(defs(LEFT, RIGHT))) == {
            "right.fetch": "right",
            "right.keep": "right",
        }

    def test_by_its_name_in_the_graph(self) -> None:
        twice = graph_asset("twice", lambda: keep.alias("again")(keep(fetch())))
        new = apply_per_asset_concurrency(defs(LEFT, twice))
        assert steps(new) == {
            "left.fetch": "left",
            "left.keep": "left",
            "twice.fetch": "twice",
            "twice.keep": "twice",
            "twice.again": "twice",
        }

    def test_in_graphs_within_graphs_too(self) -> None:
        @dg.graph
        def inner() -> Any:
            return keep(fetch())

        nested = graph_asset("nested", lambda: inner())  # noqa: PLW0108 - a call in a graph
        new = apply_per_asset_concurrency(defs(LEFT, nested))
        assert steps(new) == {
            "left.fetch": "left",
            "left.keep": "left",
            "nested.inner.fetch": "nested",
            "nested.inner.keep": "nested",
        }

    def test_on_the_op_where_all_want_the_same(self) -> None:
        """There Dagster's UI shows it."""
        new = Policy(rules=[Rule(assets="*", pools=["w"])]).apply(defs(LEFT, RIGHT))
        for asset in new.assets or ():
            assert {(op.pool, tags.get(CONCURRENCY_KEY_TAG)) for op, tags, *_ in
                    leaf_ops(asset.node_def)} == {("w", None)}  # fmt: skip

    def test_in_a_run_of_some_assets_of_a_graph(self) -> None:
        @dg.graph_multi_asset(outs={"one": dg.AssetOut(), "two": dg.AssetOut()}, can_subset=True)
        def both() -> Any:
            return {"one": keep(fetch()), "two": keep.alias("too")(fetch.alias("other")())}

        new = apply_per_asset_concurrency(defs(LEFT, both))
        job = new.get_repository_def().get_job("__ASSET_JOB")
        part = job.get_subset(asset_selection={dg.AssetKey("two")})
        found = create_execution_plan(part).steps
        assert {step.key: step.tags.get(CONCURRENCY_KEY_TAG) for step in found} == {
            "both.other": "one",
            "both.too": "one",
        }

    def test_another_policy_takes_it_back(self) -> None:
        base = defs(LEFT, RIGHT)
        other = Policy(rules=[Rule(assets="key:left", pools=["l"])])
        again = other.apply(apply_per_asset_concurrency(base))
        assert steps(again) == {"left.fetch": "l", "left.keep": "l"}

    def test_parts_wrapped_one_by_one_can_be_merged(self) -> None:
        one = apply_per_asset_concurrency(defs(LEFT, RIGHT))
        two = apply_per_asset_concurrency(defs(RIGHT, LEFT))
        for asset in one.assets or ():
            assert any(asset.node_def is other.node_def for other in two.assets or ())


class TestJobs:
    def test_a_job_claims_what_its_user_wrote_where_assets_want_different_pools(self) -> None:
        new = apply_per_asset_concurrency(catalogue.shared_ops())
        assert steps(new, "by_hand") == {}

    def test_a_job_claims_the_pool_of_the_only_asset(self) -> None:
        base = catalogue.shared_ops()
        (left,) = (a for a in base.assets or () if a.key == dg.AssetKey("left"))
        new = apply_per_asset_concurrency(defs(left, jobs=base.jobs))
        assert steps(new, "by_hand") == {"fetch": "left"}
        (found,) = Assignments(Policy(), [left]).shared_ops(base.jobs or ())
        assert (found.op, found.pool, found.assets, found.jobs) == (
            "fetch",
            "left",
            ("left",),
            ("by_hand",),
        )


class TestDeclared:
    @pytest.fixture
    def pooled(self) -> dg.OpDefinition:
        @dg.op(pool="mine")
        def pooled() -> int:
            return 1

        return pooled

    def test_a_pool_of_the_op_stays_for_all(self, pooled) -> None:
        both = [graph_asset(name, lambda: keep(pooled())) for name in ("a", "b")]
        new = apply_per_asset_concurrency(defs(*both))
        assert steps(new) == {"a.pooled": "mine", "a.keep": "a", "b.pooled": "mine", "b.keep": "b"}

    def test_it_stays_where_no_rule_overrides_it(self, pooled) -> None:
        @dg.job
        def by_hand() -> None:
            pooled()

        both = [graph_asset(name, lambda: keep(pooled())) for name in ("a", "b")]
        override = Rule(assets="key:b", pools=["{asset}"], override=True)
        new = Policy(rules=[override, OWN]).apply(defs(*both, jobs=[by_hand]))
        assert steps(new) == {"a.pooled": "mine", "a.keep": "a", "b.pooled": "b", "b.keep": "b"}
        assert steps(new, "by_hand") == {"pooled": "mine"}

    def test_a_tag_on_a_use_stays_there(self) -> None:
        tagged = fetch.tag({CONCURRENCY_KEY_TAG: "mine", "team": "x"})
        a = graph_asset("a", lambda: keep(tagged()))
        new = apply_per_asset_concurrency(defs(a, LEFT))
        assert steps(new) == {
            "a.fetch": "mine",
            "a.keep": "a",
            "left.fetch": "left",
            "left.keep": "left",
        }
        (of_a,) = (x for x in new.assets or () if x.key == dg.AssetKey("a"))
        (team,) = [
            tags["team"]
            for op, tags, *_ in leaf_ops(of_a.node_def)
            if op is not keep and "team" in tags
        ]
        assert team == "x"

    def test_beside_a_tag_on_one_use_the_others_stay_unlimited(self) -> None:
        tagged = keep.tag({CONCURRENCY_KEY_TAG: "mine"})
        a = graph_asset("a", lambda: keep.alias("plain")(tagged(fetch())))
        assert steps(apply_per_asset_concurrency(defs(a, LEFT))) == {
            "a.fetch": "a",
            "a.keep": "mine",
            "left.fetch": "left",
            "left.keep": "left",
        }


class TestOnePool:
    """What Dagster knows as one thing has one pool, and the plan tells of it."""

    def test_of_an_op_in_a_graph_that_assets_share(self) -> None:
        @dg.graph
        def inner() -> Any:
            return keep(fetch())

        both = [graph_asset(name, lambda: inner()) for name in "ab"]  # noqa: PLW0108 - see above
        new = apply_per_asset_concurrency(defs(*both, LEFT))
        assert set(steps(new).items()) == {
            *((f"{asset}.inner.{op}", "a") for asset in "ab" for op in ("fetch", "keep")),
            ("left.fetch", "left"),
            ("left.keep", "left"),
        }
        found = Assignments(Policy(), [*both, LEFT]).shared_ops()
        assert [(s.op, s.pool, s.assets, s.graph) for s in found] == [
            ("fetch", "a", ("a", "b"), "inner"),
            ("keep", "a", ("a", "b"), "inner"),
        ]

    def test_of_a_graph_in_another_part_that_was_wrapped_by_itself(self) -> None:
        @dg.graph
        def inner() -> Any:
            return fetch()

        a, b = (graph_asset(name, lambda: inner()) for name in "ab")  # noqa: PLW0108
        one, two = (apply_per_asset_concurrency(defs(asset, LEFT)) for asset in (a, b))
        assert steps(one)["a.inner.fetch"] == "a"
        assert steps(two)["b.inner.fetch"] == "b"

    def test_of_an_op_that_is_an_asset_by_itself(self) -> None:
        alone = dg.AssetsDefinition.from_op(
            fetch, keys_by_output_name={"result": dg.AssetKey("alone")}
        )
        new = apply_per_asset_concurrency(defs(alone, LEFT))
        assert set(steps(new).values()) == {"alone", "left"}
        assert steps(new)["left.fetch"] == "alone"
        (found,) = Assignments(Policy(), [alone, LEFT]).shared_ops()
        assert (found.op, found.pool, found.assets, found.graph) == (
            "fetch",
            "alone",
            ("alone", "left"),
            None,
        )

    def test_is_not_told_of_where_all_asked_for_it(self) -> None:
        same = Policy(rules=[Rule(assets="*", pools=["w"])])
        assert Assignments(same, [LEFT, RIGHT]).shared_ops() == ()
        assert Assignments(Policy(), [LEFT, RIGHT]).shared_ops() == ()


class TestWhatDagsterShows:
    def test_its_ui_is_told_no_pool_of_an_op_with_one_for_each_use(self) -> None:
        """Fails once Dagster's UI knows: then the docs and ``check`` are to say so."""
        from served import served

        nodes = served(apply_per_asset_concurrency(defs(LEFT, RIGHT)))["external_asset_graph_data"]
        assert [node.get("pools", {}).get("__set__", []) for node in nodes] == [[], []]
