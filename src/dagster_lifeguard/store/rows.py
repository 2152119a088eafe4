"""Rows of the databases as the model's values; the same columns in both."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dagster_lifeguard.model import (
    WAITERS_SEEN_MAX,
    Demand,
    Entry,
    EntryKind,
    Holding,
    PoolView,
    Ticket,
    TicketKey,
    Waiter,
)
from dagster_lifeguard.rate import Rate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence


def holdings(
    held: Iterable[Sequence[Any]], owners: Mapping[TicketKey, Collection[str]]
) -> tuple[Holding, ...]:
    """Holdings of rows (pool, slot_no, run_id, step_key, fence, priority, since), in order."""
    slots: dict[TicketKey, dict[str, list[int]]] = {}
    first: dict[TicketKey, Sequence[Any]] = {}
    for row in held:
        key = TicketKey(row[2], row[3])
        first.setdefault(key, row)
        numbers = slots.setdefault(key, {}).setdefault(row[0], [])
        if row[1] not in numbers:  # A session that ends with another owns the same row.
            numbers.append(row[1])
    return tuple(
        Holding(
            key=key,
            slots={pool: tuple(numbers) for pool, numbers in slots[key].items()},
            fence=row[4],
            priority=row[5],
            since=row[6],
            owners=frozenset(owners.get(key, ())),
        )
        for key, row in first.items()
    )


def pool_view(
    pool: str,
    row: Sequence[Any],
    taken: Iterable[int],
    queue: Sequence[Sequence[Any]],
) -> PoolView:
    """The view of a pool of a row (fence, limit_known, limit, starts, seconds, burst, due_ns).

    Args:
        pool: The pool.
        row: Its row.
        taken: Numbers of the slots that are held.
        queue: The best-ranked waiters, one more than are seen if there are so many: rows (number,
            priority, slots, since, run_id, step_key, session).
    """
    fence, limit_known, limit, *of_rate, due_ns = row
    return PoolView(
        pool=pool,
        limit=limit,
        taken=frozenset(taken),
        queue=tuple(
            Waiter(w[0], w[1], w[2], w[3], TicketKey(w[4], w[5]), w[6])
            for w in queue[:WAITERS_SEEN_MAX]
        ),
        whole=len(queue) <= WAITERS_SEEN_MAX,
        fence=fence,
        limit_known=limit_known,
        rate=rate(of_rate),
        due_ns=due_ns,
    )


def rate(row: Sequence[int | None]) -> Rate | None:
    """The rate of a row (starts, seconds, burst), if there is one."""
    starts, seconds, burst = row
    if starts is None or seconds is None or burst is None:
        return None
    return Rate(starts, seconds, burst)


def of_rate(found: Rate | None) -> tuple[int | None, int | None, int | None]:
    """The row of a rate, or of none."""
    return (None, None, None) if found is None else (found.starts, found.seconds, found.burst)


def entry(row: Sequence[Any]) -> Entry:
    """The entry of a row of the ledger, its columns in the order of the attributes."""
    return Entry(EntryKind(row[0]), *row[1:])


def demand_text(demand: Demand) -> str:
    """The demand as it is stored: JSON, for a stock pool's name may hold any character."""
    return json.dumps({term.name: term.slots for term in demand.terms})


def ticket(row: Sequence[Any], queue_at: Iterable[str]) -> Ticket:
    """The ticket of a row (number, run_id, step_key, priority, demand, session, since)."""
    return Ticket(
        key=TicketKey(row[1], row[2]),
        demand=Demand.of(json.loads(row[4])),
        priority=row[3],
        number=row[0],
        since=row[6],
        queue_at=tuple(queue_at),
        session=row[5],
    )


def pools_of(held: Iterable[Holding], waiting: Iterable[Ticket]) -> tuple[str, ...]:
    """The pools where any of these hold or wait, sorted."""
    pools = {pool for holding in held for pool in holding.slots}
    return tuple(sorted(pools.union(*(item.demand.pools for item in waiting))))
