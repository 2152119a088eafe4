"""What callers are told, on every store alike."""

from __future__ import annotations

import pytest

from dagster_lifeguard.engine.rules.model import (
    WAITERS_SEEN_MAX,
    Demand,
    Granted,
    Holding,
    Ticket,
    TicketKey,
    Waiting,
    WaitReason,
)
from dagster_lifeguard.engine.rules.pool_settings import LIMIT_MAX
from dagster_lifeguard.errors import ConfigError
from places import age_ticket, write_default_as_stock_does, write_limit_as_another_would
from pool_values import limited

ORDERS = Demand.of({"orders": 1})


def ask(engine, run_id, demand="orders", priority=0):
    return engine.claim(run_id, "step", Demand.parse(demand), priority)


def test_a_pool_of_one_admits_one_and_hands_over(engine):
    engine.change_pool("orders", limit=1)

    first = ask(engine, "a")
    second = ask(engine, "b")

    assert isinstance(first, Granted)
    assert first.slots == {"orders": (1,)}
    assert isinstance(second, Waiting)
    assert (second.pool, second.reason) == ("orders", WaitReason.FULL)
    assert engine.release("a", "step")
    assert ask(engine, "b").granted


def test_claiming_again_gives_the_same_verdict(engine):
    engine.change_pool("orders", limit=1)
    first = ask(engine, "a")
    waiting = ask(engine, "b")

    assert ask(engine, "a") == first
    assert not ask(engine, "b").granted
    assert len(engine.snapshot("orders").holdings) == 1
    assert len(engine.snapshot("orders").waiting) == 1
    assert not waiting.granted


def test_limits_are_set_together_or_not_at_all(engine):
    engine.change_pool("orders", limit=1)
    engine.change_pool("items", limit=2)
    before = engine.settings()
    with pytest.raises(ConfigError, match="1001"):
        engine.set_pools(limited({"orders": 3, "items": None, "stock": LIMIT_MAX + 1}))
    assert engine.settings() == before

    assert ask(engine, "a").granted
    assert not ask(engine, "b").granted
    engine.set_pools(limited({"orders": 2, "items": None, "stock": 0}))
    assert engine.settings() == limited({"orders": 2, "stock": 0})
    assert ask(engine, "b").granted


def test_limits_that_meet_another_transaction_are_set_together(new_engine):
    """A failure at the commit leaves all of them as they were."""
    engine = new_engine()
    engine.change_pool("orders", limit=1)

    class StoppedError(Exception): ...

    def stop(point: str) -> None:
        if point == "decided":
            raise StoppedError

    with pytest.raises(StoppedError):
        new_engine(stop).set_pools(limited({"items": 5, "orders": 2}))
    assert engine.settings() == limited({"orders": 1})


def test_busy_pools_are_those_that_are_held_or_waited_for(engine):
    engine.set_pools(limited({"orders": 1, "items": 1, "idle": 1}))
    assert engine.busy_pools() == ()
    ask(engine, "a", "orders")
    ask(engine, "b", "items+orders")
    assert engine.busy_pools() == ("items", "orders")


def test_releasing_again_does_nothing(engine):
    engine.change_pool("orders", limit=1)
    ask(engine, "a")

    assert engine.release("a", "step")
    assert not engine.release("a", "step")
    assert not engine.release("never", "step")
    assert not engine.release_run("never")


def test_first_come_first_served_within_a_priority(engine):
    engine.change_pool("orders", limit=1)
    ask(engine, "holder")
    for run_id in ("b", "c", "d"):
        ask(engine, run_id)
    ask(engine, "urgent", priority=5)
    engine.release("holder", "step")

    # Whoever looks first, the order holds.
    told = {run_id: ask(engine, run_id) for run_id in ("d", "c", "b")}
    assert {verdict.reason for verdict in told.values()} == {WaitReason.BEHIND}
    assert [told[run_id].ahead for run_id in ("b", "c", "d")] == [1, 2, 3]
    served = []
    for _ in range(4):
        for run_id in ("d", "c", "b", "urgent"):
            if (
                run_id not in served
                and ask(engine, run_id, priority=5 * (run_id == "urgent")).granted
            ):
                served.append(run_id)
                engine.release(run_id, "step")
    assert served == ["urgent", "b", "c", "d"]


