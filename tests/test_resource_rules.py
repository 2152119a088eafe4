"""Rules by resource and by io manager: assets selected by them, pools named after them."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from dagster_lifeguard import Policy, Rule
from dagster_lifeguard.errors import TemplateError
from dagster_lifeguard.policy.assignments import Assignments
from dagster_lifeguard.policy.config import describe_rule


class Database(dg.ConfigurableResource):
    url: str = ""


@dg.asset
def one(snowflake_main: Database) -> None: ...


@dg.asset(required_resource_keys={"snowflake_main", "snowflake_old", "api"})
def two() -> None: ...


@dg.asset(io_manager_key="snowflake_io", required_resource_keys={"api"})
def stored() -> None: ...


@dg.op(required_resource_keys={"snowflake_old"})
def load() -> int:
    return 1


@dg.graph_asset
def graph() -> int:
    return load()


@dg.asset
def plain() -> None: ...


@dg.asset_check(asset=plain)
def checked(snowflake_main: Database) -> dg.AssetCheckResult: ...


ALL = [one, two, stored, graph, plain, checked]


def plan(*rules: Rule, engine: Any = "lifeguard") -> Assignments:
    return Assignments(Policy(engine=engine, rules=rules), ALL)


def given(*rules: Rule, engine: Any = "lifeguard") -> dict[str, str]:
    planned = plan(*rules, engine=engine)
    assert planned.problems == []
    return {a.asset: a.text for a in planned.assignments() if a.text}


class TestSelected:
    def test_by_a_resource_that_their_ops_require(self) -> None:
        rule = Rule(assets="*", resource="snowflake*", pools=["w"])
        assert given(rule, engine="stock") == {"one": "w", "two": "w", "graph": "w"}
        with_checks = Rule(assets="*", resource="snowflake_main", checks=True, pools=["w"])
        assert given(with_checks) == {"one": "w", "two": "w", "plain:checked": "w"}

    def test_by_the_io_manager_that_stores_them(self) -> None:
        """Which is not among their resources, nor are they among io managers."""
        rule = Rule(assets="*", io_manager="snowflake*", pools=["w"])
        assert given(rule, engine="stock") == {"stored": "w"}
        default = Rule(assets="key:plain or key:stored", io_manager="io_manager", pools=["w"])
        assert given(default) == {"plain": "w"}

    def test_by_all_that_a_rule_says(self) -> None:
        rule = Rule(assets="*", io_manager="snowflake*", resource="snowflake*", pools=["w"])
        assert given(rule) == {}
        assert describe_rule(1, rule) == (
            'rule 2 (assets: "*", io_manager: "snowflake*", resource: "snowflake*")'
        )

    def test_case_counts(self) -> None:
        assert given(Rule(assets="*", resource="Snowflake*", pools=["w"])) == {}


class TestNamed:
    def test_under_the_engine_each_resource_is_a_pool(self) -> None:
        rule = Rule(assets="*", resource="snowflake*", pools=["{asset}", "db_{resource}*2"])
        assert given(rule) == {
            "one": "one+db_snowflake_main*2",
            "two": "two+db_snowflake_main*2+db_snowflake_old*2",
            "graph": "graph+db_snowflake_old*2",
        }

    def test_without_a_pattern_all_resources_count(self) -> None:
        rule = Rule(assets="key:two", pools=["{resource}"])
        assert given(rule) == {"two": "api+snowflake_main+snowflake_old"}

    def test_stock_dagster_knows_one(self) -> None:
        rule = Rule(assets="*", resource="snowflake*", pools=["{resource}"])
        (error,) = plan(rule, engine="stock").problems
        assert isinstance(error, TemplateError)
        assert error.message == (
            'rule 1 (assets: "*", resource: "snowflake*"): two: {resource} could be any of '
            "snowflake_main, snowflake_old."
        )
        rule = Rule(assets="*", resource="*main", pools=["{resource}"])
        assert given(rule, engine="stock") == {"one": "snowflake_main", "two": "snowflake_main"}

    def test_an_asset_that_requires_none_has_no_name(self) -> None:
        (error,) = plan(Rule(assets="key:plain", pools=["{resource}"])).problems
        assert error.message == 'rule 1 (assets: "key:plain"): plain: {resource} has no value.'


def test_facts_about_dagster() -> None:
    """An op's resources are those of its parameters too, and none is its io manager's."""
    assert one.op.required_resource_keys == {"snowflake_main"}
    assert stored.op.required_resource_keys == {"api"}
    assert stored.get_io_manager_key_for_asset_key(dg.AssetKey("stored")) == "snowflake_io"


@pytest.mark.parametrize("key", ["resource", "io_manager"])
def test_an_empty_pattern_is_refused(key) -> None:
    with pytest.raises(ValueError, match=key):
        Rule(assets="*", pools=[], **{key: ""})
