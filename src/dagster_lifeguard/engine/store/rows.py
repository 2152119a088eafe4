"""Rows of the databases as the model's values; the same columns in both."""

from __future__ import annotations

import json
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from dagster_lifeguard.engine.rules.model import (
    WAITERS_SEEN_MAX,
    Demand,
    Entry,
    EntryKind,
    Holding,
    PoolSnapshot,
    PoolView,
    QueuedTicket,
    Ticket,
    TicketKey,
)
from dagster_lifeguard.engine.rules.order import line, members_to_see, queue_of, turns_in_force
from dagster_lifeguard.engine.rules.pool_settings import NOTHING_SET, PoolSettings, most_slots
from dagster_lifeguard.engine.rules.rate import Rate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from dagster_lifeguard.engine.store.contract import Changes

Grouped = TypeVar("Grouped", Holding, Ticket, Holding | Ticket)


def holdings(held: Iterable[Sequence[Any]]) -> tuple[Holding, ...]:
    """Holdings of rows of their slots, in order.

    Args:
        held: Rows (pool, slot_no, run_id, step_key, fence, priority, since, owners). The owners are
            the sessions that own it; None for none.
    """
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
            owners=frozenset(row[7] or ()),
        )
        for key, row in first.items()
    )


def pool_view(pool: str, row: Sequence[Any], taken: Iterable[int], now: float) -> PoolView:
    """The view of a pool without its queue.

    Args:
        pool: The pool.
        row: Its row: fence, limit_known, due_ns, turn, and the columns of its settings.
        taken: Numbers of the slots that are held.
        now: The store's clock.
    """
    fence, limit_known, due_ns, turn, *of_settings = row
    return PoolView(
        pool=pool,
        settings=settings(of_settings, now),
        taken=frozenset(taken),
        fence=fence,
        limit_known=limit_known,
        due_ns=due_ns,
        turn=turn,
    )


def fair_view(
    found: PoolView,
    holders: Iterable[tuple[int, str]],
    heads: Iterable[Sequence[Any]],
    asking: Mapping[str, int],
) -> PoolView:
    """The view of a pool whose order is fair, with the first of each group as its queue.

    Args:
        found: The view without its queue.
        holders: The group that holds each slot.
        heads: The first of each line, of those lines of each size that are ranked best: where the
            turn of its group begins, if that is known, and the row of a waiter. Perhaps also of
            lines that ask for more slots than the limit.
        asking: Where the turn of the group that asks begins, if it is known.
    """
    most = most_slots(found.pool, found.settings.limit, found.limit_known)
    turns = dict(asking)
    firsts: dict[str, QueuedTicket] = {}
    for begins, *row in heads:
        head = waiter(row)
        if head.slots > most:
            continue
        if begins is not None:
            turns[head.group] = begins
        first = firsts.setdefault(head.group, head)
        if (-head.priority, head.number) < (-first.priority, first.number):
            firsts[head.group] = head
    return replace(
        found,
        holders=dict(holders),
        turns=turns_in_force(found, turns.items()),
        queue=tuple(firsts.values()),
    )


def groups_to_see(found: PoolView) -> tuple[PoolView, dict[str, int]]:
    """Of which groups more than the first is to be seen, and how many at most.

    Args:
        found: The view with the first of each group as its queue.

    Returns:
        The view with the first of all other groups that are to be seen, and these groups.
    """
    seen = members_to_see(queue_of(found), WAITERS_SEEN_MAX + 1)
    alone = tuple(first for first, count in seen if count == 1)
    return replace(found, queue=alone), {first.group: count for first, count in seen if count > 1}


def with_queue(found: PoolView, queue: Iterable[Sequence[Any]]) -> PoolView:
    """The view with the best of its queue, and no more of it than decisions look at.

    Args:
        found: The view with some of its queue, or none.
        queue: The others of the best-ranked waiters, one more than are seen if there are so many,
            and perhaps some that are not, or that ask for more slots than the limit: rows (number,
            priority, slots, since, run_id, step_key, session, group).
    """
    most = most_slots(found.pool, found.settings.limit, found.limit_known)
    others = (other for other in map(waiter, queue) if other.slots <= most)
    everybody = replace(found, queue=(*found.queue, *others))
    ranked = [waiter for _, waiter in queue_of(everybody)]
    whole = len(ranked) <= WAITERS_SEEN_MAX
    return replace(everybody, queue=tuple(ranked[:WAITERS_SEEN_MAX]), whole=whole)


def without_over(
    found: PoolSnapshot,
    holdings: Collection[tuple[str, str]],
    tickets: Collection[int],
    lost: Mapping[TicketKey, str],
) -> PoolSnapshot:
    """The snapshot with what is over set apart, and what has lost its step's process marked.

    Args:
        found: The snapshot with everything among ``holdings`` and ``waiting``.
        holdings: The keys of the holdings that are over.
        tickets: The numbers of the tickets that are over.
        lost: Of holdings that are not over, the process that executed the step and is dead.
    """
    if not (holdings or tickets or lost):
        return found
    over_holdings = [replace(h, is_over=True) for h in found.holdings if h.key in holdings]
    over_tickets = [replace(t, is_over=True) for t in found.waiting if t.number in tickets]
    return replace(
        found,
        holdings=tuple(
            replace(h, lost=lost.get(h.key, "")) for h in found.holdings if h.key not in holdings
        ),
        waiting=tuple(t for t in found.waiting if t.number not in tickets),
        over=(*over_holdings, *over_tickets),
    )