def test_all_pools_or_none(engine):
    engine.change_pool("orders", limit=1)
    engine.change_pool("warehouse", limit=3)
    ask(engine, "a", "warehouse*2")

    verdict = ask(engine, "b", "orders+warehouse*2")

    assert isinstance(verdict, Waiting)
    assert verdict.pool == "warehouse"
    assert engine.snapshot("orders").holdings == ()
    # What it does not hold, others may have: it stands in line at the warehouse only.
    assert ask(engine, "c", "orders").granted
    engine.release("c", "step")
    engine.release("a", "step")
    granted = ask(engine, "b", "orders+warehouse*2")
    assert granted.slots == {"orders": (1,), "warehouse": (1, 2)}


def test_many_waiting_for_one_asset_hold_up_nobody_at_a_shared_pool(engine):
    engine.change_pool("orders", limit=1)
    engine.change_pool("warehouse", limit=2)
    assert ask(engine, "orders-0", "orders+warehouse").granted
    for number in range(1, 8):
        assert not ask(engine, f"orders-{number}", "orders+warehouse").granted

    assert ask(engine, "customers", "warehouse").granted


def test_a_ticket_that_moves_to_another_queue_lets_the_next_one_know(new_engine):
    engine, other = new_engine(), new_engine()
    engine.change_pool("orders", limit=1)
    engine.change_pool("warehouse", limit=1)
    ask(engine, "a", "orders")
    ask(engine, "b", "warehouse")
    assert ask(engine, "both", "orders+warehouse").pool == "orders"
    assert not ask(other, "c", "orders").granted

    engine.release("a", "step")
    # The hint went to the first in line, which finds the warehouse full and steps aside.
    moved = ask(engine, "both", "orders+warehouse")
    assert moved.pool == "warehouse"
    assert other.wait("c", "step", 20)
    assert ask(other, "c", "orders").granted


def test_many_with_long_names_are_woken_at_once(new_engine):
    """Their names are more than one notification of PostgreSQL takes."""
    engine, other = new_engine(look_again_seconds=3600.0), new_engine()
    engine.change_pool("orders", limit=0)
    runs = [f"{number}-{'x' * 600}" for number in range(20)]
    for run in runs:
        assert not ask(engine, run).granted
    other.change_pool("orders", limit=20)
    for run in runs:
        assert engine.wait(run, "step", 20)
        assert ask(engine, run).granted


def test_a_paused_pool_admits_nobody_until_it_is_raised(engine):
    engine.change_pool("orders", limit=0)

    assert ask(engine, "a").reason is WaitReason.PAUSED
    engine.change_pool("orders", limit=1)
    assert engine.wait("a", "step", 20)
    assert ask(engine, "a").granted


def test_a_pool_without_a_limit_is_unlimited_and_not_recorded(engine):
    assert ask(engine, "a") == Granted({}, 0)
    assert ask(engine, "b") == Granted({}, 0)
    assert engine.snapshot("orders").holdings == ()

    engine.change_pool("warehouse", limit=1)
    verdict = ask(engine, "c", "orders+warehouse")
    assert verdict.slots == {"warehouse": (1,)}


def test_deleting_a_limit_lets_waiters_in(engine):
    engine.change_pool("orders", limit=1)
    ask(engine, "a")
    ask(engine, "b")
    engine.change_pool("orders", limit=None)

    assert engine.wait("b", "step", 20)
    assert ask(engine, "b").granted
    assert engine.settings() == {}
    assert engine.release("a", "step")
    assert engine.ticket("b", "step") is None


def test_the_default_limit_is_that_of_pools_without_one(new_engine):
    engine = new_engine(default_limit=1)

    assert ask(engine, "a").granted
    assert not ask(engine, "b").granted
    assert engine.snapshot("orders").settings.limit == 1
    assert engine.snapshot("orders").from_default
    engine.change_pool("orders", limit=2)
    assert ask(engine, "b").granted


def test_a_lowered_limit_drains_and_never_revokes(engine):
    engine.change_pool("orders", limit=3)
    for run_id in ("a", "b", "c"):
        assert ask(engine, run_id).granted
    engine.change_pool("orders", limit=1)

    assert len(engine.snapshot("orders").holdings) == 3
    assert not ask(engine, "d").granted
    engine.release("a", "step")
    engine.release("b", "step")
    assert not ask(engine, "d").granted
    engine.release("c", "step")
    assert ask(engine, "d").slots == {"orders": (1,)}


def test_a_demand_larger_than_the_limit_waits_and_blocks_nobody(new_engine):
    engine = new_engine(patience_seconds=0.0)
    engine.change_pool("orders", limit=2)

    assert ask(engine, "big", "orders*3").reason is WaitReason.TOO_LARGE
    assert ask(engine, "big", "orders*3").reason is WaitReason.TOO_LARGE
    assert ask(engine, "small").granted
    engine.change_pool("orders", limit=4)
    assert ask(engine, "big", "orders*3").granted


