"""Estimates: the queue played forward with what is known of the past."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_lifeguard.insight.durations import Sample
from dagster_lifeguard.insight.forecast import (
    LINE_MAX,
    Candidate,
    Estimate,
    ForecastHolder,
    NoEstimate,
    forecast,
    latest_of,
)

TENS = Sample.of([10.0] * 5)


def held(elapsed=0.0, sample=TENS, slots=1, **more) -> ForecastHolder:
    return ForecastHolder(slots, elapsed, sample, **more)


def times(estimates) -> list[float | None]:
    return [estimate.typical for estimate in estimates]


def test_each_waits_for_all_before_it():
    line = [Candidate(1, TENS)] * 3
    assert times(forecast(1, [held(4.0)], line)) == [6.0, 16.0, 26.0]
    assert times(forecast(2, [held(4.0), held(1.0)], line)) == [6.0, 9.0, 16.0]


def test_a_free_slot_is_taken_at_once():
    assert times(forecast(3, [held()], [Candidate(1, TENS)] * 3)) == [0.0, 0.0, 10.0]


def test_many_slots_wait_until_as_many_are_free():
    line = [Candidate(2, TENS), Candidate(1, TENS)]
    assert times(forecast(2, [held(9.0), held(4.0)], line)) == [6.0, 16.0]


def test_a_lowered_limit_drains_first():
    occupants = [held(9.0), held(5.0), held(2.0)]
    assert times(forecast(1, occupants, [Candidate(1, TENS)])) == [8.0]


def test_the_rest_of_a_hold_is_that_of_holds_as_long():
    """Of holds of 1 and 100 seconds, one that goes on after 50 is one of the long ones."""
    mixed = Sample.of([1.0] * 50 + [100.0] * 2)
    (found,) = forecast(1, [held(50.0, mixed)], [Candidate(1, mixed)])
    assert found == Estimate(50.0, 50.0, 50.0, samples=52)


def test_the_range_is_wider_than_the_typical():
    spread = Sample.of(range(1, 101))
    (found,) = forecast(1, [held(0.0, spread)], [Candidate(1, spread)])
    assert found.soonest < 20 < found.typical < 80 < found.latest


def test_the_same_question_has_the_same_answer():
    spread = Sample.of(range(1, 101))
    line = [Candidate(1, spread)] * 5
    assert forecast(2, [held(3.0, spread)], line) == forecast(2, [held(3.0, spread)], line)


def test_one_that_never_lets_go_holds_up_only_who_needs_its_slot():
    stuck = held(is_stuck=True)
    line = [Candidate(1, TENS), Candidate(2, TENS), Candidate(1, TENS)]
    first, second, third = forecast(2, [stuck, held(4.0)], line)
    assert first.typical == 6.0
    assert (second.missing, third.missing) == (NoEstimate.LEAKED, NoEstimate.LEAKED)


@pytest.mark.parametrize(
    ("limit", "occupant", "line", "missing"),
    [
        (0, held(), [Candidate(1, TENS)], NoEstimate.PAUSED),
        (1, held(), [Candidate(2, TENS)], NoEstimate.TOO_LARGE),
        (1, held(sample=None), [Candidate(1, TENS)], NoEstimate.NO_HISTORY),
        (1, held(11.0), [Candidate(1, TENS)], NoEstimate.OUTLASTED),
        (1, held(is_stuck=True), [Candidate(1, TENS)], NoEstimate.LEAKED),
    ],
)
def test_why_there_is_none(limit, occupant, line, missing):
    assert [estimate.missing for estimate in forecast(limit, [occupant], line)] == [missing]


def test_nothing_is_known_behind_one_of_whom_nothing_is_known():
    line = [Candidate(1, TENS), Candidate(1, None), Candidate(1, TENS)]
    *known, last = forecast(1, [held()], line)
    assert times(known) == [10.0, 20.0]
    assert last.missing is NoEstimate.NO_HISTORY


def test_one_that_asks_for_too_much_holds_up_nobody():
    large, small = forecast(1, [held()], [Candidate(5, TENS), Candidate(1, TENS)])
    assert large.missing is NoEstimate.TOO_LARGE
    assert small.typical == 10.0


def test_a_very_long_line_ends_in_no_estimate():
    found = forecast(1, [held()], [Candidate(1, TENS)] * (LINE_MAX + 100))
    assert found[10].typical == 110.0
    assert found[-1].missing is NoEstimate.TOO_FAR
    assert len(found) == LINE_MAX + 100


def test_of_several_queues_the_slowest_counts():
    fast, slow = Estimate(1.0, 2.0, 3.0), Estimate(4.0, 5.0, None)
    assert latest_of([fast, slow]) is slow
    unknown = Estimate(missing=NoEstimate.NO_HISTORY)
    assert latest_of([fast, unknown]) is unknown
    assert latest_of([]) is None


samples = st.lists(st.floats(0.1, 1000), min_size=3, max_size=20).map(Sample.of)


@given(
    limit=st.integers(1, 5),
    occupants=st.lists(st.builds(ForecastHolder, st.integers(1, 3), st.floats(0, 500), samples)),
    line=st.lists(st.builds(Candidate, st.integers(1, 3), samples), max_size=10),
)
def test_nobody_passes_and_each_gets_an_answer(limit, occupants, line):
    found = forecast(limit, occupants, line)
    assert len(found) == len(line)
    able = [e for e, c in zip(found, line, strict=True) if c.slots <= limit]
    typical = [e.typical for e in able if e.typical is not None]
    assert typical == sorted(typical)
    for estimate in found:
        assert (estimate.typical is None) == (estimate.missing is not None)
        if estimate.typical is not None:
            assert 0 <= estimate.soonest <= estimate.typical
            assert estimate.latest is None or estimate.typical <= estimate.latest
