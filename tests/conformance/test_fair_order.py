"""Fair order, on every store alike."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from dagster_lifeguard.engine.rules.model import WAITERS_SEEN_MAX, Demand, EntryKind, WaitReason
from dagster_lifeguard.engine.rules.order import SLOT
from dagster_lifeguard.engine.store.contract import Scope
from pool_values import orders

ORDERS = Demand.of({"orders": 1})


def ask(engine, run_id, team=None, priority=0, demand=ORDERS):
    tags = {} if team is None else {"team": team}
    return engine.claim(run_id, "step", demand, priority, tags=lambda: tags)


@pytest.fixture
def fair(engine):
    engine.change_pool("orders", limit=2)
    engine.change_pool("orders", fair_by="team")
    return engine


def front(engine):
    """What a decision sees of the queue, and whether that is all."""
    with engine.store.begin(Scope(("orders",))) as transaction:
        pool = transaction.view.pools["orders"]
        return [w.key.run_id for w in pool.queue], pool.whole


def test_a_freed_slot_goes_to_the_group_that_holds_the_fewest(fair):
    for number in range(5):
        ask(fair, f"big{number}", "big")
    assert ask(fair, "daily").reason is WaitReason.FULL

    fair.release("big0", "step")
    told = ask(fair, "big2", "big")
    assert (told.reason, told.ahead) == (WaitReason.BEHIND, 1)
    assert ask(fair, "daily").granted
    # Two groups hold one slot each: the next goes to whoever was let in longer ago.
    ask(fair, "daily2")
    fair.release("daily", "step")
    assert not ask(fair, "big2", "big").granted
    assert ask(fair, "daily2").granted


def test_the_freed_slot_wakes_the_group_that_holds_the_fewest(new_engine):
    engine, other = new_engine(), new_engine(look_again_seconds=3600.0)
    engine.change_pool("orders", limit=2)
    engine.change_pool("orders", fair_by="team")
    for number in range(5):
        ask(engine, f"big{number}", "big")
    ask(other, "daily")

    engine.release("big0", "step")
    assert other.wait("daily", "step", 20)
    assert ask(other, "daily").granted


def test_groups_take_turns_at_a_pool_of_one(fair):
    fair.change_pool("orders", limit=1)
    runs = [
        ("a0", "a"),
        *((f"a{n}", "a") for n in range(1, 4)),
        ("b0", "b"),
        ("b1", "b"),
        ("c0", None),
    ]
    for run_id, team in runs:
        ask(fair, run_id, team)
    served = ["a0"]
    for _ in range(6):
        fair.release(served[-1], "step")
        for run_id, team in reversed(runs):
            if run_id not in served and ask(fair, run_id, team).granted:
                served.append(run_id)
                break
    assert served == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]


def test_a_higher_priority_goes_first_whatever_its_group_holds(fair):
    for number in range(3):
        ask(fair, f"big{number}", "big")
    ask(fair, "daily")
    ask(fair, "urgent", "big", priority=1)
    fair.release("big0", "step")
    assert not ask(fair, "daily").granted
    assert ask(fair, "urgent", "big", priority=1).granted


def test_the_front_of_a_long_queue_has_the_best_of_each_group(fair):
    ask(fair, "holder0", "big")
    ask(fair, "holder1", "big")
    for number in range(2 * WAITERS_SEEN_MAX):
        ask(fair, f"big{number}", "big")
    ask(fair, "small0", "small")
    ask(fair, "small1", "small")
    ask(fair, "daily")

    seen, whole = front(fair)
    assert not whole
    assert len(seen) == WAITERS_SEEN_MAX
    assert seen[:4] == ["small0", "daily", "small1", "big0"]
    fair.release("holder0", "step")
    assert ask(fair, "small0", "small").granted


def test_more_groups_than_a_decision_sees(fair):
    ask(fair, "holder0", "x")
    ask(fair, "holder1", "x")
    for number in range(WAITERS_SEEN_MAX + 3):
        ask(fair, f"run{number}", f"team{number:02}")
    seen, whole = front(fair)
    assert (seen, whole) == ([f"run{number}" for number in range(WAITERS_SEEN_MAX)], False)
    fair.release("holder0", "step")
    late = WAITERS_SEEN_MAX + 2
    assert ask(fair, f"run{late}", f"team{late}").reason is WaitReason.BEHIND
    assert ask(fair, "run0", "team00").granted


@pytest.mark.parametrize("seed", range(3))
def test_the_front_is_that_of_the_whole_line_whatever_groups_ask_for(fair, seed):
    chance = random.Random(seed)
    fair.change_pool("orders", limit=8)
    for number in range(120):
        team = f"team{min(chance.randrange(60), chance.randrange(60))}"
        demand = Demand.of({"orders": chance.choice([1, 1, 1, 2, 3])})
        ask(fair, f"run{number}", team, chance.choice([0] * 30 + [1, -1]), demand)
    waiting = [ticket.key.run_id for ticket in fair.snapshot("orders").waiting]
    assert len(waiting) > 2 * WAITERS_SEEN_MAX
    assert front(fair) == (waiting[:WAITERS_SEEN_MAX], False)


def test_who_waits_and_holds_already_when_a_pool_becomes_fair_is_of_no_group(new_engine):
    engine, other = new_engine(look_again_seconds=3600.0), new_engine()
    engine.change_pool("orders", limit=1)
    ask(other, "holder", "big")
    for run_id, team in (("big", "big"), ("daily", "small")):
        assert not ask(engine, run_id, team).granted
    other.change_pool("orders", fair_by="team")
    # They were in the order in which they came, and have no groups until they ask again.
    assert front(other) == (["big", "daily"], True)
    ask(engine, "daily", "small")
    assert front(other) == (["daily", "big"], True)

    other.change_pool("orders", fair_by=None)
    assert front(other) == (["big", "daily"], True)
    other.release("holder", "step")
    assert not ask(engine, "daily", "small").granted
    assert ask(engine, "big", "big").granted


def test_a_claim_of_a_fair_pool_looks_once_when_the_order_is_known(new_engine):
    looks = []
    engine = new_engine(looks.append)
    engine.change_pool("orders", limit=1, fair_by="team")
    ask(engine, "first", "a")
    ask(engine, "second", "b")
    looks.clear()
    for run_id in ("second", "third"):
        ask(engine, run_id, "b")
        assert looks.count("begin") == 1
        looks.clear()
    engine.change_pool("orders", fair_by=None)
    assert ask(engine, "second", "b").reason is WaitReason.FULL


def test_tags_are_looked_up_only_where_a_pool_is_fair(engine):
    asked = []

    def tags():
        asked.append(1)
        return {"team": "a"}

    engine.change_pool("orders", limit=1)
    engine.claim("a", "step", ORDERS, tags=tags)
    engine.claim("b", "step", ORDERS, tags=tags)
    assert asked == []
    engine.change_pool("orders", fair_by="team")
    engine.claim("b", "step", ORDERS, tags=tags)
    assert asked == [1]


def test_a_demand_over_a_fair_pool_and_another(fair):
    fair.change_pool("items", limit=1)
    both = Demand.parse("items+orders")
    for number in range(3):
        ask(fair, f"big{number}", "big", demand=ORDERS)
    assert ask(fair, "daily", demand=both).pool == "orders"
    fair.release("big1", "step")
    assert not ask(fair, "big2", "big").granted
    assert ask(fair, "daily", demand=both).slots == {"items": (1,), "orders": (2,)}


def test_orders_are_in_the_ledger_and_can_be_read(engine):
    engine.change_pool("orders", fair_by="team")
    engine.change_pool("orders", fair_by="team")
    engine.change_pool("items", fair_by="dagster/backfill")
    assert orders(engine.settings()) == {"items": "dagster/backfill", "orders": "team"}
    assert engine.snapshot("orders").settings.fair_by == "team"
    engine.change_pool("orders", fair_by=None)
    entries = [(e.kind, e.pool, e.detail) for e in reversed(engine.store.ledger())]
    assert entries == [
        (EntryKind.ORDER, "orders", "fair(tag:team)"),
        (EntryKind.ORDER, "items", "fair(backfill)"),
        (EntryKind.ORDER, "orders", "fifo"),
    ]
    assert engine.snapshot("orders").settings.fair_by is None


def test_slots_that_come_free_together_go_to_each_group_in_turn_whoever_looks_first(fair):
    """The two that may go in look in the wrong order each time, and nobody gets more for it."""
    runs = {f"{team}{n}": team for n in range(9) for team in "abc"}
    for run_id, team in runs.items():
        ask(fair, run_id, team)
    inside, served = ["a0", "b0"], ["a0", "b0"]
    for _ in range(8):
        for run_id in inside:
            fair.release(run_id, "step")
        inside = [r for r in reversed(runs) if r not in served and ask(fair, r, runs[r]).granted]
        served += inside
    assert [len(inside), len(served)] == [2, 18]
    assert Counter(map(runs.get, served)) == {"a": 6, "b": 6, "c": 6}


def test_another_tag_makes_all_groups_anew(fair):
    for run_id, team in (("h0", "a"), ("h1", "b"), ("waits", "a"), ("other", "c")):
        ask(fair, run_id, team)
    fair.change_pool("orders", fair_by="area")
    found = fair.snapshot("orders")
    assert {holding.groups["orders"] for holding in found.holdings} == {""}
    assert {ticket.groups["orders"] for ticket in found.waiting} == {""}
    assert turns_of(fair)[1] == {}
    assert not fair.claim("waits", "step", ORDERS, tags=lambda: {"area": "north"}).granted
    groups = {t.key.run_id: t.groups["orders"] for t in fair.snapshot("orders").waiting}
    assert groups == {"waits": "north", "other": ""}


@pytest.mark.parametrize("priority", [0, -1])
def test_who_stays_in_line_and_cannot_go_in_saves_up_no_turns(fair, priority):
    """It asks for more than the limit, or at a lower priority; others are served meanwhile."""
    fair.change_pool("orders", limit=1)
    assert ask(fair, "busy", "busy", priority=1).granted
    stuck = Demand.of({"orders": 1 if priority else 2})
    assert not ask(fair, "stuck", "a", priority, stuck).granted
    for number in range(40):
        ask(fair, f"next{number}", "busy", priority=1)
        fair.release("busy" if number == 0 else f"next{number - 1}", "step")
        assert ask(fair, f"next{number}", "busy", priority=1).granted
    for number in range(6):
        ask(fair, f"a{number}", "a")
    for number in range(3):
        ask(fair, f"b{number}", "b")
    inside, served = "next39", []
    for _ in range(8):
        fair.release(inside, "step")
        waiting = [t for t in fair.snapshot("orders").waiting if t.key.run_id != "stuck"]
        inside = next(
            t.key.run_id for t in waiting if ask(fair, t.key.run_id, t.key.run_id[0]).granted
        )
        served.append(inside[0])
    # A poolful, which is one here, is all it is ahead.
    assert served.index("b") <= 2
    assert served[:6].count("b") >= 2


def turns_of(engine):
    """The pool's turn, and where the turns of groups begin."""
    found = engine.snapshot("orders")
    return found.turn, dict(found.turns)