def test_patience_sets_slots_aside_for_a_large_demand(place, engine):
    engine.change_pool("orders", limit=2)
    ask(engine, "a")
    assert not ask(engine, "big", "orders*2").granted
    assert ask(engine, "small-1").granted
    engine.release("small-1", "step")

    age_ticket(place, "big", 1000)

    assert ask(engine, "small-2").reason is WaitReason.BEHIND
    assert ask(engine, "urgent", priority=1).granted
    engine.release("urgent", "step")
    engine.release("a", "step")
    assert ask(engine, "big", "orders*2").granted


def test_patience_stands_in_all_queues_and_ends_starvation_across_pools(place, engine):
    engine.change_pool("x", limit=1)
    engine.change_pool("y", limit=1)
    ask(engine, "a", "x")
    ask(engine, "b", "y")
    assert not ask(engine, "both", "x+y").granted
    age_ticket(place, "both", 1000)
    assert set(ask(engine, "both", "x+y").queue_at) == {"x", "y"}

    engine.release("a", "step")
    assert not ask(engine, "c", "x").granted
    assert not ask(engine, "both", "x+y").granted
    engine.release("b", "step")
    assert ask(engine, "both", "x+y").granted


def test_tickets_beyond_sight_wait_for_those_in_front(engine):
    engine.change_pool("orders", limit=1)
    ask(engine, "holder")
    for number in range(WAITERS_SEEN_MAX + 2):
        ask(engine, f"run-{number:03}")
    engine.change_pool("orders", limit=LIMIT_MAX)

    assert ask(engine, f"run-{WAITERS_SEEN_MAX + 1:03}").reason is WaitReason.BEHIND
    for number in range(WAITERS_SEEN_MAX + 2):
        assert ask(engine, f"run-{number:03}").granted


def test_tickets_that_are_all_in_sight_hold_up_no_slot_beyond_their_own(engine):
    engine.change_pool("orders", limit=1)
    ask(engine, "holder")
    for number in range(WAITERS_SEEN_MAX):
        ask(engine, f"run-{number:03}")
    engine.change_pool("orders", limit=LIMIT_MAX)

    assert ask(engine, "last").granted


def test_fences_grow_with_each_grant_of_a_pool(engine):
    engine.change_pool("x", limit=2)
    engine.change_pool("y", limit=2)
    fences = []
    for demand in ("x", "y", "x+y", "y", "x"):
        fences.append((demand, ask(engine, f"run-{len(fences)}", demand).fence))
        engine.release(f"run-{len(fences) - 1}", "step")

    for pool in ("x", "y"):
        of_pool = [fence for demand, fence in fences if pool in demand]
        assert of_pool == sorted(set(of_pool))
        assert of_pool[0] > 0


def test_a_limit_that_another_wrote_comes_before_the_grant_that_noticed_it(engine, place):
    write_limit_as_another_would(place, "orders", 1)
    assert ask(engine, "a").granted
    assert [e.kind.value for e in engine.store.ledger(pool="orders")] == ["granted", "limit"]


def test_a_release_with_an_old_fence_frees_nothing(engine):
    engine.change_pool("orders", limit=1)
    old = ask(engine, "a").fence
    engine.release("a", "step")
    new = ask(engine, "a").fence

    assert not engine.release("a", "step", fence=old)
    assert engine.ticket("a", "step").fence == new
    assert engine.release("a", "step", fence=new)


def test_who_lost_its_slot_frees_nothing_of_whoever_has_it_now(new_engine):
    engine, other = new_engine(), new_engine()
    engine.change_pool("orders", limit=1)
    lost = ask(engine, "a").fence  # It goes on believing that it holds this.
    other.release_run("a")
    now = ask(other, "a").fence

    assert not engine.release("a", "step", fence=lost)
    assert engine.ticket("a", "step").fence == now
    assert other.release("a", "step", fence=now)


def test_who_lost_its_slot_frees_nothing_of_another_pool_with_the_same_fence(new_engine):
    """Two pools may give the same fence: a step that asks anew for another pool can get its old."""
    engine, other = new_engine(), new_engine()
    engine.set_pools(limited({"orders": 1, "mail": 1}))
    lost = ask(engine, "a").fence
    other.release_run("a")
    now = other.claim("a", "step", Demand.of({"mail": 1}))
    assert now.fence == lost

    granted = Granted({"orders": (1,)}, lost)
    key = TicketKey("a", "step")
    assert not engine.store.release(key, granted, engine.session, lambda view: ())
    assert engine.ticket("a", "step").slots == now.slots


