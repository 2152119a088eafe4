"""The engine's verbs: claim, release, adopt, wait, reap.

Each verb is one transaction: lock, look, decide, write, wake. Who knows or presumes what it would
see decides first, and the store verifies that under the locks before it writes. All pools of a
demand are locked in sorted order and granted together or not at all, so nobody holds one pool while
waiting for another, and no two verbs can deadlock. The waiter takes its slots itself; whoever frees
some only hints, so a lost hint or a dead waiter costs time and never a slot.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from dagster_lifeguard import bookkeeping
from dagster_lifeguard.errors import ConfigError, StoreUnavailableError
from dagster_lifeguard.model import (
    LIMIT_MAX,
    EntryKind,
    Granted,
    Holding,
    LimitRow,
    PoolSnapshot,
    Ticket,
    TicketKey,
    Verdict,
)
from dagster_lifeguard.options import EngineOptions
from dagster_lifeguard.session import Session
from dagster_lifeguard.store.contract import Scope, TryAgainError
from dagster_lifeguard.store.retry import retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dagster_lifeguard.model import Demand, View, Waiter
    from dagster_lifeguard.options import Point
    from dagster_lifeguard.rate import Rate
    from dagster_lifeguard.store.contract import Store

logger = logging.getLogger(__name__)

REAP_COUNT_MAX = 100
"""The most sessions one reaping ends, so that a claim that reaps is not held up for long."""

_LOOKS_MAX = 20
_POLL_SLICE_SECONDS = 0.025
_TRIM_COUNT_MAX = 1000


def _pass_by(point: Point) -> None:
    del point


class Engine:
    """Grants, counts and frees slots for one process, and for the threads of it.

    Args:
        store: Where the tables are.
        options: Sessions and waiting.
        passing: Called at each point of each transaction, so that a test can order two of them
            exactly; does nothing by default.

    A fork of the process gets its own session. Slots held before the fork stay the parent's.
    """

    def __init__(
        self,
        store: Store,
        options: EngineOptions | None = None,
        passing: Callable[[Point], None] = _pass_by,
    ) -> None:
        self.store = store
        self.options = options or EngineOptions()
        self._passing = passing
        self._own = Session(store, self.options, self.tidy)
        self._limits_seen: dict[str, int | None] = {}

    # ---- verbs ---------------------------------------------------------------------------------

    def claim(
        self,
        run_id: str,
        step_key: str,
        demand: Demand,
        priority: int = 0,
        tags: Callable[[], Mapping[str, str]] = dict,
    ) -> Verdict:
        """Ask for the demand's slots, or ask again. Never blocks for slots.

        Idempotent: a ticket that holds gets its first verdict again (and this process becomes an
        owner), a ticket that waits is decided anew.

        Args:
            run_id: The run.
            step_key: The step.
            demand: What it asks for.
            priority: The higher goes first.
            tags: Looks up the tags of the run; called only if the order of a pool is fair.

        Returns:
            ``Granted`` once the slots are committed in the database, else ``Waiting``.

        Raises:
            StoreUnavailableError: The database could not be reached for half a minute. If a slot
                was granted all the same, a later claim finds it or the lease frees it.
        """
        ticket = Ticket(TicketKey(run_id, step_key), demand, priority)
        self._own.waive(ticket.key)
        return retry(lambda: self._claim(ticket, tags))

    def release(self, run_id: str, step_key: str, fence: int | None = None) -> bool:
        """Give back what the ticket holds, or withdraw it while it waits. Idempotent.

        Args:
            run_id: The run.
            step_key: The step.
            fence: Only a holding with this fence, so that a late process cannot free what its
                successor holds.

        Returns:
            Whether there was anything to give back or withdraw.

        Raises:
            StoreUnavailableError: The database could not be reached or written. What only this
                process owns is given back as soon as it can be, or when the lease has run out.
        """
        key = TicketKey(run_id, step_key)
        known = self._own.forget(key)
        try:
            if known is not None and fence in (None, known.fence):
                ended = retry(lambda: self._give_back(key, known))
                if ended:
                    return True
            return retry(lambda: self._end(Scope((), *key), EntryKind.RELEASED, fence))
        except StoreUnavailableError:
            self._own.owe(key, fence)
            raise

    def release_run(self, run_id: str) -> bool:
        """Release every ticket of a run, whoever owns it. Idempotent."""
        return retry(lambda: self._end(Scope((), run_id), EntryKind.RELEASED))

    def adopt(self, run_id: str, step_key: str) -> int | None:
        """Become an owner of a holding, which then lives while any of its owners does.

        Returns:
            The holding's fence, or None when the ticket holds nothing.
        """
        return retry(lambda: self._adopt(TicketKey(run_id, step_key)))

    def wait(self, run_id: str, step_key: str, timeout_seconds: float) -> bool:
        """Wait, without spinning and without locks, until the ticket should be claimed again.

        Returns:
            True after a wake-up for it, or when it is time to look again anyway; False when the
            timeout ran out first.
        """
        key = TicketKey(run_id, step_key)
        now = time.monotonic()
        deadline = now + timeout_seconds
        look_again = self._own.look_again_at(key, now)
        while True:
            session = self.session
            if session is None:
                return True
            if self._own.takes_wake(key):
                return True
            left = min(deadline, look_again) - time.monotonic()
            if left <= 0:
                return look_again <= deadline
            try:
                self._own.woke(self.store.poll(session, min(left, _POLL_SLICE_SECONDS)))
            except TryAgainError:
                return True  # Claiming again connects anew, or says why it cannot.

    def reap(self) -> int:
        """End the sessions whose lease has run out and free what only they owned.

        Every claim does this when it is needed; no daemon has to.

        Returns:
            How many sessions were ended.
        """
        return retry(self._reap)

    # ---- limits, and what others may read ------------------------------------------------------

    def limits(self) -> tuple[LimitRow, ...]:
        """The limits in Dagster's table, by pool."""
        found = retry(self.store.limits)
        self._limits_seen = {row.pool: row.limit for row in found}
        return found

    def set_limit(self, pool: str, limit: int, *, from_default: bool = False) -> None:
        """Set a pool's limit. Raising it wakes waiters; lowering it drains and never revokes.

        Raises:
            ConfigError: The limit is not between 0 (paused) and ``LIMIT_MAX``.
        """
        self.set_limits({pool: limit}, from_default=from_default)

    def delete_limit(self, pool: str) -> None:
        """Delete a pool's limit: unlimited from now on, unless there is a default limit."""
        self.set_limits({pool: None})

    def set_limits(
        self,
        limits: Mapping[str, int | None],
        rates: Mapping[str, Rate | None] | None = None,
        orders: Mapping[str, str | None] | None = None,
        *,
        from_default: bool = False,
    ) -> None:
        """Set or, with None, delete limits, rates and fair orders of pools: all or nothing.

        Raises:
            ConfigError: A limit is not between 0 (paused) and ``LIMIT_MAX``.
        """
        wrong = [pool for pool, limit in limits.items() if limit and not 0 < limit <= LIMIT_MAX]
        if wrong:
            raise ConfigError(
                f"The limit {limits[wrong[0]]} of the pool {wrong[0]!r} is out of bounds.",
                remedy=f"Give a limit from 0 (paused) to {LIMIT_MAX}.",
                names=wrong,
            )
        if limits or rates or orders:
            retry(
                lambda: self._configure(
                    limits, rates or {}, orders or {}, from_default=from_default
                )
            )

    def rates(self) -> Mapping[str, Rate]:
        """The pools that have a rate, and which."""
        return retry(self.store.rates)

    def set_rate(self, pool: str, rate: Rate | None) -> None:
        """Set how many steps may start in a pool per time, or, with None, delete that.

        It holds from now on: for any span of time after this. Whoever waits is told its new time.
        """
        retry(lambda: self._configure({}, {pool: rate}, {}))

    def orders(self) -> Mapping[str, str]:
        """The pools whose order is fair, and by the values of which tag."""
        return retry(self.store.orders)

    def set_order(self, pool: str, fair_by: str | None) -> None:
        """Share a pool fairly among the runs with each value of a tag; None: first come first.

        It holds from now on. What is held already counts for the empty group, and so does who
        waits until it asks again.
        """
        retry(lambda: self._configure({}, {}, {pool: fair_by}))

    def snapshot(self, pool: str) -> PoolSnapshot:
        """Who holds and who waits in one pool, and its limit (the default where it has none)."""
        (found,) = self.snapshots((pool,))
        return found

    def snapshots(self, pools: Sequence[str]) -> tuple[PoolSnapshot, ...]:
        """The same for each of these pools, in their order, at one moment."""
        found = retry(lambda: self.store.snapshots(pools))
        default = self.options.default_limit
        if default is None:
            return found
        return tuple(
            s if s.limit is not None else replace(s, limit=default, from_default=True)
            for s in found
        )

    def ticket(self, run_id: str, step_key: str) -> Ticket | Holding | None:
        """What a ticket does now: it waits, it holds, or there is none."""
        return retry(lambda: self.store.ticket(TicketKey(run_id, step_key)))

    def busy_pools(self) -> tuple[str, ...]:
        """The pools that somebody holds or waits for, sorted."""
        return retry(self.store.busy_pools)

    def run_ids(self) -> frozenset[str]:
        """The runs that hold or wait."""
        return retry(self.store.run_ids)

    def has_expired(self, run_id: str, step_key: str) -> bool:
        """Whether a holding of this ticket was ever taken back because its lease had run out."""
        return retry(lambda: self.store.has_expired(TicketKey(run_id, step_key)))

    # ---- the session ---------------------------------------------------------------------------

    @property
    def session(self) -> str | None:
        """This process's session, once it has one."""
        return self._own.id

    def heartbeat(self) -> bool:
        """Extend this process's lease; a thread does it as long as there is a session.

        Returns:
            False when the session was reaped: ``on_lease_lost`` has then been called.
        """
        return self._own.beat()

    def tidy(self) -> None:
        """Small chores of each heartbeat.

        Gives back what could not be given back when it was released, withdraws waiting tickets
        that nobody claims any more, and trims the ledger.
        """
        self._own.settle(
            lambda key, fence, owner: self._end(Scope((), *key), EntryKind.RELEASED, fence, owner)
        )
        for key in self._own.abandoned():
            self.release(*key)
        self.store.trim_ledger(self.options.keep_ledger_seconds, _TRIM_COUNT_MAX)

    def close(self) -> None:
        """End this process's session; what only it owns is freed. A later claim opens another.

        When the database cannot be reached, the session's lease ends it.
        """
        session = self._own.leave()
        if session is not None:
            scope = Scope((), ended=(session,), expired_only=False)
            try:
                retry(lambda: self._end(scope, EntryKind.RELEASED, by=session))
            except StoreUnavailableError as error:
                logger.warning("The session is left to its lease: %s", error)
        self.store.close()

    def leave(self, keys: Iterable[TicketKey] | None = None) -> None:
        """Stop saying that this process lives, and give nothing back.

        What it holds stays held until its lease has run out, and beyond that while another owner
        lives. A later claim opens another session, and so does one that is under way.

        Args:
            keys: Of what it holds, leave these: at once if it holds nothing else, and else with
                the rest. All by default.
        """
        left = self._own.leave(keys)
        if keys is None or left is not None:
            self.store.close()

    # ---- one transaction each ------------------------------------------------------------------

    def _claim(self, ticket: Ticket, look_up: Callable[[], Mapping[str, str]]) -> Verdict:
        granted = None if self._own.waits(ticket.key) else self._claim_unseen(ticket)
        return granted or self._claim_by_look(ticket, look_up)

    def _claim_unseen(self, ticket: Ticket) -> Granted | None:
        """Decide on idle pools, and have it written if idle they are: in one message, mostly."""
        default_limit = self.options.default_limit
        presumed = bookkeeping.presumed(self._limits_seen, ticket.demand, default_limit)
        if presumed is None:
            return None
        session = self._own.open()
        view = bookkeeping.with_default_limit(presumed, default_limit)
        patience_seconds = self.options.patience_seconds
        verdict, changes = bookkeeping.claimed(view, ticket, {}, session, patience_seconds)
        if not isinstance(verdict, Granted) or changes is None:
            return None
        self._passing("begin")
        fence = self.store.grant_unseen(presumed, changes)
        self._passing("committed")
        if fence is None:
            return None
        granted = replace(verdict, fence=fence)
        # Left or lost in the meantime? Then a look finds the holding and gives it another owner.
        return granted if self._own.note(ticket.key, granted, view, session, 0.0) else None

    def _claim_by_look(self, ticket: Ticket, look_up: Callable[[], Mapping[str, str]]) -> Verdict:
        key = ticket.key
        reaped = False
        tags: Mapping[str, str] | None = None
        for _ in range(_LOOKS_MAX):
            session = self._own.open()
            self._passing("begin")
            scope = Scope(ticket.demand.pools, key.run_id, key.step_key, session)
            verdict = None
            with self.store.begin(scope) as transaction:
                seen_at = time.monotonic()
                view = transaction.view
                self._limits_seen.update((pool.pool, pool.limit) for pool in view.pools.values())
                view = bookkeeping.with_default_limit(view, self.options.default_limit)
                self._passing("viewed")
                asks_otherwise = any(old.demand != ticket.demand for old in view.tickets)
                # Looked up without the locks in hand, and only where somebody asks for it.
                lacks_tags = tags is None and bool(bookkeeping.fair_pools(view))
                can_decide = view.session_alive and not asks_otherwise and not lacks_tags
                if can_decide and (reaped or not view.expired):
                    verdict, changes = bookkeeping.claimed(
                        view, ticket, tags or {}, session, self.options.patience_seconds
                    )
                    self._passing("decided")
                    if changes is not None:
                        transaction.commit(changes)
                    self._passing("committed")
            # Left or lost in the meantime? Then what was granted needs another owner.
            if verdict is not None and self._own.note(key, verdict, view, session, seen_at):
                return verdict
            if not view.session_alive:
                self._own.lose(session)
            elif lacks_tags:
                tags = look_up()
            elif asks_otherwise:
                self._end(Scope((), key.run_id, key.step_key), EntryKind.RELEASED)
            elif verdict is None:
                self._reap()
                reaped = True
        raise AssertionError(f"{key} found no stable view in {_LOOKS_MAX} looks")

    def _adopt(self, key: TicketKey) -> int | None:
        for _ in range(_LOOKS_MAX):
            session = self._own.open()
            pools = self.store.pools_of(key.run_id, key.step_key, ())
            self._passing("begin")
            held = None
            with self.store.begin(Scope(pools, key.run_id, key.step_key, session)) as transaction:
                view = transaction.view
                self._passing("viewed")
                if view.session_alive and bookkeeping.is_covered(view):
                    if not view.holdings:
                        return None
                    changes = bookkeeping.adopted(view, session)
                    if changes is not None:
                        transaction.commit(changes)
                    (held,) = (Granted(h.slots, h.fence) for h in view.holdings)
                    self._passing("committed")
            if held is not None and self._own.note(key, held, view, session, 0.0):
                return held.fence
            if not view.session_alive:
                self._own.lose(session)
        raise AssertionError(f"{key} found no stable view in {_LOOKS_MAX} looks")

    def _give_back(self, key: TicketKey, grant: Granted) -> bool:
        def next_up(view: View) -> tuple[Waiter, ...]:
            view = bookkeeping.with_default_limit(view, self.options.default_limit)
            return bookkeeping.next_up(view, self.options.patience_seconds)

        self._passing("begin")
        ended = self.store.release(key, grant, self.session or "", next_up)
        self._passing("committed")
        return ended

    def _end(
        self,
        scope: Scope,
        kind: EntryKind,
        fence: int | None = None,
        owner: str | None = None,
        by: str | None = None,
    ) -> bool:
        by = by or self.session or ""
        pools = scope.pools
        for _ in range(_LOOKS_MAX):
            if not pools:
                pools = self.store.pools_of(scope.run_id, scope.step_key, scope.ended)
            self._passing("begin")
            with self.store.begin(replace(scope, pools=pools)) as transaction:
                view = bookkeeping.with_default_limit(transaction.view, self.options.default_limit)
                self._passing("viewed")
                if bookkeeping.is_covered(view):
                    if fence is not None:
                        kept = tuple(h for h in view.holdings if h.fence == fence)
                        view = replace(view, holdings=kept, tickets=())
                    if owner is not None:  # Nothing that another process has come to own.
                        view = bookkeeping.owned_only(view, owner)
                    changes = bookkeeping.ended(view, kind, by, self.options.patience_seconds)
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

    def _reap(self) -> int:
        expired = self.store.expired_sessions(REAP_COUNT_MAX)
        if self.session in expired:
            # Late, but not reaped yet: this process lives, and says so first.
            self.heartbeat()
        ended = 0
        for session in expired:
            if session != self.session:
                ended += self._end(Scope((), ended=(session,)), EntryKind.EXPIRED)
        return ended

    def _configure(
        self,
        limits: Mapping[str, int | None],
        rates: Mapping[str, Rate | None],
        orders: Mapping[str, str | None],
        *,
        from_default: bool = False,
    ) -> None:
        self._passing("begin")
        pools = tuple(sorted({*limits, *rates, *orders}))
        with self.store.begin(Scope(pools)) as transaction:
            self._passing("viewed")
            changes = bookkeeping.configured(
                transaction.view,
                limits,
                rates,
                orders,
                self.session or "",
                self.options.patience_seconds,
                self.options.default_limit,
                from_default=from_default,
            )
            self._passing("decided")
            if changes is not None:
                transaction.commit(changes)
        self._passing("committed")
