"""``lifeguard check``: the table, each finding, and what it says of bad input."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any, ClassVar

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from dagster_lifeguard.cli import main
from dagster_lifeguard.compat.instance import DEFAULT_LIMIT_COMES_LATE
from dagster_lifeguard.inspections.check.codes import CODES
from dagster_lifeguard.limits import engine_yaml as storage_yaml

PROTECTED = """
import dagster as dg
from dagster_lifeguard import apply_per_asset_concurrency

@dg.asset(group_name="sales")
def orders(): ...

@dg.asset(key_prefix="my_group", deps=[orders])
def my_asset(): ...

@dg.multi_asset(specs=[dg.AssetSpec("zebra"), dg.AssetSpec("ant")])
def animals():
    for key in ("zebra", "ant"):
        yield dg.MaterializeResult(asset_key=key)

@dg.asset(pool="mine")
def own(): ...

defs = apply_per_asset_concurrency(dg.Definitions(assets=[orders, my_asset, animals, own, dg.AssetSpec("lake")]))
"""


def asset(name: str, arguments: str = "") -> str:
    return f"@dg.asset({arguments})\ndef {name}(): ...\n"


def code(*parts: str, wrap: str = "apply_per_asset_concurrency({})") -> str:
    names = "[v for v in list(globals().values()) if isinstance(v, dg.AssetsDefinition)]"
    return "\n".join(
        [
            "import dagster as dg",
            "from dagster_lifeguard import Policy, Rule, apply_per_asset_concurrency",
            *(dedent(part) for part in parts),
            "defs = " + wrap.format(f"dg.Definitions(assets={names})"),
        ]
    )


class Project:
    """A directory with code in it, and the command run there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str) -> str:
        self.path.joinpath(name).write_text(dedent(text))
        return name

    def check(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["check", *arguments])

    def json(self, *arguments: str) -> dict[str, Any]:
        result = self.check(*arguments, "--json")
        assert result.exit_code in (0, 1), result.output
        found: dict[str, Any] = json.loads(result.stdout)
        assert result.exit_code == int(bool(found["errors"] or found["warnings"]))
        return found

    def codes(self, *arguments: str) -> list[str]:
        found = self.json(*arguments)
        codes = [f["code"] for f in (*found["errors"], *found["warnings"])]
        assert set(codes) <= set(CODES)
        assert all(f["message"] and f["remedy"] for f in (*found["errors"], *found["warnings"]))
        return codes


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> Project:
    """A project whose instance has the default limit of 1 and is granular by op."""
    home.joinpath("dagster.yaml").write_text(
        "telemetry: {enabled: false}\nconcurrency: {pools: {default_limit: 1}}\n"
    )
    path = tmp_path / "project"
    path.mkdir()
    monkeypatch.chdir(path)
    return Project(path)