def test_releasing_a_run_frees_all_its_steps_and_wakes(new_engine):
    engine, other = new_engine(), new_engine()
    engine.change_pool("orders", limit=2)
    for step in ("one", "two", "three"):
        engine.claim("a", step, ORDERS)
    other.claim("b", "step", ORDERS)

    assert other.release_run("a")  # Whoever asks: the UI does, for a run that is gone.
    assert other.wait("b", "step", 20)
    assert other.claim("b", "step", ORDERS).granted
    assert engine.store.run_ids() == {"b"}


def test_withdrawing_a_waiting_ticket_wakes_the_next(new_engine):
    engine, other = new_engine(patience_seconds=0.0), new_engine(patience_seconds=0.0)
    engine.change_pool("orders", limit=2)
    ask(engine, "a")
    ask(engine, "big", "orders*2")
    ask(other, "small")
    assert ask(other, "small").reason is WaitReason.BEHIND

    engine.release("big", "step")
    assert other.wait("small", "step", 20)
    assert ask(other, "small").granted


def test_asking_for_something_else_begins_anew(engine):
    engine.change_pool("x", limit=1)
    engine.change_pool("y", limit=1)
    ask(engine, "a", "x")
    assert not ask(engine, "b", "x").granted

    assert ask(engine, "b", "y").granted
    assert engine.snapshot("x").waiting == ()


def test_what_a_ticket_does_can_be_read(engine):
    engine.change_pool("orders", limit=1)
    ask(engine, "a", "orders", priority=3)
    ask(engine, "b", "orders", priority=-2)

    holding, waiting = engine.ticket("a", "step"), engine.ticket("b", "step")
    assert isinstance(holding, Holding)
    assert (holding.slots, holding.priority) == ({"orders": (1,)}, 3)
    assert holding.owners == {engine.session}
    assert isinstance(waiting, Ticket)
    assert (waiting.demand, waiting.priority, waiting.queue_at) == (ORDERS, -2, ("orders",))
    assert engine.ticket("c", "step") is None
    snapshot = engine.snapshot("orders")
    assert (snapshot.settings.limit, snapshot.holdings, snapshot.waiting) == (
        1,
        (holding,),
        (waiting,),
    )
    assert engine.store.run_ids() == {"a", "b"}


def test_snapshots_are_told_pool_by_pool_in_the_order_asked(new_engine):
    engine = new_engine(default_limit=5)
    engine.change_pool("orders", limit=1)
    engine.claim("a", "step", ORDERS)
    engine.claim("b", "step", ORDERS)

    found = engine.snapshots(("x", "orders", "a"))

    assert [(s.pool, s.settings.limit, s.from_default) for s in found] == [
        ("x", 5, True),
        ("orders", 1, False),
        ("a", 5, True),
    ]
    assert [[h.key.run_id for h in s.holdings] for s in found] == [[], ["a"], []]
    assert [[t.key.run_id for t in s.waiting] for s in found] == [[], ["b"], []]
    assert found[1] == engine.snapshot("orders")
    assert engine.snapshots(()) == ()


def test_limits_are_dagsters_rows(engine):
    engine.change_pool("b", limit=2)
    engine.change_pool("a", limit=1)
    engine.change_pool("b", limit=3)

    assert engine.settings() == limited({"a": 1, "b": 3})


def test_a_default_that_the_stock_storage_wrote_down_is_no_limit(place, new_engine):
    engine, other = new_engine(default_limit=2), new_engine(default_limit=2)
    write_default_as_stock_does(place, "orders", 1)

    assert engine.settings() == {}
    assert (engine.snapshot("orders").settings.limit, engine.snapshot("orders").from_default) == (
        2,
        True,
    )
    assert [ask(engine, run_id).granted for run_id in "abc"] == [True, True, False]
    other.change_pool("orders", limit=3)
    assert other.settings() == limited({"orders": 3})
    assert ask(engine, "c").granted
    other.change_pool("orders", limit=None)
    assert not ask(engine, "d").granted


def test_a_pool_with_the_default_limit_leaves_nothing_to_see_once_it_is_idle(new_engine):
    engine = new_engine(default_limit=1)
    assert ask(engine, "a").granted
    assert not ask(engine, "b").granted
    assert engine.busy_pools() == ("orders",)
    engine.release("a", "step")
    engine.release("b", "step")
    assert engine.busy_pools() == ()
    assert engine.settings() == {}
    # Its fences go on all the same.
    assert ask(engine, "c") == Granted({"orders": (1,)}, fence=2)


