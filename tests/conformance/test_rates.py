"""Rates, on every store alike: what callers are told, and when."""

from __future__ import annotations

import pytest

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import DUE_SECONDS, EngineOptions
from dagster_lifeguard.engine.rules.model import (
    Demand,
    Entry,
    EntryKind,
    Granted,
    TicketKey,
    View,
    Waiting,
    WaitReason,
)
from dagster_lifeguard.engine.rules.rate import Rate, nanoseconds
from dagster_lifeguard.engine.store.contract import Changes, Scope
from dagster_lifeguard.engine.store.locked_view import LockedView
from dagster_lifeguard.engine.store.memory.store import MemoryStore
from places import age_rate
from pool_values import rates

HOURLY = Rate(1, 3600)
EPSILON = 2e-6  # The databases keep times in microseconds, and floats in a quarter of one.


def ask(engine, run_id, demand="api", priority=0):
    return engine.claim(run_id, "step", Demand.parse(demand), priority)


def granted_at(engine, pool="api"):
    """When steps were let in, oldest first."""
    ledger = engine.store.ledger(pool=pool)
    return [entry.at for entry in reversed(ledger) if entry.kind is EntryKind.GRANTED]


def test_a_burst_goes_in_and_the_rest_know_their_times(engine):
    engine.change_pool("api", limit=10)
    engine.change_pool("api", rate=Rate(1, 3600, burst=2))
    assert [ask(engine, run_id).granted for run_id in "ab"] == [True, True]
    (first, _) = granted_at(engine)

    waiting = [ask(engine, run_id) for run_id in "cde"]
    assert {(w.pool, w.reason) for w in waiting} == {("api", WaitReason.RATE)}
    assert [w.ahead for w in waiting] == [0, 1, 2]
    for place, verdict in enumerate(waiting, start=1):
        assert verdict.ready_at == pytest.approx(first + place * 3600, abs=EPSILON)


def test_when_its_time_has_come_the_first_in_line_starts(place, engine):
    engine.change_pool("api", limit=10)
    engine.change_pool("api", rate=HOURLY)
    assert ask(engine, "a").granted
    assert not ask(engine, "b").granted
    assert not ask(engine, "urgent", priority=1).granted

    age_rate(place, "api", 3600)
    assert ask(engine, "b").reason is WaitReason.RATE
    assert ask(engine, "urgent", priority=1).granted
    assert not ask(engine, "b").granted
    age_rate(place, "api", 3600)
    assert ask(engine, "b").granted


def test_a_release_gives_no_start_back_and_asking_again_takes_none(place, engine):
    engine.change_pool("api", limit=1)
    engine.change_pool("api", rate=Rate(1, 3600, burst=2))
    first = ask(engine, "a")
    assert ask(engine, "a") == first
    engine.release("a", "step")
    assert ask(engine, "b").granted
    engine.release("b", "step")

    assert ask(engine, "c").reason is WaitReason.RATE


def test_slots_count_for_one_start(engine):
    engine.change_pool("api", limit=10)
    engine.change_pool("api", rate=Rate(1, 3600, burst=2))
    assert ask(engine, "a", "api*4").granted
    assert ask(engine, "b", "api*4").granted


def test_who_waited_for_a_slot_is_woken_for_it_and_told_its_time(new_engine):
    engine, other = new_engine(look_again_seconds=3600.0), new_engine()
    engine.change_pool("api", limit=1)
    engine.change_pool("api", rate=HOURLY)
    ask(other, "a")
    assert ask(engine, "b").reason is WaitReason.FULL
    assert ask(engine, "b").ready_at is None

    other.release("a", "step")
    assert engine.wait("b", "step", 20)
    assert ask(engine, "b").reason is WaitReason.RATE


def test_who_knows_its_time_is_not_woken_by_every_release(new_engine):
    engine, other = new_engine(look_again_seconds=3600.0), new_engine()
    engine.change_pool("api", limit=4)
    engine.change_pool("api", rate=Rate(1, 3600, burst=3))
    for run_id in "abc":
        ask(other, run_id)
    assert [ask(engine, run_id).reason for run_id in "de"] == [WaitReason.RATE, WaitReason.BEHIND]
    session = engine.session

    def woken(run_id):
        other.release(run_id, "step")
        engine.store.poll(session, 0)  # SQLite takes note of what there is the first time.
        return {key.run_id for key in engine.store.poll(session, 0.2)}

    # Who was behind for want of a slot has one now, and asks for its time; then it knows.
    other.release("a", "step")
    assert engine.wait("e", "step", 20)
    assert ask(engine, "e").reason is WaitReason.RATE
    assert not engine.wait("d", "step", 0.05)
    assert woken("b") == set()