def fair_snapshot(
    found: PoolSnapshot,
    holders: Iterable[tuple[int, str]],
    turn: int,
    turns: Iterable[tuple[str, int]],
    groups: Iterable[tuple[int, str]],
) -> PoolSnapshot:
    """The snapshot of a pool whose order is fair.

    Args:
        found: The snapshot as it would be first come, first served.
        holders: The group that holds each slot.
        turn: The pool's turn.
        turns: Where the turns of groups begin.
        groups: The group of each ticket, by number.
    """
    pool = found.pool
    of_slot, of_number = dict(holders), dict(groups)

    def grouped(item: Grouped) -> Grouped:
        if isinstance(item, Holding):
            group = of_slot.get(item.slots[pool][0], "")
        else:
            group = of_number.get(item.number or 0, "")
        return replace(item, groups={pool: group})

    held = tuple(map(grouped, found.holdings))
    waiting = tuple(map(grouped, found.waiting))
    over = tuple(map(grouped, found.over))
    fair = replace(found, holdings=held, over=over, turn=turn, turns=dict(turns))
    return replace(fair, waiting=tuple(line(fair, waiting, held)))


def waiter(row: Sequence[Any]) -> QueuedTicket:
    """The waiter of a row (number, priority, slots, since, run_id, step_key, session, group)."""
    number, priority, slots, since, run_id, step_key, session, *group = row
    return QueuedTicket(
        number, priority, slots, since, TicketKey(run_id, step_key), session, *group
    )


def settings(row: Sequence[Any], now: float) -> PoolSettings:
    """The settings in force at this time, by a row of the columns of settings.

    Args:
        row: limit, rate_starts, rate_seconds, rate_burst, fair_by, temporary_limit,
            temporary_until.
        now: The store's clock.
    """
    limit, starts, seconds, burst, fair_by, temporary, until = row
    rate = None if starts is None else Rate(starts, seconds, burst)
    lasting = PoolSettings(limit, rate, fair_by)
    return lasting if until is None else lasting.with_limit(temporary, until).at(now)


def all_settings(found: Iterable[Sequence[Any]], now: float) -> dict[str, PoolSettings]:
    """The settings of the pools that have any, of rows (pool, and the columns of settings)."""
    read = ((pool, settings(row, now)) for pool, *row in sorted(found, key=itemgetter(0)))
    return {pool: of_pool for pool, of_pool in read if of_pool != NOTHING_SET}


def kept_settings(found: PoolSettings) -> dict[str, object]:
    """The columns of the engine's own table for these settings; Dagster's has the lasting limit."""
    rate = found.rate
    return {
        "rate_starts": rate and rate.starts,
        "rate_seconds": rate and rate.seconds,
        "rate_burst": rate and rate.burst,
        "fair_by": found.fair_by,
        "temporary_limit": None if found.fall_back is None else found.limit,
        "temporary_until": None if found.fall_back is None else found.fall_back.at,
    }


def set_settings(changes: Changes) -> Iterator[tuple[str, dict[str, object]]]:
    """Statements that write the settings of pools, with their arguments."""
    for pool, before, after in changes.settings:
        limit = after.lasting_limit
        if limit != before.lasting_limit:
            if limit is None:
                yield "delete_limit", {"pool": pool}
            else:
                yield "set_limit", {"pool": pool, "limit": limit}
            yield "know_limit", {"pool": pool, "limit": limit}
        yield "set_settings", {"pool": pool, **kept_settings(after)}
        if after.fair_by != before.fair_by:
            yield "regroup", {"pool": pool, "group": None if after.fair_by is None else ""}
    for pool, limit in changes.limits_known:
        yield "know_limit", {"pool": pool, "limit": limit}


def groups(changes: Changes) -> Iterator[tuple[str, dict[str, object]]]:
    """Statements that set the groups and turns of waiters and holders, with their arguments."""
    for ticket in (changes.enqueue, changes.requeue):
        if ticket is not None:
            for pool, group in ticket.groups.items():
                yield "set_group", {"pool": pool, **ticket.key._asdict(), "group": group}
    grant = changes.grant
    if grant is not None:
        for pool, group in grant.groups.items():
            yield "set_group_of_holder", {"pool": pool, **grant.key._asdict(), "group": group}
    for pool, group, begins, turn in changes.turns:
        yield "set_turn_of_group", {"pool": pool, "group": group, "begins": begins}
        yield "set_turn", {"pool": pool, "turn": turn}
        yield "forget_turns", {"pool": pool, "turn": turn}


def entry(row: Sequence[Any]) -> Entry:
    """The entry of a row of the ledger, its columns in the order of the attributes."""
    return Entry(EntryKind(row[0]), *row[1:])


def entry_row(entry: Entry, at: float) -> tuple[Any, ...]:
    """The row of a new entry, in the order of the ledger's columns: the time comes first."""
    e = entry
    of_ticket = (e.run_id, e.step_key, e.slots, e.fence, e.session, e.seconds)
    return (at, e.kind.value, e.pool, *of_ticket, e.limit, e.detail)


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
