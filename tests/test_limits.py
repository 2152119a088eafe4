"""Limits as code: plan, apply and pull against an instance."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from dagster_lifeguard.cli import main
from dagster_lifeguard.deployment.open import open_deployment
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings, own_limits
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.engine.rules.shown_names import nearest
from dagster_lifeguard.errors import LifeguardError
from dagster_lifeguard.limits.lifeguard_yaml import HEADER, with_live_limits
from dagster_lifeguard.limits.plan import make_plan
from dagster_lifeguard.policy.config import Config
from pool_values import limited, orders, rates, set_limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagster_lifeguard.deployment.contract import Deployment

FILE = """\
# Ours.
default_limit: 1
rules:
  - assets: "kind:snowflake"
    pools: ["warehouse"]   # shared
  - assets: "*"
    pools: ["{asset}"]
pools:
  # The vendor allows four.
  stripe_api: {limit: 4}
  paused: 0
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "project"
    path.mkdir()
    monkeypatch.chdir(path)
    (path / "lifeguard.yaml").write_text(FILE)
    return path


def configure(home: Path, **pools: object) -> None:
    text = {"telemetry": {"enabled": False}, "concurrency": {"pools": pools}}
    (home / "dagster.yaml").write_text(json.dumps(text))


@pytest.fixture
def deployment(home, here) -> Iterator[Deployment]:
    configure(home, default_limit=1)
    with closing(open_deployment()) as found:
        yield found