def test_a_limit_written_by_another_counts_at_once_and_reaches_the_ledger(place, engine):
    engine.change_pool("orders", limit=1)
    write_limit_as_another_would(place, "orders", 2)

    assert ask(engine, "a").granted
    assert ask(engine, "b").granted
    assert not ask(engine, "c").granted
    limits = [e.limit for e in engine.store.ledger(pool="orders") if e.kind == "limit"]
    assert limits == [2, 1]


@pytest.mark.parametrize("limit", [-1, LIMIT_MAX + 1])
def test_a_limit_out_of_bounds_is_refused(engine, limit):
    with pytest.raises(ConfigError, match=str(limit)):
        engine.change_pool("orders", limit=limit)
    assert engine.settings() == {}


def test_any_name_a_stock_pool_may_have_is_kept(engine):
    for name in ("with space", "a'b", 'quo"te', "per%cent", "päöl", "a;b", "back\\slash", "{x}"):
        engine.change_pool(name, limit=1)
        demand = Demand.of({name: 1})
        assert engine.claim("a", name, demand).slots == {name: (1,)}
        waiting = engine.claim("b", name, demand)
        assert (waiting.pool, waiting.granted) == (name, False)
        assert engine.ticket("b", name).demand == demand
        assert engine.release("a", name)
        assert engine.claim("b", name, demand).granted


def test_the_ledger_has_every_grant_release_and_limit(engine):
    engine.change_pool("orders", limit=1)
    engine.change_pool("warehouse", limit=4)
    fence = ask(engine, "a", "orders+warehouse*2").fence
    engine.release("a", "step")
    engine.change_pool("orders", limit=None)

    told = [
        (e.kind, e.pool, e.run_id, e.step_key, e.slots, e.fence, e.limit)
        for e in reversed(engine.store.ledger())
    ]
    assert told == [
        ("limit", "orders", "", "", 0, 0, 1),
        ("limit", "warehouse", "", "", 0, 0, 4),
        ("granted", "orders", "a", "step", 1, fence, None),
        ("granted", "warehouse", "a", "step", 2, fence, None),
        ("released", "orders", "a", "step", 1, fence, None),
        ("released", "warehouse", "a", "step", 2, fence, None),
        ("limit", "orders", "", "", 0, fence, None),
    ]
    stamps = [e.at for e in reversed(engine.store.ledger())]
    assert stamps == sorted(stamps)
    assert all(e.seconds >= 0 for e in engine.store.ledger() if e.kind != "limit")
    assert len(engine.store.ledger(pool="orders", count_max=2)) == 2


def test_the_ledger_is_trimmed_from_its_old_end(engine):
    for limit in range(1, 6):
        engine.change_pool("orders", limit=limit)

    assert engine.store.trim_ledger(3600.0, 100) == 0
    assert engine.store.trim_ledger(-3600.0, 2) == 2
    assert [e.limit for e in engine.store.ledger()] == [5, 4, 3]
    assert engine.store.trim_ledger(-3600.0, 100) == 3


@pytest.mark.parametrize("order", [None, "team", "none"])
@pytest.mark.parametrize("own_limit", [True, False])
def test_who_asks_for_more_than_the_limit_stands_in_nobodys_way(new_engine, own_limit, order):
    """However many they are; and they are told when it is raised."""
    engine = new_engine(default_limit=1)
    engine.change_pool("orders", fair_by=order)
    if own_limit:
        engine.change_pool("orders", limit=2)
        assert engine.claim("holder", "step", Demand.of({"orders": 2})).granted
    else:
        assert engine.claim("holder", "step", ORDERS).granted
    large = Demand.of({"orders": 2})
    for number in range(WAITERS_SEEN_MAX + 1):  # Each of a group of its own, or all of one.
        team = {"team": f"team{number}"} if order == "team" else {}
        assert not engine.claim(f"large{number}", "step", large, tags=lambda t=team: t).granted
    patient = new_engine(default_limit=1, look_again_seconds=3600.0)
    assert not patient.claim("small", "step", ORDERS).granted
    if own_limit:
        engine.change_pool("orders", limit=1)

    engine.release("holder", "step")
    assert patient.wait("small", "step", 20)
    assert patient.claim("small", "step", ORDERS).granted
    assert patient.release("small", "step")

    assert not patient.claim("another", "step", large).granted
    for number in range(WAITERS_SEEN_MAX + 1):
        engine.release(f"large{number}", "step")
    engine.change_pool("orders", limit=2)
    assert patient.wait("another", "step", 20)
    assert patient.claim("another", "step", large).granted
