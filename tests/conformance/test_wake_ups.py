"""Wake-ups, on every store alike: each wait is ended by its own, and by nothing else.

No waiter looks again by itself within a test, so only a wake-up can end a wait.
"""

from __future__ import annotations

import pytest

from dagster_lifeguard.engine.rules.model import Demand

ORDERS = Demand.of({"orders": 1})
PATIENT = {"look_again_seconds": 3600.0, "lease_seconds": 7200.0, "abandon_seconds": 3600.0}
DEADLINE_SECONDS = 60.0


@pytest.fixture
def holds(new_engine):
    engine = new_engine(**PATIENT)
    engine.change_pool("orders", limit=1)
    return engine


@pytest.fixture
def waits(new_engine):
    return new_engine(**PATIENT)


def take_turns(holds, waits, turn, run_id="waits"):
    """One process holds, another waits and is let in; the ticket that waits is still there."""
    assert holds.claim(f"holds{turn}", "step", ORDERS).granted
    assert not waits.claim(run_id, "step", ORDERS).granted
    holds.release(f"holds{turn}", "step")
    assert waits.wait(run_id, "step", DEADLINE_SECONDS), f"nothing woke wait {turn}"
    assert waits.claim(run_id, "step", ORDERS).granted


def test_a_wait_ends_when_another_step_of_its_process_is_woken(holds, waits):
    """One loop asks for both: until it has come round the freed slot would lie idle."""
    holds.change_pool("other", limit=1)
    for pool in ("orders", "other"):
        assert holds.claim(f"holds {pool}", "step", Demand.of({pool: 1})).granted
        assert not waits.claim(f"waits {pool}", "step", Demand.of({pool: 1})).granted
    holds.release("holds other", "step")
    assert not waits.wait("waits orders", "step", 3600.0)
    assert waits.wait("waits other", "step", 0.0)


def test_each_wait_of_one_step_is_woken(holds, waits):
    """As of a step that is retried: it gives its slot back and asks again under the same key."""
    for turn in range(4):
        take_turns(holds, waits, turn)
        waits.release("waits", "step")


def test_a_step_that_stopped_waiting_is_woken_when_it_waits_again(holds, waits):
    take_turns(holds, waits, 1)
    waits.release("waits", "step")
    assert holds.claim("holds", "step", ORDERS).granted
    assert not waits.claim("waits", "step", ORDERS).granted
    waits.release("waits", "step")
    assert not waits.claim("waits", "step", ORDERS).granted
    holds.release("holds", "step")
    assert waits.wait("waits", "step", DEADLINE_SECONDS)


def test_a_ticket_that_was_handed_on_is_woken_where_it_waits_now(holds, waits, new_engine):
    """Another process asks for the step, as one that resumes its run does, and the first again."""
    takes_over = new_engine(**PATIENT)
    for turn, engine in enumerate([waits, takes_over, waits]):
        take_turns(holds, engine, turn)
        engine.release("waits", "step")
    assert holds.claim("holds", "step", ORDERS).granted
    for engine in (waits, takes_over, waits):
        assert not engine.claim("waits", "step", ORDERS).granted
    holds.release("holds", "step")
    assert waits.wait("waits", "step", DEADLINE_SECONDS)
    assert waits.claim("waits", "step", ORDERS).granted


def test_a_wake_up_that_another_thread_received_is_not_lost(holds, waits):
    """The threads of a process share what they receive: here the first is told of both."""
    holds.change_pool("orders", limit=2)
    for turn in range(3):
        for name in "xy":
            assert holds.claim(f"{name}{turn}", "step", ORDERS).granted
        for run_id in "ab":
            assert not waits.claim(run_id, "step", ORDERS).granted
        holds.release_run(f"x{turn}")
        holds.release_run(f"y{turn}")
        for run_id in "ab":
            assert waits.wait(run_id, "step", DEADLINE_SECONDS), f"nothing woke {run_id}"
            assert waits.claim(run_id, "step", ORDERS).granted
        for run_id in "ab":
            waits.release(run_id, "step")