def test_who_is_behind_one_that_gives_up_goes_in_at_its_time(new_engine):
    engine, other = new_engine(look_again_seconds=3600.0), new_engine()
    engine.change_pool("api", limit=5)
    engine.change_pool("api", rate=HOURLY)
    ask(other, "a")
    first = ask(other, "b")
    second = ask(engine, "c")
    assert second.ready_at > first.ready_at

    other.release("b", "step")
    assert engine.wait("c", "step", 20)
    assert ask(engine, "c").ready_at == first.ready_at


def test_a_demand_takes_its_starts_all_or_none(place, engine):
    engine.change_pool("api", limit=5)
    engine.change_pool("mail", limit=5)
    engine.change_pool("orders", limit=1)
    engine.change_pool("api", rate=HOURLY)
    engine.change_pool("mail", rate=HOURLY)
    assert ask(engine, "a", "mail").granted

    verdict = ask(engine, "b", "api+mail+orders")
    assert (verdict.pool, verdict.reason, verdict.queue_at) == ("mail", WaitReason.RATE, ("mail",))
    assert engine.snapshot("orders").holdings == ()
    # It took no start of the other pool, whose one start is there for who can use it.
    assert ask(engine, "c", "api").granted
    assert ask(engine, "d", "orders").granted
    engine.release("d", "step")
    age_rate(place, "mail", 3600)
    assert ask(engine, "b", "api+mail+orders").pool == "api"
    age_rate(place, "api", 3600)
    assert ask(engine, "b", "api+mail+orders").granted
    assert ask(engine, "e", "mail").reason is WaitReason.RATE


def test_a_pool_without_a_limit_keeps_its_rate(place, engine):
    engine.change_pool("api", rate=Rate(1, 3600, burst=2))
    assert ask(engine, "a") == Granted({})
    assert ask(engine, "b") == Granted({})
    verdict = ask(engine, "c")
    assert (verdict.reason, verdict.ahead) == (WaitReason.RATE, 0)
    assert ask(engine, "d").ahead == 1
    age_rate(place, "api", 3600)
    assert ask(engine, "d").reason is WaitReason.RATE
    assert ask(engine, "c").granted
    assert engine.run_ids() == {"d"}


def test_the_default_limit_goes_with_a_rate(new_engine):
    engine = new_engine(default_limit=1)
    engine.change_pool("api", rate=HOURLY)
    assert ask(engine, "a").slots == {"api": (1,)}
    assert ask(engine, "b").reason is WaitReason.FULL


def test_a_waiter_sleeps_until_its_time_and_no_longer(new_engine):
    """Nothing wakes it and nothing makes it look, so only the time that it was told can."""
    engine = new_engine(look_again_seconds=3600.0, lease_seconds=3600.0)
    engine.change_pool("api", limit=5)
    engine.change_pool("api", rate=Rate(4, 1))
    ask(engine, "a")
    verdict = ask(engine, "b")
    while isinstance(verdict, Waiting):
        assert engine.wait("b", "step", 20)
        verdict = ask(engine, "b")
    first, second = granted_at(engine)
    assert nanoseconds(second) - nanoseconds(first) >= Rate(4, 1).interval_ns


def test_times_are_whole_microseconds(engine):
    """Of a finer time a rate would round a part up, and let in too early by as much."""
    engine.change_pool("api", limit=100)
    for number in range(20):
        assert ask(engine, f"run{number}").granted
    times = granted_at(engine)
    assert len(times) == 20
    assert [round(at * 10**6) / 10**6 for at in times] == times


@pytest.mark.parametrize(("ahead", "early"), [(0, DUE_SECONDS / 2), (1, 0.0)])
def test_the_next_look_begins_as_early_as_the_last_one_was_slow(ahead, early):
    """So that it sees the database when its time comes, not a way to the database later.

    Who is next comes a little earlier still.
    """
    engine = Engine(MemoryStore())
    own = engine._own
    name, key = own.open(), TicketKey("run", "step")
    view = View(now=1000.0, session_alive=True, lease_ends=None, pools={})
    verdict = Waiting("api", WaitReason.RATE, ahead, queue_at=("api",), ready_at=1002.0)
    assert own.note(key, verdict, view, name, asked_at=500.0)  # The clock of the process.
    assert own.look_again_at(key, now=500.3) == 502.0 - early
    engine.leave()