def lifeguard(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def plan(deployment, text: str = FILE, *names: str, **options):
    found = make_plan(Config.from_text(text, "file"), deployment, names or None, **options)
    return {row.pool: row for row in found.pools}


def limits(deployment, **values: int | None) -> None:
    set_limits(deployment, values)


def claim(deployment, pool: str, *run_ids: str) -> None:
    for run_id in run_ids:
        deployment.instance.event_log_storage.claim_concurrency_slot(pool, run_id, "step")


class TestPlan:
    def test_each_pool_has_its_action(self, deployment):
        limits(deployment, stripe_api=2, paused=0, other=7)
        rows = plan(deployment)
        assert {(r.pool, r.origin, r.declared, r.live, r.own, r.action) for r in rows.values()} == {
            ("stripe_api", "pools", 4, 2, 2, "set"),
            ("paused", "pools", 0, 0, 0, "none"),
            ("warehouse", "rules", 1, 1, None, "none"),
            ("other", "undeclared", None, 7, 7, "none"),
        }
        assert plan(deployment, prune=True)["other"].action == "delete"
        assert list(plan(deployment, FILE, "paused")) == ["paused"]

    def test_a_limit_that_is_the_default_is_left_to_it_unless_a_number_is_declared(
        self, deployment
    ):
        text = "default_limit: 1\npools: {a: 1, b: {}, c: {}}"
        limits(deployment, c=3)
        rows = plan(deployment, text)
        assert [rows[pool].action for pool in "abc"] == ["set", "none", "set"]

    def test_under_granularity_run_each_pool_gets_a_limit_of_its_own(self, home, here):
        configure(home, default_limit=1, granularity="run")
        with closing(open_deployment()) as deployment:
            assert plan(deployment)["warehouse"].action == "set"

    def test_a_pool_cannot_be_unlimited_below_a_default_limit(self, deployment, home):
        text = "default_limit: null\npools: {a: {}}"
        assert plan(deployment, text)["a"].action == "impossible"
        limits(deployment, a=3)
        assert plan(deployment, text)["a"].action == "impossible"
        configure(home)
        with closing(open_deployment()) as unlimited:
            row = plan(unlimited, text)["a"]
            assert (row.action, row.after) == ("delete", None)
            limits(unlimited, a=None)
            assert plan(unlimited, text)["a"].action == "none"

    def test_the_default_limit_is_compared_only_where_the_file_states_it(self, deployment):
        for text, drift in (("default_limit: 2", True), ("default_limit: 1", False), ("", False)):
            found = make_plan(Config.from_text(text, "file"), deployment)
            assert (found.default_drifts, found.has_drift) == (drift, drift)

    def test_who_is_affected(self, deployment):
        limits(deployment, stripe_api=2)
        claim(deployment, "stripe_api", *"abcdef")
        row = plan(deployment)["stripe_api"]
        assert (row.held, len(row.waiting), row.drains, row.lets_in) == (2, 4, False, 2)
        row = plan(deployment, "pools: {stripe_api: 1}")["stripe_api"]
        assert (row.drains, row.lets_in) == (True, 0)
        row = plan(deployment, "pools: {stripe_api: 2}")["stripe_api"]
        assert (row.drains, row.lets_in) == (False, 0)


class TestPlanCommand:
    def test_it_shows_what_is_to_do_and_changes_nothing(self, deployment):
        limits(deployment, stripe_api=6, other=7)
        claim(deployment, "stripe_api", *(f"run{n}" for n in range(6)))
        result = lifeguard("plan", "--all")
        assert result.exit_code == 0, result.output
        lines = [" ".join(line.split()) for line in result.output.splitlines()]
        assert "other - 7 - - not declared" in lines
        assert "paused 0 1 (default) - - set 0 (paused)" in lines
        assert "stripe_api 4 6 6 - set 4" in lines
        assert "warehouse 1 1 (default) - - as declared" in lines
        assert (
            "stripe_api: 6 slots stay held until the steps end: run0:step, run1:step, "
            "run2:step and 3 more. The next step starts once 3 of them are released." in lines
        )
        assert lines[-1] == (
            "2 to set, 0 to delete, 1 as declared, 1 not declared (--prune deletes their limits)."
        )
        assert own_limits(deployment.pool_settings()) == {"stripe_api": 6, "other": 7}

    @pytest.mark.parametrize("columns", ["40", "80", "200"])
    def test_a_name_stands_whole_however_narrow_the_terminal(
        self, deployment, here, monkeypatch, columns
    ):
        monkeypatch.setenv("COLUMNS", columns)
        name = "warehouse__analytics__orders_by_customer_daily"
        (here / "lifeguard.yaml").write_text(
            f"engine: lifeguard\npools: {{{name}: {{limit: 8, rate: 100/minute, burst: 10}}}}\n"
        )
        (line,) = [x for x in lifeguard("plan").output.splitlines() if x.startswith(name)]
        assert line.split()[:2] == [name, "8"]

    def test_check_exits_with_1_on_drift_only(self, deployment):
        assert lifeguard("plan", "--check").exit_code == 1
        assert lifeguard("apply", "--yes").exit_code == 0
        assert lifeguard("plan", "--check").exit_code == 0
        limits(deployment, other=1)
        assert lifeguard("plan", "--check").exit_code == 0
        assert lifeguard("plan", "--check", "--prune").exit_code == 1

    def test_json_has_the_documented_fields(self, deployment):
        limits(deployment, stripe_api=1)
        claim(deployment, "stripe_api", "one", "two")
        found = json.loads(lifeguard("plan", "--json").output)
        page = Path(__file__).parents[1].joinpath("docs/reference/plan-json.md").read_text()
        row = next(pool for pool in found["pools"] if pool["pool"] == "stripe_api")
        for part in (found, found["default_limit"], row, row["holding"][0], row["waiting"][0]):
            for name in part:
                assert f"`{name}`" in page, name
        assert found["drift"]
        assert (row["held"], row["lets_in"], row["after"]) == (1, 1, 4)
        assert row["holding"][0]["run_id"] == "one"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("pools: [", "lifeguard.yaml:1:9: not valid YAML"),
            ("pools: {a: -1}", "pools.a.limit: -1"),
            ("pools: {a: 1001}", "pools.a.limit: 1001"),
            ("pools: {a: many}", "pools.a.limit: 'many'"),
            ("#" * 2**21, "is too large for a configuration"),
            ("pool: {a: 1}", "Did you mean 'pools'?"),
        ],
    )
    def test_a_file_that_is_wrong_changes_nothing(self, deployment, here, text, message):
        (here / "lifeguard.yaml").write_text(text)
        for command in (["plan"], ["apply", "--yes"], ["pull", "--yes"]):
            result = lifeguard(*command)
            assert result.exit_code == 2
            assert message in result.output
        assert not own_limits(deployment.pool_settings())
        assert (here / "lifeguard.yaml").read_text() == text

    def test_a_pool_that_is_unknown_is_answered_with_the_nearest(self, deployment):
        for command in (["plan"], ["apply", "--yes"]):
            result = lifeguard(*command, "strip_api")
            assert result.exit_code == 2
            assert "There is no pool 'strip_api'" in result.output
            assert "Did you mean stripe_api?" in result.output

    def test_a_limit_above_the_instances_maximum_is_refused(self, deployment, monkeypatch):
        monkeypatch.setenv("DAGSTER_MAX_GLOBAL_OP_CONCURRENCY_LIMIT", "3")
        result = lifeguard("apply", "--yes")
        assert result.exit_code == 2
        assert "stripe_api: 4" in result.output
        assert "from 0 to 3" in result.output
        assert not own_limits(deployment.pool_settings())