def test_who_waits_already_when_a_pool_becomes_fair_gets_a_turn_when_it_asks_again(engine):
    """Or it would be level with whoever comes last, and behind by its number at best."""
    engine.change_pool("orders", limit=1)
    ask(engine, "holder")
    ask(engine, "waits")
    engine.change_pool("orders", fair_by="team")
    assert turns_of(engine) == (0, {})
    ask(engine, "waits")
    assert turns_of(engine) == (0, {"": 0})


def test_turns_that_are_past_are_forgotten(fair):
    def turns():
        return turns_of(fair)

    for number in range(4):
        ask(fair, f"a{number}", "a")
        fair.release(f"a{number}", "step")
    ask(fair, "b0", "b")
    # The first of b began where the last of a did, and nobody else waited.
    assert turns() == (3.5 * SLOT, {"a": 4 * SLOT, "b": 4 * SLOT})
    ask(fair, "c0", "c")
    assert turns() == (4 * SLOT, {"c": 4.5 * SLOT})
    ask(fair, "d0", "d")
    ask(fair, "e0", "e")
    fair.release("b0", "step")
    assert ask(fair, "d0", "d").granted
    # Who waits keeps its own, however far the pool's moves on.
    assert turns() == (4_334, {"c": 4.5 * SLOT, "d": 5 * SLOT, "e": 4 * SLOT})
    assert fair.release("e0", "step")
    assert fair.release("c0", "step")
    assert ask(fair, "f0", "f").granted
    assert turns() == (4_834, {"d": 5 * SLOT, "f": 5_334})


