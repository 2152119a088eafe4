"""The session of this process: one for all its engines on one database, with one lease."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from typing import TYPE_CHECKING, NamedTuple, Protocol
from weakref import WeakValueDictionary, ref

from dagster_lifeguard.engine import forks
from dagster_lifeguard.engine.engine_options import DUE_SECONDS
from dagster_lifeguard.engine.heartbeat import Heartbeat
from dagster_lifeguard.engine.lease import process_clock
from dagster_lifeguard.engine.parting import disown, end_unused
from dagster_lifeguard.engine.rules.model import Waiting, WaitReason
from dagster_lifeguard.engine.store.contract import TryAgainError
from dagster_lifeguard.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

    from dagster_lifeguard.engine.engine_options import EngineOptions
    from dagster_lifeguard.engine.rules.model import Granted, TicketKey, Verdict, View
    from dagster_lifeguard.engine.store.contract import Store

logger = logging.getLogger(__name__)


class SessionUser(Protocol):
    """An engine, as its process's session sees it."""

    @property
    def options(self) -> EngineOptions:
        """When it looks again, and whom it tells."""

    def tidy(self) -> None:
        """Small chores of each heartbeat."""

    def lost(self, held: Mapping[TicketKey, Granted], *, by_clock: bool) -> None:
        """The session no longer exists: report what this engine held under it.

        Args:
            held: The tickets, and what each was granted.
            by_clock: Its lease is over by the process's clock, and the database does not answer:
                do not ask it.
        """


class Session:
    """This process's session: opened when first needed, and again after it was ended or lost.

    Every engine of the process on the same database is a member. The session ends when the last
    member leaves, or when its members held and waited for nothing during one lease. The store's
    connection is closed with it. If an engine is garbage-collected while it holds slots, the lease
    of these slots is no longer renewed.

    A fork of the process begins without a session. What the parent holds stays the parent's.

    The lock keeps the session's id and its members' notes together. A thread that has the store's
    connection must not ask for the lock; a thread that has the lock asks for the connection only
    to open the session.

    Args:
        store: Where sessions are.
        lease_seconds: How long the session is trusted without a heartbeat.
    """

    def __init__(self, store: Store, lease_seconds: float) -> None:
        self.store = store
        self.lock = forks.ProcessLock()
        self._lease_seconds = lease_seconds
        self._members: set[Member] = set()
        self._begin()
        forks.watch(self)

    def _begin(self) -> None:
        self.id: str | None = None
        self.woken: set[TicketKey] = set()
        self._heartbeat: Heartbeat | None = None
        self._left: dict[TicketKey, None] = {}
        self._used_at = process_clock()

    def before_fork(self) -> None:
        """See ``Forked``."""

    def after_fork_in_child(self) -> None:
        """See ``Forked``."""
        self._begin()
        for member in self._members:
            member.take_all()

    # ---- its life ------------------------------------------------------------------------------

    def open(self, member: Member, on_joined: Callable[[], None] | None) -> str:
        """The session; a new one if there is none.

        Args:
            member: The member that needs it.
            on_joined: Called before this member claims anything under this session.

        Raises:
            TryAgainError: The database did not answer.
        """
        found = self.id
        if found is not None and member.joined == found:
            return found
        with self.lock:
            self._members.add(member)
            self._used_at = process_clock()
            if self.id is None:
                self.id = self._opened(uuid.uuid4().hex)
            found = self.id
        # Without the lock, which the end of a lease must not wait for.
        if on_joined is not None:
            on_joined()
        member.joined = found
        return found

    def _opened(self, session: str) -> str:
        asked_at = process_clock()
        self.store.open_session(session, _label(), self._lease_seconds)
        self._heartbeat = Heartbeat(
            self._lease_seconds,
            asked_at,
            beat=lambda: self.beat(session),
            lost=lambda: self.lose(session, by_clock=True),
            tidy=self.tidy,
        )
        self._heartbeat.start()
        return session

    def beat(self, session: str) -> bool:
        """Extend the lease.

        Returns:
            False when the session was reaped: the members have then been told.
        """
        if self.store.heartbeat(session, self._lease_seconds):
            return True
        self.lose(session)
        return False

    def lose(self, session: str, *, by_clock: bool = False) -> None:
        """Forget a session that no longer exists, and report to the engines what they held."""
        with self.lock:
            if self.id != session:
                return  # Another thread found out first.
            lost = [(member, member.take_all()) for member in self._members]
            self._stop()
        for member, held in lost:
            member.tell_lost(held, by_clock=by_clock)

    def part(self, member: Member) -> None:
        """This engine no longer needs the session. With the last engine the session ends."""
        with self.lock:
            self._let_go([member])
            is_last = not self._members
        self.hand_over()
        if is_last:
            self._retire()

    def tidy(self) -> None:
        """Chores of each heartbeat: for the engines, and for engines that no longer exist."""
        with self.lock:
            self._let_go([member for member in self._members if member.user is None])
            members = tuple(self._members)
            if any(member.tickets() for member in members):
                self._used_at = process_clock()
            is_idle = process_clock() - self._used_at > self._lease_seconds
        for member in members:
            if (user := member.user) is not None:
                user.tidy()
        self.hand_over()
        if is_idle or not members:
            self._retire()

    def _let_go(self, gone: Iterable[Member]) -> None:
        """Give up what these engines hold; another member, or the lease, ends their waits."""
        for member in gone:
            self._members.discard(member)
            for other in tuple(self._members)[:1]:
                other.owed.update(dict.fromkeys(member.asked))
            self._left.update(dict.fromkeys(member.take_all()))

    def used(self, held: TicketKey | None = None) -> None:
        """Something was asked, and perhaps granted: to be called with the lock."""
        self._used_at = process_clock()
        if held is not None:
            self._left.pop(held, None)

    def leave(self, keys: Iterable[TicketKey]) -> None:
        """Own these no more, and give nothing back: to be called with the lock."""
        self._left.update(dict.fromkeys(keys))

    def hand_over(self) -> None:
        """Give up ownership of the tickets that engines left; retried at each heartbeat.

        A holding without another owner gets a session without heartbeats: it is free one lease
        later.
        """
        with self.lock:
            session, left = self.id, tuple(self._left)
        if session is None or not left:
            return
        heir = None
        try:
            for key in left:
                if not disown(self.store, key, session, None):
                    heir = heir or self._open_heir()
                    disown(self.store, key, session, heir)
                self._left.pop(key, None)
        except (TryAgainError, StoreUnavailableError) as error:
            logger.info("What was left stays held until the next try: %s", error)

    def _open_heir(self) -> str:
        heir, label = uuid.uuid4().hex, f"{_label()} (left)"
        self.store.open_session(heir, label, self._lease_seconds, is_listening=False)
        return heir

    def _retire(self) -> None:
        """End the session if no member needs it; if the database is silent, its lease ends it."""
        with self.lock:
            is_needed = self._left or any(m.tickets() or m.owed for m in self._members)
            if is_needed and self._members:
                return
            session = self.id
            self._stop()
        try:
            if session is not None:
                end_unused(self.store, session)
        except (TryAgainError, StoreUnavailableError) as error:
            logger.info("The session is left to its lease: %s", error)
        if self.id is None:
            self.store.close()

    def _stop(self) -> None:
        heartbeat = self._heartbeat
        self._begin()
        if heartbeat is not None:
            heartbeat.stop()


