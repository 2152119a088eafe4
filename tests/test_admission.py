"""The rules of admission, over views that hypothesis makes up."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dagster_lifeguard.engine.rules.admission import decide, next_in_line
from dagster_lifeguard.engine.rules.model import (
    WAITERS_SEEN_MAX,
    Demand,
    Granted,
    PoolView,
    QueuedTicket,
    Ticket,
    TicketKey,
    View,
    Waiting,
    WaitReason,
)
from dagster_lifeguard.engine.rules.order import (
    SLOT,
    queue_of,
    rank_of,
    ranked,
    turns_after,
    turns_of_new_groups,
)
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
from dagster_lifeguard.engine.rules.rate import Rate, nanoseconds

POOLS = ("x", "y", "z")
NOW = 10_000.0
PATIENCE = 300.0
NOW_NS = nanoseconds(NOW)


@st.composite
def situations(draw, *, whole=None):
    """A view of up to three pools, and a ticket that asks for some of them."""
    demand = draw(
        st.dictionaries(st.sampled_from(POOLS), st.integers(1, 4), min_size=1, max_size=3)
    )
    queues: dict[str, list[QueuedTicket]] = {pool: [] for pool in demand}
    for number in range(draw(st.integers(0, 6))):
        priority = draw(st.integers(-1, 1))
        since = NOW - draw(st.sampled_from([0.0, 10.0, 301.0, 900.0]))
        for pool in draw(st.sets(st.sampled_from(sorted(demand)), min_size=1)):
            key = TicketKey(f"run{number}", "step")
            slots = draw(st.integers(1, 4))
            group = draw(st.sampled_from("ab"))
            queues[pool].append(QueuedTicket(number * 2, priority, slots, since, key, "s", group))
    pools = {}
    for pool in demand:
        limit = draw(st.one_of(st.none(), st.integers(0, 6)))
        taken = draw(st.frozensets(st.integers(1, 7), max_size=4))
        fair_by = draw(st.sampled_from([None, "team"]))
        holders = {slot: draw(st.sampled_from("ab")) for slot in sorted(taken)}
        held = Counter(holders.values()) if fair_by else None
        turns = {"a": 3 * SLOT, "b": draw(st.integers(0, 5)) * SLOT}
        rate = draw(
            st.one_of(st.none(), st.builds(Rate, st.just(60), st.just(60), st.integers(1, 3)))
        )
        pools[pool] = PoolView(
            pool=pool,
            settings=PoolSettings(limit, rate, fair_by),
            taken=taken,
            holders=holders if fair_by else {},
            turns=turns,
            queue=tuple(waiter for _, waiter in ranked(queues[pool], held, turns)),
            whole=bool(whole or not queues[pool] or draw(st.booleans())),
            fence=draw(st.integers(0, 9)),
            due_ns=NOW_NS + draw(st.integers(-5, 3)) * 10**9,
        )
    ticket = Ticket(
        TicketKey("me", "step"),
        Demand.of(demand),
        draw(st.integers(-1, 1)),
        number=draw(st.one_of(st.none(), st.sampled_from([1, 5, 99]))),
        since=draw(st.sampled_from([NOW - 1.0, NOW - 400.0])),
        groups={pool: draw(st.sampled_from("ab")) for pool in demand},
    )
    return View(NOW, session_alive=True, lease_ends=None, pools=pools), ticket


def verdict_on(view, ticket):
    return decide(view, ticket, NOW, patience_seconds=PATIENCE)


def start_at(pool, count=1):
    return pool.settings.rate.start_at(pool.due_ns, NOW_NS, count)


def ahead_of(ticket, pool):
    return [waiter for rank, waiter in queue_of(pool) if rank < rank_of(ticket, pool)]


def impatient_ahead(view, ticket, pool):
    """Waiters out of patience ahead of the ticket at a pool, whom no limit keeps out for good."""
    return [
        w
        for w in ahead_of(ticket, pool)
        if NOW - w.since > PATIENCE
        and all(
            other.slots <= (p.settings.limit if p.settings.limit is not None else 99)
            for p in view.pools.values()
            for other in p.queue
            if other.number == w.number
        )
    ]


@given(situations())
def test_a_grant_takes_free_slots_within_each_limit_and_all_that_was_asked(situation):
    view, ticket = situation
    verdict = verdict_on(view, ticket)
    if isinstance(verdict, Granted):
        wanted = {t.name: t.slots for t in ticket.demand.terms}
        limited = {pool for pool in wanted if view.pools[pool].settings.limit is not None}
        assert set(verdict.slots) == limited
        for pool, numbers in verdict.slots.items():
            seen = view.pools[pool]
            assert len(set(numbers)) == wanted[pool]
            assert not set(numbers) & seen.taken
            assert len(seen.taken) + len(numbers) <= seen.settings.limit
            assert all(1 <= number <= seen.settings.limit for number in numbers)
        for seen in view.pools.values():
            assert seen.settings.rate is None or start_at(seen) <= NOW_NS


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
        ahead = ahead_of(ticket, pool)
        assert verdict.ahead == len(ahead)
        if verdict.reason is WaitReason.RATE:
            assert pool.settings.limit is None or wanted <= pool.free
            assert nanoseconds(verdict.ready_at) <= start_at(pool, len(ahead) + 1)
            assert verdict.ready_at > NOW
            return
        assert verdict.ready_at is None
        if not ahead:
            assert wanted > pool.free
        assert wanted > pool.free - sum(w.slots for w in ahead)


@given(situations(whole=True))
def test_nobody_behind_it_matters(situation):
    view, ticket = situation
    fewer = {
        name: replace(pool, queue=tuple(ahead_of(ticket, pool)))
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
        impatient = impatient_ahead(view, ticket, pool)
        assert sum(w.slots for w in impatient) <= pool.free - len(numbers)
        if pool.settings.rate is not None:
            assert start_at(pool, len(impatient) + 1) <= NOW_NS


@given(situations())
def test_the_best_ranked_ticket_waits_only_for_holders_and_limits(situation):
    view, ticket = situation
    first = replace(ticket, priority=9, number=None)
    assert not any(ahead_of(first, pool) for pool in view.pools.values())
    verdict = verdict_on(view, first)
    if isinstance(verdict, Waiting):
        if verdict.reason is WaitReason.RATE:
            assert nanoseconds(verdict.ready_at) == start_at(view.pools[verdict.pool])
            return
        assert verdict.reason in {WaitReason.FULL, WaitReason.PAUSED, WaitReason.TOO_LARGE}
        wanted = {t.name: t.slots for t in ticket.demand.terms}[verdict.pool]
        assert wanted > view.pools[verdict.pool].free


@given(situations())
def test_it_stands_at_one_queue_or_out_of_patience_at_all(situation):
    view, ticket = situation
    verdict = verdict_on(view, ticket)
    if isinstance(verdict, Waiting):
        rated = {p for p in ticket.demand.pools if view.pools[p].settings.rate is not None}
        limited = {
            p for p in ticket.demand.pools if view.pools[p].settings.limit is not None
        } | rated
        assert verdict.pool in verdict.queue_at
        assert set(verdict.queue_at) in (
            {verdict.pool},
            limited,
            (limited - rated) | {verdict.pool},
        )
        if len(verdict.queue_at) > 1:
            assert NOW - ticket.since > PATIENCE
            fair = (view.pools[p] for p in ticket.demand.pools if view.pools[p].settings.fair_by)
            assert not any(impatient_ahead(view, ticket, pool) for pool in fair)


@pytest.mark.parametrize("fair_by", [None, "team"])
def test_at_a_fair_pool_only_the_first_that_is_out_of_patience_sets_slots_aside(fair_by):
    """Two fair pools may rank two tickets differently; by age they rank all tickets alike."""
    long_ago = NOW - PATIENCE - 1
    first = QueuedTicket(1, 0, 1, long_ago, TicketKey("first", "step"), "s", "a")
    held = {"taken": frozenset({1, 2, 3})}
    fair = {"holders": {1: "b", 2: "b", 3: "b"}} if fair_by else {}
    pools = {
        "x": PoolView("x", PoolSettings(3, fair_by=fair_by), queue=(first,), **held, **fair),
        "y": PoolView("y", PoolSettings(3), **held),
    }
    view = View(NOW, session_alive=True, lease_ends=None, pools=pools)
    me = Ticket(TicketKey("me", "step"), Demand.of({"x": 1, "y": 1}), number=2, since=long_ago)
    second = replace(me, groups={"x": "c"} if fair_by else {})

    assert verdict_on(view, second).queue_at == (("x", "y") if fair_by is None else ("x",))
    # Once the first is in, the second is the first.
    alone = replace(view, pools={**pools, "x": replace(pools["x"], queue=())})
    assert verdict_on(alone, second).queue_at == ("x", "y")


@given(situations(whole=True))
def test_the_first_in_line_is_woken_whenever_its_pool_could_take_it(situation):
    view, _ = situation
    for pool in view.pools.values():
        woken = next_in_line([pool], NOW, patience_seconds=PATIENCE)
        assert list(woken) == [w for w in pool.queue if w in woken]
        if pool.settings.limit is None:
            assert woken == pool.queue
            continue
        assert sum(w.slots for w in woken) <= max(pool.free, 0)
        if pool.queue and pool.queue[0].slots <= pool.free:
            assert pool.queue[0] in woken


# ---- no starvation ---------------------------------------------------------------------------


class Floor:
    """Pools, holders and waiters in one place, where every waiter looks at each tick."""

    def __init__(self, limits, patience=20.0, rates=None, fair=()):
        self.limits = limits
        self.fair = set(fair)
        self.groups = {}
        self.turn = dict.fromkeys(limits, 0)
        self.turns = {pool: {} for pool in limits}
        self.rates = rates or {}
        self.due = dict.fromkeys(limits, 0)
        self.patience = patience
        self.holding = {}
        self.tickets = {}
        self.numbers = iter(range(1, 10**6))
        self.now = 0.0

    def view(self, ticket):
        pools = {}
        for pool in ticket.demand.pools:
            holders = {
                slot: self.groups[name]
                for name, slots in self.holding.items()
                for slot in slots.get(pool, ())
            }
            queue = [
                QueuedTicket(
                    t.number,
                    t.priority,
                    next(term.slots for term in t.demand.terms if term.name == pool),
                    t.since,
                    t.key,
                    "s",
                    self.groups[t.key.run_id],
                )
                for t in self.tickets.values()
                if pool in t.queue_at
            ]
            fair = pool in self.fair
            held = Counter(holders.values()) if fair else None
            queue = [w for _, w in ranked(queue, held, self.turns[pool], self.turn[pool])]
            pools[pool] = PoolView(
                pool,
                PoolSettings(self.limits[pool], self.rates.get(pool), "team" if fair else None),
                frozenset(holders),
                tuple(queue[:WAITERS_SEEN_MAX]),
                whole=len(queue) <= WAITERS_SEEN_MAX,
                holders=holders if fair else {},
                turn=self.turn[pool],
                turns=dict(self.turns[pool]),
                due_ns=self.due[pool],
            )
        return View(self.now, session_alive=True, lease_ends=None, pools=pools)

    def arrive(self, name, demand, priority=0, group=""):
        self.groups[name] = group
        self.tickets[name] = Ticket(
            TicketKey(name, "step"),
            demand,
            priority,
            next(self.numbers),
            self.now,
            groups=dict.fromkeys(demand.pools, group),
        )

    def look(self, name):
        ticket = self.tickets[name]
        view = self.view(ticket)
        verdict = decide(view, ticket, self.now, patience_seconds=self.patience)
        if isinstance(verdict, Granted):
            self.holding[name] = verdict.slots
            del self.tickets[name]
            for pool in self.fair & verdict.slots.keys():
                begins, self.turn[pool] = turns_after(
                    ticket.groups[pool],
                    ticket.priority,
                    len(verdict.slots[pool]),
                    view.pools[pool],
                )
                self.turns[pool][self.groups[name]] = begins
                self.forget_turns(pool)
            for pool in ticket.demand.pools:
                if pool in self.rates:
                    now_ns = nanoseconds(self.now)
                    self.due[pool] = self.rates[pool].due_after_start(self.due[pool], now_ns)
        else:
            self.tickets[name] = replace(ticket, queue_at=verdict.queue_at)
            groups = {pool: group for pool, group in ticket.groups.items() if pool in self.fair}
            begun = turns_of_new_groups(groups, (view.pools[pool] for pool in verdict.queue_at))
            for pool, turn in begun.items():
                self.turns[pool][groups[pool]] = turn
        return verdict

    def forget_turns(self, pool):
        in_line = {self.groups[n] for n, t in self.tickets.items() if pool in t.queue_at}
        for group in [g for g, begins in self.turns[pool].items() if begins <= self.turn[pool]]:
            if group not in in_line:
                del self.turns[pool][group]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(POOLS), st.integers(1, 2), min_size=1, max_size=3),
        min_size=1,
        max_size=5,
    ),
    st.dictionaries(
        st.sampled_from(POOLS),
        st.builds(Rate, st.sampled_from([20, 60]), st.just(60), st.integers(1, 2)),
    ),
    st.sets(st.sampled_from(POOLS)),
    st.randoms(use_true_random=False),
)
def test_nobody_starves_under_an_endless_stream_of_its_own_priority(streams, rates, fair, random):
    """A ticket for all pools meets streams of others; each holds for a while and comes again.

    Every one of them is of a group that never was before, or of the ticket's own.
    """
    floor = Floor(dict.fromkeys(POOLS, 2), rates=rates, fair=fair)
    serial = iter(range(10**6))
    leaves: dict[str, float] = {}
    for tick in range(400):
        floor.now = float(tick)
        for name in [n for n, at in leaves.items() if at <= tick]:
            del floor.holding[name], leaves[name]
        if tick == 20:
            floor.arrive("victim", Demand.of(dict.fromkeys(POOLS, 2)), group="own")
        for slots in streams:
            if len(floor.tickets) < 12:
                number = next(serial)
                group = random.choice(["own", f"new{number}"])
                floor.arrive(f"stream{number}", Demand.of(slots), group=group)
        names = list(floor.tickets)
        random.shuffle(names)
        for name in names:
            floor.look(name)
            if name in floor.holding:
                leaves[name] = tick + random.randint(1, 5)
        if "victim" in floor.holding:
            return
    raise AssertionError("the victim starved")


@settings(max_examples=30, deadline=None)
@given(
    limit=st.integers(1, 3),
    served=st.integers(1, 4),
    arrivals=st.integers(1, 3),
    patience=st.sampled_from([5.0, float("inf")]),
    random=st.randoms(use_true_random=False),
)
def test_new_groups_without_end_do_not_starve_one_that_was_served_before(
    limit, served, arrivals, patience, random
):
    """However many come: each that comes after the turn of the pool is its own is behind it."""
    floor = Floor({"x": limit}, patience=patience, fair={"x"})
    one = Demand.of({"x": 1})
    for number in range(served):
        floor.arrive(f"before{number}", one, group="own")
        assert floor.look(f"before{number}").granted
        floor.holding.clear()
    for number in range(limit):
        floor.arrive(f"holder{number}", one, group=f"held{number}")
        assert floor.look(f"holder{number}").granted
    # The pool's turn lags by what one grant gave, which it makes up for by a part with each.
    for tick in range(4 * (WAITERS_SEEN_MAX + limit)):
        floor.now = float(tick)
        for number in range(arrivals * limit):
            name = f"new{tick}.{number}"
            floor.arrive(name, one, group=name)
            floor.look(name)
        if tick == 0:
            floor.arrive("victim", one, group="own")
            floor.look("victim")
        floor.holding.clear()
        names = [w.key.run_id for _, w in queue_of(floor.view(floor.tickets["victim"]).pools["x"])]
        for name in random.sample(names, len(names)):
            floor.look(name)
        if "victim" in floor.tickets:  # It may be out of sight.
            floor.look("victim")
        if "victim" in floor.holding:
            return
    raise AssertionError("the victim starved")


@settings(max_examples=60, deadline=None, phases=[Phase.generate])  # Shrinking takes long.
@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(POOLS), st.integers(1, 3), min_size=1, max_size=3),
            st.integers(0, 1),
            st.sampled_from("ab"),
        ),
        min_size=1,
        max_size=12,
    ),
    st.sets(st.sampled_from(POOLS)),
    st.randoms(use_true_random=False),
)
def test_what_is_free_and_enough_for_somebody_is_taken_unless_patience_forbids(
    asking, fair, random
):
    """Work-conserving: once all have looked, whoever waits lacks slots that others hold."""
    floor = Floor(dict.fromkeys(POOLS, 3), patience=float("inf"), fair=fair)
    for number, (slots, priority, group) in enumerate(asking):
        floor.arrive(f"run{number}", Demand.of(slots), priority, group)
    while floor.tickets:
        before = None
        while before != (places := {name: t.queue_at for name, t in floor.tickets.items()}):
            before = places  # Whoever leaves a queue wakes those behind it.
            for name in random.sample(sorted(floor.tickets), len(floor.tickets)):
                floor.look(name)
        for ticket in floor.tickets.values():
            pools = floor.view(ticket).pools
            assert any(term.slots > pools[term.name].free for term in ticket.demand.terms)
        del floor.holding[random.choice(sorted(floor.holding))]


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


# ---- rates -----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 20), st.lists(st.integers(0, 3), min_size=2, max_size=30))
def test_who_looks_only_when_told_starts_as_early_as_the_rate_lets_it(burst, starts, gaps):
    """Nobody polls: each looks when it comes and once more at its time, and no start is lost."""
    rate = Rate(starts, 60, burst)
    floor = Floor({"x": None}, rates={"x": rate})
    looks: list[tuple[float, int, str]] = []
    due, expected, now = 0, [], NOW
    for number, gap in enumerate(gaps):
        now += gap
        looks.append((now, number, f"run{number}"))
        at = max(nanoseconds(now), due - (burst - 1) * rate.interval_ns)
        due = max(due, at) + rate.interval_ns
        expected.append(at)
    started, asked = {}, dict.fromkeys(range(len(gaps)), 0)
    while looks:
        looks.sort()
        floor.now, number, name = looks.pop(0)
        if name not in floor.tickets:
            floor.arrive(name, Demand.of({"x": 1}))
        asked[number] += 1
        verdict = floor.look(name)
        if isinstance(verdict, Granted):
            started[number] = nanoseconds(floor.now)
        else:
            assert verdict.reason is WaitReason.RATE
            looks.append((verdict.ready_at, number, name))
    assert all(abs(started[n] - at) <= 2000 * len(gaps) for n, at in enumerate(expected))
    assert max(asked.values()) <= 3  # Times are told in microseconds: it may be one early.


def test_a_demand_over_two_rates_waits_at_the_later_one_and_takes_no_start_of_the_other():
    floor = Floor({"x": 5, "y": 5}, rates={"x": Rate(60, 60), "y": Rate(1, 60)})
    floor.now = NOW
    for name in ("a", "b"):
        floor.arrive(name, Demand.parse("x+y"))
    assert floor.look("a").granted
    due = dict(floor.due)
    verdict = floor.look("b")
    assert (verdict.pool, verdict.reason, verdict.queue_at) == ("y", WaitReason.RATE, ("y",))
    assert verdict.ready_at == NOW + 60
    assert floor.due == due
    # It holds up nobody at the other.
    floor.now += 1
    floor.arrive("c", Demand.of({"x": 1}))
    assert floor.look("c").granted


def test_out_of_patience_it_blocks_no_rate_while_it_waits_for_a_slot_elsewhere():
    floor = Floor({"api": 4, "asset": 1}, rates={"api": Rate(60, 60)})
    floor.arrive("holder", Demand.of({"asset": 1}))
    assert floor.look("holder").granted
    floor.arrive("patient", Demand.parse("api+asset"))
    floor.look("patient")
    for second in range(100, 110):
        floor.now = float(second)
        verdict = floor.look("patient")
        assert (verdict.pool, verdict.queue_at) == ("asset", ("asset",))
        floor.arrive(f"other{second}", Demand.of({"api": 1}))
        assert floor.look(f"other{second}").granted
        del floor.holding[f"other{second}"]
    del floor.holding["holder"]
    floor.now = 109.5
    verdict = floor.look("patient")
    assert (verdict.reason, set(verdict.queue_at)) == (WaitReason.RATE, {"api", "asset"})
    # Now that only the next start is missing, it is the next to start, and the asset is kept.
    floor.now = 110.0
    floor.arrive("late", Demand.of({"api": 1}))
    floor.arrive("other", Demand.of({"asset": 1}))
    assert floor.look("late").reason is WaitReason.RATE
    assert floor.look("other").reason is WaitReason.BEHIND
    assert floor.look("patient").granted


# ---- fair order ------------------------------------------------------------------------------


def serve(floor, ticks, duration, arrivals, shuffle=lambda names: None):
    """Let everybody look at each tick, and whoever goes in hold for so long; who went in, when."""
    served, leaves = [], {}
    for tick in range(ticks):
        floor.now = float(tick)
        for name in [n for n, at in leaves.items() if at <= tick]:
            del floor.holding[name], leaves[name]
        arrivals(tick)
        changed = True
        while changed:
            changed = False
            looking = list(floor.tickets)
            shuffle(looking)
            for name in looking:
                floor.look(name)
                if name in floor.holding:
                    leaves[name] = tick + duration
                    served.append((tick, name))
                    changed = True
        free = floor.limits["x"] - len(floor.holding)
        assert not (free and floor.tickets), "a slot is free and somebody waits"
    return served


@pytest.mark.parametrize("patience", [0.0, 10.0, float("inf")])
def test_a_backfill_does_not_starve_the_daily_run(patience):
    """The slot that is freed next is the daily run's, however long the backfill has waited."""
    floor = Floor({"x": 4}, patience=patience, fair={"x"})

    def arrivals(tick):
        if tick == 0:
            for number in range(60):  # Of which 36 go in by the end.
                floor.arrive(f"backfill{number}", Demand.of({"x": 1}), group="backfill")
        if tick == 31:
            floor.arrive("daily", Demand.of({"x": 1}))

    served = serve(floor, 45, 5, arrivals)
    assert [tick for tick, name in served if name == "daily"] == [35]


