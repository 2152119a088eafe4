"""Computes the rows that a verb writes from its view: pure, and the same for every store."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.admission import decide, next_in_line
from dagster_lifeguard.engine.rules.model import (
    Entry,
    EntryKind,
    Granted,
    Holding,
    PoolView,
    TicketKey,
    Verdict,
    View,
    WaitReason,
)
from dagster_lifeguard.engine.rules.order import queue_of, turns_after, turns_of_new_groups
from dagster_lifeguard.engine.rules.pool_settings import (
    PoolSettings,
    limit_in_force,
    rises_at,
    settings_in_force,
)
from dagster_lifeguard.engine.rules.rate import nanoseconds
from dagster_lifeguard.engine.store.contract import Changes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from dagster_lifeguard.engine.rules.model import QueuedTicket, Ticket


def with_limits_in_force(view: View, default_limit: int | None) -> View:
    """The view with the limit in force of each pool in place of the pool's own limit."""
    pools = {
        name: replace(pool, settings=settings)
        for name, pool in view.pools.items()
        for own in (pool.settings,)
        if (settings := settings_in_force(name, own, default_limit)) is not own
    }
    if not pools:
        return view
    return replace(view, pools={**view.pools, **pools})


def presumed(seen: Mapping[str, PoolSettings], default_limit: int | None) -> View:
    """Pools as they are when nobody else wants them.

    Args:
        seen: The pools, without a rate, a fair order or a temporary limit.
        default_limit: The limit of a pool that has none of its own.
    """
    pools = {}
    for pool, settings in seen.items():
        known = limit_in_force(pool, settings.limit, default_limit)
        pools[pool] = PoolView(pool, settings, limit_known=known)
    return View(now=0.0, session_alive=True, lease_ends=None, pools=pools)


def groups_of(tags: Mapping[str, str], settings: Mapping[str, PoolSettings]) -> dict[str, str]:
    """The group of a run with these tags, in each of these pools whose order is fair."""
    fair_by = ((pool, found.fair_by) for pool, found in settings.items())
    return {pool: tags.get(tag, "") for pool, tag in fair_by if tag is not None}


def claimed(
    view: View, asking: Ticket, groups: Mapping[str, str], session: str, patience_seconds: float
) -> tuple[Verdict, Changes | None]:
    """Decide a claim and compute what it writes; None if there is nothing to write.

    Args:
        view: The view under the locks.
        asking: The ticket as it asks.
        groups: The ticket's group in each pool in view whose order is fair.
        session: The session that asks.
        patience_seconds: See ``admission``.
    """
    key = asking.key
    if view.holdings:
        holding = view.holdings[0]
        return Granted(holding.slots, holding.fence), adopted(view, session)
    ticket = view.tickets[0] if view.tickets else asking
    if ticket.groups != groups:
        ticket = replace(ticket, groups=groups)
    verdict = decide(view, ticket, view.now, patience_seconds=patience_seconds)
    known = tuple(
        (pool.pool, limit)
        for pool in view.pools.values()
        for limit in (pool.settings.lasting_limit,)
        if pool.limit_known != limit
    )
    noticed = tuple(
        _limit_entry(pool, pool.settings, session, view.now)
        for name, _ in known
        for pool in (view.pools[name],)
    )
    if isinstance(verdict, Granted):
        due = tuple(
            (pool.pool, rate.due_after_start(pool.due_ns, nanoseconds(view.now)))
            for pool in view.pools.values()
            for rate in (pool.settings.rate,)
            if rate is not None
        )
        if not verdict.slots:
            if not known and not view.tickets and not due:
                return verdict, None
            return verdict, Changes(
                drop_tickets=view.tickets, due=due, limits_known=known, ledger=noticed
            )
        fence = 1 + max(view.pools[pool].fence for pool in verdict.slots)
        waited = 0.0 if ticket.since is None else view.now - ticket.since
        for pool, numbers in verdict.slots.items():
            limit = view.pools[pool].settings.limit
            assert limit is not None, f"{key} was given slots of {pool}, which is unlimited"
            assert max(numbers) <= limit, f"{key} was let in over {pool}'s limit of {limit}"
        granted = Holding(key, verdict.slots, fence, ticket.priority, since=view.now, groups=groups)
        entries = _entries(EntryKind.GRANTED, granted, session, waited, view.now)
        return Granted(verdict.slots, fence), Changes(
            session=session,
            grant=granted,
            drop_tickets=view.tickets,
            due=due,
            turns=tuple(
                (pool, group, *turns_after(group, ticket.priority, len(numbers), view.pools[pool]))
                for pool, group in groups.items()
                for numbers in (verdict.slots.get(pool),)
                if numbers is not None
            ),
            limits_known=known,
            ledger=(*noticed, *entries),
        )
    stands_at = [view.pools[pool] for pool in verdict.queue_at]
    begun = turns_of_new_groups(groups, stands_at)
    corrected = _corrected(view)
    enqueue = requeue = None
    wake: tuple[QueuedTicket, ...] = ()
    if ticket.number is None:
        enqueue = replace(ticket, queue_at=verdict.queue_at, session=session, since=view.now)
    elif (
        set(verdict.queue_at) != set(ticket.queue_at)
        or ticket.session != session
        or any(
            waiter.number == ticket.number and waiter.group != group
            for pool, group in groups.items()
            for waiter in view.pools[pool].queue
        )
    ):
        requeue = replace(ticket, queue_at=verdict.queue_at, session=session)
        left = (view.pools[p] for p in ticket.queue_at if p not in verdict.queue_at)
        wake = _to_wake(left, (), {key}, view.now, patience_seconds)
    else:
        if verdict.reason in (WaitReason.FULL, WaitReason.BEHIND):
            # It was perhaps woken for slots of which another has taken some since.
            held_up_at = view.pools[verdict.pool]
            fitting = _who_does_not_know(held_up_at, held_up_at, view.now, patience_seconds)
            wake = tuple(waiter for waiter in fitting if waiter.key != key)
        if not (known or begun or corrected or wake):
            return verdict, None
    of_rates = (
        _entry_of(EntryKind.RATE, pool.pool, pool.settings, session, view.now)
        for pool, _ in corrected
    )
    return verdict, Changes(
        session=session,
        enqueue=enqueue,
        requeue=requeue,
        due=tuple((pool.pool, due_ns) for pool, due_ns in corrected),
        turns=tuple((pool, groups[pool], turn, turn) for pool, turn in begun.items()),
        limits_known=known,
        ledger=(*noticed, *of_rates),
        wake=wake,
    )


