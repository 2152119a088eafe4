"""The engine's verbs: claim, release, adopt, wait, reap.

Each verb is one transaction: lock, look, decide, write, wake. All pools of a demand are locked in
sorted order and granted together or not at all, so nobody holds one pool while waiting for
another, and no two verbs can deadlock. The waiter takes its slots itself; whoever frees some only
hints, so a lost hint or a dead waiter costs time and never a slot.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from dagster_lifeguard import bookkeeping
from dagster_lifeguard.errors import ConfigError, StoreUnavailableError
from dagster_lifeguard.heartbeat import Heartbeat
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
    Waiting,
)
from dagster_lifeguard.options import EngineOptions
from dagster_lifeguard.store.contract import Scope, TryAgainError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dagster_lifeguard.model import Demand, View
    from dagster_lifeguard.options import Point
    from dagster_lifeguard.store.contract import Store

logger = logging.getLogger(__name__)

T = TypeVar("T")

REAP_COUNT_MAX = 100
"""The most sessions one reaping ends, so that a claim that reaps is not held up for long."""

_LOOKS_MAX = 20
_AGAIN_SECONDS_MAX = 30.0
_AGAIN_PAUSE_SECONDS = 0.25
_POLL_SLICE_SECONDS = 0.025
_TRIM_COUNT_MAX = 1000


class _Asked(NamedTuple):
    """When a waiting ticket was claimed last, and when it looks again; by the process's clock."""

    at: float
    look_again: float


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
        self._forget()

    # ---- verbs ---------------------------------------------------------------------------------

    def claim(self, run_id: str, step_key: str, demand: Demand, priority: int = 0) -> Verdict:
        """Ask for the demand's slots, or ask again. Never blocks for slots.

        Idempotent: a ticket that holds gets its first verdict again (and this process becomes an
        owner), a ticket that waits is decided anew.

        Returns:
            ``Granted`` once the slots are committed in the database, else ``Waiting``.

        Raises:
            StoreUnavailableError: The database could not be reached for half a minute. If a slot
                was granted all the same, a later claim finds it or the lease frees it.
        """
        ticket = Ticket(TicketKey(run_id, step_key), demand, priority)
        if ticket.key in self._owed:
            with self._lock:
                self._owed.pop(ticket.key, None)
        return self._persist(lambda: self._claim(ticket))

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
        pools = self._held.pop(key, ())
        self._asked.pop(key, None)
        self._woken.discard(key)
        try:
            return self._persist(
                lambda: self._end(Scope(pools, run_id, step_key), EntryKind.RELEASED, fence)
            )
        except StoreUnavailableError:
            self._owed[key] = fence
            raise

    def release_run(self, run_id: str) -> bool:
        """Release every ticket of a run, whoever owns it. Idempotent."""
        return self._persist(lambda: self._end(Scope((), run_id), EntryKind.RELEASED))

    def adopt(self, run_id: str, step_key: str) -> int | None:
        """Become an owner of a holding, which then lives while any of its owners does.

        Returns:
            The holding's fence, or None when the ticket holds nothing.
        """
        return self._persist(lambda: self._adopt(TicketKey(run_id, step_key)))

    def wait(self, run_id: str, step_key: str, timeout_seconds: float) -> bool:
        """Wait, without spinning and without locks, until the ticket should be claimed again.

        Returns:
            True after a wake-up for it, or when it is time to look again anyway; False when the
            timeout ran out first.
        """
        key = TicketKey(run_id, step_key)
        now = time.monotonic()
        deadline = now + timeout_seconds
        asked = self._asked.get(key)
        look_again = asked.look_again if asked else now + self.options.look_again_seconds
        while True:
            session = self.session
            if session is None:
                return True
            if key in self._woken:
                self._woken.discard(key)
                return True
            left = min(deadline, look_again) - time.monotonic()
            if left <= 0:
                return look_again <= deadline
            try:
                self._woken.update(self.store.poll(session, min(left, _POLL_SLICE_SECONDS)))
            except TryAgainError:
                return True  # Claiming again connects anew, or says why it cannot.

    def reap(self) -> int:
        """End the sessions whose lease has run out and free what only they owned.

        Every claim does this when it is needed; no daemon has to.

        Returns:
            How many sessions were ended.
        """
        return self._persist(self._reap)

    # ---- limits, and what others may read ------------------------------------------------------

    def limits(self) -> tuple[LimitRow, ...]:
        """The limits in Dagster's table, by pool."""
        return self._persist(self.store.limits)

    def set_limit(self, pool: str, limit: int, *, from_default: bool = False) -> None:
        """Set a pool's limit. Raising it wakes waiters; lowering it drains and never revokes.

        Raises:
            ConfigError: The limit is not between 0 (paused) and ``LIMIT_MAX``.
        """
        if not 0 <= limit <= LIMIT_MAX:
            raise ConfigError(
                f"The limit {limit} of the pool {pool!r} is out of bounds.",
                remedy=f"Give a limit from 0 (paused) to {LIMIT_MAX}.",
                names=[pool],
            )
        self._persist(lambda: self._limit(pool, limit, from_default=from_default))

    def delete_limit(self, pool: str) -> None:
        """Delete a pool's limit: unlimited from now on, unless there is a default limit."""
        self._persist(lambda: self._limit(pool, None, from_default=False))

    def snapshot(self, pool: str) -> PoolSnapshot:
        """Who holds and who waits in one pool, and its limit (the default where it has none)."""
        (found,) = self.snapshots((pool,))
        return found

    def snapshots(self, pools: Sequence[str]) -> tuple[PoolSnapshot, ...]:
        """The same for each of these pools, in their order, at one moment."""
        found = self._persist(lambda: self.store.snapshots(pools))
        default = self.options.default_limit
        if default is None:
            return found
        return tuple(
            s if s.limit is not None else replace(s, limit=default, from_default=True)
            for s in found
        )

    def ticket(self, run_id: str, step_key: str) -> Ticket | Holding | None:
        """What a ticket does now: it waits, it holds, or there is none."""
        return self._persist(lambda: self.store.ticket(TicketKey(run_id, step_key)))

    def has_expired(self, run_id: str, step_key: str) -> bool:
        """Whether a holding of this ticket was ever taken back because its lease had run out."""
        return self._persist(lambda: self.store.has_expired(TicketKey(run_id, step_key)))

    # ---- the session ---------------------------------------------------------------------------

    @property
    def session(self) -> str | None:
        """This process's session, once it has one."""
        return self._session if self._pid == os.getpid() else None

    def heartbeat(self) -> bool:
        """Extend this process's lease; a thread does it as long as there is a session.

        Returns:
            False when the session was reaped: ``on_lease_lost`` has then been called.
        """
        session = self.session
        if session is None or self.store.heartbeat(session, self.options.lease_seconds):
            return True
        self._lose(session)
        return False

    def tidy(self) -> None:
        """Small chores of each heartbeat.

        Gives back what could not be given back when it was released, withdraws waiting tickets
        that nobody claims any more, and trims the ledger.
        """
        for key in tuple(self._owed):
            with self._lock:
                if self._session is not None and key in self._owed:
                    self._end(Scope((), *key), EntryKind.RELEASED, self._owed[key], self._session)
                    del self._owed[key]
        before = time.monotonic() - self.options.abandon_seconds
        for key, asked in tuple(self._asked.items()):
            if asked.at < before:
                self.release(*key)
        self.store.trim_ledger(self.options.keep_ledger_seconds, _TRIM_COUNT_MAX)

    def close(self) -> None:
        """End this process's session; what only it owns is freed. A later claim opens another.

        When the database cannot be reached, the session's lease ends it.
        """
        session = self.session
        if session is not None:
            if self._heartbeat is not None:
                self._heartbeat.stop()
            scope = Scope((), ended=(session,), expired_only=False)
            try:
                self._persist(lambda: self._end(scope, EntryKind.RELEASED))
            except StoreUnavailableError as error:
                logger.warning("The session is left to its lease: %s", error)
            self._forget()
        self.store.close()

    def leave(self, keys: Iterable[TicketKey] | None = None) -> None:
        """Stop saying that this process lives, and give nothing back.

        What it holds stays held until its lease has run out, and beyond that while another owner
        lives. A later claim opens another session, and so does one that is under way.

        Args:
            keys: Of what it holds, leave these: at once if it holds nothing else, and else with
                the rest. All by default.
        """
        with self._lock:
            for key in tuple(self._held) if keys is None else keys:
                self._held.pop(key, None)
            if self._held:
                return
            heartbeat = self._heartbeat
            self._reset()
        if heartbeat is not None:
            heartbeat.stop()
        self.store.close()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._session: str | None = None
        self._heartbeat: Heartbeat | None = None
        self._held: dict[TicketKey, tuple[str, ...]] = {}
        self._asked: dict[TicketKey, _Asked] = {}
        self._woken: set[TicketKey] = set()
        # Releases that failed, with the fence that they were meant for.
        self._owed: dict[TicketKey, int | None] = {}

    def _open_session(self) -> str:
        if self._pid != os.getpid():
            self._forget()  # This is a fork: the session is the parent's.
        session = self._session
        if session is not None:
            return session
        with self._lock:
            if self._session is None:
                session = uuid.uuid4().hex
                label = f"{socket.gethostname()}:{self._pid}"
                self.store.open_session(session, label, self.options.lease_seconds)
                if self.options.on_session_opened is not None:
                    self.options.on_session_opened()
                self._heartbeat = Heartbeat(
                    self.options.lease_seconds,
                    beat=self.heartbeat,
                    lost=lambda: self._lose(session),
                    tidy=self.tidy,
                )
                self._heartbeat.start()
                self._session = session
            return self._session

    def _lose(self, session: str) -> None:
        with self._lock:
            if self._session != session:
                return  # Another thread found out first.
            lost = tuple(self._held)
            self._session = None
            self._held.clear()
            self._asked.clear()
            self._owed.clear()
        if self.options.on_lease_lost is not None:
            self.options.on_lease_lost(lost)

    # ---- one transaction each ------------------------------------------------------------------

    def _claim(self, ticket: Ticket) -> Verdict:
        key = ticket.key
        reaped = False
        for _ in range(_LOOKS_MAX):
            session = self._open_session()
            self._passing("begin")
            scope = Scope(ticket.demand.pools, key.run_id, key.step_key, session)
            verdict = None
            with self.store.begin(scope) as transaction:
                view = bookkeeping.with_default_limit(transaction.view, self.options.default_limit)
                self._passing("viewed")
                asks_otherwise = any(old.demand != ticket.demand for old in view.tickets)
                if view.session_alive and not asks_otherwise and (reaped or not view.expired):
                    verdict, changes = bookkeeping.claimed(
                        view, ticket, session, self.options.patience_seconds
                    )
                    self._passing("decided")
                    if changes is not None:
                        transaction.commit(changes)
                    self._passing("committed")
            # Left or lost in the meantime? Then what was granted needs another owner.
            if verdict is not None and self._remember(key, verdict, view, session):
                return verdict
            if not view.session_alive:
                self._lose(session)
            elif asks_otherwise:
                self._end(Scope((), key.run_id, key.step_key), EntryKind.RELEASED)
            elif verdict is None:
                self._reap()
                reaped = True
        raise AssertionError(f"{key} found no stable view in {_LOOKS_MAX} looks")

    def _remember(self, key: TicketKey, verdict: Verdict, view: View, session: str) -> bool:
        """Take note of a verdict; False if this process has another session by now, or none."""
        with self._lock:
            if self._session != session:
                return False
            self._note(key, verdict, view)
            return True

    def _note(self, key: TicketKey, verdict: Verdict, view: View) -> None:
        if isinstance(verdict, Waiting):
            pause = self.options.look_again_seconds
            # The first in line looks as soon as a holder may be dead; whoever reaps wakes the rest.
            # A lease that has run out by now could not be reaped just before: not at once again.
            if verdict.ahead == 0 and view.lease_ends is not None and not view.expired:
                pause = min(pause, view.lease_ends - view.now)
            now = time.monotonic()
            self._asked[key] = _Asked(now, now + pause)
            return
        self._asked.pop(key, None)
        self._woken.discard(key)
        if verdict.slots:
            self._held[key] = tuple(verdict.slots)

    def _adopt(self, key: TicketKey) -> int | None:
        for _ in range(_LOOKS_MAX):
            session = self._open_session()
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
            if held is not None and self._remember(key, held, view, session):
                return held.fence
            if not view.session_alive:
                self._lose(session)
        raise AssertionError(f"{key} found no stable view in {_LOOKS_MAX} looks")

    def _end(
        self, scope: Scope, kind: EntryKind, fence: int | None = None, owner: str | None = None
    ) -> bool:
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
                    changes = bookkeeping.ended(
                        view, kind, self._session or "", self.options.patience_seconds
                    )
                    self._passing("decided")
                    if changes is None:
                        return False
                    transaction.commit(changes)
                    for holding in changes.drop_holdings:
                        self._held.pop(holding.key, None)
                    for ticket in changes.drop_tickets:
                        self._asked.pop(ticket.key, None)
                    self._passing("committed")
                    return True
            pools = ()  # They moved between the read and the lock: read again.
        raise AssertionError(f"{scope} found no stable view in {_LOOKS_MAX} looks")

    def _reap(self) -> int:
        expired = self.store.expired_sessions(REAP_COUNT_MAX)
        if self._session in expired:
            # Late, but not reaped yet: this process lives, and says so first.
            self.heartbeat()
        ended = 0
        for session in expired:
            if session != self._session:
                ended += self._end(Scope((), ended=(session,)), EntryKind.EXPIRED)
        return ended

    def _limit(self, pool: str, limit: int | None, *, from_default: bool) -> None:
        self._passing("begin")
        with self.store.begin(Scope((pool,))) as transaction:
            self._passing("viewed")
            changes = bookkeeping.limited(
                transaction.view,
                pool,
                limit,
                self._session or "",
                self.options.patience_seconds,
                self.options.default_limit,
                from_default=from_default,
            )
            self._passing("decided")
            transaction.commit(changes)
        self._passing("committed")

    def _persist(self, verb: Callable[[], T]) -> T:
        """Do a verb again while the connection comes and goes: every verb is idempotent."""
        deadline = time.monotonic() + _AGAIN_SECONDS_MAX
        while True:
            try:
                return verb()
            except TryAgainError as error:
                if time.monotonic() >= deadline:
                    raise StoreUnavailableError(
                        f"The engine's database did not answer: {error}.",
                        remedy="Check that it runs and is reachable; nothing was granted.",
                    ) from error
                time.sleep(_AGAIN_PAUSE_SECONDS)