def test_new_groups_without_end_do_not_starve_one_that_was_served_before(fair):
    fair.change_pool("orders", limit=1)
    for run_id, team in (("holder", "own"), ("new", "new"), ("victim", "own")):
        ask(fair, run_id, team)
    inside = "holder"
    for number in range(9):
        ask(fair, f"new{number}", f"new{number}")
        fair.release(inside, "step")
        waiting = [ticket.key.run_id for ticket in fair.snapshot("orders").waiting]
        inside = waiting[0]
        assert ask(fair, inside, "own" if inside == "victim" else inside).granted
        if inside == "victim":
            return
    raise AssertionError(f"the victim starved behind {waiting}")


def test_who_looks_at_a_pool_sees_who_waits_in_the_order_in_which_they_go_in(fair):
    for number in range(4):
        ask(fair, f"big{number}", "big")
    ask(fair, "daily")
    ask(fair, "small", "small")
    ask(fair, "urgent", "big", priority=1)
    seen = fair.snapshot("orders")
    assert [ticket.key.run_id for ticket in seen.waiting] == [
        "urgent", "daily", "small", "big2", "big3",
    ]  # fmt: skip
    assert {holding.groups["orders"] for holding in seen.holdings} == {"big"}
    fair.change_pool("orders", fair_by=None)
    assert [ticket.key.run_id for ticket in fair.snapshot("orders").waiting] == [
        "urgent", "big2", "big3", "daily", "small",
    ]  # fmt: skip
