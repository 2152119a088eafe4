"""Which ticket may acquire slots: the rules of admission, as pure functions.

Tickets are ordered by priority, then first come, first served, or by a fair share of each group
(see ``order``). The smaller ticket number settles every tie, so the same view always gives the same
verdict. A demand gets all its pools or none: slots of each pool with a limit, and one start of each
pool with a rate (see ``rate``).

Queues. A waiting ticket stands in the queue of one pool only: a pool that holds it up. So a hundred
tickets that wait for one asset hold up no other ticket at the warehouse that they share with it.
When a ticket moves to another queue it keeps its rank.

Patience. If tickets took only free slots, a stream of small demands could pass a large one for
ever. So a ticket that has waited longer than ``patience_seconds`` stands in the queues of all its
pools and reserves its slots there: no ticket behind it takes them. The exceptions:

- A ticket reserves slots only when the current holders' slots would be enough for it after earlier
  impatient tickets took theirs, and when a full burst of starts would reach it.
- At pools with a rate it reserves a start last, when only rates still hold it up. A start that no
  ticket takes is lost, so none is reserved for a ticket that waits for slots elsewhere.
- If the order of a pool is fair, only the first impatient ticket there reserves.

Bounds. A decision reads the first ``WAITERS_SEEN_MAX`` waiters of each queue. A ticket behind more
waiters than that waits, even if slots are free, because the tickets ahead take first.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.model import Granted, QueuedTicket, Verdict, Waiting, WaitReason
from dagster_lifeguard.engine.rules.order import Rank, queue_of, rank_of
from dagster_lifeguard.engine.rules.rate import nanoseconds, seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dagster_lifeguard.engine.rules.model import PoolView, Ticket, View

PATIENCE_SECONDS = 300.0
"""How long, by default, a ticket lets later ones pass."""

_BOTTLENECK_ORDER = (
    WaitReason.TOO_LARGE,
    WaitReason.PAUSED,
    WaitReason.FULL,
    WaitReason.BEHIND,
    WaitReason.RATE,
)
"""A ticket queues at the pool that will probably hold it up the longest: the first of these."""


def decide(
    view: View, ticket: Ticket, now: float, *, patience_seconds: float = PATIENCE_SECONDS
) -> Verdict:
    """Decide whether this ticket, which holds nothing yet, may acquire its slots now.

    Args:
        view: The pools of the ticket's demand as they are under the lock.
        ticket: The ticket; without a number it ranks behind all others of its priority.
        now: The time by which patience and rates are judged.
        patience_seconds: How long a ticket lets later ones pass.

    Returns:
        ``Granted`` with slot numbers that are free and within each limit, or ``Waiting`` with the
        pool that holds the ticket up and the queues in which it now stands.
    """
    wanted = {
        term.name: term.slots
        for term in ticket.demand.terms
        for settings in (view.pools[term.name].settings,)
        if settings.limit is not None or settings.rate is not None
    }
    ahead = {pool: _ahead_of(ticket, view.pools[pool]) for pool in wanted}
    left = _Left({pool: view.pools[pool] for pool in wanted})
    if any(ahead.values()):
        left.without(ahead, now, patience_seconds)
    out_of_sight = {
        pool
        for pool, waiters in ahead.items()
        if not view.pools[pool].whole and len(waiters) == len(view.pools[pool].queue)
    }
    now_ns = nanoseconds(now)
    start_at = {
        name: rate.start_at(pool.due_ns, now_ns, left.starts_taken[name] + 1)
        for name, pool in left.pools.items()
        for rate in (pool.settings.rate,)
        if rate is not None
    }
    held_up = {
        pool: WaitReason.RATE
        if start_at.get(pool, 0) > now_ns and slots <= left.slots[pool]
        else _reason(view.pools[pool], slots)
        for pool, slots in wanted.items()
        if slots > left.slots[pool] or pool in out_of_sight or start_at.get(pool, 0) > now_ns
    }
    if not held_up:
        return Granted(
            {
                name: pool.free_slots(wanted[name])
                for name, pool in left.pools.items()
                if pool.settings.limit is not None
            }
        )

    def badness(pool: str) -> tuple[int, int, str]:
        later_first = -start_at[pool] if held_up[pool] is WaitReason.RATE else 0
        return _BOTTLENECK_ORDER.index(held_up[pool]), later_first, pool

    bottleneck = min(held_up, key=badness)
    queue_at: tuple[str, ...] = (bottleneck,)
    if (
        ticket.since is not None
        and now - ticket.since > patience_seconds
        and not out_of_sight
        and left.can_insist(wanted)
    ):
        has_the_rest = held_up.keys() <= start_at.keys()
        queue_at = tuple(
            pool for pool in wanted if has_the_rest or pool not in start_at or pool == bottleneck
        )
    reason = held_up[bottleneck]
    return Waiting(
        pool=bottleneck,
        reason=reason,
        ahead=len(ahead[bottleneck]),
        queue_at=queue_at,
        since=ticket.since,
        ready_at=seconds(start_at[bottleneck]) if reason is WaitReason.RATE else None,
    )


def next_in_line(
    pools: Iterable[PoolView], now: float, *, patience_seconds: float = PATIENCE_SECONDS
) -> tuple[QueuedTicket, ...]:
    """The waiters to wake: a hint, never a grant.

    Each pool is judged alone, so this may wake a ticket that another pool holds up. Such a ticket
    moves to the queue of that pool and wakes the next ticket here. A ticket that a rate holds up is
    not woken: it knows its start time.
    """
    found = {
        waiter.number: waiter
        for pool in pools
        for waiter in fitting(
            (waiter for _, waiter in queue_of(pool)),
            _free(pool),
            pool.settings.limit,
            now,
            patience_seconds,
        )
    }
    return tuple(found.values())


def fitting(
    queue: Iterable[QueuedTicket],
    free: float,
    limit: int | None,
    now: float,
    patience_seconds: float,
) -> Iterator[QueuedTicket]:
    """The waiters of one pool that its free slots are enough for, if each takes its slots.

    Args:
        queue: The waiters, best first.
        free: The free slots.
        limit: The limit of the pool.
        now: The time.
        patience_seconds: How long a waiter lets later ones pass.
    """
    for waiter in queue:
        if free <= 0:
            return
        if waiter.slots <= free:
            yield waiter
            free -= waiter.slots
        elif now - waiter.since > patience_seconds and waiter.slots <= (limit or 0):
            free -= waiter.slots


def _ahead_of(ticket: Ticket, pool: PoolView) -> list[tuple[Rank, QueuedTicket]]:
    if not pool.queue:
        return []
    mine = rank_of(ticket, pool)
    return [(rank, waiter) for rank, waiter in queue_of(pool) if rank < mine]


def _free(pool: PoolView) -> float:
    return math.inf if pool.settings.limit is None else pool.free


class _Left:
    """What is left in pools after the tickets ahead have taken, or reserved, their slots.

    Attributes:
        pools: The pools, by name.
        slots: The free slots that are left, by pool.
        starts_taken: How many tickets ahead take a start, by pool.
    """

    def __init__(self, pools: Mapping[str, PoolView]) -> None:
        self.pools = pools
        self.slots = {name: _free(pool) for name, pool in pools.items()}
        limits = {name: pool.settings.limit for name, pool in pools.items()}
        self._limits = {
            name: math.inf if limit is None else limit for name, limit in limits.items()
        }
        self._for_patient = dict(self._limits)
        self.starts_taken = dict.fromkeys(pools, 0)
        self._impatient_at: set[str] = set()

    def without(
        self,
        ahead: Mapping[str, list[tuple[Rank, QueuedTicket]]],
        now: float,
        patience_seconds: float,
    ) -> None:
        """Subtract what tickets ahead take, in rank order.

        A ticket that is queued at several pools counts at its worst rank.
        """
        slots_of: dict[int, dict[str, int]] = {}
        waiters: dict[int, tuple[Rank, QueuedTicket]] = {}
        for pool, queue in ahead.items():
            for rank, waiter in queue:
                slots_of.setdefault(waiter.number, {})[pool] = waiter.slots
                others = waiters.get(waiter.number, (rank, waiter))
                waiters[waiter.number] = max((rank, waiter), others, key=lambda item: item[0])
        for _, waiter in sorted(waiters.values(), key=lambda item: item[0]):
            slots = slots_of[waiter.number]
            if any(count > self._limits[pool] for pool, count in slots.items()):
                continue  # Only a higher limit can help it: its reserved slots would be lost.
            impatient = now - waiter.since > patience_seconds
            if impatient or all(count <= self.slots[pool] for pool, count in slots.items()):
                for pool, count in slots.items():
                    self.slots[pool] -= count
                    self.starts_taken[pool] += 1
            if impatient:
                for pool, count in slots.items():
                    self._for_patient[pool] -= count
                    self._impatient_at.add(pool)

    def can_insist(self, wanted: Mapping[str, int]) -> bool:
        """Whether this demand may reserve: the holders' slots and a full burst would be enough.

        If the order is fair, only the first impatient ticket may. Two pools may order two tickets
        differently; then each ticket would reserve in one pool the slots that the other needs.
        """
        return all(
            slots <= self._for_patient[name]
            and (settings.rate is None or self.starts_taken[name] < settings.rate.burst)
            and (settings.fair_by is None or name not in self._impatient_at)
            for name, slots in wanted.items()
            for settings in (self.pools[name].settings,)
        )


def _reason(pool: PoolView, slots: int) -> WaitReason:
    limit = pool.settings.limit
    if limit == 0:
        return WaitReason.PAUSED
    if limit is not None and slots > limit:
        return WaitReason.TOO_LARGE
    return WaitReason.FULL if slots > _free(pool) else WaitReason.BEHIND
