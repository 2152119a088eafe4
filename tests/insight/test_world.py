"""The world of a simulation: what must always be true of it, and the real engine beside it."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter, defaultdict
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.admission import next_in_line
from dagster_lifeguard.engine.rules.model import Demand, Granted, TicketKey
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.engine.store.memory.store import MemoryStore
from dagster_lifeguard.insight.simulation.admission import Admission
from dagster_lifeguard.insight.simulation.arrivals import Arrival, Change, Start
from dagster_lifeguard.insight.simulation.pool import Pool
from dagster_lifeguard.insight.simulation.world import play

WINDOW = (0.0, 1000.0)
PATIENCE = 10.0
POOLS = ("x", "y", "z")


def arrival(name, at, slots, seconds, priority=0, team="", after=None):
    key = TicketKey(str(name), "s")
    return Arrival(key, at, Demand.of(slots), seconds, priority, {"team": team}, after)


demands = st.dictionaries(st.sampled_from(POOLS), st.integers(1, 2), min_size=1)
pool_settings = st.builds(
    PoolSettings,
    st.one_of(st.integers(2, 3), st.none()),
    st.sampled_from((None, None, Rate(1, 1), Rate(12, 60, 2))),
    st.sampled_from((None, None, "team")),
)
of_pools = st.fixed_dictionaries(dict.fromkeys(POOLS, pool_settings))


@st.composite
def worlds(draw, *, follow=True):
    """Arrivals, the earliest first, and the settings of their pools."""
    count = draw(st.integers(1, 9))
    times = sorted(draw(st.lists(st.integers(0, 20), min_size=count, max_size=count)))
    found = []
    for place, at in enumerate(times):
        after = draw(st.sampled_from((None, None, *range(place)))) if follow else None
        found.append(
            arrival(
                place,
                float(at if after is None else at % 3),
                draw(demands),
                float(draw(st.integers(1, 15))),
                draw(st.integers(0, 1)),
                draw(st.sampled_from("abc")),
                after,
            )
        )
    return tuple(found), draw(of_pools)


# ---- what must always be true ----------------------------------------------------------------------


@given(worlds())
def test_every_arrival_ends_and_no_limit_is_exceeded(world):
    arrivals, of_pools = world
    found = play(arrivals, of_pools, window=WINDOW, patience_seconds=PATIENCE)
    assert all(granted is not None for granted in found.granted)
    assert sorted(found.order) == list(range(len(arrivals)))
    for pool, its_settings in of_pools.items():
        if its_settings.limit is None:
            continue
        events = []
        for place, one in enumerate(arrivals):
            slots = {term.name: term.slots for term in one.demand.terms}.get(pool, 0)
            events.append((found.granted[place] + one.seconds, -slots))
            events.append((found.granted[place], slots))
        held = list(itertools.accumulate(slots for _, slots in sorted(events)))
        assert max(held) <= its_settings.limit


@given(worlds())
def test_fences_of_a_pool_grow(world):
    arrivals, of_pools = world
    found = play(arrivals, of_pools, window=WINDOW, patience_seconds=PATIENCE)
    last = dict.fromkeys(POOLS, 0)
    for place in found.order:
        for pool in arrivals[place].demand.pools:
            if of_pools[pool].limit is not None:
                assert found.fences[place] > last[pool]
                last[pool] = found.fences[place]


@given(worlds())
def test_the_same_arrivals_give_the_same_play(world):
    arrivals, of_pools = world
    first, second = (
        play(arrivals, of_pools, window=WINDOW, patience_seconds=PATIENCE) for _ in range(2)
    )
    assert first == second


@given(worlds())
def test_the_use_of_a_pool_is_what_its_arrivals_held(world):
    arrivals, of_pools = world
    found = play(arrivals, of_pools, window=WINDOW, patience_seconds=PATIENCE)
    held = Counter()
    for one in arrivals:
        for term in one.demand.terms:
            held[term.name] += term.slots * one.seconds
    assert {pool: use.held for pool, use in found.use.items()} == pytest.approx(held)


@given(worlds())
def test_a_follower_asks_so_long_after_the_end_before_it(world):
    arrivals, of_pools = world
    found = play(arrivals, of_pools, window=WINDOW, patience_seconds=PATIENCE)
    for place, one in enumerate(arrivals):
        begun = 0.0
        if one.after is not None:
            begun = found.granted[one.after] + arrivals[one.after].seconds
        assert found.asked[place] == begun + one.at


# ---- each decision by the rules --------------------------------------------------------------------


@st.composite
def crowds(draw):
    """Many that wait: groups, priorities, slots, rates, changes, and a start in the middle."""
    draws = draw(st.randoms(use_true_random=False))

    def of_a_pool():
        return PoolSettings(
            draws.choice((0, 1, 2, 3, 5, None)),
            draws.choice((None, None, Rate(1, 1), Rate(12, 60, 2), Rate(2, 1, 3))),
            draws.choice((None, None, "team")),
        )

    count, span = draws.choice((5, 20, 60)), draws.choice((5, 40, 150))
    found = []
    for place, at in enumerate(sorted(draws.randint(0, span) for _ in range(count))):
        after = draws.choice((None, None, None, draws.randrange(place))) if place else None
        asked = draws.sample(POOLS, draws.choice((1, 1, 2, 3)))
        found.append(
            arrival(
                place,
                float(at if after is None else at % 5),
                {pool: draws.choice((1, 1, 2, 3)) for pool in asked},
                float(draws.randint(0, 12)),
                draws.choice((0, 0, 0, 1, -1)),
                draws.choice("abcd"),
                after,
            )
        )
    changes = tuple(
        Change(float(draws.randint(0, span)), draws.choice(POOLS), of_a_pool())
        for _ in range(draws.choice((0, 0, 2)))
    )
    start = None
    if draws.random() < 0.3:
        first = [place for place, one in enumerate(found) if one.after is None]
        draws.shuffle(first)
        a_few = len(first) // 4
        start = Start(
            3.0,
            first[:a_few],
            [(place, 3.0 - draws.random() * 20) for place in first[a_few : 2 * a_few]],
            {pool: draws.randrange(7 * 10**9) for pool in POOLS if draws.random() < 0.3},
            awaited=range(count),
        )
    return tuple(found), {pool: of_a_pool() for pool in POOLS}, changes, start


class ByTheRules(Admission):
    """Each decision, and each choice of waiters to wake, is that of the rules on a view."""

    decisions = 0

    def _without_view(self, asking, now):
        ByTheRules.decisions += 1

    @staticmethod
    def _is_simple(pool):
        return False


def by_the_rules(pool, now, patience_seconds):
    return iter(next_in_line([pool.view()], now, patience_seconds=patience_seconds))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(crowds())
def test_what_is_decided_without_a_view_is_what_the_rules_decide(crowd):
    *world, start = crowd
    fast = play(*world, window=WINDOW, patience_seconds=PATIENCE, start=start)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dagster_lifeguard.insight.simulation.world.Admission", ByTheRules)
        patch.setattr(Pool, "fitting", by_the_rules)
        ruled = play(*world, window=WINDOW, patience_seconds=PATIENCE, start=start)
    assert fast == ruled


def test_decisions_by_the_rules_were_compared():
    ByTheRules.decisions = 0
    test_what_is_decided_without_a_view_is_what_the_rules_decide()
    assert ByTheRules.decisions > 5_000


# ---- the engine beside it --------------------------------------------------------------------------


class Driven:
    """The real engine on the memory store, with its own clock and no waiting.

    A ticket looks again when it is woken, when its rate lets it start, and when its patience is
    over.
    """

    def __init__(self, arrivals, of_pools, changes):
        self.now = 0.0
        self.store = MemoryStore(lambda: self.now)
        options = EngineOptions(lease_seconds=1e9, patience_seconds=PATIENCE)
        self.engine = Engine(self.store, options)
        self.engine.set_pools(of_pools)
        self.arrivals = arrivals
        self.granted = defaultdict(list)
        self.waiting = {}
        self.by_key = {one.key: place for place, one in enumerate(arrivals)}
        self.events = [(one.at, 2, place, place) for place, one in enumerate(arrivals)]
        self.events += [(change.at, 1, n, change) for n, change in enumerate(changes)]
        self.sequence = itertools.count(1000)
        heapq.heapify(self.events)

    def at(self, moment, kind, what):
        heapq.heappush(self.events, (moment, kind, next(self.sequence), what))

    def run(self):
        for _ in range(5000):
            if not self.events or all(kind == 3 for _, kind, _, _ in self.events):
                break
            self.now, kind, _, what = heapq.heappop(self.events)
            if kind == 0:
                self.engine.release(*self.arrivals[what].key)
            elif kind == 1:
                self.engine.set_pools({what.pool: what.settings})
            elif kind == 2 or what in self.waiting:
                self.claim(what)
                if kind == 3:
                    self.at(self.now + PATIENCE, 3, what)
            self.hear()
        self.engine.close()
        # Several that a rate lets in at one moment may claim in any order.
        return {pool: sorted(granted) for pool, granted in self.granted.items()}

    def hear(self):
        while True:
            woken = self.store.poll(self.engine.session or "", 0)
            places = {self.by_key[key] for key in woken} & self.waiting.keys()
            if not places:
                return
            for place in sorted(
                places, key=lambda p: (-self.arrivals[p].priority, self.waiting[p])
            ):
                self.claim(place)

    def claim(self, place):
        one = self.arrivals[place]
        verdict = self.engine.claim(*one.key, one.demand, one.priority, lambda: one.tags)
        if isinstance(verdict, Granted):
            self.waiting.pop(place, None)
            for pool in one.demand.pools:
                self.granted[pool].append((self.now, place))
            self.at(self.now + one.seconds, 0, place)
            return
        if place not in self.waiting:
            self.waiting[place] = self.store.ticket(one.key).number
            self.at(math.nextafter(self.now + PATIENCE, math.inf), 3, place)
        if verdict.ready_at is not None:
            self.at(verdict.ready_at, 4, place)


def by_pool(arrivals, found):
    granted = defaultdict(list)
    for place in found.order:
        for pool in arrivals[place].demand.pools:
            granted[pool].append((found.granted[place], place))
    return {pool: sorted(granted) for pool, granted in granted.items()}


def compare(arrivals, of_pools, changes=()):
    found = play(arrivals, of_pools, changes, window=WINDOW, patience_seconds=PATIENCE)
    assert by_pool(arrivals, found) == Driven(arrivals, of_pools, changes).run()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(worlds(follow=False))
def test_the_engine_grants_the_same_in_the_same_order(world):
    compare(*world)


def test_a_ticket_that_a_rate_holds_up_is_woken_as_the_engine_wakes_it():
    """Ticket 2 moves to another queue when 1 ends, and so lets 8 pass."""
    arrivals = (
        arrival(0, 0.0, {"x": 1, "y": 1, "z": 1}, 3.0),
        arrival(1, 0.0, {"z": 2}, 8.0),
        arrival(2, 0.0, {"x": 2, "y": 1, "z": 1}, 1.0),
        *(arrival(number, 0.0, {"x": 1}, 1.0) for number in range(3, 7)),
        arrival(7, 3.0, {"x": 1, "z": 1}, 1.0, 1),
        arrival(8, 11.0, {"y": 1}, 1.0),
    )
    rated = PoolSettings(2, Rate(1, 1))
    compare(arrivals, {"x": PoolSettings(2), "y": rated, "z": rated})


@settings(max_examples=30, deadline=None, derandomize=True)
@given(worlds(follow=False), st.integers(1, 20), st.sampled_from(POOLS), st.integers(2, 4))
def test_the_engine_grants_the_same_when_a_limit_changes(world, at, pool, limit):
    arrivals, of_pools = world
    if of_pools[pool].limit is not None:
        changed = replace(of_pools[pool], limit=limit)
        compare(arrivals, of_pools, (Change(float(at), pool, changed),))


def test_who_asks_for_more_than_there_is_never_goes_in_and_stands_in_nobodys_way():
    arrivals = (arrival(0, 0.0, {"x": 2}, 1.0), arrival(1, 1.0, {"x": 1}, 1.0))
    found = play(arrivals, {"x": PoolSettings(1)}, window=WINDOW)
    assert found.granted == [None, 1.0]


def test_a_queue_longer_than_a_view_is_played_to_its_end():
    arrivals = tuple(arrival(n, 0.0, {"x": 1, "y": 1}, 1.0) for n in range(100))
    found = play(arrivals, {"x": PoolSettings(1), "y": PoolSettings(3)}, window=WINDOW)
    assert found.granted == [float(n) for n in range(100)]
    assert found.use["x"].most == found.use["y"].most == 1


@given(worlds())
def test_what_an_arrival_waits_it_stands_in_queues(world):
    arrivals, of_pools = world
    found = play(arrivals, of_pools, window=WINDOW, patience_seconds=PATIENCE)
    for place, one in enumerate(arrivals):
        stood, waited = found.stood.get(place, {}), found.waited(place)
        assert stood.keys() <= set(one.demand.pools)
        assert all(seconds <= waited for seconds in stood.values())
        assert sum(stood.values()) >= waited


def test_an_arrival_that_never_starts_stands_until_the_window_ends():
    found = play([arrival(0, 10.0, {"a": 1}, 5.0)], {"a": PoolSettings(0)}, window=(0.0, 100.0))
    assert found.stood == {0: {"a": 90.0}}


def test_a_step_whose_patience_ran_out_reserves_slots_at_that_moment():
    busy = [arrival(f"y{n}", n * 1.4, {"y": 1}, 1.5) for n in range(100)]
    both = arrival("both", 0.5, {"x": 1, "y": 1}, 1.0)
    arrivals = [arrival("x", 0.0, {"x": 1}, 100.0), *busy, both]
    of_pools = {"x": PoolSettings(1), "y": PoolSettings(1)}
    found = play(arrivals, of_pools, window=WINDOW, patience_seconds=PATIENCE)
    # It stands at x. From its patience on it has a slot of y reserved too, so it starts with x.
    assert found.granted[-1] == 100.0
