"""Processes that live and die, on every store alike."""

from __future__ import annotations

import threading
import time

import pytest

from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.model import Demand, TicketKey, WaitReason
from dagster_lifeguard.engine.store.contract import TryAgainError
from dagster_lifeguard.errors import ConfigError
from places import age_session, revoke_session

ORDERS = Demand.of({"orders": 1})


def test_a_dead_holder_frees_its_slots_to_the_next_claim(place, new_engine):
    dead, live = new_engine(), new_engine()
    live.change_pool("orders", limit=1)
    old = dead.claim("a", "step", ORDERS)
    assert not live.claim("b", "step", ORDERS).granted

    age_session(place, dead.session)

    new = live.claim("b", "step", ORDERS)
    assert new.granted
    assert new.fence > old.fence
    kinds = [(e.kind, e.run_id) for e in live.store.ledger(pool="orders")]
    assert kinds[:2] == [("granted", "b"), ("expired", "a")]


def test_reaping_wakes_those_who_wait(place, new_engine):
    dead, waiting, third = new_engine(), new_engine(), new_engine()
    third.change_pool("orders", limit=1)
    dead.claim("a", "step", ORDERS)
    waiting.claim("b", "step", ORDERS)
    age_session(place, dead.session)

    assert third.reap() == 1
    assert third.reap() == 0
    assert waiting.wait("b", "step", 20)
    assert waiting.claim("b", "step", ORDERS).granted


def test_the_first_in_line_looks_when_a_lease_runs_out(new_engine):
    patient = {"look_again_seconds": 3600.0, "lease_seconds": 7200.0}
    dead, first, second = (
        new_engine(lease_seconds=1.0),
        new_engine(**patient),
        new_engine(**patient),
    )
    first.change_pool("orders", limit=1)
    dead.claim("a", "step", ORDERS)
    assert not first.claim("b", "step", ORDERS).granted
    second.claim("c", "step", ORDERS)
    dead.leave()  # Like a process that was killed: no heartbeat, and nothing given back.

    while not first.claim("b", "step", ORDERS).granted:
        assert first.wait("b", "step", 20)
    assert not second.wait("c", "step", 0.001)
    first.release("b", "step")
    assert second.wait("c", "step", 20)


def test_a_lease_that_cannot_be_reaped_does_not_keep_the_first_in_line_busy(
    place, new_engine, monkeypatch
):
    dead, live = new_engine(), new_engine(look_again_seconds=3600.0)
    live.change_pool("orders", limit=1)
    dead.claim("a", "step", ORDERS)
    age_session(place, dead.session)
    # In PostgreSQL: the process was stopped in the middle of a claim, and has its row locked.
    monkeypatch.setattr(live._transactions, "_reap_some", lambda _: None)

    assert not live.claim("b", "step", ORDERS).granted
    assert not live.wait("b", "step", 0.05)


def test_a_dead_waiter_holds_nothing_up(place, new_engine):
    holder, dead, live = new_engine(), new_engine(), new_engine()
    holder.change_pool("orders", limit=1)
    holder.claim("a", "step", ORDERS)
    dead.claim("b", "step", ORDERS, priority=9)
    live.claim("c", "step", ORDERS)
    assert live.claim("c", "step", ORDERS).ahead == 1
    age_session(place, dead.session)

    holder.release("a", "step")
    assert live.wait("c", "step", 20)
    assert live.claim("c", "step", ORDERS).granted
    assert [t.key.run_id for t in live.snapshot("orders").waiting] == []


def test_an_adopted_holding_lives_while_any_owner_lives(place, new_engine):
    parent, step, other = new_engine(), new_engine(), new_engine()
    other.change_pool("orders", limit=1)
    fence = parent.claim("a", "step", ORDERS).fence

    assert step.adopt("a", "step") == fence
    assert step.adopt("a", "step") == fence
    assert step.adopt("b", "step") is None

    age_session(place, parent.session)
    assert not other.claim("b", "step", ORDERS).granted
    assert other.ticket("a", "step").owners == {step.session}
    age_session(place, step.session)
    assert other.claim("b", "step", ORDERS).granted


def test_both_owners_dead_at_once_leave_nothing_behind(place, new_engine):
    parent, step, other = new_engine(), new_engine(), new_engine()
    other.change_pool("orders", limit=1)
    parent.claim("a", "step", ORDERS)
    step.adopt("a", "step")
    age_session(place, parent.session)
    age_session(place, step.session)

    assert other.claim("b", "step", ORDERS).granted