class TestTable:
    def test_as_a_whole(self, project: Project) -> None:
        result = project.check("-f", project.write("defs.py", PROTECTED))
        assert result.exit_code == 0, result.output
        assert result.stdout == (
            "asset               kind       rule   pool                limit   per\n"
            "─────────────────────────────────────────────────────────────────────\n"
            "ant                 multi      1      ant                     1   op \n"
            "lake                external   -      -                       -   -  \n"
            "my_group/my_asset   asset      1      my_group_my_asset       1   op \n"
            "orders              asset      1      orders                  1   op \n"
            "own                 asset      own    mine                    1   op \n"
            "zebra               multi      1      ant                     1   op \n"
            "multi: one op makes several assets and claims the pool of the first of them.\n"
            "rule own: the pool that the asset declares itself.\n"
            "\n"
            "5 assets: 3 alone in a pool, 2 in a shared pool, 0 unlimited, 1 external.\n"
            "nothing found\n"
        )

    def test_in_json(self, project: Project) -> None:
        found = project.json("-f", project.write("defs.py", PROTECTED))
        assert found["version"] == 1
        assert found["granularity"] == "op"
        assert found["assets"][0] == {
            "asset": "ant",
            "location": "defs.py",
            "group": "default",
            "kind": "multi_asset",
            "rule": 1,
            "pools": [{"name": "ant", "slots": 1, "limit": 1}],
            "current_pools": ["ant"],
            "explicit": False,
            "steps": 1,
            "executed_with": ["zebra"],
            "shared_ops": [],
            "tagged_ops": [],
        }

    def test_a_hundred_assets_fit_eighty_columns(self, project: Project) -> None:
        body = "\n".join(
            asset(f"a_rather_long_asset_name_{n:03}", f"key_prefix='some_group_{n % 9}'")
            for n in range(100)
        )
        file = project.write("defs.py", code(body))
        terminal = {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}
        shown = CliRunner(env=terminal).invoke(main, ["check", "-f", file]).stdout
        lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
        assert max(map(len, lines)) <= 80
        assert "asset some_group_1/a_rather_long_asset_name_001" in lines
        # Where nobody looks at a screen, each asset is a line for grep.
        lines = project.check("-f", file).stdout.splitlines()
        (line,) = [line for line in lines if "_001" in line]
        assert line.split()[0] == "some_group_1/a_rather_long_asset_name_001"
        assert line.split()[3] == "some_group_1_a_rather_long_asset_name_001"

    def test_totals_count_what_is_asked_for_wherever_it_is_shown(self, project: Project) -> None:
        own = (
            asset("c")
            + "@dg.asset_check(asset='c')\ndef fine():\n    return dg.AssetCheckResult(passed=True)\n"
        )
        policy = "rules=[Rule(assets='key:unique or key:b', pools=['w']), Rule(assets='*', pools=['{{asset}}'], checks=True)]"
        text = code(asset("unique"), asset("b"), own, wrap=f"Policy({policy}).apply({{}})")
        file = project.write("defs.py", text)
        expected = "3 assets: 1 alone in a pool, 2 in a shared pool, 0 unlimited."
        assert expected in project.check("-f", file).stdout
        # The other asset of the pool is not shown, and shares it all the same.
        expected = "1 asset: 0 alone in a pool, 1 in a shared pool, 0 unlimited."
        assert expected in project.check("-f", file, "--select", "unique").stdout

    def test_an_op_with_many_assets_gives_one_finding_of_a_kind(self, project: Project) -> None:
        body = """
            @dg.multi_asset(specs=[dg.AssetSpec(f"m{n:03}", skippable=True) for n in range(300)], can_subset=True)
            def models(): ...
            """
        wrap = "Policy(engine='lifeguard', rules=[Rule(assets='*', pools=['{{asset}}', 'w*9'])], pools={{'w': 8}}).apply({})"
        file = project.write("defs.py", code(body, wrap=wrap))
        found = project.json("-f", file, "--no-instance")
        (told,) = found["errors"]
        assert told["code"] == "slots-above-limit"
        assert len(told["names"]) == 301
        assert told["message"].startswith(
            "m000, m001, m002, m003, m004 and 295 more each ask for 9"
        )

    def test_a_thousand_assets_are_summed_up(self, project: Project) -> None:
        body = """
            def make(n):
                @dg.asset(name=f"asset_{n}", group_name=f"g{n % 5}")
                def made(): ...
                return made
            for n in range(1000):
                globals()[f"asset_{n}"] = make(n)
            """
        rules = "rules=[Rule(assets='group:g0', pools=[]), Rule(assets='*', pools=['{{asset}}'])]"
        file = project.write("defs.py", code(body, wrap=f"Policy({rules}).apply({{}})"))
        result = project.check("-f", file)
        assert result.exit_code == 0, result.output
        assert len(result.stdout.splitlines()) < 12
        assert [line.split() for line in result.stdout.splitlines()[2:4]] == [
            ["1", "group:g0", "200", "0", "asset_0"],
            ["2", "*", "800", "800", "asset_1"],
        ]
        assert "--all" in result.stdout
        some = project.check("-f", file, "--select", "asset_99")
        assert "asset_990 " in some.stdout
        assert len(project.check("-f", file, "--all").stdout.splitlines()) > 1000

    def test_filter_sort_and_summary(self, project: Project) -> None:
        file = project.write("defs.py", PROTECTED)
        by_pool = project.json("-f", file, "--sort", "pool")["assets"]
        assert [a["asset"] for a in by_pool] == [
            "lake", "ant", "zebra", "own", "my_group/my_asset", "orders",
        ]  # fmt: skip
        chosen = project.json("-f", file, "--select", "SALES")["assets"]
        assert [a["asset"] for a in chosen] == ["orders"]
        assert "my_group_my_asset" not in project.check("-f", file, "--summary").stdout

    def test_a_graph_asset_says_that_its_steps_claim_one_by_one(self, project: Project) -> None:
        graph = """
            @dg.op
            def one(): return 1
            @dg.op
            def two(x): return x
            @dg.graph_asset
            def both(): return two(one())
            """
        file = project.write("defs.py", code(graph))
        result = project.check("-f", file)
        assert "both    graph   1      both       1   op x2" in result.stdout
        assert "its N steps claim the pool one by one" in result.stdout


