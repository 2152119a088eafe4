"""Rules, naming, explicit pools, clashes and refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

import catalogue
from dagster_lifeguard import LifeguardError, Policy, Rule, apply_per_asset_concurrency
from dagster_lifeguard.compat.definitions import node_of
from dagster_lifeguard.compat.ops import leaf_ops
from dagster_lifeguard.engine.rules.pool_naming import asset_key_parts
from dagster_lifeguard.errors import (
    NameClashError,
    NeedsEngineError,
    SelectionError,
    TemplateError,
    UnsupportedDefinitionsError,
)
from dagster_lifeguard.policy import pool_names as templates
from dagster_lifeguard.policy.assignments import Assignments
from served import differences, served

if TYPE_CHECKING:
    from collections.abc import Sequence


def make(key: str, **arguments: Any) -> dg.AssetsDefinition:
    @dg.asset(key=key.split("/"), **arguments)
    def made() -> None: ...

    return made


def pools(defs: dg.Definitions) -> dict[str, str | None]:
    return {
        a.asset: " ".join(a.current) or None
        for a in Assignments(Policy(), items(defs)).assignments()
    }


def items(defs: dg.Definitions) -> list[Any]:
    return [*(defs.assets or ()), *(defs.asset_checks or ())]


def applied(*assets: Any, **policy: Any) -> dict[str, str | None]:
    return pools(Policy(**policy).apply(dg.Definitions(assets=list(assets))))


class TestNaming:
    def test_underscore_is_the_default(self) -> None:
        assert applied(make("my_group/my_asset")) == {"my_group/my_asset": "my_group_my_asset"}

    def test_path_keeps_keys_apart_that_underscore_confuses(self) -> None:
        assert applied(make("a_b/c"), make("a/b_c"), naming="path") == {
            "a_b/c": "a_b/c",
            "a/b_c": "a/b_c",
        }

    def test_a_clash_is_an_error_that_names_both_and_the_way_out(self) -> None:
        with pytest.raises(NameClashError) as caught:
            applied(make("a_b/c"), make("a/b_c"))
        assert caught.value.names == ("a/b_c", "a_b/c")
        assert "naming: path" in caught.value.remedy
        assert "'a_b_c'" in caught.value.message

    def test_a_clash_is_seen_across_rules(self) -> None:
        with pytest.raises(NameClashError):
            applied(
                make("x_a"),
                make("a"),
                rules=[
                    Rule(assets="key:a", pools=["x_{asset}"]),
                    Rule(assets="*", pools=["{asset}"]),
                ],
            )

    @pytest.mark.parametrize("key", [["a b", "c"], ["x", "50%"], ["a", "b/c"], ["größe"]])
    def test_a_path_name_can_be_turned_back(self, key: list[str]) -> None:
        @dg.multi_asset(outs={"result": dg.AssetOut(key=key)}, name="made")
        def made() -> int:
            return 1

        (pool,) = applied(made, naming="path").values()
        assert pool is not None
        assert asset_key_parts(pool) == tuple(key)

    def test_assets_that_share_a_pool_on_purpose_do_not_clash(self) -> None:
        shared = [Rule(assets="*", pools=["{group}"])]
        assert applied(make("a"), make("b"), rules=shared) == {"a": "default", "b": "default"}


class TestRules:
    def test_the_first_rule_that_selects_decides(self) -> None:
        rules = [
            Rule(assets="group:scratch", pools=[]),
            Rule(assets="key:a", pools=["first"]),
            Rule(assets="key:a", pools=["second"]),
            Rule(assets="*", pools=["{asset}"]),
        ]
        found = applied(make("a"), make("b"), make("c", group_name="scratch"), rules=rules)
        assert found == {"a": "first", "b": "b", "c": None}

    def test_an_asset_that_no_rule_selects_is_unlimited(self) -> None:
        assert applied(make("a"), make("b"), rules=[Rule(assets="key:a", pools=["x"])]) == {
            "a": "x",
            "b": None,
        }

    @pytest.mark.parametrize(
        ("selection", "selected"),
        [
            ("*", "abcd"),
            ("group:g", "b"),
            ("kind:snowflake", "c"),
            ("tag:daily", "b"),
            ("tag:tier=gold", "c"),
            ('owner:"team:x"', "d"),
            ("key:a+", "ab"),
            ("+key:b", "ab"),
            ("key:a or key:d", "ad"),
            ("not key:a", "bcd"),
        ],
    )
    def test_selections_are_dagsters_own(self, selection: str, selected: str) -> None:
        assets = [
            make("a"),
            make("b", group_name="g", tags={"daily": ""}, deps=["a"]),
            make("c", kinds={"snowflake"}, tags={"tier": "gold"}),
            make("d", owners=["team:x"]),
        ]
        found = applied(*assets, rules=[Rule(assets=selection, pools=["x"])])
        assert "".join(key for key, pool in found.items() if pool) == selected

    def test_a_malformed_selection_names_its_rule(self) -> None:
        with pytest.raises(SelectionError, match=r'rule 2 \(assets: "kind:"\)'):
            applied(
                make("a"),
                rules=[Rule(assets="group:x", pools=[]), Rule(assets="kind:", pools=["p"])],
            )

    def test_a_selection_that_dagster_only_resolves_in_its_ui_names_its_rule(self) -> None:
        with pytest.raises(SelectionError, match=r'rule 1 \(assets: "column:x"\)'):
            applied(make("a"), rules=[Rule(assets="column:x", pools=["p"])])

    def test_a_selection_brings_no_warning_of_dagsters(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            applied(make("a"), rules=[Rule(assets="key:a or tag:b=c", pools=["x"])])

    @pytest.mark.parametrize(("key", "pool"), [("ant", "some"), ("zebra", "rest")])
    def test_a_multi_asset_goes_by_its_first_key(self, key: str, pool: str) -> None:
        rules = [
            Rule(assets=f'key:"animals/{key}"', pools=["some"]),
            Rule(assets="*", pools=["rest"]),
        ]
        (animals,) = catalogue.multi_asset().assets or ()
        assert applied(animals, rules=rules) == {"animals/ant": pool, "animals/zebra": pool}

    def test_rules_see_assets_that_only_a_schedule_carries(self) -> None:
        new = Policy(rules=[Rule(assets="key:only_in_schedule", pools=["x"])]).apply(
            catalogue.automations()
        )
        nodes = served(new)["external_asset_graph_data"]
        assert [n["asset_key"]["path"] for n in nodes if n.get("pools", {}).get("__set__")] == [
            ["only_in_schedule"]
        ]


class TestStrategies:
    """The five strategies that users ask for, as docs/how-to/choose-a-strategy.md has them."""

    def test_one_pool_per_asset(self) -> None:
        assert applied(make("a/b"), make("c")) == {"a/b": "a_b", "c": "c"}

    def test_one_pool_per_table(self) -> None:
        def table(name: str) -> dict[str, Any]:
            return {"metadata": {"dagster/table_name": name}}

        found = applied(
            make("load", **table("db.public.orders")),
            make("repair", **table("db.public.orders")),
            make("users", **table("db.public.users")),
            make("untabled"),
            rules=[
                Rule(assets="key:untabled", pools=["{asset}"]),
                Rule(assets="*", pools=["{metadata:dagster/table_name}"]),
            ],
        )
        assert found == {
            "load": "db.public.orders",
            "repair": "db.public.orders",
            "untabled": "untabled",
            "users": "db.public.users",
        }

    def test_one_pool_per_api(self) -> None:
        found = applied(
            make("charges", tags={"api": "stripe"}),
            make("refunds", tags={"api": "stripe"}),
            make("issues", tags={"api": "github"}),
            make("own"),
            rules=[
                Rule(assets="tag:api", pools=["api_{tag:api}"]),
                Rule(assets="tag:api=stripe or tag:api=github", pools=["api_{tag:api}"]),
                Rule(assets="*", pools=["{asset}"]),
            ],
        )
        assert found == {
            "charges": "api_stripe",
            "issues": "api_github",
            "own": "own",
            "refunds": "api_stripe",
        }

    def test_one_pool_per_file_path(self) -> None:
        found = applied(
            make("a", metadata={"path": dg.MetadataValue.path("/data/one file.duckdb")}),
            make("b", metadata={"path": "/data/one file.duckdb"}),
            make("c", metadata={"path": Path("/data/c+d.duckdb")}),
            rules=[Rule(assets="*", pools=["{metadata:path}"])],
        )
        assert found == {
            "a": "/data/one%20file.duckdb",
            "b": "/data/one%20file.duckdb",
            "c": "/data/c%2Bd.duckdb",
        }

    def test_one_pool_shared_by_several(self) -> None:
        assert applied(
            make("a", kinds={"snowflake"}),
            make("b", kinds={"snowflake"}),
            make("c"),
            rules=[
                Rule(assets="kind:snowflake", pools=["warehouse"]),
                Rule(assets="*", pools=["{asset}"]),
            ],
        ) == {"a": "warehouse", "b": "warehouse", "c": "c"}


class TestTemplates:
    @pytest.mark.parametrize(
        ("template", "pool"),
        [
            ("{asset}", "raw_events"),
            ("{group}", "ingest"),
            ("{kind}", "duckdb"),
            ("{owner}", "team:data"),
            ("{io_manager}", "memory"),
            ("{tag:tier}", "gold"),
            ("{metadata:rows}", "3"),
            ("x_{group}_{tag:tier}", "x_ingest_gold"),
        ],
    )
    def test_each_is_filled_in_from_the_asset(self, template: str, pool: str) -> None:
        asset = make(
            "raw/events",
            group_name="ingest",
            kinds={"duckdb"},
            owners=["team:data"],
            io_manager_key="memory",
            tags={"tier": "gold"},
            metadata={"rows": 3},
        )
        assert applied(asset, rules=[Rule(assets="*", pools=[template])]) == {"raw/events": pool}

    @pytest.mark.parametrize(
        ("template", "reason"),
        [
            ("{kind}", "{kind} could be any of duckdb, python"),
            ("{owner}", "{owner} has no value"),
            ("{tag:tier}", "{tag:tier} has no value"),
            ("{metadata:path}", "{metadata:path} has no value"),
        ],
    )
    def test_one_that_cannot_be_filled_names_rule_and_assets(
        self, template: str, reason: str
    ) -> None:
        with pytest.raises(TemplateError) as caught:
            applied(
                make("a", kinds={"python", "duckdb"}),
                make("b", kinds={"python", "duckdb"}),
                rules=[Rule(assets="*", pools=[template])],
            )
        assert caught.value.names == ("a", "b")
        assert caught.value.message == f'rule 1 (assets: "*"): a and b: {reason}.'


class TestExplicitPools:
    """A pool that an asset declares itself, by ``pool=`` or by the older tag."""

    KEY = "dagster/concurrency_key"

    @pytest.mark.parametrize(
        "declared", [{"pool": "mine"}, {"op_tags": {KEY: "mine"}}], ids=["pool", "tag"]
    )
    def test_it_is_kept(self, declared: dict[str, Any]) -> None:
        base = dg.Definitions(assets=[make("a", **declared)])
        assert differences(served(base), served(apply_per_asset_concurrency(base))) == []

    @pytest.mark.parametrize(
        "declared", [{"pool": "mine"}, {"op_tags": {KEY: "mine"}}], ids=["pool", "tag"]
    )
    def test_override_replaces_it(self, declared: dict[str, Any]) -> None:
        rule = Rule(assets="*", pools=["{asset}"], override=True)
        new = Policy(rules=[rule]).apply(dg.Definitions(assets=[make("a", **declared)]))
        assert pools(new) == {"a": "a"}
        (asset,) = new.assets or ()
        assert isinstance(asset, dg.AssetsDefinition)
        assert self.KEY not in asset.op.tags

    def test_override_can_lift_it(self) -> None:
        rule = Rule(assets="*", pools=[], override=True)
        assert applied(make("a", pool="mine"), rules=[rule]) == {"a": None}

    def test_it_comes_back_when_the_overriding_policy_goes(self) -> None:
        base = dg.Definitions(assets=[make("a", pool="mine")])
        overridden = Policy(rules=[Rule(assets="*", pools=["x"], override=True)]).apply(base)
        assert pools(overridden) == {"a": "x"}
        assert pools(apply_per_asset_concurrency(overridden)) == {"a": "mine"}

    def test_in_a_graph_it_is_kept_op_by_op(self) -> None:
        @dg.op(pool="api")
        def fetch() -> int:
            return 1

        @dg.op
        def tagged(value: int) -> int:
            return value

        @dg.op
        def store(value: int) -> int:
            return value

        @dg.graph_asset
        def total() -> int:
            return store(tagged.tag({self.KEY: "by_tag"})(fetch()))

        base = dg.Definitions(assets=[total])
        assert pools(apply_per_asset_concurrency(base)) == {"total": "api by_tag total"}
        lifted = Policy(rules=[Rule(assets="*", pools=[], override=True)]).apply(base)
        assert pools(lifted) == {"total": None}
        assert pools(apply_per_asset_concurrency(lifted)) == {"total": "api by_tag total"}
        replaced = Policy(rules=[Rule(assets="*", pools=["x"], override=True)]).apply(base)
        assert pools(replaced) == {"total": "x"}
        assert differences(served(base), served(Policy(rules=[]).apply(replaced))) == []

    def test_a_tag_on_one_use_of_an_op_leaves_the_others_unlimited_and_that_is_told(self) -> None:
        @dg.op
        def fetch() -> int:
            return 1

        @dg.op
        def join(left: int, right: int) -> int:
            return left + right

        @dg.graph_asset
        def total() -> int:
            return join(fetch.tag({self.KEY: "api"})(), fetch.alias("again")())

        base = dg.Definitions(assets=[total])
        (found,) = Assignments(Policy(), items(base)).assignments()
        assert (found.pools, found.partly_limited_ops) == (("api", "total"), ("fetch",))
        policy = Policy(rules=[Rule(assets="*", pools=["{asset}"], override=True)])
        (found,) = Assignments(policy, items(base)).assignments()
        assert (found.pools, found.partly_limited_ops) == (("total",), ())


class TestStockEngineRefusals:
    @pytest.mark.parametrize(
        "rule",
        [
            Rule(assets="*", pools=["{asset}", "warehouse"]),
            Rule(assets="*", pools=["warehouse*2"]),
            Rule(assets="*", pools=["{asset}[{partition}]"]),
            Rule(assets="*", pools=["{asset}"], hold="asset"),
        ],
        ids=["two pools", "two slots", "partition", "hold"],
    )
    def test_more_than_one_static_pool(self, rule: Rule) -> None:
        with pytest.raises(NeedsEngineError, match="needs engine: lifeguard"):
            applied(make("a"), rules=[rule])

    def test_a_rate(self) -> None:
        with pytest.raises(NeedsEngineError, match="needs engine: lifeguard"):
            applied(make("a"), pools={"api": {"limit": 4, "rate": "100/minute"}})

    def test_all_problems_are_in_the_plan_and_nothing_is_applied(self) -> None:
        base = dg.Definitions(assets=[make("a_b/c"), make("a/b_c"), make("d", owners=[])])
        policy = Policy(
            rules=[
                Rule(assets="key:d", pools=["{owner}"]),
                Rule(assets="group:", pools=["x"]),
                Rule(assets="*", pools=["{asset}"]),
            ]
        )
        problems = Assignments(policy, items(base)).problems
        assert {p.code for p in problems} == {
            "selection-invalid",
            "template-unfilled",
            "name-clash",
        }
        with pytest.raises(LifeguardError):
            policy.apply(base)


class TestChecks:
    def test_they_are_left_alone(self) -> None:
        new = apply_per_asset_concurrency(catalogue.asset_checks())
        assert pools(new) == {"orders": "orders", "orders:alone": None, "orders:one": None}

    def test_a_rule_can_give_them_their_assets_pool(self) -> None:
        rule = Rule(assets="*", pools=["{asset}"], checks=True)
        new = Policy(rules=[rule]).apply(catalogue.asset_checks())
        assert pools(new) == dict.fromkeys(("orders", "orders:alone", "orders:one"), "orders")


class TestOnConflict:
    @staticmethod
    def op_tags(defs: dg.Definitions) -> dict[str, str | None]:
        ops = [node_of(a) for a in defs.assets or () if isinstance(a, dg.AssetsDefinition)]
        return {
            op.name: op.tags.get("lifeguard/on_conflict")
            for node in ops
            if node is not None
            for op, *_ in leaf_ops(node)
        }

    def policy(self, **rule: Any) -> Policy:
        return Policy(
            rules=(
                Rule(assets="key:one", pools=("{asset}",), on_conflict="skip_new", **rule),
                Rule(assets="*", pools=("{asset}",)),
            )
        )

    def test_it_is_a_tag_of_the_op_where_the_rule_says_so(self) -> None:
        defs = self.policy().apply(dg.Definitions(assets=[make("one"), make("two")]))
        assert self.op_tags(defs) == {"one": "skip_new", "two": None}

    def test_beside_other_tags_and_a_pool_of_its_own(self) -> None:
        one = make("one", op_tags={"team": "sales"}, pool="mine")
        defs = self.policy().apply(dg.Definitions(assets=[one]))
        assert pools(defs) == {"one": "mine"}
        assert isinstance(one.op, dg.OpDefinition)
        (new,) = defs.assets or ()
        assert isinstance(new, dg.AssetsDefinition)
        assert new.op.tags == {"team": "sales", "lifeguard/on_conflict": "skip_new"}
        assert one.op.tags == {"team": "sales"}

    def test_it_goes_with_the_policy(self) -> None:
        defs = self.policy().apply(dg.Definitions(assets=[make("one")]))
        assert self.op_tags(Policy().apply(defs)) == {"one": None}

    def test_a_shared_op_says_what_all_its_assets_allow(self) -> None:
        @dg.op
        def shared() -> int:
            return 1

        def graph() -> Any:
            return shared()

        graphs = [dg.graph_asset(name=name)(graph) for name in ("one", "two")]
        both = dg.Definitions(assets=graphs)
        assert self.op_tags(self.policy().apply(both)) == {"shared": None}
        rule = Rule(assets="*", pools=("{asset}",), on_conflict="skip_new")
        assert self.op_tags(Policy(rules=(rule,)).apply(both)) == {"shared": "skip_new"}

    def test_only_that_tag_differs_in_what_dagster_serves(self) -> None:
        defs = dg.Definitions(assets=[make("one")])
        found = differences(served(Policy().apply(defs)), served(self.policy().apply(defs)))
        assert found
        assert all("tags" in path for path in found), found


class TestWhatItAppliesTo:
    def test_not_to_a_list(self) -> None:
        with pytest.raises(UnsupportedDefinitionsError, match="not to a list"):
            apply_per_asset_concurrency([make("a")])  # type: ignore[call-overload]

    def test_not_to_assets_that_are_built_while_dagster_loads(self) -> None:
        class Cacheable:
            pass

        with pytest.raises(UnsupportedDefinitionsError, match="Cacheable"):
            Assignments(Policy(), [Cacheable()])  # type: ignore[list-item]

    def test_fields_that_were_not_given_stay_so(self) -> None:
        new = apply_per_asset_concurrency(dg.Definitions(assets=[make("a")]))
        assert (new.jobs, new.schedules, new.sensors, new.asset_checks) == (None,) * 4

    def test_what_has_no_op_is_the_very_same_object(self) -> None:
        base = catalogue.external()
        new = apply_per_asset_concurrency(base)
        assert all(a is b for a, b in zip(base.assets or (), new.assets or (), strict=True))

    @pytest.mark.parametrize("naming", ["underscore", "path"])
    def test_dagster_is_content_with_the_result(self, naming: Any) -> None:
        for kind in catalogue.KINDS.values():
            new = Policy(naming=naming).apply(kind())
            dg.Definitions.validate_loadable(new)
            assert new.get_repository_def().get_all_jobs() is not None

    def test_parts_that_were_wrapped_apart_can_be_merged(self) -> None:
        @dg.op
        def fetch() -> int:
            return 1

        @dg.graph
        def inner() -> int:
            return fetch()

        @dg.job
        def by_hand() -> None:
            inner()

        first = dg.AssetsDefinition.from_graph(inner, group_name="x")
        nightly = dg.ScheduleDefinition(name="nightly", target=[first], cron_schedule="@daily")
        parts = [
            dg.Definitions(assets=[first]),
            dg.Definitions(assets=[first], jobs=[by_hand]),
            dg.Definitions(assets=[first], schedules=[nightly]),
        ]
        one, two, three = (apply_per_asset_concurrency(part) for part in parts)
        merged = dg.Definitions(assets=one.assets, jobs=two.jobs, schedules=three.schedules)
        assert merged.get_repository_def().get_all_jobs()


def test_pools_are_the_same_in_every_process() -> None:
    """Dagster takes some orders from sets of strings, which differ from process to process."""
    kinds = ["multi_asset", "specs_from_a_set", "graph_multi_asset", "merged", "shared_ops"]
    program = f"""