def test_a_second_process_that_claims_a_held_ticket_becomes_an_owner(place, new_engine):
    first, resumed, other = new_engine(), new_engine(), new_engine()
    other.change_pool("orders", limit=1)
    verdict = first.claim("a", "step", ORDERS)

    assert resumed.claim("a", "step", ORDERS) == verdict
    age_session(place, first.session)
    assert not other.claim("b", "step", ORDERS).granted


def test_a_second_process_that_claims_a_waiting_ticket_keeps_its_place(place, new_engine):
    first, resumed, other = new_engine(), new_engine(), new_engine()
    other.change_pool("orders", limit=1)
    other.claim("holder", "step", ORDERS)
    first.claim("a", "step", ORDERS)
    other.claim("b", "step", ORDERS)
    assert not resumed.claim("a", "step", ORDERS).granted
    age_session(place, first.session)
    other.reap()
    other.release("holder", "step")

    assert other.claim("b", "step", ORDERS).reason is WaitReason.BEHIND
    assert resumed.claim("a", "step", ORDERS).granted


def test_a_process_whose_session_was_reaped_is_told_and_begins_anew(place, new_engine):
    lost = []
    late, other = new_engine(on_lease_lost=lost.extend), new_engine()
    other.change_pool("orders", limit=1)
    late.claim("a", "step", ORDERS)
    age_session(place, late.session)
    assert other.claim("b", "step", ORDERS).granted
    before = late.session

    assert not late.heartbeat()

    assert lost == [("a", "step")]
    assert late.heartbeat()
    assert not late.claim("a", "step", ORDERS).granted
    assert late.session not in {None, before}


def test_a_claim_finds_out_that_the_session_was_reaped(place, new_engine):
    lost = []
    late, other = new_engine(on_lease_lost=lost.extend), new_engine()
    other.change_pool("orders", limit=2)
    late.claim("a", "step", ORDERS)
    age_session(place, late.session)
    other.reap()

    assert late.claim("c", "step", ORDERS).granted
    assert lost == [("a", "step")]


def test_a_late_process_that_nobody_reaped_keeps_what_it_holds(place, new_engine):
    lost = []
    late = new_engine(on_lease_lost=lost.extend)
    late.change_pool("orders", limit=1)
    verdict = late.claim("a", "step", ORDERS)
    age_session(place, late.session)

    assert late.claim("a", "step", ORDERS) == verdict
    assert late.reap() == 0
    assert lost == []


def test_closing_frees_what_only_this_process_owns(new_engine):
    parent, step, other = new_engine(), new_engine(), new_engine()
    other.change_pool("orders", limit=2)
    parent.claim("a", "step", ORDERS)
    parent.claim("b", "step", ORDERS)
    step.adopt("a", "step")
    other.claim("c", "step", ORDERS)

    parent.close()

    assert other.wait("c", "step", 20)
    assert other.claim("c", "step", ORDERS).granted
    assert {h.key.run_id for h in other.snapshot("orders").holdings} == {"a", "c"}
    # The engine is of use after it was closed: it opens another session.
    assert not parent.claim("d", "step", ORDERS).granted


def test_the_heartbeat_thread_extends_the_lease(new_engine):
    # A lease as short as this would run out many times over while the condition is awaited.
    engine, other = new_engine(lease_seconds=0.6), new_engine()
    other.change_pool("orders", limit=1)
    engine.claim("a", "step", ORDERS)
    began = engine.store.ledger(count_max=1)[0].at
    for number in range(1000):
        other.change_pool("clock", limit=number % 2)
        if other.store.ledger(count_max=1)[0].at > began + 1.5:
            break
        time.sleep(0.01)
    assert other.store.expired_sessions(10) == () or engine.heartbeat()
    assert engine.ticket("a", "step") is not None


def test_a_waiting_ticket_that_nobody_asks_for_any_more_is_withdrawn(new_engine):
    engine, other = new_engine(abandon_seconds=0.001), new_engine()
    engine.change_pool("orders", limit=1)
    other.claim("a", "step", ORDERS)
    engine.claim("gone", "step", ORDERS)
    time.sleep(0.01)

    engine.tidy()

    assert engine.ticket("gone", "step") is None
    assert engine.ticket("a", "step") is not None
    # Whoever waits for it all the same is told to ask anew, and need not be woken for that.
    assert engine.wait("gone", "step", 0.001)
    assert not engine.claim("gone", "step", ORDERS).granted
    assert not engine.wait("gone", "step", 0.001)