def test_who_is_next_and_a_little_early_waits_for_its_time_and_is_not_late():
    now = [1000.0]
    store = MemoryStore(clock=lambda: now[0])
    engine = Engine(store, EngineOptions(lease_seconds=1e6))
    engine.change_pool("api", limit=10)
    engine.change_pool("api", rate=Rate(1, 1))
    assert ask(engine, "a").granted
    for run_id in "bc":
        assert not ask(engine, run_id).granted
    now[0] = 1001.0 - 2 * DUE_SECONDS
    assert ask(engine, "b").ready_at == 1001.0
    now[0] = 1001.0 - DUE_SECONDS / 2
    assert not ask(engine, "c").granted  # It is not next.
    assert ask(engine, "b").granted
    assert granted_at(engine) == [1000.0, 1001.0]
    now[0] = 1001.0
    assert ask(engine, "c").ready_at == 1002.0
    engine.leave()


def test_who_is_not_next_waits_without_the_locks(monkeypatch):
    """Its time is near, at so high a rate, and it would not be let in then."""
    store = MemoryStore(clock=lambda: 1000.0)
    engine = Engine(store, EngineOptions(lease_seconds=1e6))
    engine.change_pool("api", limit=10)
    engine.change_pool("api", rate=Rate(1, 1))
    for run_id in "ab":
        ask(engine, run_id)
    engine.change_pool("api", rate=Rate(1000, 1))
    store.rows.due_ns["api"] = 1000 * 10**9
    waited = []
    monkeypatch.setattr(LockedView, "wait_until", lambda self, at: waited.append(at) or self.view)
    assert not ask(engine, "c").granted
    assert waited == []
    engine.leave()


def test_a_transaction_may_wait_for_a_time_and_writes_by_it(place, engine):
    engine.change_pool("api", limit=1)
    with engine.store.begin(Scope(("api",))) as transaction:
        began = transaction.view.now
        assert transaction.wait_until(began - 1).now == began
        assert transaction.wait_until(began + 0.05).now == began + 0.05
        transaction.commit(Changes(ledger=(Entry(EntryKind.RATE, "api", detail="1/hour"),)))
    (written, *_) = engine.store.ledger(pool="api")
    assert (written.detail, written.at) == ("1/hour", pytest.approx(began + 0.05, abs=EPSILON))
    with engine.store.begin(Scope(("api",))) as transaction:
        assert transaction.view.now >= began + 0.05


def test_changes_of_rates_are_in_the_ledger_once(engine):
    engine.change_pool("api", rate=HOURLY)
    engine.change_pool("api", rate=HOURLY)
    engine.change_pool("api", rate=Rate(100, 60, burst=10))
    engine.change_pool("api", rate=None)
    entries = engine.store.ledger(pool="api")
    assert [(e.kind, e.detail) for e in reversed(entries)] == [
        (EntryKind.RATE, "1/hour"),
        (EntryKind.RATE, "100/minute, burst 10"),
        (EntryKind.RATE, None),
    ]


def test_rates_can_be_read(engine):
    engine.change_pool("mail", rate=HOURLY)
    engine.change_pool("api", rate=Rate(100, 60, burst=10))
    engine.change_pool("orders", limit=1)
    assert rates(engine.settings()) == {"api": Rate(100, 60, burst=10), "mail": HOURLY}
    api, orders_, never = engine.snapshots(("api", "orders", "never"))
    assert (api.settings.rate, orders_.settings.rate, never.settings.rate) == (
        Rate(100, 60, burst=10),
        None,
        None,
    )


def test_it_can_be_read_what_a_rate_counts_with(engine):
    engine.change_pool("api", limit=5)
    engine.change_pool("api", rate=HOURLY)
    (before,) = engine.snapshots(("api",))
    assert before.due_ns == 0
    assert ask(engine, "a", "api").granted
    (after,) = engine.snapshots(("api",))
    (holding,) = after.holdings
    assert after.due_ns == nanoseconds(holding.since) + HOURLY.interval_ns


def test_a_pool_without_a_rate_costs_no_statement_more(place, engine):
    """Only on PostgreSQL, where statements are counted: those of a claim and a release."""
    engine.change_pool("orders", limit=1)
    ask(engine, "warm", "orders")
    engine.release("warm", "step")
    if place.kind != "postgres":
        assert rates(engine.store.settings()) == {}
        return
    connection = engine.store.connection
    before = connection.statements
    ask(engine, "a", "orders")
    without = connection.statements - before
    engine.release("a", "step")
    engine.change_pool("orders", rate=Rate(1000, 1, burst=100))
    before = connection.statements
    ask(engine, "b", "orders")
    # It presumes that there is no rate, looks (4), grants (2), and notes the start (1).
    assert without == 3
    assert connection.statements - before == without + 4 + 2 + 1
