"""Rules for assets with partitions and without: selected by that, and named by it."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from dagster_lifeguard import Policy, Rule
from dagster_lifeguard.engine.rules.pool_expressions import format_expression
from dagster_lifeguard.errors import NeedsEngineError, TemplateError
from dagster_lifeguard.inspections.check.policies import policy_findings
from dagster_lifeguard.policy.assignments import Assignments
from dagster_lifeguard.policy.config import describe_rule

DAYS = dg.DailyPartitionsDefinition("2024-01-01")
REGIONS = dg.StaticPartitionsDefinition(["us", "eu"])
BOTH = dg.MultiPartitionsDefinition({"region": REGIONS, "date": DAYS})
TWICE = dg.MultiPartitionsDefinition({"seen": DAYS, "made": DAYS})


def make(name: str, partitions_def: Any = None) -> dg.AssetsDefinition:
    @dg.asset(name=name, partitions_def=partitions_def)
    def new() -> None: ...

    return new


ALL = [make("daily", DAYS), make("regional", REGIONS), make("both", BOTH), make("plain")]


def plan(*rules: Rule, assets: Any = ALL, engine: Any = "lifeguard") -> Assignments:
    return Assignments(Policy(engine=engine, rules=rules), assets)


def given(*rules: Rule, assets: Any = ALL) -> dict[str, str]:
    """What each asset asks for, as people are shown it."""
    planned = plan(*rules, assets=assets)
    assert planned.problems == []
    return {a.asset: a.text for a in planned.assignments()}


def problem(*rules: Rule, assets: Any = ALL) -> str:
    (error,) = plan(*rules, assets=assets).problems
    assert isinstance(error, TemplateError)
    return error.message


def test_one_line_is_for_assets_with_partitions_and_for_those_without() -> None:
    assert given(Rule(assets="*", pools=["{asset}[{partition}]", "{asset}"])) == {
        "daily": "daily[{partition}]+daily",
        "regional": "regional[{partition}]+regional",
        "both": "both[{partition}]+both",
        "plain": "plain",
    }


def test_a_partition_outside_of_brackets_needs_one() -> None:
    message = problem(Rule(assets="*", pools=["{asset}/{partition}"]))
    assert message == 'rule 1 (assets: "*"): plain: {partition}: it has no partitions.'


def test_of_a_name_that_is_all_bracket_something_must_be_left() -> None:
    message = problem(Rule(assets="key:plain or key:daily", pools=["[{partition}]"]))
    assert message == (
        'rule 1 (assets: "key:plain or key:daily"): plain: [{partition}]: it has no partitions.'
    )


class TestSelected:
    def test_by_whether_they_have_partitions(self) -> None:
        assert given(
            Rule(assets="key:daily or key:plain", partitioned=True, pools=["a"]),
            Rule(assets="*", partitioned=False, pools=["b"]),
            Rule(assets="*", pools=["c"]),
        ) == {"daily": "a", "plain": "b", "both": "c", "regional": "c"}

    def test_each_asset_of_an_op_by_its_own(self) -> None:
        @dg.multi_asset(
            specs=[
                dg.AssetSpec("a", skippable=True),
                dg.AssetSpec("b", partitions_def=DAYS, skippable=True),
            ],
            can_subset=True,
        )
        def models(): ...

        rules = (
            Rule(assets="*", partitioned=True, pools=["{asset}[{partition:%Y}]"]),
            Rule(assets="*", pools=["{asset}"]),
        )
        assert given(*rules, assets=[models]) == {"a": "a", "b": "b[{partition:%Y}]"}
        both = Rule(assets="*", pools=["{asset}[{partition}]"])
        assert given(both, assets=[models]) == {"a": "a", "b": "b[{partition}]"}

    def test_a_check_by_the_asset_that_it_checks(self) -> None:
        """In a run of a partition the check takes the pool in which that partition is made."""

        @dg.asset_check(asset="daily")
        def fine() -> dg.AssetCheckResult: ...

        @dg.asset_check(asset="plain")
        def fine_too() -> dg.AssetCheckResult: ...

        rule = Rule(assets="*", partitioned=True, checks=True, pools=["{asset}[{partition:%Y}]"])
        found = given(rule, assets=[*ALL[:2:2], fine, fine_too, ALL[0], ALL[3]])
        assert found["daily:fine"] == "daily[{partition:%Y}]"
        assert found["plain:fine_too"] == ""

    def test_an_observable_source_asset_too(self) -> None:
        @dg.observable_source_asset(partitions_def=DAYS)
        def seen(): ...

        policy = Policy(
            engine="lifeguard",
            rules=[Rule(assets="*", partitioned=True, pools=["{asset}[{partition}]"])],
        )
        defs = policy.apply(dg.Definitions(assets=[seen]))
        (new,) = defs.assets or ()
        assert new.op.pool == "{hold:step}seen[{partition}]"

    def test_messages_name_all_that_a_rule_selects_by(self) -> None:
        rule = Rule(assets="group:raw", partitioned=False, pools=[])
        assert describe_rule(0, rule) == 'rule 1 (assets: "group:raw", partitioned: false)'
        assert rule.selection == "group:raw, partitioned: false"

    def test_a_rule_of_all_assets_that_decides_for_none_is_told_if_it_says_more(self) -> None:
        rules = (
            Rule(assets="*", partitioned=True, pools=["a"]),
            Rule(assets="*", pools=["b"]),
            Rule(assets="*", pools=["c"]),
        )
        planned = plan(*rules, assets=[ALL[3]])
        found = policy_findings(Policy(engine="lifeguard", rules=rules), planned, [], "")
        assert [f.message for f in found if f.code == "unused-rule"] == [
            'rule 1 (assets: "*", partitioned: true) decides for no asset.'
        ]

    def test_they_are_asked_for_in_a_list_and_not_in_words(self) -> None:
        with pytest.raises(ValueError, match="partitioned"):
            Rule(assets="*", partitioned="yes", pools=[])


class TestComputed:
    def test_of_each_kind(self) -> None:
        assert given(
            Rule(assets="key:daily or key:plain", pools=["{asset}[{partition:%Y-%m}]"]),
            Rule(assets="key:both", pools=["r[{partition.region}]", "t{partition.date:%Y}"]),
            Rule(assets="*", pools=[]),
        ) == {
            "daily": "daily[{partition:%Y-%m}]",
            "plain": "plain",
            "both": "r[{partition.region}]+t{partition.date:%Y}",
            "regional": "",
        }

    def test_assets_whose_keys_are_written_in_other_words_share_the_pools(self) -> None:
        hours = make("hourly", dg.HourlyPartitionsDefinition("2024-01-01-00:00"))
        rule = Rule(assets="*", pools=["month{partition:%m}"])
        planned = plan(rule, assets=[ALL[0], hours])
        own = {a.asset: format_expression(a.own_terms) for a in planned.assignments()}
        assert own == {
            "daily": "{keys:=%Y-%m-%d}month{partition:%m}",
            "hourly": "{keys:=%Y-%m-%d-%H:%M}month{partition:%m}",
        }

    @pytest.mark.parametrize(
        ("pool", "assets", "message"),
        [
            ("x{partition:%Y}", [ALL[1], make("too", REGIONS)],
             "regional and too: {partition:%Y}: its partitions are not time windows."),
            ("x{partition:%Y}", [ALL[2]],
             "both: {partition:%Y}: its partitions have the dimensions date and region: name one."),
            ("x{partition.region:%Y}", [ALL[2]],
             "both: {partition.region:%Y}: its partitions of the dimension region are not time windows."),
            ("x{partition.country}", [ALL[2], make("twice", TWICE)], None),
            ("x{partition.region}", [ALL[0], ALL[1]],
             "daily and regional: {partition.region}: its partitions have no dimensions."),
            ("x[{partition.region}]", [ALL[0], ALL[3]],
             "daily: {partition.region}: its partitions have no dimensions."),
        ],
    )  # fmt: skip
    def test_what_no_partition_can_fill_in_is_one_error_for_all_assets(
        self, pool, assets, message
    ) -> None:
        rule = Rule(assets="*", pools=[pool])
        if message is None:  # Each has other dimensions, which the message names.
            found = [error.message for error in plan(rule, assets=assets).problems]
            assert [text.rpartition(":")[2] for text in found] == [
                " its partitions have only the dimensions date and region.",
                " its partitions have only the dimensions made and seen.",
            ]
        else:
            assert problem(rule, assets=assets) == f'rule 1 (assets: "*"): {message}'

    def test_stock_dagster_knows_one_name(self) -> None:
        errors = plan(
            Rule(assets="*", partitioned=True, pools=["{asset}[{partition:%Y-%m}]"]),
            Rule(assets="*", pools=["{asset}"]),
            engine="stock",
        ).problems
        assert [type(error) for error in errors] == [NeedsEngineError]
        assert errors[0].message == (
            'rule 1 (assets: "*", partitioned: true) asks for '
            "'{partition:%Y-%m}', known only when a step claims: needs engine: lifeguard."
        )

    def test_what_was_applied_is_told_from_what_is_written_otherwise(self) -> None:
        rule = Rule(assets="*", pools=["{asset}[{partition:%Y}]"])
        policy = Policy(engine="lifeguard", rules=[rule])
        (new,) = policy.apply(dg.Definitions(assets=[ALL[0]])).assets or ()
        (assignment,) = Assignments(policy, [new]).assignments()
        assert assignment.is_applied
        assert assignment.current_text == "daily[{partition:%Y}]"
