"""Names of pools and the grammar of pool expressions."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dagster_lifeguard.engine.rules.pool_expressions import (
    SLOTS_MAX,
    Term,
    asked_by,
    format_expression,
    is_expression,
    op_pool,
    parse_expression,
    refuse_unsettable,
    without_mark,
)
from dagster_lifeguard.engine.rules.pool_naming import asset_key_parts, pool_name, safe_value
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.policy.partitions import all_partitions

ANY_TEXT = st.text(st.characters(), max_size=12)
KEYS = st.lists(ANY_TEXT, min_size=1, max_size=5).map(tuple)
NAMES = st.text(
    st.characters(exclude_characters="+*{}", exclude_categories=("Z", "C")), min_size=1, max_size=12
).filter(lambda text: not any(c.isspace() for c in text))
TERMS = st.lists(
    st.builds(Term, NAMES, st.integers(1, SLOTS_MAX)),
    min_size=1,
    max_size=5,
    unique_by=lambda term: term.name,
).map(tuple)


@given(KEYS)
def test_a_path_name_can_be_turned_back_so_no_two_keys_share_one(key: tuple[str, ...]) -> None:
    assert asset_key_parts(pool_name(key, "path")) == key


@given(KEYS, st.sampled_from(["underscore", "path"]))
def test_every_name_is_one_term_and_a_pool_that_dagster_accepts(
    key: tuple[str, ...], naming: str
) -> None:
    name = pool_name(key, naming)
    assert parse_expression(name) == (Term(name),)
    assert name
    assert not any(c.isspace() for c in name)


@pytest.mark.parametrize(
    ("key", "underscore", "path"),
    [
        (("orders",), "orders", "orders"),
        (("my_group", "my_asset"), "my_group_my_asset", "my_group/my_asset"),
        (("dbt", "model.v2-beta"), "dbt_model.v2-beta", "dbt/model.v2-beta"),
        (("with space", "a/b"), "with_space_a_b", "with%20space/a%2Fb"),
        (("50%+",), "50__", "50%25%2B"),
        (("", "x"), "_x", "%/x"),
        (("größe",), "gr__e", "gr%C3%B6%C3%9Fe"),
    ],
)
def test_names_of_keys(key: tuple[str, ...], underscore: str, path: str) -> None:
    assert (pool_name(key, "underscore"), pool_name(key, "path")) == (underscore, path)


def test_a_key_without_parts_has_no_name() -> None:
    with pytest.raises(ValueError, match="at least one part"):
        pool_name((), "path")


@given(TERMS)
def test_an_expression_is_read_back_as_written(terms: tuple[Term, ...]) -> None:
    assert parse_expression(format_expression(terms)) == terms


@given(ANY_TEXT.filter(bool))
def test_a_safe_value_is_one_term(value: str) -> None:
    assert parse_expression(safe_value(value)) == (Term(safe_value(value)),)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("orders", [("orders", 1)]),
        ("orders+warehouse*2", [("orders", 1), ("warehouse", 2)]),
        ("{asset}[{partition}]*3", [("{asset}[{partition}]", 3)]),
        ("{metadata:a+b}+x", [("{metadata:a+b}", 1), ("x", 1)]),
        ("db:raw/events", [("db:raw/events", 1)]),
    ],
)
def test_expressions(text: str, terms: list[tuple[str, int]]) -> None:
    assert parse_expression(text) == tuple(Term.written(name, slots) for name, slots in terms)


@given(ANY_TEXT)
def test_what_has_no_mark_is_the_name_of_one_pool(name: str) -> None:
    assume(not name.startswith(("{hold:step}", "{hold:asset}", "{all}")))
    assert asked_by(name) == (Term(name),)
    assert without_mark(name) == name
    refuse_unsettable([name])


@pytest.mark.parametrize("name", ["etl+load", "gpu*2", "x[{partition}]", "{asset}", "a{all}"])
def test_a_name_has_no_templates_whatever_it_looks_like(name: str) -> None:
    (term,) = asked_by(name)
    assert (term.name, term.slots, term.fields) == (name, 1, ())
    assert term.fill(lambda _: "filled") == term


@given(TERMS, st.booleans())
def test_what_a_policy_writes_is_read_back_as_meant(
    terms: tuple[Term, ...], hold_asset: bool
) -> None:
    text = op_pool(terms, hold_asset=hold_asset)
    assert asked_by(text) == terms
    assert without_mark(text) == format_expression(terms)
    assert is_expression(text) is (hold_asset or terms != (Term(terms[0].name),))


@pytest.mark.parametrize("name", ["{hold:step}a+b*2", "{hold:asset}a", "{hold:step}", "{all}a[*]"])
def test_of_what_only_a_policy_writes_nothing_is_set(name: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(name)):
        refuse_unsettable(["fine", name])


@pytest.mark.parametrize("name", ["{hold:step}", "{hold:step}a**b", "{hold:asset}a b", "{all}a[*]"])
def test_a_mark_that_nothing_fits_is_an_error_and_not_unlimited(name: str) -> None:
    with pytest.raises(ConfigError):
        asked_by(name)


def test_the_pools_of_all_partitions_have_names_that_no_two_terms_share() -> None:
    names = [
        all_partitions(term).name for term in parse_expression("a[{partition}]+a[]+a{partition}[]")
    ]
    assert names == ["{all}a[*]", "{all}a[]", "{all}a*[]"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not a pool expression"),
        ("a b", "'a b' is not a pool expression"),
        ("a+", "'a+' is not a pool expression"),
        ("a*", "'a*' is not a pool expression"),
        ("a*b", "'a*b' is not a pool expression"),
        ("a*0", "'a*0' asks for 0 slots"),
        ("a*1001", "'a*1001' asks for 1001 slots"),
        ("a+a*2", "'a+a*2' names the pool 'a' twice"),
        ("{asset", "'{asset' is not a pool expression"),
        ("{assets}", "'{assets}' is not a template"),
        ("{tag}", "'{tag}' is not a template"),
        ("{asset:x}", "'{asset:x}' is not a template"),
    ],
)
def test_what_is_no_expression(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_expression(text)
    assert caught.value.message.startswith(message)