class TestFindings:
    def test_not_applied(self, project: Project) -> None:
        file = project.write("defs.py", code(asset("a"), wrap="{}"))
        assert project.codes("-f", file) == ["not-applied"]
        (found,) = project.json("-f", file)["errors"]
        assert "a should have a and has none" in found["message"]
        shown = project.check("-f", file).stdout
        assert "a       asset   1      none -> a       1   op" in shown
        assert "1 asset: 0 alone in a pool, 0 in a shared pool, 1 unlimited." in shown
        assert shown.endswith("1 error, 0 warnings\n")

    def test_not_applied_as_the_file_says(self, project: Project) -> None:
        project.write("lifeguard.yaml", 'rules:\n  - assets: "*"\n    pools: [shared]\n')
        assert project.codes("-f", project.write("defs.py", code(asset("a")))) == ["not-applied"]
        applied = code(asset("a"), wrap="Policy.from_yaml('lifeguard.yaml').apply({})")
        assert project.codes("-f", project.write("applied.py", applied)) == []

    def test_the_policy_in_the_code_counts_if_there_is_no_file(self, project: Project) -> None:
        wrap = "Policy(rules=[Rule(assets='*', pools=['x'])]).apply({})"
        file = project.write("defs.py", code(asset("a"), asset("b"), wrap=wrap))
        assert project.codes("-f", file) == []

    def test_two_policies_in_one_location(self, project: Project) -> None:
        text = code(
            asset("a"),
            "first = Policy(rules=[Rule(assets='*', pools=['x'])]).apply(dg.Definitions(assets=[a]))",
            asset("b"),
            "second = apply_per_asset_concurrency(dg.Definitions(assets=[b]))",
            wrap="dg.Definitions.merge(first, second) or {}",
        )
        text += "\ndel first, second"
        found = project.json("-f", project.write("defs.py", text))
        assert [a["pools"][0]["name"] for a in found["assets"]] == ["x", "b"]

    def test_an_executor_that_claims_no_slots(self, project: Project) -> None:
        """By the name that dagster-dask gives it, for it is not installed here."""
        dask = """
            @dg.executor(name="dask", requirements=dg.multiple_process_executor_requirements())
            def dask_executor(context):
                raise NotImplementedError
            """
        wrap = (
            "apply_per_asset_concurrency(dg.Definitions(assets=[a], executor=dask_executor)) or {}"
        )
        file = project.write("defs.py", code(asset("a"), dask, wrap=wrap))
        assert project.codes("-f", file) == ["executor-without-pools"]
        (found,) = project.json("-f", file)["warnings"]
        assert found["names"] == ["__ASSET_JOB"]
        free = wrap.replace("apply_per_asset_concurrency(", "(")
        file = project.write("free.py", code(asset("a"), dask, wrap=free))
        assert "executor-without-pools" not in project.codes("-f", file)

    def test_no_rule_and_unused_rule(self, project: Project) -> None:
        wrap = "Policy(rules=[Rule(assets='key:a', pools=['x']), Rule(assets='group:z', pools=[])]).apply({})"
        file = project.write("defs.py", code(asset("a"), asset("b"), wrap=wrap))
        assert project.codes("-f", file) == ["no-rule", "unused-rule"]
        assert project.codes("-f", file, "--ignore", "no-rule") == ["unused-rule"]

    def test_name_clash(self, project: Project) -> None:
        text = code(asset("b_c", "key_prefix='a'"), asset("c", "key_prefix='a_b'"), wrap="{}")
        assert project.codes("-f", project.write("defs.py", text)) == ["name-clash"]

    def test_unused_pool(self, project: Project) -> None:
        project.write("lifeguard.yaml", "pools: {warehouse: 8, a: 2}\n")
        file = project.write("defs.py", code(asset("a")))
        with dg.DagsterInstance.get() as instance:
            instance.event_log_storage.set_concurrency_slots("a", 2)
        (found,) = project.json("-f", file)["warnings"]
        assert (found["code"], found["names"]) == ("unused-pool", ["warehouse"])
        assert found["evidence"] == ["lifeguard.yaml:1:9: warehouse"]
        expected = [{"name": "a", "slots": 1, "limit": 2}]
        assert project.json("-f", file)["assets"][0]["pools"] == expected

    def test_a_pool_that_is_misspelt_in_a_rule(self, project: Project) -> None:
        text = """
            rules:
              - assets: "key:a"
                pools: [{}]
              - assets: "*"
                pools: ["warehouse"]
            pools: {{warehouse: 1, api_1: 1}}
            """
        file = project.write("defs.py", code(asset("a"), asset("b"), asset("c")))
        project.write("lifeguard.yaml", dedent(text.format("warehose")))
        found = project.json("-f", file)
        (told,) = [f for f in found["warnings"] if f["code"] == "pool-undeclared"]
        assert told["evidence"] == ["lifeguard.yaml:4:13: warehose"]
        assert told["remedy"].startswith("Did you mean warehouse?")
        for meant in ("warehouse", "api_2", "elsewhere"):
            project.write("lifeguard.yaml", dedent(text.format(meant)))
            assert "pool-undeclared" not in project.codes("-f", file)

    @pytest.mark.parametrize(
        ("rule", "expected"),
        [
            ('pools: ["{asset}", "w"]', ["needs-engine"]),
            ('pools: ["{owner}"]', ["template-unfilled"]),
        ],
    )
    def test_what_the_policy_cannot_do(
        self, project: Project, rule: str, expected: list[str]
    ) -> None:
        project.write("lifeguard.yaml", f'rules:\n  - assets: "*"\n    {rule}\n')
        file = project.write("defs.py", code(asset("a"), wrap="{}"))
        assert project.codes("-f", file) == expected

    def test_under_the_engine(self, project: Project) -> None:
        rules = """\
            engine: lifeguard
            rules:
              - {assets: "*", pools: ["{asset}", "w*3"]}
            pools: {w: 2}
        """
        project.write("lifeguard.yaml", dedent(rules))
        file = project.write("defs.py", code(asset("a"), wrap="{}"))
        # The definitions have no pools yet, and the instance is a stock one.
        assert project.codes("-f", file, "--ignore", "limit-in-force") == [
            "not-applied",
            "slots-above-limit",
            "engine-off",
        ]
        expected = [{"name": "a", "slots": 1, "limit": 1}, {"name": "w", "slots": 3, "limit": 2}]
        assert project.json("-f", file)["assets"][0]["pools"] == expected

    def test_limits_of_what_a_step_makes_and_of_partitions(self, project: Project) -> None:
        """Names that are known when a step claims are judged by the assets and by their pattern."""
        rules = """            engine: lifeguard
            rules:
              - {assets: "key:daily", pools: ["{asset}[{partition}]"]}
              - {assets: "*", pools: ["{asset}*2"]}
            pools: {"daily[2024-01-01]": 1, b: 2, c: 3, d: 4}
        """
        project.write("lifeguard.yaml", dedent(rules))
        several = """
@dg.multi_asset(specs=[dg.AssetSpec(k, skippable=True) for k in "abc"], can_subset=True)
def several(context): ...
"""
        parts = "partitions_def=dg.StaticPartitionsDefinition(['x'])"
        text = code(
            several,
            asset("daily", parts),
            wrap="Policy.from_yaml('lifeguard.yaml').apply({})",
        )
        file = project.write("defs.py", text)
        ignored = ("--ignore", "engine-off", "--ignore", "limit-in-force")
        found = project.json("-f", file, *ignored)
        told = [
            (f["code"], *f["names"])
            for f in (*found["errors"], *found["warnings"])
            if "on the instance" not in f["message"]
        ]
        assert told == [("slots-above-limit", "a", "a"), ("unused-pool", "d")]

    def test_limits_on_the_instance_that_no_demand_fits_into(self, project: Project) -> None:
        rules = """\
            engine: lifeguard
            rules: [{assets: "*", pools: ["{asset}", "w*3"]}]
            pools: {w: 4}
        """
        project.write("lifeguard.yaml", rules)
        text = code(asset("a"), wrap="Policy.from_yaml('lifeguard.yaml').apply({})")
        file = project.write("defs.py", text)
        found = project.json("-f", file, "--ignore", "engine-off")
        never = "whose limit on the instance is 1: it would wait for ever."
        assert [(f["code"], f["message"], f["remedy"], f["commands"]) for f in found["errors"]] == [
            (
                "slots-above-limit",
                f"a asks for 3 slots of the pool w, {never}",
                "Set the limit that the policy declares, 4.",
                ["lifeguard apply"],
            )
        ]
        done = CliRunner().invoke(main, ["apply", "--yes"])
        assert done.exit_code == 0, done.output
        assert project.codes("-f", file, "--ignore", "engine-off") == []

    MODELS = """
@dg.multi_asset(
    specs=[dg.AssetSpec("a", group_name="staging", skippable=True),
           dg.AssetSpec("b", group_name="marts", skippable=True),
           dg.AssetSpec("c", group_name="marts", skippable=True)], can_subset=True)
def dbt(): ...
"""

    def rules(self, project: Project, engine: str) -> str:
        rules = """
            rules:
              - {assets: "group:marts", pools: ["warehouse"]}
              - {assets: "*", pools: ["{asset}"]}
        """
        project.write("lifeguard.yaml", f"engine: {engine}\n{dedent(rules)}")
        text = code(self.MODELS, wrap="Policy.from_yaml('lifeguard.yaml').apply({})")
        return project.write("defs.py", text)

    def test_each_asset_of_an_op_is_shown_with_its_own_rule(self, project: Project) -> None:
        file = self.rules(project, "lifeguard")
        found = project.json("-f", file, "--ignore", "engine-off")
        assert [
            (a["asset"], a["rule"], [pool["name"] for pool in a["pools"]]) for a in found["assets"]
        ] == [("a", 2, ["a"]), ("b", 1, ["warehouse"]), ("c", 1, ["warehouse"])]
        assert [f["code"] for f in found["errors"] + found["warnings"]] == []
        only = project.json("-f", file, "--select", "warehouse")["assets"]
        assert [a["asset"] for a in only] == ["b", "c"]
        text = project.check("-f", file).output
        assert "{of:" not in text
        assert "3 assets: 1 alone in a pool, 2 in a shared pool, 0 unlimited." in text

    def test_under_stock_rules_that_do_not_decide_are_named_once_for_an_op(
        self, project: Project
    ) -> None:
        file = self.rules(project, "stock")
        found = project.json("-f", file, "--ignore", "unused-rule")
        assert [(a["asset"], a["rule"]) for a in found["assets"]] == [("a", 2), ("b", 2), ("c", 2)]
        (finding,) = found["warnings"]
        assert (finding["code"], finding["names"]) == ("one-rule-per-op", ["dbt", "b", "c"])
        assert finding["message"] == (
            'The op dbt has the pool of its first asset, a, by rule 2 (assets: "*"). What else '
            'selects its assets gives them no pool: rule 1 (assets: "group:marts") for b and c.'
        )

    def test_the_engine_is_off(self, project: Project, home: Path) -> None:
        settings = "telemetry: {enabled: false}\nconcurrency: {pools: {default_limit: 1}}\n"
        home.joinpath("dagster.yaml").write_text(settings)
        project.write("lifeguard.yaml", "engine: lifeguard\n")
        file = project.write("defs.py", code(asset("a")))
        assert "engine-off" in project.codes("-f", file)
        engine = storage_yaml.enabled(settings, str(home / "dagster.yaml"))
        home.joinpath("dagster.yaml").write_text(engine)
        assert "engine-off" not in project.codes("-f", file)

    def test_same_target(self, project: Project) -> None:
        table = "metadata={'dagster/table_name': 'db.t'}"
        text = code(asset("a", table), asset("b", table), asset("c"))
        file = project.write("defs.py", text)
        assert project.codes("-f", file) == ["same-target"]
        shared = code(
            asset("a", table),
            asset("b", table),
            wrap="Policy(rules=[Rule(assets='*', pools=['{{metadata:dagster/table_name}}'])]).apply({})",
        )
        assert project.codes("-f", project.write("shared.py", shared)) == []

    def test_steps_interleave_unless_granular_by_run(self, project: Project, home: Path) -> None:
        graph = """
            @dg.op
            def one(): return 1
            @dg.op
            def two(x): return x
            @dg.graph_asset
            def both(): return two(one())
            """
        file = project.write("defs.py", code(graph))
        assert project.codes("-f", file) == ["steps-interleave"]
        home.joinpath("dagster.yaml").write_text(
            "telemetry: {enabled: false}\n"
            "concurrency: {pools: {default_limit: 1, granularity: run}}\n"
        )
        late = ["limit-not-set"] if DEFAULT_LIMIT_COMES_LATE else []
        assert project.codes("-f", file) == late
        with dg.DagsterInstance.get() as instance:
            instance.event_log_storage.set_concurrency_slots("both", 1)
        assert project.codes("-f", file) == []

    def test_shared_op(self, project: Project) -> None:
        text = """
            @dg.op
            def fetch(): return 1
            @dg.graph_asset
            def left(): return fetch()
            @dg.graph_asset
            def right(): return fetch()
            """
        file = project.write("defs.py", code(text))
        assert project.codes("-f", file) == []
        for asset, found in zip(("left", "right"), project.json("-f", file)["assets"], strict=True):
            assert [pool["name"] for pool in found["pools"]] == found["current_pools"] == [asset]
            assert found["shared_ops"] == found["tagged_ops"] == ["fetch"]
        told = " ".join(project.check("-f", file).stdout.split())
        assert "Ops with a pool for each use, which Dagster's UI does not show: fetch." in told

    def test_a_shared_graph(self, project: Project) -> None:
        text = """
            @dg.op
            def fetch(): return 1
            @dg.graph
            def inner(): return fetch()
            @dg.graph_asset
            def left(): return inner()
            @dg.graph_asset
            def right(): return inner()
            """
        file = project.write("defs.py", code(text))
        (found,) = project.json("-f", file)["warnings"]
        assert found["code"] == "shared-op"
        assert found["message"] == (
            "The op fetch is in the graph inner, which asset left and asset right share; "
            "for all of them it claims the pool left."
        )

    def test_another_limit_on_the_instance(self, project: Project) -> None:
        project.write("lifeguard.yaml", "pools: {a: 8}\n")
        wrap = "Policy.from_yaml('lifeguard.yaml').apply({})"
        file = project.write("wrapped.py", code(asset("a"), asset("b"), wrap=wrap))
        for has in ("the default limit 1", "the limit 1"):
            (found,) = project.json("-f", file)["warnings"]
            assert (found["code"], found["names"]) == ("limit-in-force", ["a"])
            assert f"the pool a has {has}; the policy declares 8" in found["message"]
            with dg.DagsterInstance.get() as instance:
                instance.event_log_storage.set_concurrency_slots("a", 1)
                instance.event_log_storage.set_concurrency_slots("b", 1)
        with dg.DagsterInstance.get() as instance:
            instance.event_log_storage.set_concurrency_slots("a", 8)
        assert project.codes("-f", file) == []

    @pytest.mark.parametrize("settings", ["", "concurrency: {pools: {default_limit: 5}}"])
    def test_default_limit(self, project: Project, home: Path, settings: str) -> None:
        home.joinpath("dagster.yaml").write_text(f"telemetry: {{enabled: false}}\n{settings}\n")
        file = project.write("defs.py", code(asset("a")))
        assert project.codes("-f", file) == ["default-limit"]

    def test_a_coordinator_that_does_not_heed_on_conflict(
        self, project: Project, home: Path
    ) -> None:
        rules = "[Rule(assets='*', pools=('{{asset}}',), on_conflict='skip_new')]"
        wrap = f"Policy(rules={rules}).apply({{}})"
        file = project.write("defs.py", code(asset("a"), wrap=wrap))
        (found,) = project.json("-f", file)["warnings"]
        assert found["code"] == "coordinator-missing"
        assert found["message"] == (
            'rule 1 (assets: "*"): on_conflict: skip_new, which nobody heeds: the run coordinator '
            "in dagster.yaml is QueuedRunCoordinator."
        )
        with home.joinpath("dagster.yaml").open("a") as settings:
            settings.write(
                "run_coordinator: {module: dagster_lifeguard.storage.run_coordinator, "
                "class: LifeguardRunCoordinator}\n"
            )
        assert project.codes("-f", file) == []


