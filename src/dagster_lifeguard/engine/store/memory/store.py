"""The reference store: plain dictionaries, with the locks of a database. For tests and simulation.

It is the measure of the others: what it does under the conformance suite, they do. Its transactions
exclude each other as those on PostgreSQL do, by the rows that they lock: see ``locks``.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from dataclasses import replace
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.model import (
    WAITERS_SEEN_MAX,
    Entry,
    EntryKind,
    Holding,
    PoolSnapshot,
    PoolView,
    QueuedTicket,
    Ticket,
    TicketKey,
    View,
)
from dagster_lifeguard.engine.rules.order import line, ranked, turns_in_force
from dagster_lifeguard.engine.rules.pool_settings import NOTHING_SET, most_slots
from dagster_lifeguard.engine.store import rows
from dagster_lifeguard.engine.store.clock import clock
from dagster_lifeguard.engine.store.local_store import LocalStore
from dagster_lifeguard.engine.store.locked_view import LockedView
from dagster_lifeguard.engine.store.memory.locks import Locks
from dagster_lifeguard.engine.store.memory.tables import MemoryTables

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
    from dagster_lifeguard.engine.store.contract import Changes, Scope

SCHEMA_VERSION = 0


class MemoryStore(LocalStore):
    """Keeps the tables in this process.

    Args:
        clock: Seconds since the epoch; a test may hand in one that it moves itself.
        mutex: Makes the threads of the process take turns; a test may hand in one that decides
            whose turn it is.
    """

    def __init__(
        self, clock: Callable[[], float] = clock, mutex: threading.Condition | None = None
    ) -> None:
        self.rows = MemoryTables()
        self._clock = clock
        self._lock = mutex or threading.Condition(threading.Lock())
        self._locks = Locks(self._lock)
        self._woken: dict[str, set[TicketKey]] = {}
        self._wake = threading.Condition()

    def migrate(self) -> int:
        return SCHEMA_VERSION

    def begin(self, scope: Scope) -> MemoryTransaction:
        with self._lock:
            ended = self._locks.take(scope, self._endable)
            try:
                return MemoryTransaction(self, scope, self._view(scope, ended))
            except BaseException:
                self._locks.give_back(scope, ended)
                raise

    def _endable(self, scope: Scope) -> list[str]:
        now, leases = self._clock(), self.rows.lease_until
        return [
            session
            for session in scope.ended
            if session in leases and (not scope.expired_only or leases[session] <= now)
        ]

    def leave(self, scope: Scope, ended: Collection[str]) -> None:
        """Unlock what a transaction locked."""
        with self._lock:
            self._locks.give_back(scope, ended)

    def write(self, scope: Scope, view: View, changes: Changes) -> None:
        """Commit what a transaction changes: all of it, or an error and nothing.

        Args:
            scope: What it has locked.
            view: What it has seen.
            changes: What it changes.
        """
        del scope
        with self._lock:
            self.rows.apply(changes, view.now)
        if changes.wake:
            self._wake_up(changes.wake)

    def pools_of(
        self, run_id: str | None, step_key: str | None, sessions: Collection[str]
    ) -> tuple[str, ...]:
        with self._lock:
            holdings, tickets = self._in_question(run_id, step_key, sessions)
            pools = {pool for holding in holdings for pool in holding.slots}
            return tuple(sorted(pools.union(*(ticket.demand.pools for ticket in tickets))))

    def open_session(
        self, session: str, label: str, lease_seconds: float, *, is_listening: bool = True
    ) -> None:
        del is_listening
        with self._lock:
            self.rows.labels[session] = label
            self.rows.lease_until[session] = self._clock() + lease_seconds

    def heartbeat(self, session: str, lease_seconds: float) -> bool:
        with self._lock:
            self._locks.wait_for_end_of(session)
            if not self.rows.lease_until.get(session):
                return False
            self.rows.lease_until[session] = self._clock() + lease_seconds
            return True

    def expired_sessions(self, count_max: int) -> tuple[str, ...]:
        with self._lock:
            return self._expired(count_max)

    def _expired(self, count_max: int) -> tuple[str, ...]:
        now = self._clock()
        late = [(until, s) for s, until in self.rows.lease_until.items() if until <= now]
        return tuple(session for _, session in sorted(late)[:count_max])

    def bury(self, count_max: int) -> None:
        with self._lock:
            leases = self.rows.lease_until
            owning = set().union(*self.rows.owners.values())
            for session in self._expired(len(leases)):
                if session not in owning and not self._locks.is_locked(session):
                    leases[session] = 0.0
            dead = [t.key for t in self.rows.tickets.values() if leases.get(t.session) == 0]
            for key in dead[:count_max]:
                self.rows.drop_ticket(key)
            needed = {t.session for t in self.rows.tickets.values()}.union(
                *self.rows.owners.values()
            )
            for session in [s for s, until in leases.items() if until == 0 and s not in needed]:
                del leases[session], self.rows.labels[session]

    def holders_over(self, pools: Collection[str], count_max: int) -> tuple[str, ...]:
        with self._lock:
            expired = set(self._expired(len(self.rows.lease_until)))
            found = {
                session
                for key, holding in self.rows.holdings.items()
                if holding.slots.keys() & set(pools)
                for session in self.rows.owners[key] & expired
            }
            return tuple(sorted(found)[:count_max])

    def revoked_sessions(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(s for s, until in self.rows.lease_until.items() if until == 0)

    def poll(
        self, session: str, timeout_seconds: float, *, is_next: bool = False
    ) -> frozenset[TicketKey]:
        del is_next  # Who is woken need not look.
        with self._wake:
            self._wake.wait_for(lambda: self._woken.get(session), timeout_seconds)
            return frozenset(self._woken.pop(session, ()))

    def settings(self) -> Mapping[str, PoolSettings]:
        with self._lock:
            now = self._clock()
            found = ((pool, kept.at(now)) for pool, kept in sorted(self.rows.settings.items()))
            return {pool: settings for pool, settings in found if settings != NOTHING_SET}

    def snapshots(self, pools: Sequence[str]) -> tuple[PoolSnapshot, ...]:
        with self._lock:
            return tuple(self._snapshot(pool) for pool in pools)

    def _over(self) -> tuple[set[TicketKey], set[int]]:
        """The keys of the holdings that are over, and the numbers of the tickets."""
        now = self._clock()
        expired = {session for session, until in self.rows.lease_until.items() if until <= now}
        holdings = {k for k, owners in self.rows.owners.items() if owners and owners <= expired}
        tickets = {t.number or 0 for t in self.rows.tickets.values() if t.session in expired}
        return holdings, tickets

    def _lost(self) -> dict[TicketKey, str]:
        """Of each holding, the process that executed its step, if it is dead."""
        now = self._clock()
        lost = {key: h.lost for key, h in self.rows.holdings.items() if h.lost}
        for key, sessions in self.rows.executing.items():
            leases = {s: self.rows.lease_until[s] for s in sessions if s in self.rows.lease_until}
            if any(until > now for until in leases.values()):
                lost.pop(key, None)
            elif leases:
                lost[key] = self.rows.labels[min(leases)]
        return lost

    def _snapshot(self, pool: str) -> PoolSnapshot:
        everything = PoolSnapshot(
            pool=pool,
            settings=self.rows.settings.get(pool, NOTHING_SET).at(self._clock()),
            holdings=tuple(
                replace(
                    holding,
                    slots={pool: holding.slots[pool]},
                    owners=frozenset(self.rows.owners[holding.key]),
                    lost="",
                )
                for holding in sorted(self.rows.holdings.values(), key=lambda h: h.fence)
                if pool in holding.slots
            ),
            waiting=tuple(t for t in self.rows.tickets.values() if pool in t.demand.pools),
            due_ns=self.rows.due_ns.get(pool, 0),
            turn=self.rows.turn.get(pool, 0),
            turns={group: at for (name, group), at in self.rows.turns.items() if name == pool},
        )
        found = rows.without_over(everything, *self._over(), self._lost())
        return replace(found, waiting=tuple(line(found, found.waiting, found.holdings)))

    def ticket(self, key: TicketKey) -> Ticket | Holding | None:
        with self._lock:
            over_holdings, over_tickets = self._over()
            holding = self.rows.holdings.get(key)
            if holding is not None:
                owners, is_over = frozenset(self.rows.owners[key]), key in over_holdings
                return replace(holding, owners=owners, is_over=is_over, lost="")
            ticket = self.rows.tickets.get(key)
            if ticket is None:
                return None
            return replace(ticket, is_over=ticket.number in over_tickets)

    def has_expired(self, key: TicketKey) -> bool:
        with self._lock:
            return any(
                e.kind is EntryKind.EXPIRED and (e.run_id, e.step_key) == key
                for e in self.rows.ledger
            )

    def busy_pools(self, *, with_over: bool = False) -> tuple[str, ...]:
        with self._lock:
            return rows.pools_of(*self._present(with_over=with_over))

    def run_ids(self) -> frozenset[str]:
        with self._lock:
            holdings, tickets = self._present()
            keys = [holding.key for holding in holdings] + [ticket.key for ticket in tickets]
            return frozenset(key.run_id for key in keys)

    def _present(self, *, with_over: bool = False) -> tuple[list[Holding], list[Ticket]]:
        """The holdings and tickets, by default without those that are over."""
        over_holdings, over_tickets = (set(), set()) if with_over else self._over()
        return (
            [h for key, h in self.rows.holdings.items() if key not in over_holdings],
            [t for t in self.rows.tickets.values() if t.number not in over_tickets],
        )

    def ledger(self, *, pool: str | None = None, count_max: int = 1000) -> tuple[Entry, ...]:
        with self._lock:
            found = (e for e in reversed(self._numbered()) if pool in (None, e.pool))
            return tuple(islice(found, count_max))

    def entries(
        self,
        *,
        pool: str | None = None,
        kind: EntryKind | None = None,
        since: float = 0.0,
        after: int = 0,
        count_max: int = 1000,
    ) -> tuple[Entry, ...]:
        with self._lock:
            found = (
                entry
                for entry in self._numbered()
                if entry.number > after
                and entry.at >= since
                and pool in (None, entry.pool)
                and kind in (None, entry.kind)
            )
            return tuple(islice(found, count_max))

    def _numbered(self) -> list[Entry]:
        first = self.rows.trimmed + 1
        return [replace(entry, number=n) for n, entry in enumerate(self.rows.ledger, start=first)]

    def held_at(self, number: int, *, pool: str | None = None) -> tuple[Entry, ...]:
        with self._lock:
            since = [e for e in self._numbered() if e.number >= number]
            ended = [e for e in since if e.kind in (EntryKind.RELEASED, EntryKind.EXPIRED)]
            held = [
                *(replace(e, at=e.at - (e.seconds or 0.0), seconds=None, number=0) for e in ended),
                *(
                    Entry(EntryKind.GRANTED, name, *h.key, len(slots), h.fence, at=h.since)
                    for h in self.rows.holdings.values()
                    for name, slots in h.slots.items()
                ),
            ]
            first: dict[str, int] = {}
            for entry in since:
                if entry.kind is EntryKind.GRANTED:
                    first.setdefault(entry.pool, entry.fence)
            found = (
                replace(entry, kind=EntryKind.GRANTED)
                for entry in held
                if pool in (None, entry.pool) and entry.fence < first.get(entry.pool, math.inf)
            )
            return tuple(sorted(found, key=lambda entry: (entry.pool, entry.fence)))

    def now(self) -> float:
        return self._clock()

    def trim_ledger(self, keep_seconds: float, count_max: int) -> int:
        with self._lock:
            before = self._clock() - keep_seconds
            old = tuple(islice(takewhile(lambda e: e.at < before, self.rows.ledger), count_max))
            self.rows.ledger = self.rows.ledger[len(old) :]
            self.rows.trimmed += len(old)
            return len(old)

    def close(self) -> None:
        """There is nothing to close."""

    def _in_question(
        self, run_id: str | None, step_key: str | None, sessions: Collection[str]
    ) -> tuple[list[Holding], list[Ticket]]:
        rows = self.rows
        if run_id is not None and step_key is not None and not sessions:
            key = TicketKey(run_id, step_key)
            holding, ticket = rows.holdings.get(key), rows.tickets.get(key)
            return [] if holding is None else [holding], [] if ticket is None else [ticket]

        def of_run(key: TicketKey) -> bool:
            return key.run_id == run_id and step_key in (None, key.step_key)

        ended = set(sessions)
        return (
            [
                holding
                for key, holding in rows.holdings.items()
                if of_run(key) or rows.owners[key] & ended
            ],
            [t for key, t in rows.tickets.items() if of_run(key) or t.session in ended],
        )

    def _view(self, scope: Scope, sessions: tuple[str, ...]) -> View:
        now = self._clock()
        rows = self.rows
        holdings: list[Holding] = []
        tickets: list[Ticket] = []
        if scope.run_id is not None or sessions:
            holdings, tickets = self._in_question(scope.run_id, scope.step_key, sessions)
        return View(
            now=now,
            session_alive=bool(rows.lease_until.get(scope.session)),
            lease_ends=min(rows.lease_until.values(), default=None),
            pools={pool: self._pool_view(pool, now) for pool in sorted(set(scope.pools))},
            holdings=tuple(replace(h, owners=frozenset(rows.owners[h.key])) for h in holdings),
            tickets=tuple(tickets),
            sessions=sessions,
        )

    def _pool_view(self, pool: str, now: float) -> PoolView:
        rows = self.rows
        settings = rows.settings.get(pool, NOTHING_SET).at(now)
        slots = rows.slots.get(pool, {})
        known, turn = rows.limits_known.get(pool), rows.turn.get(pool, 0)
        most = most_slots(pool, settings.limit, known)
        leases = rows.lease_until
        waiters = [
            waiter
            for waiter in rows.queues.get(pool, {}).values()
            if waiter.slots <= most and leases.get(waiter.session, 0.0) > now
        ]
        holders: dict[int, str] = {}
        turns: dict[str, int] = {}
        if settings.fair_by is None:
            queue = ranked(waiters)
        else:
            bare = PoolView(pool, settings, limit_known=known, turn=turn)
            stored = ((group, at) for (name, group), at in rows.turns.items() if name == pool)
            turns = turns_in_force(bare, stored)
            holders = {n: rows.holdings[key].groups.get(pool, "") for n, key in slots.items()}
            queue = ranked(waiters, Counter(holders.values()), turns, turn)
        return PoolView(
            pool=pool,
            settings=settings,
            taken=frozenset(slots),
            queue=tuple([waiter for _, waiter in queue[:WAITERS_SEEN_MAX]]),
            whole=len(queue) <= WAITERS_SEEN_MAX,
            fence=rows.fences.setdefault(pool, 0),
            limit_known=known,
            due_ns=rows.due_ns.get(pool, 0),
            holders=holders,
            turn=turn,
            turns=turns,
        )

    def _wake_up(self, waiters: Iterable[QueuedTicket]) -> None:
        with self._wake:
            for waiter in waiters:
                self._woken.setdefault(waiter.session, set()).add(waiter.key)
            self._wake.notify_all()


class MemoryTransaction(LockedView):
    """Holds the locks of its scope until it is committed or left."""

    def __init__(self, store: MemoryStore, scope: Scope, view: View) -> None:
        super().__init__(view)
        self._store = store
        self._scope: Scope | None = scope

    def commit(self, changes: Changes) -> None:
        assert self._scope is not None, "this transaction is over"
        self._store.write(self._scope, self.view, changes)
        self._leave()

    def _leave(self) -> None:
        if self._scope is not None:
            self._store.leave(self._scope, self.view.sessions)
            self._scope = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()
