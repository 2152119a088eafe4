"""The arithmetic of rates: never one too many in any span, and none lost that somebody waits for."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, pairwise, product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dagster_lifeguard.engine.rules.rate import BURST_MAX, STARTS_MAX, Rate, nanoseconds, seconds
from dagster_lifeguard.errors import ConfigError

NOW = nanoseconds(1_764_055_490.123456)
rates = st.builds(
    Rate,
    st.one_of(st.integers(1, 200), st.integers(1, STARTS_MAX)),
    st.sampled_from([1, 60, 3600, 86400]),
    st.integers(1, 12),
)


def starts_of(rate, looks, due=0):
    """When steps start, of those that look at these times."""
    found, _ = starts_and_due(rate, looks, due)
    return found


def starts_and_due(rate, looks, due=0):
    """The same, and what is kept for the pool after them."""
    found = []
    for now in looks:
        if rate.start_at(due, now) <= now:
            assert rate.ready(due, now) >= 1
            due = rate.due_after_start(due, now)
            found.append(now)
        else:
            assert rate.ready(due, now) == 0
    return found, due


@st.composite
def looks(draw):
    """A rate, and times at which steps look: at random, in flocks, and exactly when they may."""
    rate = draw(rates)
    interval = rate.interval_ns
    pauses = st.one_of(
        st.just(0),
        st.just(interval),
        st.just(interval - 1),
        st.integers(0, 2 * interval),
        st.integers(0, 30 * interval),
    )
    now = NOW
    times = []
    for pause in draw(st.lists(pauses, min_size=1, max_size=60)):
        now += pause
        times.append(now)
    return rate, times


@given(looks())
def test_in_any_span_no_more_start_than_burst_and_rate_allow(case):
    """Counted exactly, in whole numbers: k starts in a span take k - burst intervals at least."""
    rate, times = case
    found = starts_of(rate, times)
    for (first, begin), (last, end) in combinations(enumerate(found), 2):
        count = last - first + 1
        assert (count - rate.burst) * rate.seconds * 10**9 <= (end - begin) * rate.starts


@given(rates, st.integers(1, 40))
def test_who_comes_at_the_told_time_starts_and_no_earlier(rate, count):
    """Each of a queue is told its place's time once, and all of them start exactly then."""
    told = [rate.start_at(0, NOW, place) for place in range(1, count + 1)]
    assert starts_of(rate, [max(NOW, at) for at in told]) == [max(NOW, at) for at in told]
    assert all(later - earlier == rate.interval_ns for earlier, later in pairwise(told))
    due = 0
    for at in told[:-1]:
        due = rate.due_after_start(due, max(NOW, at))
    assert not starts_of(rate, [told[-1] - 1], due) or told[-1] <= NOW


@given(rates)
def test_a_quiet_time_saves_a_burst_and_not_more(rate):
    long_ago = NOW - 10**6 * rate.interval_ns
    due = rate.due_after_start(0, long_ago)
    assert rate.ready(due, NOW) == rate.burst
    assert len(starts_of(rate, [NOW] * (rate.burst + 5), due)) == rate.burst


@st.composite
def debts(draw):
    """A rate, and what may be kept for its pool now: from long ago to the latest a start can set."""
    rate = draw(rates)
    most = rate.burst * rate.interval_ns
    return rate, NOW + draw(st.sampled_from([-most, 0, most])) - draw(st.integers(0, most))


@given(debts(), rates)
def test_a_changed_rate_costs_one_interval_of_it_at_most(case, after):
    before, due = case
    due = after.taken_over(before, due, NOW)
    assert after.start_at(due, NOW) <= NOW + after.interval_ns
    assert after.ready(due, NOW) <= after.burst


@example((Rate(2, 60, 10), NOW + 30 * 10**9), 600, 0)
@given(debts(), st.integers(0, STARTS_MAX), st.integers(0, 12))
def test_a_raised_rate_lets_nobody_start_later(case, more_starts, more_burst):
    before, due = case
    starts = min(before.starts + more_starts, STARTS_MAX)
    after = Rate(starts, before.seconds, before.burst + more_burst)
    raised = after.taken_over(before, due, NOW)
    assert after.ready(raised, NOW) >= before.ready(due, NOW)
    for place in (1, 2, 20):
        assert after.start_at(raised, NOW, place) <= max(NOW, before.start_at(due, NOW, place))


@given(debts(), st.integers(0, 10**12))
def test_to_set_what_is_set_changes_nothing(case, later):
    rate, due = case
    again = rate.taken_over(rate, due, NOW)
    assert rate.start_at(again, NOW + later) == rate.start_at(due, NOW + later)
    assert rate.taken_over(None, due, NOW) == due


def no_more_than(count, burst, *parts):
    """Whether so many starts are within a burst and what each rate lets start in its time."""
    allowed = sum(Fraction(ns * rate.starts, rate.seconds * 10**9) for ns, rate in parts)
    return count <= burst + allowed