def test_what_was_granted_just_now_is_not_withdrawn(new_engine, monkeypatch):
    """A ticket that was found abandoned may be claimed, and granted, before it is withdrawn."""
    engine = new_engine()
    engine.change_pool("orders", limit=1)
    assert engine.claim("a", "step", ORDERS).granted
    monkeypatch.setattr(engine._own, "abandoned", lambda: (TicketKey("a", "step"),))
    engine.tidy()
    assert [h.key.run_id for h in engine.snapshot("orders").holdings] == ["a"]
    assert engine.release("a", "step")


def test_each_step_that_waited_asks_anew_when_the_session_is_lost(place, new_engine):
    late, other = new_engine(), new_engine()
    other.change_pool("orders", limit=1)
    other.claim("a", "step", ORDERS)
    for run_id in "xy":
        assert not late.claim(run_id, "step", ORDERS).granted
    age_session(place, late.session)
    other.reap()
    assert not late.heartbeat()

    assert not late.claim("x", "step", ORDERS).granted
    assert late.wait("y", "step", 0.001)
    assert not late.claim("y", "step", ORDERS).granted
    assert not late.wait("y", "step", 0.001)


def test_waiting_times_out_and_looks_again_on_its_own(new_engine):
    engine = new_engine(look_again_seconds=0.05)
    engine.change_pool("orders", limit=1)
    engine.claim("a", "step", ORDERS)
    engine.claim("b", "step", ORDERS)

    assert not engine.wait("b", "step", 0.001)
    assert engine.wait("b", "step", 20)


@pytest.mark.parametrize("name", ["lease_seconds", "look_again_seconds", "abandon_seconds"])
def test_options_out_of_bounds_are_refused(name):
    with pytest.raises(ConfigError, match=name):
        EngineOptions(**{name: 0})


def test_a_ticket_whose_holding_expired_is_remembered(place, new_engine):
    dead, live = new_engine(), new_engine()
    live.change_pool("orders", limit=2)
    dead.claim("a", "step", ORDERS)
    live.claim("b", "step", ORDERS)
    live.release("b", "step")
    assert not live.has_expired("a", "step")
    age_session(place, dead.session)
    live.reap()

    assert live.has_expired("a", "step")
    assert not live.has_expired("a", "other")
    assert not live.has_expired("b", "step")


def test_a_revoked_session_cannot_come_back(place, new_engine):
    revoked, live = new_engine(), new_engine()
    live.change_pool("orders", limit=1)
    revoked.claim("a", "step", ORDERS)
    session = revoked.session
    revoke_session(place, session)

    assert not revoked.store.heartbeat(session, 30.0)
    verdict = revoked.claim("c", "step", ORDERS)
    assert revoked.session != session
    assert verdict.granted  # What the revoked one held was taken back first.
    assert live.ticket("a", "step") is None


@pytest.mark.parametrize("verb", ["claim", "adopt"])
def test_what_is_granted_while_the_session_ends_gets_a_living_owner(new_engine, verb):
    sessions = []

    def passing(point):
        if point == "committed" and not sessions:
            sessions.append(engine.session)
            engine._own.lose(engine.session)  # As another thread does that parts with it.

    other = new_engine()
    other.change_pool("orders", limit=2)
    other.claim("adopted", "step", ORDERS)
    engine = new_engine(passing=passing)
    if verb == "claim":
        assert engine.claim("a", "step", ORDERS).granted
        held = engine.ticket("a", "step")
    else:
        assert engine.adopt("adopted", "step")
        held = other.ticket("adopted", "step")
    assert engine.session in held.owners
    assert engine.session not in sessions


def test_a_left_ticket_is_free_one_lease_later_while_the_session_lives_on(place, new_engine):
    engine, other = new_engine(), new_engine()
    engine.change_pool("orders", limit=2)
    left, kept = engine.claim("left", "step", ORDERS), engine.claim("kept", "step", ORDERS)
    session = engine.session

    engine.leave([TicketKey("left", "step")])

    assert (engine.session, engine.ticket("kept", "step").owners) == (session, {session})
    (heir,) = engine.ticket("left", "step").owners
    assert heir != session
    assert not other.claim("next", "step", ORDERS).granted
    age_session(place, heir)
    assert other.claim("next", "step", ORDERS).fence > max(left.fence, kept.fence)
    assert engine.ticket("left", "step") is None


