"""The rules of admission, over views that hypothesis makes up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_lifeguard.admission import decide, next_in_line
from dagster_lifeguard.model import (
    Demand,
    Granted,
    PoolView,
    Reason,
    Ticket,
    TicketKey,
    View,
    Waiter,
    Waiting,
)

POOLS = ("x", "y", "z")
NOW = 10_000.0
PATIENCE = 300.0


@st.composite
def situations(draw, *, whole=None):
    """A view of up to three pools, and a ticket that asks for some of them."""
    demand = draw(
        st.dictionaries(st.sampled_from(POOLS), st.integers(1, 4), min_size=1, max_size=3)
    )
    queues: dict[str, list[Waiter]] = {pool: [] for pool in demand}
    for number in range(draw(st.integers(0, 6))):
        priority = draw(st.integers(-1, 1))
        since = NOW - draw(st.sampled_from([0.0, 10.0, 301.0, 900.0]))
        for pool in draw(st.sets(st.sampled_from(sorted(demand)), min_size=1)):
            key = TicketKey(f"run{number}", "step")
            slots = draw(st.integers(1, 4))
            queues[pool].append(Waiter(number * 2, priority, slots, since, key, "s"))
    pools = {}
    for pool in demand:
        limit = draw(st.one_of(st.none(), st.integers(0, 6)))
        queues[pool].sort(key=lambda w: (-w.priority, w.number))
        pools[pool] = PoolView(
            pool=pool,
            limit=limit,
            taken=draw(st.frozensets(st.integers(1, 7), max_size=4)),
            queue=tuple(queues[pool]),
            whole=bool(whole or not queues[pool] or draw(st.booleans())),
            fence=draw(st.integers(0, 9)),
        )
    ticket = Ticket(
        TicketKey("me", "step"),
        Demand.of(demand),
        draw(st.integers(-1, 1)),
        number=draw(st.one_of(st.none(), st.sampled_from([1, 5, 99]))),
        since=draw(st.sampled_from([NOW - 1.0, NOW - 400.0])),
    )
    return View(NOW, session_alive=True, lease_ends=None, pools=pools), ticket


def verdict_on(view, ticket):
    return decide(view, ticket, NOW, patience_seconds=PATIENCE)


def is_ahead(waiter, ticket):
    if ticket.number is None:
        return waiter.priority >= ticket.priority
    return (-waiter.priority, waiter.number) < (-ticket.priority, ticket.number)


@given(situations())
def test_a_grant_takes_free_slots_within_each_limit_and_all_that_was_asked(situation):
    view, ticket = situation
    verdict = verdict_on(view, ticket)
    if isinstance(verdict, Granted):
        wanted = {t.name: t.slots for t in ticket.demand.terms}
        limited = {pool for pool in wanted if view.pools[pool].limit is not None}
        assert set(verdict.slots) == limited
        for pool, numbers in verdict.slots.items():
            seen = view.pools[pool]
            assert len(set(numbers)) == wanted[pool]
            assert not set(numbers) & seen.taken
            assert len(seen.taken) + len(numbers) <= seen.limit
            assert all(1 <= number <= seen.limit for number in numbers)


@given(situations())
def test_the_same_view_gives_the_same_verdict_in_any_order_of_pools(situation):
    view, ticket = situation
    turned = replace(view, pools=dict(reversed(view.pools.items())))
    assert verdict_on(view, ticket) == verdict_on(turned, ticket)


@given(situations(whole=True))
def test_it_waits_only_for_slots_that_are_held_or_that_others_ahead_of_it_ask_for(situation):
    """Work-conserving: whoever waits, waits for somebody."""
    view, ticket = situation
    verdict = verdict_on(view, ticket)
    if isinstance(verdict, Waiting):
        pool = view.pools[verdict.pool]
        wanted = {t.name: t.slots for t in ticket.demand.terms}[verdict.pool]
        ahead = [w for w in pool.queue if is_ahead(w, ticket)]
        assert verdict.ahead == len(ahead)
        if not ahead:
            assert wanted > pool.free
        assert wanted > pool.free - sum(w.slots for w in ahead)


@given(situations(whole=True))
def test_nobody_behind_it_matters(situation):
    view, ticket = situation
    fewer = {
        name: replace(pool, queue=tuple(w for w in pool.queue if is_ahead(w, ticket)))
        for name, pool in view.pools.items()
    }
    assert verdict_on(view, ticket) == verdict_on(replace(view, pools=fewer), ticket)


@settings(max_examples=600)
@given(situations(whole=True))
def test_whoever_is_out_of_patience_is_passed_by_nobody_behind_it(situation):
    """Bounded bypass: after a grant, the slots that were free for an impatient one still are."""
    view, ticket = situation
    verdict = verdict_on(view, ticket)
    if not isinstance(verdict, Granted):
        return
    for name, numbers in verdict.slots.items():
        pool = view.pools[name]
        impatient = [
            w
            for w in pool.queue
            if is_ahead(w, ticket)
            and NOW - w.since > PATIENCE
            and all(
                other.slots <= (p.limit if p.limit is not None else 99)
                for p in view.pools.values()
                for other in p.queue
                if other.number == w.number
            )
        ]
        assert sum(w.slots for w in impatient) <= pool.free - len(numbers)


@given(situations())
def test_the_best_ranked_ticket_waits_only_for_holders_and_limits(situation):
    view, ticket = situation
    first = replace(ticket, priority=9, number=None)
    verdict = verdict_on(view, first)
    if isinstance(verdict, Waiting):
        assert verdict.reason in {Reason.FULL, Reason.PAUSED, Reason.TOO_LARGE}
        wanted = {t.name: t.slots for t in ticket.demand.terms}[verdict.pool]
        assert wanted > view.pools[verdict.pool].free


@given(situations())
def test_it_stands_at_one_queue_or_out_of_patience_at_all(situation):
    view, ticket = situation
    verdict = verdict_on(view, ticket)
    if isinstance(verdict, Waiting):
        limited = {p for p in ticket.demand.pools if view.pools[p].limit is not None}
        assert verdict.pool in verdict.queue_at
        assert set(verdict.queue_at) in ({verdict.pool}, limited)
        if len(verdict.queue_at) > 1:
            assert NOW - ticket.since > PATIENCE


@given(situations(whole=True))
def test_the_first_in_line_is_woken_whenever_its_pool_could_take_it(situation):
    view, _ = situation
    for pool in view.pools.values():
        woken = next_in_line([pool], NOW, patience_seconds=PATIENCE)
        assert list(woken) == [w for w in pool.queue if w in woken]
        if pool.limit is None:
            assert woken == pool.queue
            continue
        assert sum(w.slots for w in woken) <= max(pool.free, 0)
        if pool.queue and pool.queue[0].slots <= pool.free:
            assert pool.queue[0] in woken


# ---- no starvation ---------------------------------------------------------------------------


class Floor:
    """Pools, holders and waiters in one place, where every waiter looks at each tick."""

    def __init__(self, limits, patience=20.0):
        self.limits = limits
        self.patience = patience
        self.holding = {}
        self.tickets = {}
        self.numbers = iter(range(1, 10**6))
        self.now = 0.0

    def view(self, ticket):
        pools = {}
        for pool in ticket.demand.pools:
            taken = {n for slots in self.holding.values() for n in slots.get(pool, ())}
            queue = [
                Waiter(
                    t.number,
                    t.priority,
                    next(term.slots for term in t.demand.terms if term.name == pool),
                    t.since,
                    t.key,
                    "s",
                )
                for t in self.tickets.values()
                if pool in t.queue_at
            ]
            queue.sort(key=lambda w: (-w.priority, w.number))
            pools[pool] = PoolView(pool, self.limits[pool], frozenset(taken), tuple(queue))
        return View(self.now, session_alive=True, lease_ends=None, pools=pools)

    def arrive(self, name, demand, priority=0):
        ticket = Ticket(TicketKey(name, "step"), demand, priority, next(self.numbers), self.now)
        self.tickets[name] = ticket

    def look(self, name):
        ticket = self.tickets[name]
        verdict = decide(self.view(ticket), ticket, self.now, patience_seconds=self.patience)
        if isinstance(verdict, Granted):
            self.holding[name] = verdict.slots
            del self.tickets[name]
        else:
            self.tickets[name] = replace(ticket, queue_at=verdict.queue_at)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(POOLS), st.integers(1, 2), min_size=1, max_size=3),
        min_size=1,
        max_size=5,
    ),
    st.randoms(use_true_random=False),
)
def test_nobody_starves_under_an_endless_stream_of_its_own_priority(streams, random):
    """A ticket for all pools meets streams of others; each holds for a while and comes again."""
    floor = Floor(dict.fromkeys(POOLS, 2))
    serial = iter(range(10**6))
    leaves: dict[str, float] = {}
    for tick in range(400):
        floor.now = float(tick)
        for name in [n for n, at in leaves.items() if at <= tick]:
            del floor.holding[name], leaves[name]
        if tick == 20:
            floor.arrive("victim", Demand.of(dict.fromkeys(POOLS, 2)))
        for slots in streams:
            if len(floor.tickets) < 12:
                floor.arrive(f"stream{next(serial)}", Demand.of(slots))
        names = list(floor.tickets)
        random.shuffle(names)
        for name in names:
            floor.look(name)
            if name in floor.holding:
                leaves[name] = tick + random.randint(1, 5)
        if "victim" in floor.holding:
            return
    raise AssertionError("the victim starved")


@pytest.mark.parametrize(("patience", "served"), [(20.0, True), (float("inf"), False)])
@pytest.mark.parametrize("demand", ["x*2", "x+y"])
def test_patience_is_what_ends_starvation(demand, patience, served):
    """Slots of x and y come free one at a time, in turn, and somebody small is always there."""
    floor = Floor({"x": 2 if demand == "x*2" else 1, "y": 1}, patience)
    leaves = {}
    for tick in range(200):
        floor.now = float(tick)
        for name in [n for n, at in leaves.items() if at <= tick]:
            del floor.holding[name], leaves[name]
        if tick == 4:
            floor.arrive("victim", Demand.parse(demand))
        small = "x" if demand == "x*2" or tick % 2 else "y"
        floor.arrive(f"small{tick}", Demand.of({small: 1}))
        for name in sorted(floor.tickets, key=lambda n: floor.tickets[n].number):
            floor.look(name)
            if name in floor.holding:
                leaves[name] = tick + 2
        if "victim" in floor.holding:
            break
    assert ("victim" in floor.holding) == served
    if served:
        assert floor.now <= 4 + patience + 5
