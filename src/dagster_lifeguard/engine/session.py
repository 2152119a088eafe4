"""The session of this process: one for all its engines on one database, with one lease."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

from dagster_lifeguard.engine import forks
from dagster_lifeguard.engine.heartbeat import Heartbeat
from dagster_lifeguard.engine.lease import process_clock
from dagster_lifeguard.engine.parting import disown, end_unused
from dagster_lifeguard.engine.store.contract import TryAgainError
from dagster_lifeguard.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

    from typing_extensions import Self

    from dagster_lifeguard.engine.rules.model import Granted, TicketKey
    from dagster_lifeguard.engine.store.contract import Store

logger = logging.getLogger(__name__)


class SessionMember(Protocol):
    """An engine, as its process's session sees it: see ``Member``.

    Attributes:
        joined: The session under which it may claim; None before its first claim.
    """

    joined: str | None

    @property
    def is_gone(self) -> bool:
        """Whether the engine no longer exists."""

    @property
    def needs_session(self) -> bool:
        """Whether it holds, waits, or has something to give back."""

    def tickets(self) -> tuple[TicketKey, ...]:
        """The tickets that hold or wait."""

    def take_all(self) -> dict[TicketKey, Granted]:
        """Forget everything; what was held."""

    def end_waits_of(self, other: Self) -> None:
        """Give back for another engine, which no longer can, what it waits for."""

    def tidy(self) -> None:
        """Small chores of each heartbeat."""

    def tell_lost(self, held: Mapping[TicketKey, Granted], *, by_clock: bool) -> None:
        """Tell the engine that the session is no more, and what it held under it.

        Args:
            held: The tickets, and what each was granted.
            by_clock: The session's lease is over by the process's clock, and the database does not
                answer: do not ask it.
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
        self._members: set[SessionMember] = set()
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

    def open(self, member: SessionMember, on_joined: Callable[[], None] | None) -> str:
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

    def part(self, member: SessionMember) -> None:
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
            self._let_go([member for member in self._members if member.is_gone])
            members = tuple(self._members)
            if any(member.tickets() for member in members):
                self._used_at = process_clock()
            is_idle = process_clock() - self._used_at > self._lease_seconds
        for member in members:
            member.tidy()
        self.hand_over()
        if is_idle or not members:
            self._retire()

    def _let_go(self, gone: Iterable[SessionMember]) -> None:
        """Give up what these engines hold; another member, or the lease, ends their waits."""
        for member in gone:
            self._members.discard(member)
            for other in tuple(self._members)[:1]:
                other.end_waits_of(member)
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
            is_needed = self._left or any(member.needs_session for member in self._members)
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
