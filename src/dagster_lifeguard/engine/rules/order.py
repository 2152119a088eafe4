"""Which ticket is ahead at the queue of one pool.

A ticket is ahead of another one if, compared in this order:

1. its priority is higher;
2. in a fair pool, its share is smaller: the slots that its group holds in this pool, plus the slots
   that earlier tickets of its group ask for;
3. in a fair pool, its turn is earlier;
4. its number is smaller. Each number is given once, so there are no ties.

A group has a turn, the virtual start time of start-time fair queueing (Goyal, Vin and Cheng, 1996).
The turn begins where the group's last turn ended, or at the pool's turn if that is later, and each
granted slot moves it by ``SLOT``. So a group that joins the queue, or comes back, is level with the
groups that are served next, and gets no credit for the time in which it did not ask. The order of
tickets that start together does not depend on which of their processes looks first.

The pool has a turn too, the virtual time of WF2Q+ (Bennett and Zhang, 1997). With n groups asking,
a granted slot moves it by ``SLOT / (n + 1)``: at least to the earliest turn of these groups, and at
most to the end of the granted turn. It never goes back. Two bounds follow. Later tickets pass a
ticket only until the pool's turn reaches that ticket's own turn, even if new groups keep arriving.
And no group's turn is earlier than the pool's turn by more than the pool's slots, however long
something else keeps that group waiting.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.model import QueuedTicket
from dagster_lifeguard.engine.rules.pool_settings import most_slots

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dagster_lifeguard.engine.rules.model import Holding, PoolSnapshot, PoolView, Ticket

SLOT = 1_000
"""One slot, in the units of turns."""

Rank = tuple[int, int, int, float]
"""Minus the priority, the share, the turn, the number."""


def ranked(
    waiters: Iterable[QueuedTicket],
    held: Mapping[str, int] | None = None,
    turns: Mapping[str, int] | None = None,
    turn: int = 0,
) -> list[tuple[Rank, QueuedTicket]]:
    """Waiters with their ranks, best first.

    Args:
        waiters: Waiters of one pool. For each, all earlier waiters of its group are included.
        held: Slots held by each group if the order is fair; None otherwise.
        turns: Per group, where its next turn begins; a group not listed begins at ``turn``.
        turn: The pool's turn.
    """
    # By the number at the latest, which no two share: waiters themselves are never compared.
    if held is None:
        return sorted([((-w.priority, 0, 0, w.number), w) for w in waiters])
    in_line = sorted((-waiter.priority, waiter.number, waiter) for waiter in waiters)
    begins_of = turns or {}
    ahead: dict[str, int] = {}
    found = []
    for minus_priority, number, waiter in in_line:
        group = waiter.group
        before = ahead.get(group, 0)
        ahead[group] = before + waiter.slots
        share = held.get(group, 0) + before
        begins = begins_of.get(group, turn) + before * SLOT
        found.append(((minus_priority, share, begins, number), waiter))
    return sorted(found)


def queue_of(pool: PoolView) -> list[tuple[Rank, QueuedTicket]]:
    """The waiters in view of a pool with their ranks, best first."""
    return ranked(pool.queue, pool.held, pool.turns, pool.turn)


def members_to_see(
    heads: Sequence[tuple[Rank, QueuedTicket]], count: int
) -> list[tuple[QueuedTicket, int]]:
    """For each group, how many of its first waiters may be among the first ``count`` of a queue.

    The share of a group's second waiter is larger than that of its first, by the slots that the
    first asks for, at least. So with many groups, the first waiter of each is usually enough.

    Args:
        heads: The first waiter of each group, in order.
        count: How many waiters of the queue to read.
    """
    worst = heads[count - 1][0][:2] if len(heads) >= count else (math.inf, math.inf)
    return [
        (head, count - place if (minus_priority, share + head.slots) <= worst else 1)
        for place, ((minus_priority, share, *_), head) in enumerate(heads[:count])
    ]


def rank_of(ticket: Ticket, pool: PoolView) -> Rank:
    """The rank that a ticket has, or would have, in the queue of a pool."""
    number = math.inf if ticket.number is None else ticket.number
    if pool.held is None:
        return -ticket.priority, 0, 0, number
    group = ticket.groups.get(pool.pool, "")
    ahead = sum(
        w.slots
        for w in pool.queue
        if w.group == group and (-w.priority, w.number) < (-ticket.priority, number)
    )
    begins = pool.turns.get(group, pool.turn) + ahead * SLOT
    return -ticket.priority, pool.held.get(group, 0) + ahead, begins, number


def line(
    pool: PoolSnapshot, waiting: Iterable[Ticket], holdings: Iterable[Holding]
) -> list[Ticket]:
    """These waiting tickets in the order of the pool, given these holdings of its slots."""
    tickets = {ticket.number: ticket for ticket in waiting}
    held: Counter[str] | None = None
    if pool.settings.fair_by is not None:
        held = Counter()
        for holding in holdings:
            held[holding.groups.get(pool.pool, "")] += len(holding.slots[pool.pool])
    waiters = [
        QueuedTicket(
            number=ticket.number or 0,
            priority=ticket.priority,
            slots=ticket.demand.slots_of(pool.pool),
            since=ticket.since or 0.0,
            key=ticket.key,
            session=ticket.session,
            group=ticket.groups.get(pool.pool, ""),
        )
        for ticket in tickets.values()
    ]
    return [tickets[waiter.number] for _, waiter in ranked(waiters, held, pool.turns, pool.turn)]


def turns_after(group: str, priority: int, slots: int, pool: PoolView) -> tuple[int, int]:
    """The turns of a fair pool after a waiter of this group is granted slots of it.

    Returns:
        Where the next turn of the group begins, and the pool's turn.
    """
    # A ticket that could not start even in an empty pool must not hold back the pool's turn.
    limit = pool.settings.limit
    asking = {group} | {
        waiter.group
        for waiter in pool.queue
        if waiter.priority >= priority and (limit is None or waiter.slots <= limit)
    }
    begins = {name: pool.turns.get(name, pool.turn) for name in asking}
    end = begins[group] + slots * SLOT
    moved = pool.turn + math.ceil(slots * SLOT / (len(asking) + 1))
    return end, max(pool.turn, min(moved, end), min(begins.values()))


def turns_in_force(pool: PoolView, turns: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Where turns begin: none is behind the pool's turn by more than the pool's slots.

    Otherwise a group that waits for something else would save up turns and then take every slot.
    """
    most = most_slots(pool.pool, pool.settings.limit, pool.limit_known)
    earliest = earliest_turn(pool.turn, most)
    return {group: max(begins, earliest) for group, begins in turns}


def earliest_turn(turn: int, most: int) -> int:
    """The earliest turn that counts in a pool that has this turn and can grant so many slots."""
    return turn - most * SLOT


def turns_of_new_groups(groups: Mapping[str, str], pools: Iterable[PoolView]) -> dict[str, int]:
    """For each fair pool whose queue a ticket's group newly joins, where the group's turn begins.

    Args:
        groups: The ticket's group in each fair pool.
        pools: The pools in whose queues the ticket will stand.
    """
    return {
        pool.pool: pool.turn
        for pool in pools
        if pool.pool in groups and groups[pool.pool] not in pool.turns
    }
