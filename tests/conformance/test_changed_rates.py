"""Rates that change, and clocks that are set back, on every store alike.

No waiter looks again by itself within a test, so a wait is ended by a wake-up or by its time.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_lifeguard.deployment.history.ledger import read_span
from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.model import Demand, EntryKind, Waiting, WaitReason
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
from dagster_lifeguard.engine.rules.rate import Rate, nanoseconds
from dagster_lifeguard.engine.store.memory.store import MemoryStore
from dagster_lifeguard.inspections.audit.ledger_audit import audit_ledger
from places import age_rate, set_clock_back
from pool_values import rates

DAILY, HOURLY = Rate(1, 86400), Rate(1, 3600)
MONTH = 30 * 86400.0
EPSILON = 2e-6  # The databases keep times in microseconds, and floats in a quarter of one.
PATIENT = {"look_again_seconds": 3600.0, "lease_seconds": 7200.0, "abandon_seconds": 3600.0}


def ask(engine, run_id, demand="api", priority=0):
    return engine.claim(run_id, "step", Demand.parse(demand), priority)


def let_in(engine, run_id, demand="api"):
    """Wait as a step does, and be let in after few questions: its time does not move away."""
    for _ in range(10):
        if ask(engine, run_id, demand).granted:
            return
        assert engine.wait(run_id, "step", 60), "nothing woke it, and its time did not come"
    raise AssertionError("it asked again and again")


def rows_of_rate(engine, pool="api"):
    """What the ledger tells of the pool's rate, oldest first: when, and which."""
    ledger = reversed(engine.store.ledger(pool=pool))
    return [(entry.at, entry.detail) for entry in ledger if entry.kind is EntryKind.RATE]


def starts_at(engine, pool="api"):
    ledger = reversed(engine.store.ledger(pool=pool))
    return [entry.at for entry in ledger if entry.kind is EntryKind.GRANTED]


@pytest.fixture
def other(new_engine):
    engine = new_engine(**PATIENT)
    engine.change_pool("api", limit=50)
    return engine


@pytest.fixture
def waiter(new_engine):
    return new_engine(**PATIENT)


# ---- rates that change ---------------------------------------------------------------------------


def test_a_rate_that_is_raised_wakes_who_waits_and_tells_a_time_that_stands(other, waiter):
    other.change_pool("api", rate=DAILY)
    ask(other, "a")
    before = ask(waiter, "b")
    other.change_pool("api", rate=HOURLY)
    assert waiter.wait("b", "step", 60)

    after = ask(waiter, "b")
    (first,) = starts_at(other)
    (_, (changed, _)) = rows_of_rate(other)
    assert first + 3600 - EPSILON <= after.ready_at <= changed + 3600 + EPSILON
    assert after.ready_at < before.ready_at
    assert [ask(waiter, "b").ready_at for _ in range(3)] == [after.ready_at] * 3


@pytest.mark.parametrize("limit", [50, None])
def test_a_rate_that_is_raised_opens_the_pool(other, waiter, limit):
    if limit is None:
        other.change_pool("api", limit=None)
    other.change_pool("api", rate=Rate(2, 60))
    assert ask(other, "a").granted
    assert ask(waiter, "b").reason is WaitReason.RATE
    other.change_pool("api", rate=Rate(10, 1))
    let_in(waiter, "b")
    let_in(waiter, "c")


def test_a_rate_that_is_raised_keeps_the_burst_that_was_not_used(other):
    other.change_pool("api", rate=Rate(1, 3600, burst=4))
    assert ask(other, "a").granted
    other.change_pool("api", rate=Rate(1, 60, burst=4))
    assert [ask(other, run_id).granted for run_id in "bcde"] == [True, True, True, False]


def test_a_rate_that_is_lowered_holds_from_the_last_start_on(place, other, waiter):
    """Else each change would give away a burst, as the start before it was forgotten."""
    other.change_pool("api", rate=Rate(100, 60, burst=2))
    assert ask(other, "a").granted
    assert ask(other, "b").granted
    assert ask(waiter, "c").reason is WaitReason.RATE
    other.change_pool("api", rate=Rate(1, 86400, burst=2))
    assert waiter.wait("c", "step", 60)
    verdict = ask(waiter, "c")
    (_, (changed, _)) = rows_of_rate(other)
    # Of the two starts that counted, what the old rate had not used up counts by the new one.
    assert changed < verdict.ready_at <= changed + 86400
    assert ask(waiter, "c").ready_at == verdict.ready_at
    age_rate(place, "api", 86400)
    assert ask(waiter, "c").granted


def test_a_burst_that_is_lowered_costs_one_interval(place, other):
    other.change_pool("api", rate=Rate(1, 3600, burst=10))
    for number in range(10):
        assert ask(other, f"run{number}").granted
    other.change_pool("api", rate=HOURLY)
    (_, (changed, _)) = rows_of_rate(other)
    assert ask(other, "late").ready_at == pytest.approx(changed + 3600, abs=EPSILON)
    age_rate(place, "api", 3600)
    assert ask(other, "late").granted


def test_a_rate_that_is_deleted_lets_in_who_waited_for_it(other, waiter):
    other.change_pool("api", rate=HOURLY)
    ask(other, "a")
    assert ask(waiter, "b").reason is WaitReason.RATE
    other.change_pool("api", rate=None)
    let_in(waiter, "b")
    assert ask(waiter, "c").granted
    assert rates(waiter.settings()) == {}


