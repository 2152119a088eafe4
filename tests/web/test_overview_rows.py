"""What the overview shows of many pools: their states, partitions in one row, groups, a period."""

from __future__ import annotations

import pytest
from told import NOW, holds, pool, waits

from dagster_lifeguard.insight.durations import Durations, Sample
from dagster_lifeguard.insight.overview import summarize
from dagster_lifeguard.insight.standing import standing_of
from dagster_lifeguard.insight.waits import NOBODY
from dagster_lifeguard.web.pages.overview import Choice
from dagster_lifeguard.web.pages.pool_rows import OTHERS, grouped, rows_of
from dagster_lifeguard.web.pages.window import PARTS, Period
from dagster_lifeguard.web.plots import nice_count

PAST = Durations(
    0.0, NOW, waits={"t[1]": Sample.of([1.0]), "t[2]": Sample.of([9.0]), "other": Sample.of([5.0])}
)


def summaries(*states):
    return [summarize(state, NOBODY, PAST, NOW) for state in states]


@pytest.mark.parametrize(
    ("limit", "holding", "waiting", "standing"),
    [
        (0, 0, 1, "paused"),
        (1, 2, 1, "draining"),
        (2, 1, 1, "backlogged"),
        (1, 1, 0, "full"),
        (2, 1, 0, "in use"),
        (None, 5, 0, "in use"),
        (1, 0, 0, "idle"),
    ],
)
def test_the_state_of_a_pool_is_one_word(limit, holding, waiting, standing):
    held = [holds(f"h{n}") for n in range(holding)]
    (found,) = summaries(pool("db", limit, held, [waits(f"w{n}") for n in range(waiting)]))
    assert standing_of(found) == standing


def test_pools_of_partitions_are_one_row_that_sums_them():
    found = summaries(
        pool("b"),
        pool("t[1]", 2, [holds("r")], default=True),
        pool("t[2]", 1, [], [waits("w", waited=7.0)]),
        pool("alone[1]"),
        pool("{all}t[*]"),
    )
    rows = rows_of(found, fold=True)
    assert [row.pool.pool for row in rows] == ["b", "t[…]", "alone[1]", "{all}t[*]"]
    row = rows[1].with_waits(PAST)
    assert (row.pool.held, row.pool.limit, row.pool.waiting, row.pool.oldest_wait) == (1, 3, 1, 7.0)
    assert (row.standing, row.standings) == ("backlogged", {"backlogged": 1, "in use": 1})
    assert (row.pools, row.pool.from_default) == (("t[1]", "t[2]"), False)
    assert (row.pool.waits.count, row.pool.waits.p95) == (2, 9.0)
    assert len(rows_of(found, fold=False)) == 5
    assert Choice.of({"group": "prefix"}).within("t") == "/?search=t%5B&group=prefix&fold=no"


def test_groups_come_in_the_order_of_their_first_row_and_the_rest_last():
    rows = rows_of(summaries(*map(pool, ["solo", "x/a", "y_a", "x/b", "y_b"])), fold=True)
    found, sums = grouped(rows, None)
    assert [row.pool.pool for row in found] == ["x/a", "x/b", "y_a", "y_b", "solo"]
    assert {name: group.count for name, group in sums.items()} == {"x": 2, "y": 2, OTHERS: 1}
    found, _ = grouped(rows, {"x/b": "sales", "solo": "sales"})
    assert [(row.pool.pool, row.group) for row in found][:2] == [
        ("solo", "sales"),
        ("x/b", "sales"),
    ]
    assert {row.group for row in found[2:]} == {OTHERS}


def test_a_period_moves_by_whole_parts():
    period = Period.of({"period": "6h"})
    since, until = period.bounds(NOW)
    part = period.seconds / PARTS
    assert until - part < NOW <= until
    assert until - since == 6 * 3600
    assert period.bounds(until - 0.1) == (since, until)


def test_what_is_no_period_is_passed_over():
    for query in (
        {"period": "x"},
        {"from": "never"},
        {"from": "nan"},
        {"from": "1e99"},
        {"to": "5"},
    ):
        assert Period.of(query) == Period()


def test_a_period_of_ones_own_is_kept_by_addresses():
    period = Period.of({"from": "2000", "to": "1000"})
    assert period.bounds(NOW) == (1000.0, 2000.0)
    assert (
        Choice.of({"from": "1000", "to": "2000", "page": "2"}).on_page(3)
        == "/?page=3&from=1000&to=2000"
    )
    assert Period.of(period.query) == period
    short = Period.of({"from": "1000", "to": "1001"})
    assert short.seconds == 60.0
    typed = Period.of({"from": "2026-11-30T14:05", "to": "2026-11-30T14:35"})
    assert typed.seconds == 1800.0


@pytest.mark.parametrize(("most", "top"), [(0, 1), (1, 1), (3, 5), (10, 10), (11, 20), (51, 100)])
def test_an_axis_ends_with_a_round_number(most, top):
    assert nice_count(most) == top