import json, catalogue, test_assign, dagster_lifeguard as lg
(models,) = catalogue.specs_from_a_set().assets
print(json.dumps({{
    "declared first": next(spec.key.to_user_string() for spec in models.specs),
    "pools": {{
        kind: test_assign.pools(lg.apply_per_asset_concurrency(catalogue.KINDS[kind]()))
        for kind in {kinds}
    }},
}}))
"""
    answers = [
        json.loads(
            subprocess.run(
                [sys.executable, "-W", "ignore", "-c", program],
                cwd=Path(__file__).parent,
                env={**os.environ, "PYTHONHASHSEED": str(seed)},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for seed in range(1, 5)
    ]
    assert len({answer["declared first"] for answer in answers}) > 1, "the processes do not differ"
    for kind in kinds:
        assert len({str(answer["pools"][kind]) for answer in answers}) == 1, kind


class TestUnderTheEngine:
    def given(self, *assets: Any, pools: Sequence[str], **rule: Any) -> dict[str, str | None]:
        return applied(*assets, engine="lifeguard", rules=[Rule(assets="*", pools=pools, **rule)])

    def test_an_op_may_ask_for_several_pools_and_slots(self) -> None:
        assert self.given(make("a/b"), pools=["{asset}", "warehouse*2"]) == {
            "a/b": "{hold:step}a_b+warehouse*2"
        }

    def test_a_partition_is_left_to_the_step(self) -> None:
        daily = make("daily", partitions_def=dg.StaticPartitionsDefinition(["x"]))
        assert self.given(daily, pools=["{asset}[{partition}]"]) == {
            "daily": "{hold:step}daily[{partition}]"
        }

    @pytest.mark.parametrize("can_subset", [True, False])
    def test_an_op_that_makes_several_assets_asks_for_those_it_makes(
        self, *, can_subset: bool
    ) -> None:
        specs = [dg.AssetSpec(["m", name], skippable=True) for name in "ab"]

        @dg.multi_asset(specs=specs, can_subset=can_subset)
        def models(): ...

        # Which they are is known here, unless a run may select some of them.
        text = "{hold:step}{asset:underscore}+w" if can_subset else "{hold:step}m_a+m_b+w"
        assert self.given(models, pools=["{asset}", "w"]) == {"m/a": text, "m/b": text}

    def test_the_steps_of_a_graph_ask_for_all_assets_of_it(self) -> None:
        """A step before the last makes none of them, and works on them."""

        @dg.op
        def load():
            return 1

        @dg.op(out={"a": dg.Out(is_required=False), "b": dg.Out(is_required=False)})
        def split(number):
            yield dg.Output(number, "a")

        @dg.graph_multi_asset(
            outs={"a": dg.AssetOut(is_required=False), "b": dg.AssetOut(is_required=False)},
            can_subset=True,
        )
        def both():
            return split(load())

        assert self.given(both, pools=["{asset}"]) == {"a": "{hold:step}a+b", "b": "{hold:step}a+b"}

    def test_of_templates_that_come_out_as_one_pool_the_larger_counts(self) -> None:
        @dg.asset(group_name="g", tags={"team": "g"})
        def a(): ...

        assert self.given(a, pools=["{group}", "{tag:team}*2", "w"]) == {"a": "{hold:step}g*2+w"}

    def test_a_clash_with_what_a_step_will_ask_for_is_seen(self) -> None:
        specs = [dg.AssetSpec(["m", name], skippable=True) for name in "ab"]

        @dg.multi_asset(specs=specs, can_subset=True)
        def models(): ...

        with pytest.raises(NameClashError):
            self.given(models, make("m_b"), pools=["{asset}"])

    def test_a_graph_asset_may_hold_its_pools_as_a_whole(self) -> None:
        @dg.op
        def load():
            return 1

        @dg.graph_asset
        def graph():
            return load()

        found = self.given(graph, make("a"), pools=["{asset}"], hold="asset")
        assert found == {"graph": "{hold:asset}graph", "a": "a"}

    def test_more_pools_than_a_step_may_ask_for(self, monkeypatch) -> None:
        monkeypatch.setattr(templates, "POOLS_PER_DEMAND_MAX", 20)
        specs = [dg.AssetSpec(f"a{number}", skippable=True) for number in range(21)]

        @dg.multi_asset(specs=specs)
        def models(): ...

        with pytest.raises(TemplateError, match="more than 20 pools"):
            self.given(models, pools=["{asset}"])