def _corrected(view: View) -> tuple[tuple[PoolView, int], ...]:
    """The pools where the clock was set back since the last start, and what to keep as due there.

    It is written with the claim that notices it. A debt that each claim only cuts would stay as
    far ahead of the clock for ever. The ledger gets a row of the rate, for the audit to count by.
    """
    now_ns = nanoseconds(view.now)
    return tuple(
        (pool, due_ns)
        for pool in view.pools.values()
        for rate in (pool.settings.rate,)
        if rate is not None and (due_ns := rate.corrected(pool.due_ns, now_ns)) != pool.due_ns
    )


def adopted(view: View, session: str, *, executes: bool = False) -> Changes | None:
    """What making the session an owner of the holding in view writes; None when it is one.

    Args:
        view: What is seen under the locks.
        session: The session.
        executes: Whether its process executes the step.
    """
    (holding,) = view.holdings
    if session in holding.owners:
        return None
    return Changes(session=session, adopt=holding.key, executes=executes)


def ended(view: View, kind: EntryKind, session: str, patience_seconds: float) -> Changes | None:
    """What ending the view's sessions, or else its tickets, writes; None for nothing.

    A holding that has an owner besides the ended sessions only loses these owners.
    """
    holdings = view.holdings
    if view.sessions:
        gone = set(view.sessions)
        holdings = tuple(holding for holding in holdings if holding.owners <= gone)
    if not (holdings or view.tickets or view.sessions):
        return None
    keys = {holding.key for holding in holdings} | {ticket.key for ticket in view.tickets}
    touched = {pool for holding in holdings for pool in holding.slots}
    touched.update(*(ticket.demand.pools for ticket in view.tickets))
    entries = (
        entry
        for h in holdings
        for entry in _entries(kind, h, session, view.now - h.since, view.now)
    )
    pools = (view.pools[pool] for pool in sorted(touched))
    return Changes(
        drop_holdings=holdings,
        drop_tickets=view.tickets,
        drop_sessions=view.sessions,
        is_expiry=kind is EntryKind.EXPIRED,
        ledger=tuple(entries),
        wake=_to_wake(pools, holdings, keys, view.now, patience_seconds),
    )


def next_up(view: View, patience_seconds: float) -> tuple[QueuedTicket, ...]:
    """Who should look again once the view's holdings have ended."""
    keys = {holding.key for holding in view.holdings}
    return _to_wake(view.pools.values(), view.holdings, keys, view.now, patience_seconds)


def is_covered(view: View) -> bool:
    """Whether every pool of the tickets in question is locked."""
    held = (pool for holding in view.holdings for pool in holding.slots)
    asked = (pool for ticket in view.tickets for pool in ticket.demand.pools)
    return all(pool in view.pools for pools in (held, asked) for pool in pools)


def owned_only(view: View, session: str) -> View:
    """The view with those tickets in question that no other session owns."""
    return replace(
        view,
        holdings=tuple(holding for holding in view.holdings if holding.owners <= {session}),
        tickets=tuple(ticket for ticket in view.tickets if ticket.session == session),
    )