@example((Rate(2, 1), [NOW]), (Rate(1, 1), [NOW + 10**9 - 1]))
@example((Rate(2, 1), [NOW, NOW + 1]), (Rate(4, 1), [NOW + 250 * 10**6 - 1]))
@example((Rate(1, 1, 3), [NOW] * 3), (Rate(1, 60, 2), [NOW] * 2))
@given(looks(), looks())
def test_in_a_span_over_a_change_the_larger_burst_starts_and_what_each_rate_allows(one, other):
    (before, old_times), (after, new_times) = one, other
    old, due = starts_and_due(before, old_times)
    change = old_times[-1]
    due = after.taken_over(before, due, change)
    new, _ = starts_and_due(after, [change + at - NOW for at in new_times], due)
    for first, last in combinations(range(len(new)), 2):
        span = new[last] - new[first]
        assert no_more_than(last - first + 1, after.burst, (span, after))
    burst = max(before.burst, after.burst)
    for (first, begin), (last, end) in product(enumerate(old), enumerate(new, start=len(old))):
        parts = (change - begin, before), (end - change, after)
        assert no_more_than(last - first + 1, burst, *parts)


@given(st.lists(st.tuples(rates, st.integers(0, 10**9)), min_size=1, max_size=30))
def test_a_rate_that_is_changed_again_and_again_keeps_nobody_out(changes):
    """Each start that counts goes away within the longest interval, however often that changes."""
    rate = Rate(1, 1)
    due, now = rate.due_after_start(0, NOW), NOW
    longest = rate.interval_ns
    for after, pause in changes:
        now += pause
        due, rate = after.taken_over(rate, due, now), after
        longest = max(longest, rate.interval_ns)
        assert rate.start_at(due, now) <= max(now, NOW + longest + len(changes))


@given(debts(), st.integers(0, 10**15))
def test_a_clock_that_is_set_back_costs_one_interval_at_most_once_that_is_noticed(case, back):
    """Kept is what the first look corrects, so that the time told does not move with the clock."""
    rate, due = case
    first = NOW - back
    corrected = rate.corrected(due, first)
    told = rate.start_at(corrected, first)
    assert told <= max(first, min(NOW, first) + rate.interval_ns)
    for later in (first, first + 1, (first + told) // 2, told - 1):
        if first <= later < told:
            assert rate.corrected(corrected, later) == corrected
            assert rate.start_at(corrected, later) == told
    assert rate.start_at(corrected, max(first, told)) <= max(first, told)


@given(looks(), st.integers(0, 10**15))
def test_from_when_the_clock_is_set_back_no_more_start_than_burst_and_rate_allow(case, back):
    rate, times = case
    _, due = starts_and_due(rate, times)
    set_back = [at - back for at in times]
    found, _ = starts_and_due(rate, set_back, rate.corrected(due, set_back[0]))
    for first, last in combinations(range(len(found)), 2):
        assert no_more_than(last - first + 1, rate.burst, (found[last] - found[first], rate))


def test_an_interval_is_never_rounded_to_more_starts():
    assert Rate(7, 60).interval_ns * 7 >= 60 * 10**9
    assert Rate(100, 60).interval_ns == 600_000_000


def test_times_are_exact_to_the_microsecond_of_the_database():
    assert nanoseconds(1_764_055_490.123457) == 1_764_055_490_123_457_000
    assert seconds(1_764_055_490_123_456_001) == 1_764_055_490.123457
    assert nanoseconds(seconds(1_764_055_490_123_456_001)) >= 1_764_055_490_123_456_001


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/minute", Rate(100, 60)),
        ("1/second", Rate(1, 1)),
        ("30/hour", Rate(30, 3600)),
        ("2/day", Rate(2, 86400)),
    ],
)
def test_a_rate_says_what_it_was_read_from(text, rate):
    assert Rate.parse(text) == rate
    assert str(rate) == text
    assert str(Rate.parse(text, 5)) == f"{text}, burst 5"


@pytest.mark.parametrize(
    "text", ["", "0/minute", "-1/minute", "5", "5/week", "5 /minute", "5/minute\n"]
)
def test_what_is_not_a_rate_is_refused_with_what_is(text):
    with pytest.raises(ConfigError, match="100/minute"):
        Rate.parse(text)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((STARTS_MAX + 1, 1), "starts"),
        ((1, 1, BURST_MAX + 1), "burst"),
        ((1, 1, 0), "burst"),
        ((1, 7), "7 seconds"),
    ],
)
def test_numbers_out_of_bounds_are_refused(numbers, words):
    with pytest.raises(ConfigError, match=words):
        Rate(*numbers)


def test_the_largest_numbers_fit_the_databases():
    rate = Rate(1, 86400, BURST_MAX)
    assert rate.start_at(2**63 - 1, NOW, 32) < 2**63
    assert rate.due_after_start(2**63 - 1, NOW) < 2**63
