"""The engine's verbs: claim, release, adopt, wait, reap.

Each verb is one of the ``transactions``, done again until the database answers.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.lease import answer_seconds
from dagster_lifeguard.engine.rules.model import (
    EntryKind,
    Holding,
    PoolSnapshot,
    Ticket,
    TicketKey,
    Verdict,
    is_script,
)
from dagster_lifeguard.engine.rules.pool_settings import (
    NOTHING_SET,
    PoolSettings,
    is_by_default,
    refuse_out_of_bounds,
    settings_in_force,
)
from dagster_lifeguard.engine.session import Session
from dagster_lifeguard.engine.session_member import Member
from dagster_lifeguard.engine.store.contract import Scope, TryAgainError
from dagster_lifeguard.engine.store.retry import retry
from dagster_lifeguard.engine.transactions import Transactions
from dagster_lifeguard.errors import ConfigError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from dagster_lifeguard.engine.engine_options import Point
    from dagster_lifeguard.engine.rules.model import Demand, Granted
    from dagster_lifeguard.engine.store.contract import Store

logger = logging.getLogger(__name__)

_POLL_SLICE_SECONDS = 0.025
_TRIM_COUNT_MAX = 1000
_NOW_SECONDS = 1.0
"""Rows of the ledger that are not even this old are of this moment: a wipe clears them too."""


def _pass_by(point: Point) -> None:
    del point


class Engine:
    """Grants, counts and frees slots for one process and its threads.

    Args:
        store: The store of the tables.
        options: Options of sessions and waiting.
        passing: Called at each point of each transaction, so that a test can order two
            transactions exactly; does nothing by default.
        session: The process's session, on the same store; one of its own by default.

    A fork of the process gets its own session. Slots held before the fork stay the parent's.
    """

    def __init__(
        self,
        store: Store,
        options: EngineOptions | None = None,
        passing: Callable[[Point], None] = _pass_by,
        session: Session | None = None,
    ) -> None:
        self.store = store
        self.options = options or EngineOptions()
        self._own = Member(session or Session(store, self.options.lease_seconds), self)
        self._transactions = Transactions(store, self.options, self._own, passing)
        self._executing: set[TicketKey] = set()

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
            demand: The pools and slots that it asks for.
            priority: A higher priority starts first.
            tags: Looks up the tags of the run; called only if the order of a pool is fair.

        Returns:
            ``Granted`` once the slots are committed in the database, else ``Waiting``.

        Raises:
            StoreUnavailableError: The database could not be reached for half a minute. If a slot
                was granted nevertheless, a later claim finds it or the lease frees it.
        """
        ticket = Ticket(TicketKey(run_id, step_key), demand, priority)
        self._own.waive(ticket.key)
        return retry(lambda: self._transactions.claim(ticket, tags))

    def release(self, run_id: str, step_key: str, fence: int | None = None) -> bool:
        """Release the slots of a ticket, or delete it while it waits. Idempotent.

        Args:
            run_id: The run.
            step_key: The step.
            fence: Only a holding with this fence, so that a late process cannot free what its
                successor holds.

        Returns:
            Whether there was anything to release or delete.

        Raises:
            StoreUnavailableError: The database could not be reached or written. Slots that only
                this process owns are released as soon as possible, or when the lease has run out.
        """
        key = TicketKey(run_id, step_key)
        self._executing.discard(key)
        known = self._own.forget(key)
        try:
            if known is not None and fence in (None, known.fence):
                ended = retry(lambda: self._transactions.give_back(key, known))
                if ended:
                    return True
            return retry(lambda: self._transactions.end(Scope((), *key), EntryKind.RELEASED, fence))
        except StoreUnavailableError:
            self._own.owe(key, fence)
            raise

    def release_run(self, run_id: str) -> bool:
        """Release every ticket of a run, whichever process owns it. Idempotent."""
        return retry(lambda: self._transactions.end(Scope((), run_id), EntryKind.RELEASED))

    def wipe(self) -> frozenset[str]:
        """Release all tickets of all runs, end the sessions that own them, and clear the ledger.

        Slots of scripts stay, with their sessions. A process whose session has ended learns this at
        its next heartbeat, as after a lost lease. Limits, rates, orders and fences stay.

        Returns:
            The runs that held or waited.
        """
        owners: set[str] = set()
        of_scripts: set[str] = set()
        run_ids: set[str] = set()
        for pool in self.snapshots(self.busy_pools(with_over=True)):
            for holding in pool.granted:
                run_ids.add(holding.key.run_id)
                (of_scripts if is_script(holding.key.run_id) else owners).update(holding.owners)
            for ticket in pool.tickets:
                run_ids.add(ticket.key.run_id)
                (of_scripts if is_script(ticket.key.run_id) else owners).add(ticket.session)
        runs = frozenset(run_id for run_id in run_ids if not is_script(run_id))
        for run_id in sorted(runs):
            self.release_run(run_id)
        for session in sorted(owners - of_scripts - {self.session}):
            scope = Scope((), ended=(session,), expired_only=False)
            retry(partial(self._transactions.end, scope, EntryKind.RELEASED))
        while retry(partial(self.store.trim_ledger, -_NOW_SECONDS, _TRIM_COUNT_MAX)):
            pass
        return runs

    def adopt(self, run_id: str, step_key: str, *, executes: bool = False) -> int | None:
        """Become an owner of a holding, which then lives while any of its owners does.

        Args:
            run_id: The run.
            step_key: The step.
            executes: Whether this process executes the step. If it then dies while another owner
                keeps the holding, ``Holding.lost`` names it.

        Returns:
            The holding's fence, or None when the ticket holds nothing.
        """
        key = TicketKey(run_id, step_key)
        if executes:
            self._executing.add(key)
        return retry(lambda: self._transactions.adopt(key, executes=executes))

    def wait(self, run_id: str, step_key: str, timeout_seconds: float) -> bool:
        """Wait, without spinning and without locks, until the ticket should be claimed again.

        Returns:
            True after a wake-up for it, or when it is time to look again anyway; False when the
            timeout ran out first, or another ticket of this engine was woken.
        """
        key = TicketKey(run_id, step_key)
        now = time.monotonic()
        deadline = now + timeout_seconds
        look_again = self._own.look_again_at(key, now)
        while True:
            session = self.session
            if session is None or not self._own.waits(key):
                return True  # It lost its place: its session ended, or it did not ask.
            if self._own.takes_wake(key):
                return True
            left = min(deadline, look_again) - time.monotonic()
            if left <= 0:
                return look_again <= deadline
            pause_seconds = min(left, _POLL_SLICE_SECONDS)
            try:
                woken = self.store.poll(session, pause_seconds, is_next=self._own.has_next())
            except TryAgainError:
                return True  # Claiming again connects anew, or says why it cannot.
            self._own.woke(woken)
            if key not in woken and any(map(self._own.waits, woken)):
                return False

    def reap(self) -> int:
        """End the sessions whose lease has run out and free what only they owned.

        Every claim does this when needed, so no daemon is required.

        Returns:
            How many sessions were ended.
        """
        return retry(self._transactions.reap)

    def end_expired(self, sessions: Collection[str]) -> bool:
        """End these sessions if the leases of all have run out, and free what only they owned.

        The leases are checked in the transaction that frees the slots. A process that comes back
        renews its lease before that transaction, or learns after it that its session is lost.

        Returns:
            False, with nothing changed, if one of these sessions lives, or no longer exists.
        """
        return retry(lambda: self._transactions.end_expired(tuple(sorted(sessions))))

    # ---- limits, and what others may read ------------------------------------------------------

    def settings(self) -> Mapping[str, PoolSettings]:
        """The settings of all pools that have any, by name."""
        found = retry(self.store.settings)
        self._transactions.settings_seen = dict(found)
        return found

    def set_pools(self, settings: Mapping[str, PoolSettings | None]) -> None:
        """Set all settings of these pools; None deletes them. All or nothing.

        See ``change_pool`` for when they take effect.

        Raises:
            ConfigError: A limit is not between 0 (paused) and ``LIMIT_MAX``.
        """
        wanted = {pool: found or NOTHING_SET for pool, found in settings.items()}
        for pool, found in wanted.items():
            refuse_out_of_bounds(pool, found)
        if wanted:
            pools = tuple(sorted(wanted))
            retry(lambda: self._transactions.configure(pools, lambda pool, _before: wanted[pool]))

    def change_pool(self, pool: str, **changes: Any) -> None:
        """Change some settings of a pool, by the names of ``PoolSettings``; the others stay.

        A new limit lasts: it also ends a temporary one.

        The change takes effect at once. A higher limit wakes waiters; a lower limit drains the pool
        and never revokes a slot. A rate holds for any span of time after the change, and waiters
        get their new start time. With a new order, present holders count for the empty group, and
        so does each present waiter until it asks again.

        Raises:
            ConfigError: The limit is not between 0 (paused) and ``LIMIT_MAX``.
        """
        refuse_out_of_bounds(pool, replace(NOTHING_SET, **changes))
        if "limit" in changes:
            changes.setdefault("fall_back", None)
        self._change(pool, lambda before: replace(before, **changes))

    def limit_until(self, pool: str, limit: int, until: float) -> None:
        """Set a limit that falls back by itself to the present lasting limit.

        The end needs no process: the store's clock decides in each read which limit is in force.
        Waiters that can start then look again by themselves. A limit that falls drains the pool.

        Args:
            pool: The pool.
            limit: The limit until then; 0 pauses the pool.
            until: The end, in seconds since the epoch by the store's clock.

        Raises:
            ConfigError: The limit is not between 0 (paused) and ``LIMIT_MAX``, or the end is not in
                the future.
        """
        refuse_out_of_bounds(pool, PoolSettings(limit))
        late = retry(self.store.now) - until
        if late >= 0:
            raise ConfigError(
                f"The limit of {pool!r} was to end {late:.0f} s ago, by the clock of the database.",
                remedy="Give an end in the future.",
                names=[pool],
            )
        self._change(pool, lambda before: before.with_limit(limit, until))

    def _change(self, pool: str, change: Callable[[PoolSettings], PoolSettings]) -> None:
        retry(lambda: self._transactions.configure((pool,), lambda _pool, before: change(before)))

    def snapshot(self, pool: str) -> PoolSnapshot:
        """The holders and waiters of one pool, and the limit in force."""
        (found,) = self.snapshots((pool,))
        return found

    def snapshots(self, pools: Sequence[str]) -> tuple[PoolSnapshot, ...]:
        """The same for each of these pools, in their order, at one moment."""
        found = retry(lambda: self.store.snapshots(pools))
        default = self.options.default_limit
        return tuple(
            replace(
                s,
                settings=settings_in_force(s.pool, s.settings, default),
                from_default=is_by_default(s.pool, s.settings.limit, default),
            )
            for s in found
        )

    def ticket(self, run_id: str, step_key: str) -> Ticket | Holding | None:
        """The waiting ticket or the holding with this key; None if there is neither.

        If its lease is over, it still exists until a claim reaps it, with ``is_over`` set. Until
        then its process, or another owner, may adopt it.
        """
        return retry(lambda: self.store.ticket(TicketKey(run_id, step_key)))

    def busy_pools(self, *, with_over: bool = False) -> tuple[str, ...]:
        """The pools with holders or waiters, sorted.

        Args:
            with_over: Also pools where the leases of all holders and waiters are over.
        """
        return retry(lambda: self.store.busy_pools(with_over=with_over))

    def run_ids(self) -> frozenset[str]:
        """The runs that hold or wait, without those whose leases are all over."""
        return retry(self.store.run_ids)

    def has_expired(self, run_id: str, step_key: str) -> bool:
        """Whether a holding of this ticket ever ended because its lease had run out."""
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

        Retries failed releases, deletes waiting tickets that are no longer claimed, and trims the
        ledger.
        """
        self._own.settle(
            lambda key, fence, owner: self._transactions.end(
                Scope((), *key), EntryKind.RELEASED, fence, owner
            )
        )
        for key in self._own.abandoned():
            self._transactions.withdraw(key)
        self.store.trim_ledger(self.options.keep_ledger_seconds, _TRIM_COUNT_MAX)

    def lost(self, held: Mapping[TicketKey, Granted], *, by_clock: bool) -> None:
        """The session no longer exists: report the lost tickets; see ``SessionUser``."""
        if self.options.on_lease_lost is not None:
            kept = set() if by_clock else self._regained(held)
            self.options.on_lease_lost(tuple(key for key in held if key not in kept))

    def _regained(self, held: Mapping[TicketKey, Granted]) -> Collection[TicketKey]:
        """The holdings that this process owns again, because another owner has kept them.

        A separate thread asks the database, so a silent database cannot hold up the caller. Without
        an answer nothing is regained.
        """
        kept: list[TicketKey] = []

        def ask() -> None:
            kept.extend(key for key, grant in held.items() if self._regains(key, grant))

        asking = threading.Thread(target=ask, name="lifeguard-regain", daemon=True)
        try:
            asking.start()
            asking.join(answer_seconds(self.options.lease_seconds))
        except RuntimeError as error:  # No thread is to be had.
            logger.warning("Cannot find out who holds the slots of this process: %s", error)
        return tuple(kept)

    def _regains(self, key: TicketKey, grant: Granted) -> bool:
        try:
            return grant.fence == self.adopt(*key, executes=key in self._executing)
        except StoreUnavailableError as error:
            logger.warning("Cannot find out who holds the slots of %s: %s", key.step_key, error)
            return False

    def close(self) -> None:
        """Release the slots that only this process owns, and end its session unless others need it.

        A later claim opens a new session. If the database cannot be reached, the lease frees the
        slots.
        """
        self._end(self._own.tickets())
        self._own.part()

    def leave(self, keys: Iterable[TicketKey] | None = None, *, at_once: bool = True) -> None:
        """Give up ownership of these tickets without releasing their slots.

        The slots stay held until the lease has run out, and after that while another owner lives.

        Args:
            keys: Tickets that this engine holds. By default all, and then its session ends too,
                unless others need it.
            at_once: Do it now; otherwise at the next heartbeat, for tickets that still hold then.
        """
        if keys is not None:
            self._own.leave(keys, at_once=at_once)
            return
        self._end(tuple(self._own.asked))
        self._own.part()

    def _end(self, keys: Iterable[TicketKey]) -> None:
        """Give back or withdraw what no other process owns."""
        session = self._own.id
        try:
            for key in keys if session is not None else ():
                retry(
                    partial(
                        self._transactions.end,
                        Scope((), *key),
                        EntryKind.RELEASED,
                        owner=session,
                        by=session,
                    )
                )
        except StoreUnavailableError as error:
            logger.warning("What is held is left to its lease: %s", error)