def test_nothing_wakes_a_ticket_that_cannot_go_in(holds, waits):
    take_turns(holds, waits, 1)
    waits.release("waits", "step")
    assert holds.claim("holds", "step", ORDERS).granted
    assert not waits.claim("waits", "step", ORDERS).granted
    assert not waits.wait("waits", "step", 0.1)


def test_a_release_by_the_same_process_wakes_what_was_claimed_just_before(waits):
    """Over one connection, as by two threads; the first look at what arrives is before the release."""
    waits.change_pool("orders", limit=1)
    for turn in range(3):
        assert waits.claim(f"holds{turn}", "step", ORDERS).granted
        assert not waits.claim(f"waits{turn}", "step", ORDERS).granted
        assert not waits.wait(f"waits{turn}", "step", 0.001)
        waits.release(f"holds{turn}", "step")
        assert waits.wait(f"waits{turn}", "step", DEADLINE_SECONDS), f"nothing woke wait {turn}"
        assert waits.claim(f"waits{turn}", "step", ORDERS).granted
        waits.release(f"waits{turn}", "step")


def test_a_release_wakes_as_many_as_the_default_limit_lets_in(new_engine):
    """Of a pool without a limit of its own, what is known is its default limit."""
    holds, waits = (new_engine(default_limit=1, **PATIENT) for _ in range(2))
    assert holds.claim("holds", "step", ORDERS).granted
    for run_id in "abc":
        assert not waits.claim(run_id, "step", ORDERS).granted
    holds.release("holds", "step")
    assert waits.wait("a", "step", DEADLINE_SECONDS)
    assert not waits.wait("b", "step", 0.1)
    assert waits.claim("a", "step", ORDERS).granted


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
def test_what_was_notified_while_the_connection_was_lost_is_made_up_for(holds, waits):
    """As a thread drops it that lost its transaction, while another waits."""
    assert holds.claim("holds", "step", ORDERS).granted
    assert not waits.claim("waits", "step", ORDERS).granted
    waits.store.connection.drop()
    holds.release("holds", "step")  # Nobody listens.
    assert waits.wait("waits", "step", DEADLINE_SECONDS)
    assert waits.claim("waits", "step", ORDERS).granted


def test_a_wake_up_that_came_too_late_is_passed_on(holds, waits, new_engine):
    """Of the two slots that it was woken for, another takes one: the other is for the next."""
    wide, last = new_engine(**PATIENT), waits
    holds.change_pool("orders", limit=2)
    assert holds.claim("holds", "step", Demand.of({"orders": 2})).granted
    assert not wide.claim("wide", "step", Demand.of({"orders": 2})).granted
    assert not last.claim("last", "step", ORDERS).granted
    holds.release("holds", "step")
    assert holds.claim("urgent", "step", ORDERS, 1).granted
    assert wide.wait("wide", "step", DEADLINE_SECONDS)
    assert not wide.claim("wide", "step", Demand.of({"orders": 2})).granted
    assert last.wait("last", "step", DEADLINE_SECONDS)
    assert last.claim("last", "step", ORDERS).granted


def test_a_wake_up_is_passed_on_when_the_fair_order_has_changed(holds, waits, new_engine):
    """A step of its own group has gone in, so the other group is ahead by now."""

    def ask(engine, run_id, team, slots):
        demand = Demand.of({"orders": slots})
        return engine.claim(run_id, "step", demand, tags=lambda: {"team": team}).granted

    of_a, of_b = waits, new_engine(**PATIENT)
    holds.change_pool("orders", limit=3, fair_by="team")
    assert ask(holds, "holds", "c", 3)
    assert not ask(of_a, "wide of a", "a", 2)
    assert not ask(of_b, "wide of b", "b", 2)
    assert not ask(of_a, "narrow of a", "a", 1)
    holds.release("holds", "step")
    assert ask(of_a, "narrow of a", "a", 1)
    assert not ask(of_a, "wide of a", "a", 2)
    assert of_b.wait("wide of b", "step", DEADLINE_SECONDS)
    assert ask(of_b, "wide of b", "b", 2)