def shares(limit, count, duration, shuffle):
    """How many slots each of so many groups that always wait is given, whoever looks first."""
    floor = Floor({"x": 0}, patience=float("inf"), fair={"x"})
    serial = iter(range(10**6))

    def arrivals(tick):
        floor.limits["x"] = limit if tick else 0  # So that all of them wait when it begins.
        for group in range(count):  # The first always has far more waiting than the last.
            waiting = sum(floor.groups[name] == str(group) for name in floor.tickets)
            for _ in range(limit * (count - group + 1) - waiting):
                floor.arrive(f"run{next(serial)}", Demand.of({"x": 1}), group=str(group))

    served = serve(floor, 25, duration, arrivals, shuffle)
    assert len(served) == limit * (24 // duration)
    return Counter(floor.groups[name] for _, name in served)


@settings(max_examples=15, deadline=None, phases=[Phase.generate])  # Shrinking takes long.
@given(
    st.integers(1, 5),
    st.integers(2, 5),
    st.sampled_from([1, 2, 4]),
    st.randoms(use_true_random=False),
)
def test_groups_that_always_wait_get_even_shares_whoever_looks_first(
    limit, count, duration, random
):
    counts = shares(limit, count, duration, random.shuffle)
    assert len(counts) == count
    assert max(counts.values()) - min(counts.values()) <= 1


def test_priority_goes_before_fairness_and_the_older_before_the_younger():
    floor = Floor({"x": 2}, fair={"x"})
    for name, group, priority in (
        ("holder", "a", 0), ("a1", "a", 0), ("b1", "b", 0), ("c1", "c", 0), ("a2", "a", 1),
    ):  # fmt: skip
        floor.arrive(name, Demand.of({"x": 2 if name == "holder" else 1}), priority, group)
        floor.look(name)
    del floor.holding["holder"]
    floor.groups["kept"] = "a"
    floor.holding["kept"] = {"x": (1,)}  # So that one slot at a time is free.
    order = []
    while floor.tickets:
        for name in sorted(floor.tickets, reverse=True):
            if floor.look(name).granted:
                order.append(name)
                break
        else:
            del floor.holding[order[-1]]
    assert order == ["a2", "b1", "c1", "a1"]