def test_a_rate_that_is_deleted_and_set_again_remembers_its_last_start(other):
    other.change_pool("api", rate=DAILY)
    ask(other, "a")
    before = ask(other, "b").ready_at
    other.release("b", "step")
    other.change_pool("api", rate=None)
    other.change_pool("api", rate=DAILY)
    assert ask(other, "b").ready_at == before


def test_a_rate_set_in_place_of_a_deleted_one_costs_one_interval_at_most(other, waiter):
    other.change_pool("api", rate=DAILY)
    ask(other, "a")
    other.change_pool("api", rate=None)
    other.change_pool("api", rate=Rate(10, 1))
    let_in(waiter, "b")


def test_several_rates_that_are_set_at_once_hold_at_once(other, waiter):
    other.set_pools({"api": PoolSettings(5, DAILY), "mail": PoolSettings(5, DAILY)})
    assert ask(other, "a", "api+mail").granted
    assert ask(waiter, "b", "api+mail").reason is WaitReason.RATE
    other.set_pools({"api": PoolSettings(5, Rate(10, 1)), "mail": PoolSettings(6, Rate(20, 1))})
    let_in(waiter, "b", "api+mail")


# ---- clocks that are set back --------------------------------------------------------------------


@pytest.mark.parametrize("burst", [1, 3])
@pytest.mark.parametrize("limit", [50, None])
def test_a_clock_that_is_set_back_costs_one_interval(place, other, burst, limit):
    if limit is None:
        other.change_pool("api", limit=None)
    rate = Rate(1, 3600, burst=burst)
    other.change_pool("api", rate=rate)
    for number in range(burst):
        assert ask(other, f"run{number}").granted
    set_clock_back(place, "api", MONTH)

    told = ask(other, "late").ready_at
    (_, (noticed, detail)) = rows_of_rate(other)
    assert detail == str(rate)
    assert told == pytest.approx(noticed + 3600, abs=EPSILON)
    # Its time does not move ahead of the clock.
    assert [ask(other, "late").ready_at for _ in range(3)] == [told] * 3
    age_rate(place, "api", 3600)
    assert ask(other, "late").granted
    assert len(rows_of_rate(other)) == 2


def test_a_waiter_is_let_in_after_the_clock_was_set_back(place, other, waiter):
    other.change_pool("api", rate=Rate(4, 1))
    assert ask(other, "a").granted
    set_clock_back(place, "api", MONTH)
    let_in(waiter, "b")
    let_in(waiter, "c")


def test_each_pool_of_a_demand_is_corrected_whichever_holds_it_up(place, other):
    other.change_pool("asset", limit=1)
    other.change_pool("mail", limit=5)
    other.change_pool("api", rate=HOURLY)
    other.change_pool("mail", rate=HOURLY)
    assert ask(other, "a", "api+asset+mail").granted
    set_clock_back(place, "api", MONTH)
    set_clock_back(place, "mail", 2 * MONTH)

    verdict = ask(other, "b", "api+asset+mail")
    assert (verdict.pool, verdict.reason) == ("asset", WaitReason.FULL)
    times = [rows_of_rate(other, pool)[1][0] for pool in ("api", "mail")]
    found = {snapshot.pool: snapshot.due_ns for snapshot in other.snapshots(("api", "mail"))}
    due = [nanoseconds(at) + HOURLY.interval_ns for at in times]
    assert [found["api"], found["mail"]] == due


def test_a_rate_that_is_changed_after_the_clock_was_set_back_costs_one_interval(
    place, other, waiter
):
    other.change_pool("api", rate=HOURLY)
    assert ask(other, "a").granted
    set_clock_back(place, "api", MONTH)
    other.change_pool("api", rate=Rate(10, 1))
    let_in(waiter, "b")


# ---- whatever happens ----------------------------------------------------------------------------

RATES = (None, Rate(1, 1), Rate(10, 1), Rate(2, 60), Rate(60, 60, burst=3), Rate(1, 3600, burst=2))
events = st.one_of(
    st.tuples(st.just("ask"), st.just(0)),
    st.tuples(st.just("go by"), st.sampled_from([0.001, 0.1, 1.0, 30.0, 3600.0])),
    st.tuples(st.just("set back"), st.sampled_from([0.001, 0.5, 5.0, 3600.0, 1e7])),
    st.tuples(st.just("set"), st.sampled_from(RATES)),
)


@given(st.lists(events, max_size=40))
def test_whatever_happens_the_audit_finds_nothing_and_nobody_waits_beyond_an_interval(happens):
    now = [1_000_000_000.0]
    store = MemoryStore(clock=lambda: now[0])
    engine = Engine(store, EngineOptions(lease_seconds=1e9))
    engine.change_pool("api", limit=1000)
    rate = Rate(1, 1)
    engine.change_pool("api", rate=rate)
    for number, (what, value) in enumerate(happens):
        if what == "ask":
            ask(engine, f"run{number}")
        elif what == "set":
            rate = value
            engine.change_pool("api", rate=rate)
        else:
            now[0] = round(now[0] + (value if what == "go by" else -value), 6)

    waiting = [ticket.key.run_id for ticket in engine.snapshot("api").waiting]
    for run_id in waiting or ["last"]:
        verdict = ask(engine, run_id)
        if isinstance(verdict, Waiting):
            assert verdict.reason is WaitReason.RATE
            assert nanoseconds(verdict.ready_at) <= nanoseconds(now[0]) + rate.interval_ns + 1000
            now[0] = verdict.ready_at
            assert ask(engine, run_id).granted
    found = audit_ledger(read_span(store, {}, since=0.0), since=0.0, until=2e9)
    assert found.early == ()
    engine.leave()
