"""Each asset of an op has its own rule: how that is written down, and what it says."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_lifeguard import LifeguardError, Policy, Rule
from dagster_lifeguard.compat.ops import ON_CONFLICT_TAG
from dagster_lifeguard.engine.rules.duplicates import (
    ON_CONFLICT,
    agree,
    read_answers,
    write_answers,
)
from dagster_lifeguard.engine.rules.members import Members
from dagster_lifeguard.engine.rules.pool_expressions import asked_by, of_assets, parse_expression
from dagster_lifeguard.errors import ConfigError, TemplateError
from dagster_lifeguard.policy.assignments import Assignments

path_names = st.from_regex(r"[ab][ab_/]{0,6}[ab]", fullmatch=True)


class TestWritten:
    @given(st.sets(path_names, min_size=1), st.data())
    def test_they_are_the_chosen_ones_and_no_others(self, names, data) -> None:
        chosen = data.draw(st.sets(st.sampled_from(sorted(names)), min_size=1))
        members = Members.among(chosen, names)
        assert (members is None) is (chosen == names)
        if members is not None:
            read = Members.parse(str(members))
            assert read == members
            assert {name for name in names if name in read} == chosen

    @pytest.mark.parametrize(
        ("chosen", "others", "text"),
        [
            (["marts/a", "marts/b"], ["staging/a", "seeds"], "{of:marts/*}"),
            (["dim_a", "dim_b", "fct_c"], ["stg_a", "stg_b", "stg_c"], "{but:stg_*}"),
            (["stg_a"], ["stg_b"], "{of:stg_a}"),
            (["x/a", "x/b", "y"], ["x/c"], "{but:x/c}"),
        ],
    )
    def test_as_shortly_as_a_person_can_read(self, chosen, others, text) -> None:
        assert str(Members.among(chosen, [*chosen, *others])) == text

    @pytest.mark.parametrize("text", ["{of:}", "{of:a,}", "{of:*}", "{of:a*b}", "{in:a}", "of:a"])
    def test_something_else_is_none(self, text) -> None:
        assert Members.parse(text) is None

    def test_a_rule_may_not_say_them(self) -> None:
        with pytest.raises(ConfigError, match="not a template"):
            parse_expression("{of:a}warehouse")
        with pytest.raises(ValueError, match="not a template"):
            Rule(assets="*", pools=["{of:a}warehouse"])

    def test_one_pool_may_be_asked_for_with_other_slots_for_others(self) -> None:
        terms = asked_by("{hold:step}w+{of:a}w*3+{of:b/*}w*2")
        assert [str(term) for term in terms] == ["w", "{of:a}w*3", "{of:b/*}w*2"]
        with pytest.raises(ConfigError, match="twice"):
            asked_by("{hold:step}{of:a}w+{of:a}w*2")


def multi(specs: list[dg.AssetSpec], **arguments: Any) -> dg.AssetsDefinition:
    @dg.multi_asset(specs=specs, **{"can_subset": True, **arguments})
    def models(): ...

    return models


def spec(name: str, group: str, **arguments: Any) -> dg.AssetSpec:
    return dg.AssetSpec(name.split("/"), group_name=group, skippable=True, **arguments)


def project(*names: str) -> list[dg.AssetSpec]:
    """Models of two groups, each named ``group/name``."""
    return [spec(name, name.split("/")[0]) for name in names]


MARTS = (
    Rule(assets="group:marts", pools=["{asset}", "warehouse*2"]),
    Rule(assets="*", pools=["{asset}"]),
)


def applied(item: Any, *rules: Rule, engine: Any = "lifeguard", **policy: Any) -> Any:
    defs = Policy(engine=engine, rules=rules, **policy).apply(dg.Definitions(assets=[item]))
    (new,) = defs.assets or ()
    return new


def asked(new: Any, *names: str) -> dict[str, int]:
    """What a step asks for that makes these assets."""
    slots: dict[str, int] = {}
    for term in of_assets(asked_by(new.op.pool), [name.split("/") for name in names]):
        slots[term.name] = max(slots.get(term.name, 0), term.slots)
    return slots


class TestOfAnOp:
    @pytest.mark.parametrize("staging", ["staging/a", "staging/z"])
    def test_each_asset_has_its_own_rule_whichever_sorts_first(self, staging) -> None:
        new = applied(multi(project(staging, "marts/m")), *MARTS)
        own = staging.replace("/", "_")
        assert asked(new, staging) == {own: 1}
        assert asked(new, "marts/m") == {"marts_m": 1, "warehouse": 2}
        assert asked(new, staging, "marts/m") == {own: 1, "marts_m": 1, "warehouse": 2}

    def test_another_name_changes_nothing_for_the_others(self) -> None:
        texts = {
            applied(multi(project("staging/b", "staging/c", first, "marts/m")), *MARTS).op.pool
            for first in ("staging/a", "staging/zz", "staging/d")
        }
        assert texts == {"{hold:step}{asset:underscore}+{of:marts/m}warehouse*2"}

    def test_of_a_pool_that_several_ask_for_the_most_counts(self) -> None:
        models = multi([spec("a", "one"), spec("b", "one"), spec("c", "two"), spec("d", "three")])
        new = applied(
            models,
            Rule(assets="group:one", pools=["w*2"]),
            Rule(assets="group:two", pools=["w*3"]),
            Rule(assets="*", pools=[]),
        )
        assert asked(new, "a", "b") == {"w": 2}
        assert asked(new, "a", "c", "d") == {"w": 3}
        assert asked(new, "d") == {}

    def test_templates_are_those_of_each(self) -> None:
        models = multi(
            [
                spec("a", "x", tags={"api": "one"}, owners=["team:a"]),
                spec("b", "y", tags={"api": "two"}, owners=["team:b"]),
            ]
        )
        new = applied(models, Rule(assets="*", pools=["{group}", "{tag:api}*2", "{owner}"]))
        assert asked(new, "a") == {"x": 1, "one": 2, "team:a": 1}
        assert asked(new, "b") == {"y": 1, "two": 2, "team:b": 1}

    def test_a_template_that_one_of_them_cannot_fill_names_it(self) -> None:
        models = multi([spec("a", "x", tags={"api": "one"}), spec("b", "y")])
        with pytest.raises(TemplateError, match=r'rule 1 \(assets: "\*"\): b: {tag:api}'):
            applied(models, Rule(assets="*", pools=["{tag:api}"]))

    def test_partitions_are_those_of_each(self) -> None:
        parts = dg.StaticPartitionsDefinition(["p"])
        models = multi([spec("a", "x", partitions_def=parts), spec("b", "y")])
        new = applied(
            models,
            Rule(assets="key:a", pools=["{asset}[{partition}]"]),
            Rule(assets="*", pools=["{asset}"]),
        )
        assert asked(new, "a") == {"a[{partition}]": 1}
        assert asked(new, "b") == {"b": 1}

    def test_where_a_run_cannot_select_all_rules_count_together(self) -> None:
        models = multi(project("staging/a", "marts/m"), can_subset=False)
        pool = applied(models, *MARTS).op.pool
        assert pool == "{hold:step}marts_m+warehouse*2+staging_a"

    def test_the_steps_of_a_graph_hold_together_if_one_of_its_rules_says_so(self) -> None:
        @dg.op(out={"a": dg.Out(), "b": dg.Out()})
        def split():
            return 1, 2

        @dg.graph_multi_asset(outs={"a": dg.AssetOut(), "b": dg.AssetOut()})
        def both():
            a, b = split()
            return a, b

        rules = Rule(assets="key:b", pools=["w"], hold="asset"), Rule(assets="*", pools=["{asset}"])
        defs = Policy(engine="lifeguard", rules=rules).apply(dg.Definitions(assets=[both]))
        found = Assignments(
            Policy(engine="lifeguard", rules=rules), defs.assets or ()
        ).assignments()
        assert {a.pools for a in found} == {("{hold:asset}w+a",)}

    def test_a_declared_pool_is_kept_for_those_whose_rule_does_not_override_it(self) -> None:
        models = multi(project("staging/a", "marts/m"), op_tags={}, pool="mine")
        override = Rule(assets="group:marts", pools=["warehouse"], override=True)
        new = applied(models, override, Rule(assets="*", pools=["{asset}"]))
        assert asked(new, "staging/a") == {"mine": 1}
        assert asked(new, "marts/m") == {"warehouse": 1}
        explicit = {
            a.asset: a.explicit
            for a in Assignments(
                Policy(engine="lifeguard", rules=(override, MARTS[1])), [new]
            ).assignments()
        }
        assert explicit == {"staging/a": True, "marts/m": False}

    def test_one_that_no_expression_can_name_is_an_error(self) -> None:
        try:
            models = multi(project("staging/a", "marts/m"), pool="a+b")
        except dg.DagsterInvalidDefinitionError:
            pytest.skip("this Dagster allows letters, digits and underscores in a pool")
        override = Rule(assets="group:marts", pools=["warehouse"], override=True)
        with pytest.raises(LifeguardError, match=r"'a\+b'"):
            applied(models, override, Rule(assets="*", pools=["{asset}"]))

    def test_three_hundred_of_them_are_written_short(self) -> None:
        names = [f"{g}/model_{n}" for n in range(150) for g in ("staging", "marts")]
        new = applied(multi(project(*names)), *MARTS)
        assert new.op.pool == "{hold:step}{asset:underscore}+{of:marts/*}warehouse*2"
        staging = [name for name in names if name.startswith("staging")]
        assert "warehouse" not in asked(new, *staging)
        assert asked(new, *names)["warehouse"] == 2
        assert len(asked(new, *names)) == 301

    def test_under_stock_the_first_decides_and_nothing_else_is_new(self) -> None:
        rules = Rule(assets="group:marts", pools=["w"]), Rule(assets="*", pools=["{asset}"])
        assert (
            applied(multi(project("staging/a", "marts/m")), *rules, engine="stock").op.pool == "w"
        )


class TestAnswers:
    answers = st.dictionaries(path_names, st.sampled_from(ON_CONFLICT), min_size=1)

    @given(answers, st.data())
    def test_what_a_run_selects_decides(self, answers, data) -> None:
        text = write_answers(answers)
        chosen = data.draw(st.sets(st.sampled_from(sorted(answers)), min_size=1))
        expected = agree(answers[name] for name in chosen)
        assert ("queue" if text is None else read_answers(text, chosen)) == expected

    def test_a_step_that_makes_nothing_goes_by_what_holds_for_all(self) -> None:
        assert read_answers("skip_new", ()) == "skip_new"
        assert read_answers("{of:a}skip_new", ()) == "queue"

    @pytest.mark.parametrize("text", ["", "skip", "{of:}skip_new", "a b"])
    def test_what_is_not_understood_drops_no_run(self, text) -> None:
        assert read_answers(text, {"a"}) == "queue"

    @pytest.mark.parametrize("engine", ["stock", "lifeguard"])
    def test_they_are_a_tag_of_the_op(self, engine) -> None:
        rules = (
            Rule(assets="group:marts", pools=["w"], on_conflict="skip_new"),
            Rule(assets="*", pools=["w"]),
        )
        new = applied(multi(project("staging/a", "marts/m")), *rules, engine=engine)
        assert new.op.tags[ON_CONFLICT_TAG] == "{of:marts/m}skip_new"


def test_three_hundred_without_likeness_are_bounded_by_their_names() -> None:
    names = [f"m{n:03}" for n in range(300)]
    specs = [spec(name, "marts" if n % 2 else "staging") for n, name in enumerate(names)]
    pool = applied(multi(specs), *MARTS).op.pool
    assert len(pool) < 50 + sum(len(name) + 1 for name in names) / 2