class TestWithoutAnInstance:
    """No home, or a mistyped one: nothing is called protected whose limit was not looked at."""

    HOMES: ClassVar[dict[str | None, str]] = {
        None: "DAGSTER_HOME is not set, so no instance was looked at",
        "": "DAGSTER_HOME is not set, so no instance was looked at",
        "/no/such/home": "DAGSTER_HOME is /no/such/home, which is not a directory, so",
        "home": "DAGSTER_HOME is home, a relative path, which Dagster refuses, so",
        "{folder}/empty": "DAGSTER_HOME is {folder}/empty, which has no dagster.yaml, so",
        "{folder}/home/dagster.yaml": "DAGSTER_HOME is {folder}/home/dagster.yaml, which is not a",
    }
    UNKNOWN = "No instance was looked at: whether the pools have a limit is not known.\n"

    @pytest.fixture(params=HOMES, ids=str)
    def message(
        self,
        request: pytest.FixtureRequest,
        project: Project,
        home: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> str:
        folder = str(home.parent)
        home.parent.joinpath("empty").mkdir()
        monkeypatch.delenv("DAGSTER_HOME")
        if request.param is not None:
            monkeypatch.setenv("DAGSTER_HOME", request.param.format(folder=folder))
        return self.HOMES[request.param].format(folder=folder)

    def test_it_is_an_error_that_names_the_path(self, project: Project, message: str) -> None:
        file = project.write("defs.py", code(asset("a")))
        result = project.check("-f", file)
        assert result.exit_code == 1
        assert "a       asset   1      a          ?   op" in result.stdout
        assert result.stdout.endswith("0 without a pool.\n1 error, 0 warnings\n")
        assert "unlimited" not in result.stdout
        found = project.json("-f", file)
        assert found["instance"] is None
        (error,) = found["errors"]
        assert error["code"] == "no-instance"
        assert error["message"].startswith(message)
        assert not (project.path.parent / "empty").joinpath("history").exists()

    def test_by_intent_it_is_none_and_is_said(self, project: Project, message: str) -> None:
        file = project.write("defs.py", code(asset("a"), asset("b", "pool='x'")))
        for arguments in (("--no-instance",), ("--ignore", "no-instance")):
            result = project.check("-f", file, *arguments)
            assert result.exit_code == 0, result.output
            assert "a       asset   1      a          ?   op" in result.stdout
            assert result.stdout.endswith(f"{self.UNKNOWN}no findings in the definitions\n")
            found = project.json("-f", file, *arguments)
            assert (found["instance"], found["errors"]) == (None, [])

    def test_other_findings_are_told_too(self, project: Project) -> None:
        file = project.write("defs.py", code(asset("a"), wrap="{}"))
        result = project.check("-f", file, "--no-instance")
        assert result.exit_code == 1
        assert "error not-applied" in result.stdout
        assert result.stdout.endswith(f"1 without a pool.\n{self.UNKNOWN}1 error, 0 warnings\n")

    def test_an_instance_that_is_there_is_left_out(self, project: Project, home: Path) -> None:
        home.joinpath("dagster.yaml").write_text("nonsense: 1\n")
        file = project.write("defs.py", code(asset("a")))
        assert project.check("-f", file, "--no-instance").exit_code == 0

    def test_the_settings_beside_the_code_are_offered(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("DAGSTER_HOME")
        file = project.write("defs.py", code(asset("a")))
        (error,) = project.json("-f", file)["errors"]
        assert error["commands"][-1] == 'export DAGSTER_HOME="$HOME/dagster_home"'
        project.write("dagster.yaml", "concurrency: {pools: {default_limit: 1}}\n")
        (error,) = project.json("-f", file)["errors"]
        assert error["commands"] == [f"export DAGSTER_HOME={project.path}"]

    def test_a_home_below_the_users_own(
        self, project: Project, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(home.parent))
        monkeypatch.setenv("DAGSTER_HOME", "~/home")
        found = project.json("-f", project.write("defs.py", code(asset("a"))))
        assert (found["instance"], found["errors"]) == (str(home), [])


class TestConcurrencyKeyOnAssets:
    """Dagster reads the tag from ops. The lines that check prints are pasted, and then it holds."""

    APPLIED = "apply_per_asset_concurrency({})"
    RULES = "Policy(rules=[Rule(assets='key:z', pools=[]), Rule(assets='*', pools=['{{asset}}'])]).apply({})"
    FROM_FILE = "Policy.from_yaml('elsewhere/pools.yaml').apply({})"

    def tagged(self, **values: str) -> list[str]:
        return [asset(n, f"tags={{'dagster/concurrency_key': '{v}'}}") for n, v in values.items()]

    def found(self, project: Project, *arguments: str) -> list[dict[str, Any]]:
        warnings = project.json(*arguments)["warnings"]
        return [f for f in warnings if f["code"] == "tag-without-effect"]

    def pools(self, project: Project, *arguments: str) -> dict[str, list[str]]:
        return {a["asset"]: a["current_pools"] for a in project.json(*arguments)["assets"]}

    def test_one_finding_for_each_value(self, project: Project) -> None:
        parts = self.tagged(t="eumetsat", u="eumetsat", v="ecmwf")
        file = project.write("defs.py", code(*parts, asset("w"), wrap=self.APPLIED))
        first, second = self.found(project, "-f", file)
        assert (first["names"], second["names"]) == (["t", "u"], ["v"])
        assert first["message"] == (
            "The tag dagster/concurrency_key: eumetsat of t and u limits nothing: Dagster reads it "
            "from ops, not from assets."
        )
        shown = project.check("-f", file).stdout
        assert (
            '\n            Rule(assets="tag:dagster/concurrency_key=ecmwf", pools=["ecmwf"]),\n'
            in shown
        )

    @pytest.mark.parametrize("settings", ["", "naming='path', pools={{'w': 8}}"])
    def test_pasted_below_the_definitions(self, project: Project, settings: str) -> None:
        wrap = f"Policy({settings}).apply({{}})" if settings else self.APPLIED
        parts = self.tagged(t="eumetsat", u="eumetsat", v="ecmwf")
        text = code(*parts, asset("w", "key_prefix='a'"), wrap=wrap)
        file = project.write("defs.py", text)
        for finding in self.found(project, "-f", file):
            text += "\n" + "\n".join(finding["snippet"])
        project.write("pasted.py", text)
        assert project.codes("-f", "pasted.py") == []
        assert self.pools(project, "-f", "pasted.py") == {
            "t": ["eumetsat"],
            "u": ["eumetsat"],
            "v": ["ecmwf"],
            "a/w": ["a/w" if settings else "a_w"],
        }

    def test_pasted_among_rules_in_python(self, project: Project) -> None:
        parts = self.tagged(t="eumetsat", v="ecmwf")
        text = code(*parts, asset("z"), wrap=self.RULES)
        file = project.write("defs.py", text)
        for finding in self.found(project, "-f", file):
            text = text.replace("rules=[", "rules=[" + finding["snippet"][-1])
        project.write("pasted.py", text)
        assert project.codes("-f", "pasted.py") == []
        assert self.pools(project, "-f", "pasted.py") == {
            "t": ["eumetsat"], "v": ["ecmwf"], "z": [],
        }  # fmt: skip

    @pytest.mark.parametrize("name", ["lifeguard.yaml", "elsewhere/pools.yaml"])
    @pytest.mark.parametrize(
        "old", ["naming: path\n", 'rules:\n  - assets: "*"\n    pools: ["{asset}"]\n']
    )
    def test_pasted_into_a_file(self, project: Project, name: str, old: str) -> None:
        project.path.joinpath("elsewhere").mkdir()
        project.write(name, old)
        parts = self.tagged(t="eumetsat", v="1")
        wrap = self.FROM_FILE.replace("elsewhere/pools.yaml", name)
        text = code(*parts, asset("w"), wrap=wrap)
        file = project.write("defs.py", text)
        new = old
        for finding in self.found(project, "-f", file, "--config", name):
            lines = "\n".join(finding["snippet"]) + "\n"
            new = new.replace("rules:\n", "rules:\n" + lines) if "rules:" in old else old + lines
        project.write(name, new)
        file = project.write("loaded_anew.py", text)
        assert project.codes("-f", file) == []
        assert self.pools(project, "-f", file) == {"t": ["eumetsat"], "v": ["1"], "w": ["w"]}

    def test_where_the_policy_is_not_known_both_forms_are_told(self, project: Project) -> None:
        project.path.joinpath("elsewhere").mkdir()
        old = 'rules:\n  - assets: "*"\n    pools: ["{asset}"]\n'
        project.write("elsewhere/pools.yaml", old)
        text = code(*self.tagged(t="x"), wrap=self.FROM_FILE)
        (finding,) = self.found(project, "-f", project.write("defs.py", text))
        assert finding["snippet"] == [
            "# in lifeguard.yaml:",
            '  - assets: "tag:dagster/concurrency_key=x"',
            '    pools: ["x"]',
            "# or in Python:",
            'Rule(assets="tag:dagster/concurrency_key=x", pools=["x"]),',
        ]
        lines = "\n".join(finding["snippet"][:3])
        project.write("elsewhere/pools.yaml", old.replace("rules:", f"rules:\n{lines}"))
        assert project.codes("-f", project.write("loaded_anew.py", text)) == []

    def test_under_the_engine_assets_keep_their_own_pool(self, project: Project) -> None:
        project.write("lifeguard.yaml", "engine: lifeguard\n")
        wrap = self.FROM_FILE.replace("elsewhere/pools.yaml", "lifeguard.yaml")
        text = code(*self.tagged(t="x"), wrap=wrap)
        (finding,) = self.found(project, "-f", project.write("defs.py", text))
        project.write("lifeguard.yaml", "engine: lifeguard\n" + "\n".join(finding["snippet"]))
        file = project.write("loaded_anew.py", text)
        assert project.codes("-f", file) == ["engine-off"]
        (found,) = project.json("-f", file)["assets"]
        assert {pool["name"] for pool in found["pools"]} == {"t", "x"}

    def test_whatever_executes_the_asset(self, project: Project) -> None:
        text = """
            TAGS = {"dagster/concurrency_key": "x"}
            @dg.op
            def fetch(): return 1
            @dg.graph_asset(tags=TAGS)
            def graph(): return fetch()
            @dg.multi_asset(specs=[dg.AssetSpec(k, tags=TAGS) for k in ("ant", "bee")])
            def multi(): ...
            @dg.multi_asset(outs={"out": dg.AssetOut(key="cow", tags=TAGS)})
            def outs(): ...
            @dg.observable_source_asset(tags=TAGS)
            def seen(): ...
            """
        wrap = "apply_per_asset_concurrency(dg.Definitions(assets=[graph, multi, outs, seen]))"
        text = code(text, wrap=wrap)
        (finding,) = self.found(project, "-f", project.write("defs.py", text))
        assert finding["names"] == ["ant", "bee", "cow", "graph", "seen"]
        project.write("pasted.py", "\n".join([text, *finding["snippet"]]))
        assert project.codes("-f", "pasted.py") == []
        assert set(map(tuple, self.pools(project, "-f", "pasted.py").values())) == {("x",)}

    def test_where_no_rule_helps_it_does_not_print_one(self, project: Project) -> None:
        tags = "tags={'dagster/concurrency_key': 'x'}"
        text = code(asset("own", f"pool='mine', {tags}"), asset("t", tags), wrap=self.APPLIED)
        (finding,) = self.found(project, "-f", project.write("defs.py", text))
        assert finding["names"] == ["own", "t"]
        assert finding["remedy"].startswith('For own no rule will do: write pool="x" in the decor')
        assert finding["snippet"]
        text = code(asset("own", f"pool='mine', {tags}"), wrap=self.APPLIED)
        (finding,) = self.found(project, "-f", project.write("alone.py", text))
        assert finding["snippet"] == []
        text = code(asset("own", f"pool='x', {tags}"), wrap=self.APPLIED)
        assert self.found(project, "-f", project.write("mended.py", text)) == []

    def test_an_op_that_makes_assets_without_the_tag_too(self, project: Project) -> None:
        """Dagster gives an op one pool; a rule for some of its assets would be half heeded."""
        text = """
            TAGS = {"dagster/concurrency_key": "x"}
            @dg.multi_asset(specs=[dg.AssetSpec("ant", tags=TAGS), dg.AssetSpec("bee")])
            def multi(): ...
            """
        (finding,) = self.found(project, "-f", project.write("defs.py", code(text)))
        assert (finding["names"], finding["snippet"]) == (["ant"], [])
        assert finding["remedy"].startswith('For ant no rule will do: write pool="x" in the decor')
        pooled = text.replace("multi_asset(", 'multi_asset(pool="x", ')
        assert project.codes("-f", project.write("pooled.py", code(pooled))) == []

    def test_nothing_is_told_where_the_pool_is_there(self, project: Project) -> None:
        tags = "{'dagster/concurrency_key': 'x'}"
        own = asset("own", f"op_tags={tags}, tags={tags}")
        lake = f"lake = dg.AssetsDefinition(specs=[dg.AssetSpec('lake', tags={tags})])"
        assert project.codes("-f", project.write("defs.py", code(own, lake))) == []
        rule = "Rule(assets='*', pools=['{{tag:dagster/concurrency_key}}'])"
        text = code(*self.tagged(t="x", u="y"), wrap=f"Policy(rules=[{rule}]).apply({{}})")
        assert project.codes("-f", project.write("by_rule.py", text)) == []


class TestLocations:
    def test_a_workspace_with_modules_of_one_name(self, project: Project) -> None:
        """Two locations that both have a module ``shared`` do not get in each other's way."""
        for name, key in (("one", "a_b/c"), ("two", "a/b_c")):
            project.path.joinpath(name).mkdir()
            project.write(f"{name}/shared.py", f"KEY = {key.split('/')!r}\n")
            project.write(
                f"{name}/defs.py",
                code("from shared import KEY", "@dg.asset(key=KEY)\ndef made(): ...\n"),
            )
        project.write(
            "workspace.yaml",
            """
            load_from:
              - python_file: {relative_path: one/defs.py, working_directory: one, location_name: one}
              - python_file: {relative_path: two/defs.py, working_directory: two, location_name: two}
            """,
        )
        found = project.json("-w", "workspace.yaml")
        assert [(a["location"], a["asset"]) for a in found["assets"]] == [
            ("two", "a/b_c"),
            ("one", "a_b/c"),
        ]
        (clash,) = found["errors"]
        assert clash["code"] == "name-clash"
        assert "a_b/c (in one)" in clash["message"]
        assert "a/b_c (in two)" in clash["message"]

    def test_a_module(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        project.write("some_project_defs.py", code(asset("a")))
        monkeypatch.syspath_prepend(str(project.path))
        assert project.codes("-m", "some_project_defs") == []

    def test_the_project_here(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        project.write("pyproject.toml", '[tool.dagster]\nmodule_name = "my_own_defs"\n')
        project.write("my_own_defs.py", code(asset("a")))
        monkeypatch.syspath_prepend(str(project.path))
        assert [a["asset"] for a in project.json()["assets"]] == ["a"]

    def test_the_workspace_here(self, project: Project) -> None:
        project.write("workspace.yaml", "load_from:\n  - python_file: defs.py\n")
        project.write("defs.py", code(asset("a")))
        assert [a["asset"] for a in project.json()["assets"]] == ["a"]

    def test_a_legacy_repository_and_a_list_of_assets(self, project: Project) -> None:
        text = """
            import dagster as dg
            @dg.asset
            def a(): ...
            @dg.repository
            def one(): return [a]
            @dg.repository
            def two(): return []
            """
        assert project.codes("-f", project.write("defs.py", text)) == ["not-applied"]


class TestBadInput:
    def refused(self, result: Result, *texts: str) -> None:
        assert result.exit_code == 2, result.output
        for text in texts:
            assert text in " ".join(result.stderr.split())
        assert "Traceback" not in result.output

    def test_nothing_here(self, project: Project) -> None:
        self.refused(project.check(), "no Dagster project here", "lifeguard check -m MODULE")

    def test_no_such_file(self, project: Project) -> None:
        self.refused(project.check("-f", "none.py"), "none.py is not a file")

    def test_no_such_module(self, project: Project) -> None:
        self.refused(project.check("-m", "none_such"), "none_such cannot be loaded")

    def test_code_that_fails(self, project: Project) -> None:
        project.write("defs.py", "import dagster as dg\n\nraise RuntimeError('no password')\n")
        self.refused(project.check("-f", "defs.py"), "RuntimeError: no password", "(defs.py:3)")

    @pytest.mark.parametrize("ending", ["raise SystemExit(0)", "raise BaseException('boo')"])
    def test_code_that_ends_the_process(self, project: Project, ending: str) -> None:
        project.write("defs.py", ending + "\n")
        self.refused(project.check("-f", "defs.py"), "defs.py cannot be loaded")

    @pytest.mark.parametrize("ending", ["1 +", "import os; os._exit(0)", "raise SystemExit(0)"])
    def test_one_of_several_locations_that_fails(self, project: Project, ending: str) -> None:
        project.write("good.py", code(asset("a")))
        project.write("bad.py", ending + "\n")
        project.write("w.yaml", "load_from:\n  - python_file: good.py\n  - python_file: bad.py\n")
        self.refused(project.check("-w", "w.yaml"), "bad.py cannot be loaded")

    def test_an_instance_that_cannot_be_opened(self, project: Project, home: Path) -> None:
        home.joinpath("dagster.yaml").write_text("nonsense: 1\n")
        project.write("defs.py", code(asset("a")))
        self.refused(
            project.check("-f", "defs.py"), f"The instance in {home} cannot", "--no-instance"
        )

    def test_an_empty_module_name(self, project: Project) -> None:
        self.refused(project.check("-m", ""), "-m names no module")

    def test_a_workspace_that_is_none(self, project: Project) -> None:
        project.write("workspace.yaml", "load_form: []\n")
        self.refused(project.check("-w", "workspace.yaml"), "workspace.yaml:")

    def test_a_location_served_elsewhere(self, project: Project) -> None:
        project.write(
            "workspace.yaml", "load_from:\n  - grpc_server: {host: localhost, port: 4266}\n"
        )
        self.refused(project.check("-w", "workspace.yaml"), "served by another process")

    def test_a_config_that_is_wrong(self, project: Project) -> None:
        project.write("lifeguard.yaml", "naming: pth\n")
        project.write("defs.py", code(asset("a")))
        self.refused(project.check("-f", "defs.py"), "lifeguard.yaml:1:9:", "Did you mean 'path'?")

    def test_an_unknown_code(self, project: Project) -> None:
        self.refused(project.check("--ignore", "no-such"), "no-such")


def test_what_the_code_prints_is_not_in_the_json(project: Project) -> None:
    project.write(
        "defs.py", "import os\nprint('hello')\nos.system('echo child')\n" + code(asset("a"))
    )
    command = [sys.executable, "-m", "dagster_lifeguard", "check", "-f", "defs.py", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["assets"][0]["asset"] == "a"
    assert done.stderr.split() == ["hello", "child"]


@pytest.mark.parametrize(
    "name", ["[red]x[/]", "a:warning:b", "x\\\\", "line\\nbreak", "\\x1b[31m", "\\ud800"]
)
def test_names_are_shown_as_they_are_and_cannot_steer_the_terminal(
    project: Project, name: str
) -> None:
    outs = f"{{'result': dg.AssetOut(key=['{name}'])}}"
    text = f"@dg.multi_asset(outs={outs}, name='n')\ndef made(): ...\n"
    result = project.check("-f", project.write("hostile.py", code(text, wrap="{}")))
    assert result.exit_code == 1, result.output
    shown = name.replace("\\\\", "\\")
    assert shown in result.stdout.replace("\n", "")
    assert "\x1b" not in result.stdout


def test_the_installed_command(project: Project) -> None:
    """The real console script, in a process of its own."""
    project.write("defs.py", code(asset("a")))
    command = Path(sys.executable).with_name("lifeguard")
    done = subprocess.run(
        [str(command), "check", "-f", "defs.py"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "nothing found"
    version = subprocess.run(
        [str(command), "--version"], capture_output=True, text=True, check=True
    )
    assert version.stdout.startswith("lifeguard, version ")
