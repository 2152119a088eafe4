"""The order at one pool: by an oracle that hands out slots one by one, and never sorts."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_lifeguard.engine.rules.model import (
    WAITERS_SEEN_MAX,
    Demand,
    PoolView,
    QueuedTicket,
    Ticket,
    TicketKey,
)
from dagster_lifeguard.engine.rules.order import SLOT, queue_of, rank_of, ranked, turns_after
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings, format_order, parse_order
from dagster_lifeguard.engine.store.rows import fair_view, groups_to_see, with_queue
from dagster_lifeguard.errors import ConfigError

GROUPS = "abc"


@st.composite
def queues(draw, count_max=80):
    """Waiters of some groups, and the slots that each group holds."""
    waiters = []
    for number in range(1, draw(st.integers(0, count_max)) + 1):
        priority = draw(st.sampled_from([0, 0, 0, 1]))
        slots = draw(st.sampled_from([1, 1, 1, 2, 3]))
        key = TicketKey(f"run{number}", "s")
        waiters.append(
            QueuedTicket(number, priority, slots, 0.0, key, "s", draw(st.sampled_from(GROUPS)))
        )
    some_turn = st.integers(0, 9).map(lambda slots: slots * SLOT)
    turns = draw(st.dictionaries(st.sampled_from(GROUPS), some_turn))
    return (
        waiters,
        Counter(draw(st.lists(st.sampled_from(GROUPS), max_size=6))),
        turns,
        draw(some_turn),
    )


def one_by_one(waiters, held, turns, turn):
    """Of the highest priority, the first of the group that has least, and count it as having.

    Of several, the one with the earliest turn, and then the one whose first came first.
    """
    left, has, found = list(waiters), Counter(held), []
    begins = {group: turns.get(group, turn) for group in GROUPS}
    while left:
        priority = max(w.priority for w in left)
        firsts = {}
        for waiter in left:
            if waiter.priority == priority:
                firsts.setdefault(waiter.group, waiter)
        least = min(has[group] for group in firsts)
        able = [w for group, w in firsts.items() if has[group] == least]
        earliest = min(begins[w.group] for w in able)
        best = min((w for w in able if begins[w.group] == earliest), key=lambda w: w.number)
        begins[best.group] += best.slots * SLOT
        has[best.group] += best.slots
        left.remove(best)
        found.append(best)
    return found


@given(queues(count_max=25))
def test_fair_is_to_serve_the_group_that_has_least_again_and_again(queue):
    waiters, held, *turns = queue
    found = ranked(reversed(waiters), held, *turns)
    assert [w for _, w in found] == one_by_one(waiters, held, *turns)


@given(queues(count_max=25))
def test_without_groups_it_is_priority_and_who_came_first(queue):
    waiters, *_ = queue
    first_come = sorted(waiters, key=lambda w: (-w.priority, w.number))
    assert [w for _, w in ranked(waiters)] == first_come


def view_of(waiters, held, turns, turn):
    slots = [group for group, count in held.items() for _ in range(count)]
    return PoolView(
        "x",
        PoolSettings(99, fair_by="team"),
        frozenset(range(1, len(slots) + 1)),
        tuple(waiters),
        holders=dict(enumerate(slots, start=1)),
        turns=turns,
        turn=turn,
    )


@given(queues())
def test_the_front_that_a_store_reads_is_the_front_of_all(queue):
    """The best of each group, and of the best groups as many as may count: nothing else is read."""
    assert_the_front_is_that_of_all(*queue)


def test_the_front_of_many_groups_is_the_front_of_all():
    chance = random.Random(0)
    for _ in range(200):
        teams = [f"team{min(chance.randrange(50), chance.randrange(50))}" for _ in range(120)]
        waiters = [
            QueuedTicket(
                number,
                chance.choice([0] * 30 + [1, -1]),
                chance.choice([1, 1, 1, 2, 3]),
                0.0,
                TicketKey(f"run{number}", "s"),
                "s",
                team,
            )
            for number, team in enumerate(teams, 1)
        ]
        held = Counter(chance.choices(teams, k=60))
        turns = {team: chance.randrange(9) * SLOT for team in set(teams[:20])}
        assert_the_front_is_that_of_all(waiters, held, turns, chance.randrange(5) * SLOT)


def assert_the_front_is_that_of_all(waiters, held, turns, turn):
    """As a store reads it: the first of each line of a size and a group, those ranked best."""
    lines = {}
    for waiter in sorted(waiters, key=lambda w: (-w.priority, w.number)):
        lines.setdefault((waiter.slots, waiter.group), []).append(waiter)

    def by_head(line):
        (_, group), (head, *_) = line
        return -head.priority, held.get(group, 0), turns.get(group, turn), head.number

    def row(w):
        return w.number, w.priority, w.slots, w.since, *w.key, w.session, w.group

    heads = [
        (turns.get(group, turn), *row(line[0]))
        for size in {size for size, _ in lines}
        for (_, group), line in sorted(
            (item for item in lines.items() if item[0][0] == size), key=by_head
        )[: WAITERS_SEEN_MAX + 1]
    ]
    view = replace(view_of((), held, turns, turn), limit_known=99)
    firsts, groups = groups_to_see(fair_view(view, view.holders.items(), heads, {}))
    members = [
        row(waiter) for (_, group), line in lines.items() for waiter in line[: groups.get(group, 0)]
    ]
    found = with_queue(firsts, members)
    best = [w for _, w in ranked(waiters, held, turns, turn)]
    assert list(found.queue) == best[:WAITERS_SEEN_MAX]
    assert found.whole == (len(waiters) <= WAITERS_SEEN_MAX)


@given(
    queues(), st.sampled_from(GROUPS), st.integers(0, 1), st.one_of(st.none(), st.integers(1, 80))
)
def test_a_ticket_ranks_by_the_front_as_it_does_by_all(queue, group, priority, number):
    waiters, held, *turns = queue
    ticket = Ticket(
        TicketKey("me", "s"), Demand.of({"x": 1}), priority, number, groups={"x": group}
    )
    if number is not None:
        waiters = [w for w in waiters if w.number != number]
        waiters.append(QueuedTicket(number, priority, 1, 0.0, ticket.key, "s", group))
    everybody = view_of(waiters, held, *turns)
    everybody = replace(everybody, queue=tuple(w for _, w in queue_of(everybody)))
    front = replace(everybody, queue=everybody.queue[:WAITERS_SEEN_MAX])
    ahead = [w for rank, w in queue_of(everybody) if rank < rank_of(ticket, everybody)]
    seen = [w for rank, w in queue_of(front) if rank < rank_of(ticket, front)]
    assert seen == ahead[:WAITERS_SEEN_MAX]


@pytest.mark.parametrize(
    ("text", "tag"),
    [("fifo", None), ("fair(tag:team)", "team"), ("fair(tag:a/b.c)", "a/b.c"),
     ("fair(backfill)", "dagster/backfill")],
)  # fmt: skip
def test_an_order_says_what_it_was_read_from(text, tag):
    assert parse_order(text) == tag
    assert format_order(tag) == text


@pytest.mark.parametrize("text", ["", "fair", "fair()", "fair(tag:)", "lifo", "fair(tag:a b)"])
def test_what_is_not_an_order_is_refused(text):
    with pytest.raises(ConfigError, match=r"fair\(tag:NAME\)"):
        parse_order(text)


def granted(group, slots, turns, turn, *asking, limit=8):
    """Where the group's next turn begins, and the pool's turn, in slots."""
    queue = tuple(
        QueuedTicket(number, priority, asks, 0.0, TicketKey(name, "s"), "s", name)
        for number, (name, asks, priority) in enumerate(asking, start=1)
    )
    before = view_of(queue, {}, {name: at * SLOT for name, at in turns.items()}, turn * SLOT)
    after = turns_after(
        group, 0, slots, replace(before, settings=PoolSettings(limit, fair_by="team"))
    )
    return tuple(at / SLOT for at in after)


def test_a_group_that_comes_back_starts_level_with_the_next_one_and_has_no_claim_to_the_past():
    # Alone, it takes the pool's turn with it, to where the turn begins that it has now.
    assert granted("a", 1, {"a": 9}, 7) == (10, 9)
    # Whoever comes begins where the pool's is.
    assert granted("b", 2, {"a": 9}, 7) == (9, 8)
    # It goes on from its own turn for as long as that is later.
    assert granted("a", 1, {"a": 9}, 3, ("b", 1, 0), ("c", 1, 0)) == (10, 3.25)


def test_the_turn_of_a_pool_moves_on_by_what_each_group_that_asks_might_have_got():
    a, b, c = ((name, 1, 0) for name in "abc")
    level = dict.fromkeys("abcd", 7)
    assert granted("a", 1, level, 7, a, b, c) == (8, 7.25)
    assert granted("a", 2, level, 7, b, c) == (9, 7.5)
    # At least to the earliest of those that ask, and not beyond the end of what is granted.
    assert granted("a", 1, {**level, "b": 9, "a": 8}, 7, a, b) == (9, 8)
    assert granted("a", 3, {"a": 5, "b": 7}, 7.5, b) == (8, 8)
    assert granted("a", 1, {"a": 5, "b": 7}, 7.5, b) == (6, 7.5)  # Nor does it ever go back.


def test_who_cannot_go_in_whoever_leaves_does_not_hold_the_turn_of_a_pool_back():
    """Or it would freeze the turn for all who come later."""
    turns = {"a": 9, "c": 7}
    assert granted("a", 1, turns, 7, ("c", 1, 0), ("d", 1, 0)) == (10, 7.25)
    for stuck in (("c", 1, -1), ("c", 9, 0)):
        assert granted("a", 1, turns, 7, stuck) == (10, 9)