class TestApply:
    def test_what_is_declared_is_what_dagster_shows(self, deployment, home):
        result = lifeguard("apply", "--yes")
        assert result.exit_code == 0, result.output
        assert "Changed 2 limits" in result.output
        shown = subprocess.run(
            [sys.executable, "-m", "dagster", "instance", "concurrency", "get", "--all"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert '"stripe_api": 0 / 4 slots occupied' in shown
        assert '"paused": 0 / 0 slots occupied' in shown
        again = lifeguard("apply")
        assert again.exit_code == 0
        assert "0 to set, 0 to delete, 3 as declared." in again.output

    def test_it_asks_where_somebody_can_be_asked_and_else_does_nothing(
        self, deployment, monkeypatch
    ):
        result = lifeguard("apply")
        assert result.exit_code == 2
        assert "say --yes" in result.output
        monkeypatch.setattr("dagster_lifeguard.cli.file_changes.can_ask", lambda: True)
        for answer, expected in (("n", {}), ("y", {"stripe_api": 4, "paused": 0})):
            result = CliRunner().invoke(main, ["apply"], input=f"{answer}\n")
            assert result.exit_code == 0, result.output
            assert own_limits(deployment.pool_settings()) == expected

    def test_only_the_pools_named_and_pruned_only_if_asked(self, deployment):
        limits(deployment, other=7, more=8)
        assert lifeguard("apply", "--yes", "stripe_api").exit_code == 0
        assert own_limits(deployment.pool_settings()) == {"stripe_api": 4, "other": 7, "more": 8}
        assert lifeguard("apply", "--yes", "--prune", "other").exit_code == 0
        assert own_limits(deployment.pool_settings()) == {"stripe_api": 4, "more": 8}
        assert lifeguard("apply", "--yes", "--prune").exit_code == 0
        assert own_limits(deployment.pool_settings()) == {"stripe_api": 4, "paused": 0}

    def test_what_cannot_be_set_is_told_by_exit_code_1(self, deployment, here):
        (here / "lifeguard.yaml").write_text("default_limit: 2\npools: {a: 5}\n")
        result = lifeguard("apply", "--yes", "--json")
        assert result.exit_code == 1
        found = json.loads(result.output)
        assert (found["done"], found["not_done"], found["error"]) == (["a"], [], None)
        assert found["default_limit"]["drift"]
        assert own_limits(deployment.pool_settings()) == {"a": 5}


def pulled(text, limits, default_limit, **more):
    """The file with what is live, and what it cannot declare."""
    live = limited(limits) | more
    return with_live_limits(text, "file", live, default_limit, tells_all=True)


class TestPull:
    def test_a_new_file_declares_what_is_live(self, deployment, here):
        limits(deployment, b=2, a=1)
        (here / "lifeguard.yaml").unlink()
        assert lifeguard("pull", "--yes").exit_code == 0
        assert (here / "lifeguard.yaml").read_text() == HEADER + dedent("""\
            default_limit: 1
            pools:
              a: 1
              b: 2
            """)
        assert lifeguard("plan", "--check", "--prune").exit_code == 0
        result = lifeguard("pull", "--yes")
        assert (result.exit_code, "is as" in result.output) == (0, True)

    def test_a_file_keeps_its_rules_comments_and_ways_of_writing(self, deployment, here):
        limits(deployment, stripe_api=5, added=3)
        assert lifeguard("pull", "--yes").exit_code == 0
        assert (here / "lifeguard.yaml").read_text() == FILE.replace(
            "{limit: 4}\n  paused: 0\n", "{limit: 5}\n  added: 3\n"
        )
        assert lifeguard("plan", "--check", "--prune").exit_code == 0

    def test_it_shows_first_and_does_nothing_without_consent(self, deployment, here):
        limits(deployment, added=3)
        for arguments, code in ((["--dry-run"], 0), ([], 2)):
            result = lifeguard("pull", *arguments)
            assert result.exit_code == code
            assert "+  added: 3" in result.output
        assert (here / "lifeguard.yaml").read_text() == FILE

    def test_names_that_no_file_can_declare_are_told(self, deployment, here):
        limits(deployment, fine=1)
        set_limits(deployment, {"a b": 1})
        result = lifeguard("pull", "--yes")
        assert result.exit_code == 1
        assert "a b" in result.output.splitlines()[-1]
        assert "fine: 1" in (here / "lifeguard.yaml").read_text()

    def test_json_tells_what_is_live_and_asks_nothing(self, deployment, here):
        limits(deployment, fine=1)
        set_limits(deployment, {"a b": 2})
        (here / "lifeguard.yaml").unlink()

        def told(*arguments):
            result = lifeguard("pull", "--json", *arguments)
            assert result.exit_code == 1  # One pool cannot be declared.
            return json.loads(result.output)

        expected = {
            "version": 1,
            "deployment": deployment.name,
            "file": "lifeguard.yaml",
            "differs": True,
            "written": False,
            "default_limit": 1,
            "pools": {"fine": {"limit": 1, "rate": None, "order": "fifo"}},
            "left_out": {"a b": {"limit": 2, "rate": None, "order": "fifo"}},
        }
        assert told("--dry-run") == expected
        refused = lifeguard("pull", "--json")
        assert (refused.exit_code, "say --yes with --json" in refused.output) == (2, True)
        assert not (here / "lifeguard.yaml").exists()
        assert told("--yes") == {**expected, "written": True}
        assert told("--yes") == {**expected, "differs": False}

    @pytest.mark.parametrize("pool", ["yes", "1", "a/b", "a: b", "#x", "null", "é", "'"])
    def test_any_name_comes_back_as_it_was(self, pool):
        if " " in pool:
            pool = pool.replace(" ", "_")
        text, left_out = pulled(None, {pool: 2}, 1)
        assert left_out == ()
        assert Config.from_text(text, "file").pools[pool].limit == 2

    @pytest.mark.parametrize(
        "text",
        [
            "pools:\n  a: &x {limit: 4}\n  b: *x\n",
            "pools:\n  a: &x {limit: 4}\n  b:\n    <<: *x\n",
            "pools:\n  a: &x 4\n  b: *x\n",
        ],
    )
    @pytest.mark.parametrize("live", [{"a": 5, "b": 4}, {"a": 5, "b": 6}, {"a": 4, "b": 6}])
    def test_pools_that_share_a_value_are_told_apart(self, text, live):
        new, _ = pulled(text, live, 1)
        found = Config.from_text(new, "file").pools
        assert {pool: spec.limit for pool, spec in found.items()} == live

    def test_a_pool_that_has_a_rate_and_no_limit_any_more(self):
        text = "engine: lifeguard\npools:\n  warehouse: 8\n"
        new, _ = pulled(text, {}, 1, warehouse=PoolSettings(rate=Rate(1, 60)))
        (spec,) = Config.from_text(new, "file").pools.values()
        assert spec.settings == PoolSettings(rate=Rate(1, 60))

    def test_a_file_of_comments_keeps_them(self):
        text = "# what we agreed on\n# in March\n"
        new, _ = pulled(text, {"a": 5}, 1)
        assert new == f"{text}pools:\n  a: 5\n"
        assert pulled(text, {}, 1)[0] == text

    def test_an_empty_mapping_and_windows_lines_are_no_obstacle(self):
        for text in ("pools: {}\n", "naming: path\r\n", ""):
            new, _ = pulled(text, {"a": 1}, None)
            assert Config.from_text(new, "file").pools["a"].limit == 1
            assert new.count("\r\n") == (new.count("\n") if "\r" in text else 0)


def test_the_nearest_names_are_the_likest_first():
    known = ["Warehouse", "stripe_api", "strip_ap", "zebra"]
    assert nearest("strip_api", known) == ("stripe_api", "strip_ap")
    assert nearest("WAREHOUS", known) == ("Warehouse",)
    assert nearest("nothing", known) == ()


KEPT = """\
engine: lifeguard
default_limit: 1
pools:
  api: {limit: 4, rate: 100/minute, burst: 10}   # As the vendor says.
  cluster: {limit: 2, order: fair(tag:team)}
"""


class TestRatesAndOrders:
    @pytest.fixture
    def engine(self, home, here) -> Iterator[Deployment]:
        configure(home, default_limit=1)
        settings = json.loads((home / "dagster.yaml").read_text())
        settings["storage"] = {
            "custom": {
                "module": "dagster_lifeguard.storage",
                "class": "LifeguardSqliteStorage",
                "config": {"base_dir": str(home)},
            }
        }
        (home / "dagster.yaml").write_text(json.dumps(settings))
        (here / "lifeguard.yaml").write_text(KEPT)
        with closing(open_deployment()) as found:
            yield found

    @pytest.mark.parametrize("command", ["plan", "apply"])
    def test_a_file_for_stock_may_not_declare_them_as_the_policy_says_too(
        self, engine, here, command
    ):
        (here / "lifeguard.yaml").write_text(KEPT.replace("engine: lifeguard", "engine: stock"))
        refused = lifeguard(command)
        assert refused.exit_code == 2
        assert (
            "Pool 'api' has rate (100/minute, burst 10): needs engine: lifeguard." in refused.output
        )
        assert own_limits(engine.pool_settings()) == {}

    def test_apply_sets_them_with_the_limits_and_finds_nothing_to_do_afterwards(
        self, engine, monkeypatch
    ):
        monkeypatch.setenv("COLUMNS", "200")
        shown = lifeguard("plan", "--check")
        assert shown.exit_code == 1
        assert "set 4; set rate 100/minute, burst 10" in shown.output
        assert "set 2; set order fair(tag:team)" in shown.output
        applied = lifeguard("apply", "--yes")
        assert (applied.exit_code, applied.output.splitlines()[-1][:15]) == (0, "Changed 2 pools")
        assert rates(engine.pool_settings()) == {"api": Rate.parse("100/minute", 10)}
        assert orders(engine.pool_settings()) == {"cluster": "team"}
        assert own_limits(engine.pool_settings()) == {"api": 4, "cluster": 2}
        assert lifeguard("plan", "--check").exit_code == 0

    def test_what_is_live_and_not_declared_is_drift_and_is_deleted(self, engine, here):
        assert lifeguard("apply", "--yes").exit_code == 0
        (here / "lifeguard.yaml").write_text("default_limit: 1\npools: {api: 4, cluster: 2}\n")
        told = json.loads(lifeguard("plan", "--json").output)
        assert [(p["pool"], p["action"], p["rate"]["action"], p["order"]["action"])
                for p in told["pools"]] == [
            ("api", "none", "delete", "none"), ("cluster", "none", "none", "delete"),
        ]  # fmt: skip
        assert told["pools"][0]["rate"]["live"] == "100/minute, burst 10"
        assert lifeguard("apply", "--yes").exit_code == 0
        assert engine.pool_settings() == {"api": PoolSettings(4), "cluster": PoolSettings(2)}

    def test_of_a_pool_that_no_file_names_only_prune_deletes_them(self, engine, here):
        daily, shared = PoolSettings(rate=Rate.parse("1/day")), PoolSettings(fair_by="team")
        list(engine.set_pools({"api": daily, "cluster": shared}))
        (here / "lifeguard.yaml").write_text("default_limit: 1\n")
        assert lifeguard("plan", "--check").exit_code == 0
        assert lifeguard("apply", "--yes", "--prune").exit_code == 0
        assert engine.pool_settings() == {}

    def test_all_or_nothing(self, engine):
        daily = PoolSettings(rate=Rate.parse("1/day"))
        with pytest.raises(LifeguardError, match=r"{hold:step}a\*2"):
            list(engine.set_pools({"fine": PoolSettings(1), "{hold:step}a*2": daily}))
        assert own_limits(engine.pool_settings()) == {}

    def test_pull_writes_them_back(self, engine, here):
        assert lifeguard("apply", "--yes").exit_code == 0
        assert lifeguard("pull", "--yes").output.startswith("lifeguard.yaml is as")
        live = {
            "api": PoolSettings(4, Rate.parse("5/second")),
            "cluster": PoolSettings(2),
            "new": PoolSettings(fair_by="x"),
        }
        list(engine.set_pools(live))
        assert lifeguard("pull", "--yes").exit_code == 0
        text = (here / "lifeguard.yaml").read_text()
        assert re.search(r"api: \{limit: 4, rate: 5/second\} +# As the vendor says\.", text)
        assert "cluster: {limit: 2}" in text
        assert "new: {order: fair(tag:x)}" in text
        assert lifeguard("plan", "--check", "--prune").exit_code == 0
        (here / "lifeguard.yaml").unlink()
        assert lifeguard("pull", "--yes").exit_code == 0
        assert lifeguard("plan", "--check", "--prune").exit_code == 0

    def test_a_file_of_the_stock_engine_cannot_declare_them(self, engine, here):
        list(engine.set_pools({"api": PoolSettings(4, Rate.parse("5/second"))}))
        (here / "lifeguard.yaml").write_text(FILE)
        result = lifeguard("pull", "--yes")
        assert result.exit_code == 1
        assert "engine: lifeguard: api" in result.output
        assert "rate" not in (here / "lifeguard.yaml").read_text()

    def test_on_the_stock_storage_they_need_the_engine(self, deployment, here):
        (here / "lifeguard.yaml").write_text(KEPT)
        shown = lifeguard("plan", "--check")
        assert shown.exit_code == 1
        assert "need the engine, and the storage here does not keep them: api, cluster" in (
            " ".join(shown.output.split())
        )
        assert lifeguard("apply", "--yes").exit_code == 1
        assert own_limits(deployment.pool_settings()) == {"api": 4, "cluster": 2}
        with pytest.raises(LifeguardError, match="need the engine"):
            list(deployment.set_pools({"api": PoolSettings(9, Rate.parse("1/day"))}))
        assert own_limits(deployment.pool_settings())["api"] == 4
