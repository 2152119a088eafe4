"""The engine's transactions: lock, read, decide, write, wake.

A process may decide on a guess; the store checks the guess under its locks before writing. All
pools of a demand are locked in sorted order and granted together or not at all. So no ticket holds
one pool while it waits for another, and no two transactions can deadlock. A waiter acquires its
slots itself; a release only wakes waiters. So a lost wake-up or a dead waiter costs time, never a
slot.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from dagster_lifeguard.engine import bookkeeping
from dagster_lifeguard.engine.engine_options import DUE_SECONDS
from dagster_lifeguard.engine.rules.model import EntryKind, Granted, TicketKey, Verdict
from dagster_lifeguard.engine.rules.pool_settings import NOTHING_SET
from dagster_lifeguard.engine.rules.rate import nanoseconds
from dagster_lifeguard.engine.store.contract import Scope, TryAgainError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dagster_lifeguard.engine.engine_options import EngineOptions, Point
    from dagster_lifeguard.engine.rules.model import QueuedTicket, Ticket, View
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
    from dagster_lifeguard.engine.session_member import Member
    from dagster_lifeguard.engine.store.contract import Changes, Store

logger = logging.getLogger(__name__)

REAP_COUNT_MAX = 100
"""The most sessions that one reaping ends."""
BURY_COUNT_MAX = 1000
"""The most waiting tickets of the dead that are deleted at once."""
_HOLDERS_COUNT_MAX = 10
"""The most dead holders of its pools that a claim ends."""
_OTHERS_COUNT_MAX = 2
"""The most other dead processes that a claim ends: its part of what all claims share."""

_LOOKS_MAX = 20


def _due_soon(verdict: Verdict, view: View) -> float | None:
    """When the ticket may start, if it is next and that is worth waiting for."""
    if isinstance(verdict, Granted) or verdict.ready_at is None or verdict.ahead:
        return None
    rate = view.pools[verdict.pool].settings.rate
    # At a high rate some transaction would wait while it holds the locks nearly all the time.
    if rate is None or rate.interval_ns < nanoseconds(5 * DUE_SECONDS):
        return None
    ends = (pool.settings.fall_back for pool in view.pools.values())
    if any(end is not None and end.at <= verdict.ready_at for end in ends):
        return None  # The view shows the limits and waiters of before.
    return verdict.ready_at if verdict.ready_at - view.now <= DUE_SECONDS else None


class Transactions:
    """What a process's session decides and has written, one transaction for each method.

    Each may raise ``TryAgainError``: do it again.

    Args:
        store: Where the tables are.
        options: The patience, and the limit of pools without one.
        own: The engine's part of the session; it is told what the engine holds, and holds no more.
        passing: Called at each point of each transaction.

    Attributes:
        settings_seen: What was set of pools when they were last seen.
    """

    def __init__(
        self, store: Store, options: EngineOptions, own: Member, passing: Callable[[Point], None]
    ) -> None:
        self._store = store
        self._options = options
        self._own = own
        self._passing = passing
        self.settings_seen: dict[str, PoolSettings] = {}

    def claim(self, ticket: Ticket, look_up: Callable[[], Mapping[str, str]]) -> Verdict:
        """Grant what the ticket asks for, or let it wait.

        Args:
            ticket: The ticket.
            look_up: The tags of its run, if the order of a pool asks for them.
        """
        write = self._store.grant_unseen
        if write is None or self._own.waits(ticket.key):
            return self._claim_by_look(ticket, look_up)
        return self._claim_unseen(ticket, write) or self._claim_by_look(ticket, look_up)

    def _claim_unseen(
        self, ticket: Ticket, write: Callable[[View, Changes], int | None]
    ) -> Granted | None:
        """Decide on idle pools, and have it written if idle they are: in one message, mostly."""
        default_limit = self._options.default_limit
        seen = self._seen(ticket)
        if any(of_pool.rate or of_pool.fair_by or of_pool.fall_back for of_pool in seen.values()):
            return None
        presumed = bookkeeping.presumed(seen, default_limit)
        session = self._own.open()
        view = bookkeeping.with_limits_in_force(presumed, default_limit)
        patience_seconds = self._options.patience_seconds
        verdict, changes = bookkeeping.claimed(view, ticket, {}, session, patience_seconds)
        if not isinstance(verdict, Granted) or changes is None:
            return None
        self._passing("begin")
        fence = write(presumed, changes)
        self._passing("committed")
        if fence is None:
            return None
        granted = replace(verdict, fence=fence)
        # Left or lost in the meantime? Then a look finds the holding and gives it another owner.
        return granted if self._own.note(ticket.key, granted, view, session, 0.0) else None

    def _claim_by_look(self, ticket: Ticket, look_up: Callable[[], Mapping[str, str]]) -> Verdict:
        key = ticket.key
        reaped = False
        seen = self._seen(ticket)
        tags = look_up() if any(of_pool.fair_by for of_pool in seen.values()) else None
        groups = bookkeeping.groups_of(tags or {}, seen)
        for _ in range(_LOOKS_MAX):
            session = self._own.open()
            self._passing("begin")
            scope = Scope(ticket.demand.pools, key.run_id, key.step_key, session, groups)
            verdict = None
            asked_at = time.monotonic()
            with self._store.begin(scope) as transaction:
                view = transaction.view
                of_pools = {name: pool.settings for name, pool in view.pools.items()}
                self.settings_seen.update(of_pools)
                view = bookkeeping.with_limits_in_force(view, self._options.default_limit)
                self._passing("viewed")
                asks_otherwise = any(old.demand != ticket.demand for old in view.tickets)
                # Looked up without the locks in hand, and only where somebody asks for it.
                lacks_groups = groups != bookkeeping.groups_of(tags or {}, of_pools)
                can_decide = view.session_alive and not asks_otherwise and not lacks_groups
                if can_decide and (reaped or not view.expired):
                    patience = self._options.patience_seconds
                    verdict, changes = bookkeeping.claimed(view, ticket, groups, session, patience)
                    due_at = _due_soon(verdict, view)
                    if due_at is not None:
                        view = replace(view, now=transaction.wait_until(due_at).now)
                        verdict, changes = bookkeeping.claimed(
                            view, ticket, groups, session, patience
                        )
                    self._passing("decided")
                    if changes is not None:
                        transaction.commit(changes)
                    self._passing("committed")
            # Left or lost in the meantime? Then what was granted needs another owner.
            if verdict is not None and self._own.note(key, verdict, view, session, asked_at):
                return verdict
            if not view.session_alive:
                self._own.lose(session)
            elif lacks_groups:
                tags = look_up() if tags is None else tags
                groups = bookkeeping.groups_of(tags, of_pools)
            elif asks_otherwise:
                self.end(Scope((), key.run_id, key.step_key), EntryKind.RELEASED)
            elif verdict is None:
                self._reap_some(ticket.demand.pools)
                reaped = True
        raise AssertionError(f"{key} found no stable view in {_LOOKS_MAX} looks")

    def _seen(self, ticket: Ticket) -> dict[str, PoolSettings]:
        """What is set of the ticket's pools, as they were last seen."""
        return {pool: self.settings_seen.get(pool, NOTHING_SET) for pool in ticket.demand.pools}

    def adopt(self, key: TicketKey, *, executes: bool) -> int | None:
        """Own what the ticket holds, too; its fence, or None if it holds nothing.

        The slots of a holding whose lease is over were not granted again yet, unless its owners
        were revoked. So revoked sessions are ended first.
        """
        for _ in range(_LOOKS_MAX):
            session = self._own.open()
            for revoked in self._store.revoked_sessions():
                self.end(Scope((), ended=(revoked,)), EntryKind.EXPIRED)
            pools = self._store.pools_of(key.run_id, key.step_key, ())
            self._passing("begin")
            held = None
            with self._store.begin(Scope(pools, key.run_id, key.step_key, session)) as transaction:
                view = transaction.view
                self._passing("viewed")
                if view.session_alive and bookkeeping.is_covered(view):
                    if not view.holdings:
                        return None
                    changes = bookkeeping.adopted(view, session, executes=executes)
                    if changes is not None:
                        transaction.commit(changes)
                    (held,) = (Granted(h.slots, h.fence) for h in view.holdings)
                    self._passing("committed")
            if held is not None and self._own.note(key, held, view, session, 0.0):
                return held.fence
            if not view.session_alive:
                self._own.lose(session)
        raise AssertionError(f"{key} found no stable view in {_LOOKS_MAX} looks")

    def give_back(self, key: TicketKey, grant: Granted) -> bool:
        """End this very grant; False if it has ended already."""

        def next_up(view: View) -> tuple[QueuedTicket, ...]:
            view = bookkeeping.with_limits_in_force(view, self._options.default_limit)
            return bookkeeping.next_up(view, self._options.patience_seconds)

        self._passing("begin")
        ended = self._store.release(key, grant, self._own.id or "", next_up)
        self._passing("committed")
        return ended

    def end(
        self,
        scope: Scope,
        kind: EntryKind,
        fence: int | None = None,
        owner: str | None = None,
        by: str | None = None,
        *,
        waiting_only: bool = False,
        all_sessions: bool = False,
    ) -> bool:
        """End what the scope names; False if there was nothing to end.

        Args:
            scope: A run, a step, or sessions. Without pools, those where these hold or wait.
            kind: ``RELEASED`` or ``EXPIRED``, for the ledger.
            fence: Only the holding with this fence.
            owner: Only holdings and tickets that this session alone owns.
            by: The session that ends it, for the ledger; this one by default.
            waiting_only: Nothing that holds.
            all_sessions: Nothing unless all sessions of the scope can be ended.
        """
        by = by or self._own.id or ""
        pools = scope.pools
        for _ in range(_LOOKS_MAX):
            if not pools:
                pools = self._store.pools_of(scope.run_id, scope.step_key, scope.ended)
            self._passing("begin")
            with self._store.begin(replace(scope, pools=pools)) as transaction:
                view = bookkeeping.with_limits_in_force(
                    transaction.view, self._options.default_limit
                )
                self._passing("viewed")
                if bookkeeping.is_covered(view):
                    if all_sessions and set(view.sessions) != set(scope.ended):
                        return False
                    if waiting_only:
                        view = replace(view, holdings=())
                    if fence is not None:
                        kept = tuple(h for h in view.holdings if h.fence == fence)
                        view = replace(view, holdings=kept, tickets=())
                    if owner is not None:  # Nothing that another process has come to own.
                        view = bookkeeping.owned_only(view, owner)
                    changes = bookkeeping.ended(view, kind, by, self._options.patience_seconds)
                    self._passing("decided")
                    if changes is None:
                        return False
                    transaction.commit(changes)
                    for holding in changes.drop_holdings:
                        self._own.forget(holding.key)
                    for ticket in changes.drop_tickets:
                        self._own.forget(ticket.key)
                    self._passing("committed")
                    return True
            pools = ()  # They moved between the read and the lock: read again.
        raise AssertionError(f"{scope} found no stable view in {_LOOKS_MAX} looks")

    def withdraw(self, key: TicketKey) -> bool:
        """Let a ticket wait no more; one that was granted meanwhile stays as it is."""
        return self.end(Scope((), *key), EntryKind.RELEASED, waiting_only=True)

    def reap(self) -> int:
        """End sessions whose lease has run out; how many were."""
        self._say_that_it_lives()
        expired = self._store.expired_sessions(REAP_COUNT_MAX)
        ended = sum(self._end_dead(session) for session in expired)
        if expired:
            self._store.bury(BURY_COUNT_MAX)
        return ended

    def _reap_some(self, pools: tuple[str, ...]) -> None:
        """Free the slots of dead holders in these pools, and delete some other rows of the dead."""
        self._say_that_it_lives()
        for session in self._store.holders_over(pools, _HOLDERS_COUNT_MAX):
            self._end_dead(session)
        self._store.bury(BURY_COUNT_MAX)
        for session in self._store.expired_sessions(_OTHERS_COUNT_MAX):
            self._end_dead(session)

    def _say_that_it_lives(self) -> None:
        """Extend this process's own lease, if it is late and not reaped yet."""
        if self._own.id is not None:
            self._own.beat()

    def _end_dead(self, session: str) -> bool:
        if session == self._own.id:
            return False
        return self.end(Scope((), ended=(session,)), EntryKind.EXPIRED)

    def end_expired(self, sessions: tuple[str, ...]) -> bool:
        """End these sessions if the leases of all have run out; whether they were ended."""
        if self._own.id in sessions:
            self._own.beat()  # This process lives.
        return self.end(Scope((), ended=sessions), EntryKind.EXPIRED, all_sessions=True)

    def configure(
        self, pools: tuple[str, ...], change: Callable[[str, PoolSettings], PoolSettings]
    ) -> None:
        """Change the settings of these pools, all or nothing.

        Args:
            pools: Their names.
            change: Maps a pool and its present settings to its new settings.
        """
        self._passing("begin")
        with self._store.begin(Scope(pools)) as transaction:
            self._passing("viewed")
            changes = bookkeeping.configured(transaction.view, change, self._own.id or "")
            self._passing("decided")
            if changes is not None:
                transaction.commit(changes)
        self._passing("committed")
        self._tell(pools)  # Also when there was no change: it may be that only the answer was lost.

    def _tell(self, pools: tuple[str, ...]) -> None:
        """Wake waiters that may start now; a waiter that misses this looks again by itself."""
        try:
            with self._store.begin(Scope(pools)) as transaction:
                view = bookkeeping.with_limits_in_force(
                    transaction.view, self._options.default_limit
                )
                told = bookkeeping.to_be_told(view, self._options.patience_seconds)
                if told is not None:
                    transaction.commit(told)
        except TryAgainError as error:
            logger.info("A wake-up was lost: %s", error)