def _label() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


_shared: WeakValueDictionary[Hashable, Session] = WeakValueDictionary()
_sharing = forks.ProcessLock()


def shared_session(
    database: Hashable, lease_seconds: float, make_store: Callable[[], Store]
) -> Session:
    """The one session of this process on a database, for a lease of this length.

    Args:
        database: A key that identifies the database.
        lease_seconds: How long the session is trusted without a heartbeat.
        make_store: Makes the store if there is no session yet.
    """
    with _sharing:
        found = _shared.get((database, lease_seconds))
        if found is None:
            found = _shared[database, lease_seconds] = Session(make_store(), lease_seconds)
        return found


class _Asked(NamedTuple):
    """When a waiting ticket was claimed last, and when it looks again; by the process's clock.

    With it whether the ticket takes the next slots that are freed.
    """

    at: float
    look_again: float
    is_next: bool


class Member:
    """One engine's part of its process's session.

    Args:
        session: The session.
        user: The engine. It is not kept alive by this.

    Attributes:
        joined: The session under which it may claim; None before its first claim.
        held: The grant of each ticket that holds.
        asked: The tickets that wait.
        owed: Releases that failed, with the fence of the holding to release.
    """

    def __init__(self, session: Session, user: SessionUser) -> None:
        self._session = session
        self._user = ref(user)
        self._look_again_seconds = user.options.look_again_seconds
        self._abandon_seconds = user.options.abandon_seconds
        self._settling = forks.ProcessLock()
        self.joined: str | None = None
        self.held: dict[TicketKey, Granted] = {}
        self.asked: dict[TicketKey, _Asked] = {}
        self.owed: dict[TicketKey, int | None] = {}

    @property
    def user(self) -> SessionUser | None:
        """The engine, while it is in use."""
        return self._user()

    @property
    def id(self) -> str | None:
        """The session, once there is one."""
        return self._session.id

    def open(self) -> str:
        """The session; a new one if there is none.

        Raises:
            TryAgainError: The database did not answer.
        """
        user = self.user
        assert user is not None, "its engine asks"
        return self._session.open(self, user.options.on_session_joined)

    def beat(self) -> bool:
        """Extend the lease, if there is a session; see ``Session.beat``."""
        return self.id is None or self._session.beat(self.id)

    def lose(self, session: str) -> None:
        """The database says that this session is no more."""
        self._session.lose(session)

    def take_all(self) -> dict[TicketKey, Granted]:
        """Forget everything; what was held."""
        held, self.held, self.joined = self.held, {}, None
        self.asked, self.owed = {}, {}
        return held

    def tell_lost(self, held: Mapping[TicketKey, Granted], *, by_clock: bool) -> None:
        """Tell the engine that the session is no more."""
        if (user := self.user) is not None:
            user.lost(held, by_clock=by_clock)

    def leave(self, keys: Iterable[TicketKey], *, at_once: bool = True) -> None:
        """Give up ownership of these held tickets without releasing their slots.

        Args:
            keys: The tickets.
            at_once: Do it now; otherwise at the next heartbeat, for tickets that still hold then.
        """
        with self._session.lock:
            left = [key for key in keys if self.held.pop(key, None)]
            self._session.leave(left)
        if at_once:
            self._session.hand_over()

    def part(self) -> None:
        """The engine needs the session no more, until it asks again."""
        self._session.part(self)

    # ---- what it holds and waits for -----------------------------------------------------------

    def note(
        self, key: TicketKey, verdict: Verdict, view: View, session: str, asked_at: float
    ) -> bool:
        """Record a verdict; False if the session has changed meanwhile, or has ended.

        Args:
            key: The ticket.
            verdict: The verdict.
            view: The view that it was decided on.
            session: The session that asked.
            asked_at: When the look began, by ``time.monotonic``. The next look starts early by the
                time that this one needed to reach its view.
        """
        with self._session.lock:
            if self._session.id != session:
                return False
            self._session.used(key if verdict.granted else None)
            if isinstance(verdict, Waiting):
                pause_seconds = self._pause_seconds(verdict, view)
                is_next = verdict.ahead == 0 and verdict.reason is WaitReason.FULL
                self.asked[key] = _Asked(time.monotonic(), asked_at + pause_seconds, is_next)
                return True
            self.asked.pop(key, None)
            self._session.woken.discard(key)
            if verdict.slots:
                self.held[key] = verdict
            return True

    def _pause_seconds(self, verdict: Waiting, view: View) -> float:
        pause = self._look_again_seconds
        # The first waiter looks as soon as a holder may be dead; its reaping wakes the others. A
        # lease that has run out by now could not be reaped just before: not at once again.
        if verdict.ahead == 0 and view.lease_ends is not None and not view.expired:
            pause = min(pause, view.lease_ends - view.now)
        # A step that waits for a rate knows its start time and is not woken. The next waiter comes
        # early rather than late, and waits for the remaining time under the locks.
        if verdict.ready_at is not None:
            early = 0.0 if verdict.ahead else DUE_SECONDS / 2
            pause = min(pause, max(0.0, verdict.ready_at - view.now - early))
        return pause

    def waits(self, key: TicketKey) -> bool:
        """Whether the ticket was noted to wait."""
        return key in self.asked

    def has_next(self) -> bool:
        """Whether one of the waiting tickets takes the next slots that are freed."""
        return any(asked.is_next for asked in tuple(self.asked.values()))

    def forget(self, key: TicketKey) -> Granted | None:
        """Forget a ticket; what it was noted to hold."""
        self.asked.pop(key, None)
        self._session.woken.discard(key)
        return self.held.pop(key, None)

    def tickets(self) -> tuple[TicketKey, ...]:
        """The tickets that hold or wait."""
        return (*self.held, *self.asked)

    def look_again_at(self, key: TicketKey, now: float) -> float:
        """When a waiting ticket looks again although nothing wakes it."""
        asked = self.asked.get(key)
        return asked.look_again if asked else now + self._look_again_seconds

    def woke(self, keys: Iterable[TicketKey]) -> None:
        """These tickets of the process should look again."""
        self._session.woken.update(keys)

    def takes_wake(self, key: TicketKey) -> bool:
        """Whether the ticket was woken since it was last asked."""
        woken = key in self._session.woken
        self._session.woken.discard(key)
        return woken

    def abandoned(self) -> tuple[TicketKey, ...]:
        """The waiting tickets that were not claimed again for too long."""
        before = time.monotonic() - self._abandon_seconds
        return tuple(key for key, asked in tuple(self.asked.items()) if asked.at < before)

    # ---- what it could not give back -----------------------------------------------------------

    def owe(self, key: TicketKey, fence: int | None) -> None:
        """Record a failed release, with the fence of the holding to release."""
        self.owed[key] = fence

    def waive(self, key: TicketKey) -> None:
        """A ticket is claimed again: nothing is owed."""
        if key in self.owed:
            with self._settling:  # Not while it is being given back.
                self.owed.pop(key, None)

    def settle(self, give_back: Callable[[TicketKey, int | None, str], object]) -> None:
        """Retry failed releases: ticket, fence, and the only session that may own the holding."""
        for key in tuple(self.owed):
            with self._settling:
                session = self.id
                if session is not None and key in self.owed:
                    give_back(key, self.owed[key], session)
                    self.owed.pop(key, None)