def test_a_left_ticket_that_is_claimed_again_is_owned_again(new_engine):
    engine = new_engine()
    engine.change_pool("orders", limit=1)
    verdict = engine.claim("a", "step", ORDERS)
    engine.leave([TicketKey("a", "step")])

    assert engine.claim("a", "step", ORDERS) == verdict
    assert engine.session in engine.ticket("a", "step").owners


def test_a_left_ticket_that_another_process_owns_needs_no_heir(new_engine):
    worker, step = new_engine(), new_engine()
    worker.change_pool("orders", limit=1)
    worker.claim("a", "step", ORDERS)
    step.adopt("a", "step")

    worker.leave([TicketKey("a", "step")])

    assert worker.ticket("a", "step").owners == {step.session}


def test_what_cannot_be_left_now_is_left_at_the_next_heartbeat(new_engine, monkeypatch):
    engine = new_engine()
    engine.change_pool("orders", limit=2)
    engine.claim("a", "step", ORDERS)
    engine.claim("b", "step", ORDERS)
    session = engine.session

    def away(*args, **kwargs):
        raise TryAgainError("the server restarts")

    with monkeypatch.context() as patched:
        patched.setattr(engine.store, "begin", away)
        engine.leave([TicketKey("a", "step")])
    assert engine.ticket("a", "step").owners == {session}
    engine._own._session.tidy()
    assert session not in engine.ticket("a", "step").owners
    assert engine.ticket("b", "step").owners == {session}


def test_a_revoked_session_adopts_nothing(place, new_engine):
    revoked, live = new_engine(), new_engine()
    live.change_pool("orders", limit=2)
    live.claim("a", "step", ORDERS)
    revoked.claim("b", "step", ORDERS)
    session = revoked.session
    revoke_session(place, session)

    assert revoked.adopt("a", "step")
    assert revoked.session != session
    assert live.ticket("a", "step").owners == {live.session, revoked.session}


def test_what_only_a_revoked_session_owned_is_not_adopted(place, new_engine):
    """Between its end and now, a worker on Dagster's own storage may have been let in."""
    worker, step = new_engine(), new_engine()
    worker.change_pool("orders", limit=1)
    worker.claim("a", "step", ORDERS)
    revoke_session(place, worker.session)

    assert step.adopt("a", "step") is None
    assert step.ticket("a", "step") is None
    assert step.has_expired("a", "step")


def test_a_lease_that_ran_out_is_no_bar_to_adopting(place, new_engine):
    worker, step = new_engine(), new_engine()
    worker.change_pool("orders", limit=1)
    granted = worker.claim("a", "step", ORDERS)
    age_session(place, worker.session)

    assert step.adopt("a", "step") == granted.fence
    assert step.session in step.ticket("a", "step").owners


def test_slots_count_as_lost_if_the_database_falls_silent_after_its_word(
    place, new_engine, monkeypatch
):
    """It says that the session is gone, and does not say whether another owner kept the slots."""
    told = []
    engine, other = new_engine(lease_seconds=20.0, on_lease_lost=told.append), new_engine()
    other.change_pool("orders", limit=1)
    engine.claim("a", "step", ORDERS)
    other.adopt("a", "step")
    answers = threading.Event()
    open_session = engine.store.open_session

    def silent(*args, **kwargs):
        answers.wait()
        open_session(*args, **kwargs)

    monkeypatch.setattr(engine.store, "open_session", silent)
    age_session(place, engine.session)
    other.reap()
    try:
        assert not engine.heartbeat()
        assert told == [(TicketKey("a", "step"),)]
    finally:
        answers.set()


def test_slots_that_another_owner_kept_are_not_lost(place, new_engine):
    told = []
    engine, other = new_engine(lease_seconds=20.0, on_lease_lost=told.append), new_engine()
    other.change_pool("orders", limit=1)
    engine.claim("a", "step", ORDERS)
    other.adopt("a", "step")
    age_session(place, engine.session)
    other.reap()

    assert not engine.heartbeat()
    assert told == [()]
    assert engine.session in engine.ticket("a", "step").owners
