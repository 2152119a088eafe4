"""Who may go in: the rules of admission, as pure functions.

The order is priority, then first come, first served; a smaller ticket number settles every tie,
so the same view always gives the same verdict. A demand gets all its pools or none.

Where a ticket stands in line. A ticket that cannot go in stands at the queue of the one pool that
holds it up, and not at the others, so that a hundred tickets waiting for one asset hold up nobody
else at the warehouse they share with it. Being ahead is kept: whenever the ticket moves to another
queue it stands there by its old rank.

Patience. Taking only what is free lets a stream of small demands pass a large one for ever. So a
ticket that waited longer than ``patience_seconds`` stands at the queues of all its pools, and what
it asks for there is set aside for it: nobody ranked behind it goes in on those slots. It does so
once its turn is next: a ticket that would still lack slots if every present holder left, because of
others ahead of it that are out of patience too, sets nothing aside yet.

Bounds. A decision looks at ``WAITERS_SEEN_MAX`` waiters of each queue. A ticket behind more than
that many waits, whatever is free: those ahead of it take first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.model import Granted, Reason, Verdict, Waiter, Waiting

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dagster_lifeguard.model import PoolView, Ticket, View

PATIENCE_SECONDS = 300.0
"""How long, by default, a ticket lets later ones pass."""

_BOTTLENECK_ORDER = (Reason.TOO_LARGE, Reason.PAUSED, Reason.FULL, Reason.BEHIND)
"""Of the pools that hold a ticket up, it queues at the one likely to hold it up the longest."""


def decide(
    view: View, ticket: Ticket, now: float, *, patience_seconds: float = PATIENCE_SECONDS
) -> Verdict:
    """Decide whether this ticket, which holds nothing yet, goes in now.

    Args:
        view: The pools of the ticket's demand as they are under the lock.
        ticket: The ticket; without a number it ranks behind all others of its priority.
        now: The time by which patience is judged.
        patience_seconds: How long a ticket lets later ones pass.

    Returns:
        ``Granted`` with slot numbers that are free and within each limit, or ``Waiting`` with the
        pool that holds the ticket up and the queues where it is to stand.
    """
    wanted = {
        term.name: term.slots
        for term in ticket.demand.terms
        if view.pools[term.name].limit is not None
    }
    ahead = {pool: _ahead_of(ticket, view.pools[pool]) for pool in wanted}
    if any(ahead.values()):
        left, left_for_patient = _after(ahead, view.pools, now, patience_seconds)
    else:
        left = {pool: view.pools[pool].free for pool in wanted}
        left_for_patient = {pool: view.pools[pool].limit or 0 for pool in wanted}
    out_of_sight = {
        pool
        for pool, waiters in ahead.items()
        if not view.pools[pool].whole and len(waiters) == len(view.pools[pool].queue)
    }
    held_up = [p for p, slots in wanted.items() if slots > left[p] or p in out_of_sight]
    if not held_up:
        return Granted({p: view.pools[p].free_slots(slots) for p, slots in wanted.items()})

    reasons = {pool: _reason(view.pools[pool], wanted[pool]) for pool in held_up}
    bottleneck = min(held_up, key=lambda pool: (_BOTTLENECK_ORDER.index(reasons[pool]), pool))
    insists = (
        ticket.since is not None
        and now - ticket.since > patience_seconds
        and not out_of_sight
        and all(slots <= left_for_patient[pool] for pool, slots in wanted.items())
    )
    return Waiting(
        pool=bottleneck,
        reason=reasons[bottleneck],
        ahead=len(ahead[bottleneck]),
        queue_at=tuple(wanted) if insists else (bottleneck,),
        since=ticket.since,
    )


def next_in_line(
    pools: Iterable[PoolView], now: float, *, patience_seconds: float = PATIENCE_SECONDS
) -> tuple[Waiter, ...]:
    """The waiters that should look again, judged by each pool alone: a hint, never a grant.

    Judging by one pool may wake a ticket that another pool holds up; it moves to that queue when
    it looks, and wakes whoever is next here.
    """
    found: dict[int, Waiter] = {}
    for pool in pools:
        free = sum(w.slots for w in pool.queue) if pool.limit is None else pool.free
        for waiter in pool.queue:
            if free <= 0:
                break
            if waiter.slots <= free:
                found[waiter.number] = waiter
                free -= waiter.slots
            elif now - waiter.since > patience_seconds and waiter.slots <= (pool.limit or 0):
                free -= waiter.slots
    return tuple(found.values())


def _ahead_of(ticket: Ticket, pool: PoolView) -> list[Waiter]:
    number = ticket.number
    if number is None:
        return [w for w in pool.queue if w.priority >= ticket.priority]
    rank = (-ticket.priority, number)
    return [w for w in pool.queue if (-w.priority, w.number) < rank]


def _after(
    ahead: Mapping[str, list[Waiter]],
    pools: Mapping[str, PoolView],
    now: float,
    patience_seconds: float,
) -> tuple[dict[str, int], dict[str, int]]:
    """What is left in each pool once those ahead have taken, or set aside, what is theirs.

    Returns:
        The slots left of those free now, and the slots left of the limit beside those set aside.
    """
    left = {pool: pools[pool].free for pool in ahead}
    left_for_patient = {pool: pools[pool].limit or 0 for pool in ahead}
    slots_of: dict[int, dict[str, int]] = {}
    waiters: dict[int, Waiter] = {}
    for pool, queue in ahead.items():
        for waiter in queue:
            slots_of.setdefault(waiter.number, {})[pool] = waiter.slots
            waiters[waiter.number] = waiter
    for waiter in sorted(waiters.values(), key=lambda w: (-w.priority, w.number)):
        slots = slots_of[waiter.number]
        if any(count > (pools[pool].limit or 0) for pool, count in slots.items()):
            continue  # Only a higher limit can help it; setting slots aside would block the pool.
        impatient = now - waiter.since > patience_seconds
        if impatient or all(count <= left[pool] for pool, count in slots.items()):
            for pool, count in slots.items():
                left[pool] -= count
        if impatient:
            for pool, count in slots.items():
                left_for_patient[pool] -= count
    return left, left_for_patient


def _reason(pool: PoolView, slots: int) -> Reason:
    if pool.limit == 0:
        return Reason.PAUSED
    if slots > (pool.limit or 0):
        return Reason.TOO_LARGE
    return Reason.FULL if slots > pool.free else Reason.BEHIND
