"""One engine's part of its process's session: what it holds, waits for and has to give back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, Protocol
from weakref import ref

from dagster_lifeguard.engine import forks
from dagster_lifeguard.engine.engine_options import DUE_SECONDS
from dagster_lifeguard.engine.rules.model import Waiting, WaitReason
from dagster_lifeguard.engine.rules.pool_settings import rises_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dagster_lifeguard.engine.engine_options import EngineOptions
    from dagster_lifeguard.engine.rules.model import Granted, TicketKey, Verdict, View
    from dagster_lifeguard.engine.session import Session


class SessionUser(Protocol):
    """An engine, as its member of the session sees it."""

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
    def is_gone(self) -> bool:
        """Whether the engine no longer exists."""
        return self._user() is None

    @property
    def needs_session(self) -> bool:
        """Whether it holds, waits, or has something to give back."""
        return bool(self.held or self.asked or self.owed)

    @property
    def id(self) -> str | None:
        """The session, once there is one."""
        return self._session.id

    def open(self) -> str:
        """The session; a new one if there is none.

        Raises:
            TryAgainError: The database did not answer.
        """
        user = self._user()
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
        if (user := self._user()) is not None:
            user.lost(held, by_clock=by_clock)

    def tidy(self) -> None:
        """Small chores of each heartbeat."""
        if (user := self._user()) is not None:
            user.tidy()

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
        # Nobody wakes it when a temporary limit ends.
        pool = view.pools.get(verdict.pool)
        rises = None if pool is None else rises_at(pool.settings, verdict.ahead)
        if rises is not None:
            pause = min(pause, max(0.0, rises - view.now))
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

    def end_waits_of(self, other: Member) -> None:
        """Give back for another engine, which no longer can, what it waits for."""
        self.owed.update(dict.fromkeys(other.asked))

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
