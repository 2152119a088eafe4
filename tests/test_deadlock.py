"""Circles of waits, against an oracle that tries every way in which things can go on."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_lifeguard.engine.rules.deadlock import Wait, circle_of
from dagster_lifeguard.engine.rules.model import (
    WAITERS_SEEN_MAX,
    Demand,
    Holding,
    PoolSnapshot,
    Ticket,
    TicketKey,
)
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings

A, B, C = (TicketKey(run, "step") for run in "abc")


@dataclass
class World:
    """Who holds and who waits, made by asking in some order."""

    limits: dict[str, int]
    held: dict[TicketKey, dict[str, int]] = field(default_factory=dict)
    waiting: dict[TicketKey, dict[str, int]] = field(default_factory=dict)
    priorities: dict[TicketKey, int] = field(default_factory=dict)
    since: dict[TicketKey, float] = field(default_factory=dict)
    fair: dict[str, str] = field(default_factory=dict)
    """The group of each run, where the order of every pool is fair."""

    def fits(self, slots: dict[str, int]) -> bool:
        return all(
            count + sum(held.get(pool, 0) for held in self.held.values()) <= self.limits[pool]
            for pool, count in slots.items()
        )

    def ask(self, key: TicketKey, priority: int = 0, since: float = 0.0, **slots: int) -> TicketKey:
        (self.held if self.fits(slots) else self.waiting)[key] = slots
        self.priorities[key] = priority
        self.since[key] = since
        return key

    def wait(self, key: TicketKey, **slots: int) -> TicketKey:
        """It asked, and others were ahead of it."""
        self.waiting[key], self.priorities[key], self.since[key] = slots, 0, 0.0
        return key

    def end(self, step: TicketKey) -> None:
        """A step gives up: what it holds and waits for is gone."""
        for tickets in (self.held, self.waiting):
            for key in [key for key in tickets if key.step == step]:
                del tickets[key]

    def snapshots(self) -> list[PoolSnapshot]:
        found = []
        for pool, limit in self.limits.items():
            holdings, last = [], 0
            for fence, (key, slots) in enumerate(self.held.items(), 1):
                if pool in slots:
                    numbers = tuple(range(last + 1, last + 1 + slots[pool]))
                    last += slots[pool]
                    holdings.append(
                        Holding(key, {pool: numbers}, fence, groups=self._groups(key, pool))
                    )
            waiting = tuple(
                Ticket(
                    key,
                    Demand.of(slots),
                    self.priorities[key],
                    number,
                    self.since[key],
                    tuple(slots),
                    groups=self._groups(key, pool),
                )
                for number, (key, slots) in enumerate(self.waiting.items(), 1)
                if pool in slots
            )
            fair_by = "team" if self.fair else None
            found.append(
                PoolSnapshot(pool, PoolSettings(limit, fair_by=fair_by), tuple(holdings), waiting)
            )
        return found

    def _groups(self, key: TicketKey, pool: str) -> dict[str, str]:
        return {pool: self.fair[key.run_id]} if self.fair else {}

    def circles(self, now: float = 0.0) -> dict[TicketKey, tuple[Wait, ...]]:
        """The circles, by the ticket that is to break each."""
        pools = self.snapshots()
        found = {key: circle_of(key, pools, now) for key in self.waiting}
        return {key: circle for key, circle in found.items() if circle}


def waits_for_ever(world: World) -> set[TicketKey]:
    """The oracle: whoever goes in in no future, whatever ends and goes in first."""
    start = (frozenset(world.held), frozenset(world.waiting))
    slots = {**world.held, **world.waiting}
    left, seen, went_in = [start], {start}, set()
    while left:
        held, waiting = left.pop()
        outer = {key for inner in held | waiting for key in inner.around}
        after = [(held - {key}, waiting) for key in held - outer]
        for key in waiting:
            now = World(world.limits, {k: slots[k] for k in held})
            if now.fits(slots[key]):
                went_in.add(key)
                after.append((held | {key}, waiting - {key}))
        for state in after:
            if state not in seen:
                seen.add(state)
                left.append(state)
    large = {
        key
        for key, wanted in world.waiting.items()
        if any(count > world.limits[pool] for pool, count in wanted.items())
    }
    return set(world.waiting) - went_in - large


@st.composite
def worlds(draw) -> World:
    """Up to seven tickets of three steps, each inside its step or inside what that holds."""
    pools = ["p", "q", "r"]
    world = World({pool: draw(st.integers(1, 2)) for pool in pools})
    steps = [A, B, C]
    for number in range(draw(st.integers(2, 7))):
        step = draw(st.sampled_from(steps))
        wanted = draw(
            st.dictionaries(st.sampled_from(pools), st.integers(1, 2), min_size=1, max_size=2)
        )
        if any(count > world.limits[pool] for pool, count in wanted.items()):
            continue  # Its limit would have to be raised, see below.
        mine = [key for key in world.held if key.step == step]
        outer = draw(st.sampled_from([step, *mine]))
        is_new = step not in world.held and step not in world.waiting
        key = step if is_new and not mine and draw(st.booleans()) else outer.inside(str(number))
        if step not in world.waiting:
            world.ask(key, **wanted)
    return world


@given(worlds())
def test_a_circle_is_found_where_something_waits_for_ever_and_nowhere_else(world):
    stuck = waits_for_ever(world)
    circles = world.circles()
    assert bool(stuck) == bool(circles)
    for breaker, circle in circles.items():
        keys = [wait.key for wait in circle]
        assert keys[0] == breaker
        assert set(keys) <= stuck
        for wait, following in zip(circle, [*keys[1:], keys[0]], strict=True):
            assert wait.pool in world.waiting[wait.key]
            assert any(wait.pool in world.held.get(outer, {}) for outer in following.around)


@given(worlds())
def test_when_those_who_are_to_give_up_do_all_others_go_on(world):
    while circles := world.circles():
        world.end(next(iter(circles)).step)
    assert waits_for_ever(world) == set()


def test_two_that_hold_what_the_other_waits_for():
    world = World({"p": 1, "q": 1})
    world.ask(A, p=1)
    world.ask(B, q=1)
    first = world.ask(A.inside("1"), q=1)
    second = world.ask(B.inside("1"), p=1)
    assert world.circles() == {second: (Wait(second, "p"), Wait(first, "q"))}


def test_a_ring_of_three_and_one_who_only_waits_behind_it():
    world = World({"p": 1, "q": 1, "r": 1})
    for step, pool in [(A, "p"), (B, "q"), (C, "r")]:
        world.ask(step, **{pool: 1})
    one, two = world.ask(A.inside("1"), q=1), world.ask(B.inside("1"), r=1)
    three = world.ask(C.inside("1"), p=1)
    world.ask(TicketKey("d", "step"), p=1)
    assert world.circles() == {three: (Wait(three, "p"), Wait(one, "q"), Wait(two, "r"))}


def test_one_that_waits_for_itself():
    world = World({"p": 1})
    world.ask(A, p=1)
    inner = world.ask(A.inside("1"), p=1)
    assert world.circles() == {inner: (Wait(inner, "p"),)}


def test_tasks_beside_each_other_in_one_step_are_no_circle():
    world = World({"p": 2})
    for task in range(6):
        world.ask(A.inside(str(task)), p=1)
    assert len(world.waiting) == 4
    assert world.circles() == {}


def test_a_second_slot_that_somebody_will_give_back_is_no_circle():
    world = World({"p": 1, "q": 2})
    world.ask(A, p=1)
    world.ask(B, q=1)
    world.ask(C, q=1)  # Waits for nothing.
    world.ask(A.inside("1"), q=1)
    world.ask(B.inside("1"), p=1)
    assert world.circles() == {}


@pytest.mark.parametrize("limit", [0, 1])
def test_a_limit_that_is_too_low_is_no_circle(limit):
    world = World({"p": 3, "q": 1})
    world.ask(A, q=1)
    world.ask(B, p=1)
    world.ask(A.inside("1"), p=3)
    inner = world.ask(B.inside("1"), q=1)
    assert list(world.circles()) == [inner]
    world.limits["p"] = limit
    assert world.circles() == {}


def test_slots_set_aside_for_one_out_of_patience_are_part_of_a_circle():
    """It asks for both slots and holds none; the holder of one asks for the other, behind it."""
    world = World({"p": 2})
    world.ask(A, p=1)
    world.ask(B, p=2)
    inner = world.wait(A.inside("1"), p=1)
    assert world.circles(now=299.0) == {}
    assert list(world.circles(now=301.0)) == [inner]


def test_behind_more_than_a_decision_looks_at():
    world = World({"p": 2, "q": 1})
    world.ask(A, p=1)
    for number in range(WAITERS_SEEN_MAX):
        world.ask(TicketKey(f"run{number}", "step"), p=2)
    inner = world.wait(A.inside("1"), p=1)
    assert list(world.circles()) == [inner]


@pytest.mark.parametrize(("fair", "is_circle"), [({}, False), ({"a": "big", "b": "small"}, True)])
def test_one_who_came_later_is_ahead_where_its_group_holds_less(fair, is_circle):
    """Out of patience it sets both slots aside, also the one that is free."""
    world = World({"p": 2}, fair=fair)
    world.ask(A, p=1)
    inner = world.wait(A.inside("1"), p=1)
    world.wait(B, p=2)
    assert list(world.circles(now=301.0)) == ([inner] if is_circle else [])


@pytest.mark.parametrize(
    ("fair", "is_circle"), [({}, True), ({"a": "small", "b": "big", "c": "big"}, False)]
)
def test_one_who_came_first_is_behind_where_its_group_holds_more(fair, is_circle):
    """The group of the one out of patience holds two slots by another run, which waits too."""
    world = World({"p": 4, "q": 1}, fair=fair)
    world.ask(A, p=1, q=1)
    world.ask(C, p=2)
    world.ask(C.inside("1"), q=1)
    world.wait(B, p=2)
    inner = world.wait(A.inside("1"), p=1)
    assert list(world.circles(now=301.0)) == ([inner] if is_circle else [])


@given(worlds(), st.lists(st.sampled_from(["x", "y"]), min_size=3, max_size=3))
def test_a_fair_order_alone_makes_no_circle_and_hides_none(world, teams):
    first_come = world.circles()
    world.fair = dict(zip("abc", teams, strict=True))
    assert world.circles() == first_come


def test_what_is_inside_of_what():
    inner = A.inside("1").inside("2")
    assert inner == ("a", "step[slots:1][slots:2]")
    assert inner.around == (A, A.inside("1"))
    assert inner.step == A
    assert A.around == ()
    dynamic = TicketKey("a", "step[mapping_key]")
    assert dynamic.step == dynamic
    assert dynamic.inside("1").around == (dynamic,)