def configured(
    view: View, change: Callable[[str, PoolSettings], PoolSettings], session: str
) -> Changes | None:
    """What a change of the settings of all pools in view writes; None if nothing changes.

    Only the view after the change shows which waiters may start: see ``to_be_told``.

    Args:
        view: The view under the locks, with the pools' own limits.
        change: Maps a pool and its present settings to its new settings.
        session: The session that changes them, for the ledger.
    """
    # A temporary limit that was read a while ago may be over by now.
    wanted = ((pool, change(pool.pool, pool.settings).at(view.now)) for pool in view.pools.values())
    changed = [(pool, after) for pool, after in wanted if after != pool.settings]
    if not changed:
        return None
    now_ns = nanoseconds(view.now)
    entries = (
        _limit_entry(pool, after, session, view.now)
        if kind is EntryKind.LIMIT
        else _entry_of(kind, pool.pool, after, session, view.now)
        for pool, after in changed
        for kind in _kinds_of_change(pool.settings, after)
    )
    return Changes(
        settings=tuple((pool.pool, pool.settings, after) for pool, after in changed),
        due=tuple(
            (pool.pool, after.rate.taken_over(pool.settings.rate, pool.due_ns, now_ns))
            for pool, after in changed
            if after.rate is not None and after.rate != pool.settings.rate
        ),
        ledger=tuple(entries),
    )


def _kinds_of_change(before: PoolSettings, after: PoolSettings) -> Iterator[EntryKind]:
    old = before.texts
    yield from (EntryKind(name) for name, text in after.texts.items() if text != old[name])
    if (after.limit, after.fall_back) != (before.limit, before.fall_back):
        yield EntryKind.LIMIT


def to_be_told(view: View, patience_seconds: float) -> Changes | None:
    """The wake-ups of all waiters that may start, now or at a known time; None without any."""
    told = {
        waiter.number: waiter
        for waiters in (
            next_in_line(view.pools.values(), view.now, patience_seconds=patience_seconds),
            *map(_to_be_told_of_end, view.pools.values()),
        )
        for waiter in waiters
    }
    return Changes(wake=tuple(told.values())) if told else None


def _to_be_told_of_end(pool: PoolView) -> Iterator[QueuedTicket]:
    """The waiters that can start when the temporary limit ends: nobody wakes them then."""
    for ahead, (_, waiter) in enumerate(queue_of(pool)):
        if rises_at(pool.settings, ahead) is not None:
            yield waiter


def _to_wake(
    pools: Iterable[PoolView],
    gone: Collection[Holding],
    keys: Collection[TicketKey],
    now: float,
    patience_seconds: float,
) -> tuple[QueuedTicket, ...]:
    """The waiters to wake once these holdings and tickets are gone from these pools."""
    found: dict[int, QueuedTicket] = {}
    for pool in pools:
        if pool.queue:
            freed = {number for holding in gone for number in holding.slots.get(pool.pool, ())}
            queue = tuple(waiter for waiter in pool.queue if waiter.key not in keys)
            whole = pool.whole or not queue  # A waiter outside the view cannot be woken.
            after = replace(pool, taken=pool.taken - freed, queue=queue, whole=whole)
            for waiter in _who_does_not_know(pool, after, now, patience_seconds):
                found[waiter.number] = waiter
    return tuple(found.values())


def _who_does_not_know(
    before: PoolView, after: PoolView, now: float, patience_seconds: float
) -> Iterable[QueuedTicket]:
    """Waiters that may start now and have not already been told their start time.

    Otherwise every release would wake all waiters of a rate, to tell them the same time again.
    """
    fitting = next_in_line([after], now, patience_seconds=patience_seconds)
    rate = after.settings.rate
    if rate is None or len(after.queue) < len(before.queue):
        return fitting
    told = set(next_in_line([before], now, patience_seconds=patience_seconds))
    ready = rate.ready(after.due_ns, nanoseconds(now))
    return (w for place, w in enumerate(fitting) if place < ready or w not in told)


def _entries(
    kind: EntryKind, holding: Holding, session: str, seconds: float, at: float
) -> Iterator[Entry]:
    for pool, numbers in holding.slots.items():
        yield Entry(kind, pool, *holding.key, len(numbers), holding.fence, session, seconds, at=at)


def _limit_entry(pool: PoolView, settings: PoolSettings, session: str, at: float) -> Entry:
    return Entry(
        EntryKind.LIMIT,
        pool.pool,
        fence=pool.fence,
        session=session,
        limit=settings.limit,
        at=at,
        detail=None if settings.fall_back is None else str(settings.fall_back),
    )


def _entry_of(kind: EntryKind, pool: str, settings: PoolSettings, session: str, at: float) -> Entry:
    return Entry(kind, pool, session=session, at=at, detail=settings.texts[kind.value])
