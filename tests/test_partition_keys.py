"""How partition keys are written, and what the name of a pool takes from one."""

from __future__ import annotations

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_lifeguard.compat.definitions import partition_keys_of
from dagster_lifeguard.engine.rules.partition_keys import KeyPart, PartitionKeys, problem_of_format
from dagster_lifeguard.engine.rules.pool_expressions import (
    Term,
    asked_by,
    format_expression,
    parse_expression,
)
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.policy.partitions import of_partitions, without_partition

DAYS = dg.DailyPartitionsDefinition("2024-01-01")
REGIONS = dg.StaticPartitionsDefinition(["us", "eu"])
BOTH = dg.MultiPartitionsDefinition({"region": REGIONS, "date": DAYS})

FORMATS = st.lists(
    st.sampled_from(["%Y", "%d", "%%", "%B", "%A", "20", "A0", "B5", " ", "\u3000", *"|=+*{}-"]),
    min_size=1,
).map("".join)


class TestWritten:
    @given(
        st.lists(
            st.builds(KeyPart, st.text(st.characters(categories=("L", "N", "P", "S", "Zs"))),
                      st.none() | FORMATS),
            min_size=1, max_size=2,
        )
    )  # fmt: skip
    def test_it_is_read_back_as_meant_and_may_stand_in_a_pool(self, parts) -> None:
        keys = PartitionKeys(tuple(parts))
        assert PartitionKeys.parse(str(keys)) == keys
        term = Term.written("x[{partition:%Y}]", keys=keys)
        assert asked_by("{hold:step}" + format_expression([term])) == (term,)
        assert str(term) == "".join(str(term).split())  # as Dagster wants the name of a pool

    def test_as_a_person_can_read(self) -> None:
        assert str(partition_keys_of(DAYS)) == "{keys:=%Y-%m-%d}"
        assert str(partition_keys_of(BOTH)) == "{keys:date=%Y-%m-%d|region}"

    @pytest.mark.parametrize("text", ["{of:a}", "{keys}", "{keys:a b}", "keys:a"])
    def test_something_else_is_none(self, text) -> None:
        assert PartitionKeys.parse(text) is None

    @pytest.mark.parametrize("text", ["{keys:=%Y}x[{partition:%Y}]", "{keys:a}x"])
    def test_a_rule_may_not_say_it(self, text) -> None:
        with pytest.raises(ConfigError, match="not a template"):
            parse_expression(text)

    def test_a_step_that_is_not_told_is_an_error_and_not_unlimited(self) -> None:
        with pytest.raises(ConfigError, match="says not how keys are written"):
            asked_by("{hold:step}x[{partition:%Y}]")
        assert asked_by("{hold:step}x[{partition}]")


def taken(partitions_def, name: str, *keys: str) -> list[str]:
    term = Term.written(name, keys=partition_keys_of(partitions_def))
    found = of_partitions(term, keys)
    assert {left.keys for left in found} == {None}
    return [left.name for left in found]


class TestTaken:
    @pytest.mark.parametrize(
        ("partitions_def", "key", "month"),
        [
            (DAYS, "2024-02-29", "2024-02"),
            (dg.HourlyPartitionsDefinition("2024-01-01-00:00"), "2024-02-29-23:00", "2024-02"),
            (dg.WeeklyPartitionsDefinition("2024-01-01"), "2024-02-25", "2024-02"),
            (dg.MonthlyPartitionsDefinition("2024-01-01"), "2024-02-01", "2024-02"),
            (dg.DailyPartitionsDefinition("2024 01 01", fmt="%Y %m %d"), "2024 02 29", "2024-02"),
        ],
    )
    def test_the_start_of_a_time_window(self, partitions_def, key, month) -> None:
        assert taken(partitions_def, "x[{partition:%Y-%m}]", key) == [f"x[{month}]"]

    def test_it_is_the_start_as_the_definition_sees_it_whatever_the_zone(self) -> None:
        """Dagster's own keys of the two hours that clocks in New York show alike."""
        hours = dg.HourlyPartitionsDefinition("2024-11-03-00:00", timezone="America/New_York")
        keys = hours.get_partition_keys()[1:3]
        assert keys == ["2024-11-03-01:00", "2024-11-03-01:00-0500"]
        assert taken(hours, "x{partition:%H}", *keys) == ["x01"]

    def test_one_dimension(self) -> None:
        keys = [dg.MultiPartitionKey({"region": r, "date": d}) for r, d in
                [("us", "2024-01-31"), ("us", "2024-02-01"), ("eu", "2024-02-02")]]  # fmt: skip
        assert taken(BOTH, "x[{partition.region}]", *keys) == ["x[us]", "x[eu]"]
        assert taken(BOTH, "x{partition.date:%m}{partition.region}", *keys) == [
            "x01us",
            "x02us",
            "x02eu",
        ]
        assert taken(BOTH, "x[{partition}]", keys[0]) == ["x[2024-01-31|us]"]

    @pytest.mark.parametrize(
        ("partitions_def", "name", "key"),
        [
            (DAYS, "x{partition:%Y}", "never"),
            (BOTH, "x{partition.region}", "us"),
            (BOTH, "x{partition.date:%Y}", "us|2024-01-01"),
        ],
    )
    def test_a_key_that_is_written_otherwise_is_told(self, partitions_def, name, key) -> None:
        with pytest.raises(ValueError, match=key.partition("|")[0]):
            taken(partitions_def, name, key)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("%Y-%m", None),
            ("%G-W%V", None),
            ("%B", "it has %B, which is not one of "),
            ("%Y%", "it has %, which is not one of "),
            ("path", "it has none of "),
            ("%Y %m", "it has white space"),
        ],
    )
    def test_a_format_is_of_numbers(self, text, problem) -> None:
        found = problem_of_format(text)
        assert found is None if problem is None else (found or "").startswith(problem)
        if problem is not None:
            with pytest.raises(ConfigError, match="not a template"):
                parse_expression(f"x{{partition:{text}}}")


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("{asset}[{partition}]", "{asset}"),
        ("{asset}[{group}-{partition:%Y-%m}]{kind}", "{asset}{kind}"),
        ("a[{group}][{partition.region}]", "a[{group}]"),
        ("a[b[{partition}]]", "a[b]"),
        ("{tag:[x]}[{partition}]", "{tag:[x]}"),
        ("{asset}/{partition}", "{asset}/{partition}"),
        ("[{partition}]", ""),
    ],
)
def test_without_partitions_a_bracket_goes_with_all_in_it(name, left) -> None:
    assert without_partition(Term.written(name)).name == left
