"""The session of this process: what it holds, what it waits for, and the lease on both."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from dagster_lifeguard.heartbeat import Heartbeat
from dagster_lifeguard.model import TicketKey, Waiting
from dagster_lifeguard.options import DUE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dagster_lifeguard.model import Granted, Verdict, View
    from dagster_lifeguard.options import EngineOptions
    from dagster_lifeguard.store.contract import Store


class _Asked(NamedTuple):
    """When a waiting ticket was claimed last, and when it looks again; by the process's clock."""

    at: float
    look_again: float


@dataclass
class _Notes:
    """What is known of one session, and forgotten with it.

    Attributes:
        held: What each ticket that holds was granted.
        asked: The tickets that wait.
        woken: Those of them that should look again.
        owed: Releases that failed, with the fence that they were meant for.
    """

    session: str | None = None
    heartbeat: Heartbeat | None = None
    held: dict[TicketKey, Granted] = field(default_factory=dict)
    asked: dict[TicketKey, _Asked] = field(default_factory=dict)
    woken: set[TicketKey] = field(default_factory=set)
    owed: dict[TicketKey, int | None] = field(default_factory=dict)


class Session:
    """This process's session, for all its threads; a fork of the process gets its own.

    Opened when it is first needed, and anew after it was left or lost. The lock keeps one session's
    notes together. A thread that has the lock may ask for the store's connection, so a thread that
    has the connection must not ask for the lock.

    Args:
        store: Where sessions are.
        options: The lease, when to look again, whom to tell.
        tidy: Called after each heartbeat.
    """

    def __init__(self, store: Store, options: EngineOptions, tidy: Callable[[], None]) -> None:
        self._store = store
        self._options = options
        self._tidy = tidy
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._notes = _Notes()

    # ---- its life ------------------------------------------------------------------------------

    @property
    def id(self) -> str | None:
        """The session, once there is one."""
        return self._notes.session if self._pid == os.getpid() else None

    def open(self) -> str:
        """The session; a new one if there is none.

        Raises:
            TryAgainError: The database did not answer.
        """
        if self._pid != os.getpid():
            self._begin()  # This is a fork: the session is the parent's.
        found = self._notes.session
        if found is not None:
            return found
        with self._lock:
            if self._notes.session is None:
                self._notes.session = self._opened(uuid.uuid4().hex)
            return self._notes.session

    def _opened(self, session: str) -> str:
        lease_seconds = self._options.lease_seconds
        label = f"{socket.gethostname()}:{self._pid}"
        self._store.open_session(session, label, lease_seconds)
        if self._options.on_session_opened is not None:
            self._options.on_session_opened()
        self._notes.heartbeat = Heartbeat(
            lease_seconds,
            beat=lambda: self._beat(session),
            lost=lambda: self.lose(session),
            tidy=self._tidy,
        )
        self._notes.heartbeat.start()
        return session

    def beat(self) -> bool:
        """Extend the lease.

        Returns:
            False when the session was reaped: ``on_lease_lost`` has then been called.
        """
        session = self.id
        return session is None or self._beat(session)

    def _beat(self, session: str) -> bool:
        if self._store.heartbeat(session, self._options.lease_seconds):
            return True
        self.lose(session)
        return False

    def lose(self, session: str) -> None:
        """Forget a session that is no more, and tell whoever executes on what it held."""
        with self._lock:
            if self._notes.session != session:
                return  # Another thread found out first.
            lost = tuple(self._notes.held)
            self._notes = _Notes()
        if self._options.on_lease_lost is not None:
            self._options.on_lease_lost(lost)

    def leave(self, keys: Iterable[TicketKey] | None = None) -> str | None:
        """Let the session go, without a word to the database: no heartbeat from now on.

        Args:
            keys: Of what it holds, let these go: at once if it holds nothing else, and else with
                the rest. All by default.

        Returns:
            The session that was let go, if any was.
        """
        if self.id is None:
            return None
        with self._lock:
            for key in tuple(self._notes.held) if keys is None else keys:
                self._notes.held.pop(key, None)
            if self._notes.held:
                return None
            left, self._notes = self._notes, _Notes()
        if left.heartbeat is not None:
            left.heartbeat.stop()
        return left.session

    # ---- what it holds and waits for -----------------------------------------------------------

    def note(
        self, key: TicketKey, verdict: Verdict, view: View, session: str, asked_at: float
    ) -> bool:
        """Take note of a verdict; False if there is another session by now, or none.

        Args:
            key: The ticket.
            verdict: What was decided.
            view: What it was decided on.
            session: Under which it was asked.
            asked_at: When the look began, by the process's clock. The next begins as long before
                its time as this one took to see the view, and so sees it in time.
        """
        with self._lock:
            notes = self._notes
            if notes.session != session:
                return False
            if isinstance(verdict, Waiting):
                pause_seconds = self._pause_seconds(verdict, view)
                notes.asked[key] = _Asked(time.monotonic(), asked_at + pause_seconds)
                return True
            notes.asked.pop(key, None)
            notes.woken.discard(key)
            if verdict.slots:
                notes.held[key] = verdict
            return True

    def _pause_seconds(self, verdict: Waiting, view: View) -> float:
        pause = self._options.look_again_seconds
        # The first in line looks as soon as a holder may be dead; whoever reaps wakes the rest. A
        # lease that has run out by now could not be reaped just before: not at once again.
        if verdict.ahead == 0 and view.lease_ends is not None and not view.expired:
            pause = min(pause, view.lease_ends - view.now)
        # Who waits for a rate knows its time, and nobody wakes it. The next comes early rather than
        # late: it waits for the rest with the locks in hand.
        if verdict.ready_at is not None:
            early = 0.0 if verdict.ahead else DUE_SECONDS / 2
            pause = min(pause, max(0.0, verdict.ready_at - view.now - early))
        return pause

    def waits(self, key: TicketKey) -> bool:
        """Whether the ticket was noted to wait."""
        return key in self._notes.asked

    def forget(self, key: TicketKey) -> Granted | None:
        """Forget a ticket; what it was noted to hold."""
        notes = self._notes
        notes.asked.pop(key, None)
        notes.woken.discard(key)
        return notes.held.pop(key, None)

    def look_again_at(self, key: TicketKey, now: float) -> float:
        """When a waiting ticket looks again although nothing wakes it."""
        asked = self._notes.asked.get(key)
        return asked.look_again if asked else now + self._options.look_again_seconds

    def woke(self, keys: Iterable[TicketKey]) -> None:
        """These tickets should look again."""
        self._notes.woken.update(keys)

    def takes_wake(self, key: TicketKey) -> bool:
        """Whether the ticket was woken since it was last asked."""
        woken = key in self._notes.woken
        self._notes.woken.discard(key)
        return woken

    def abandoned(self) -> tuple[TicketKey, ...]:
        """The waiting tickets that nobody has claimed again for too long."""
        before = time.monotonic() - self._options.abandon_seconds
        return tuple(key for key, asked in tuple(self._notes.asked.items()) if asked.at < before)

    # ---- what it could not give back -----------------------------------------------------------

    def owe(self, key: TicketKey, fence: int | None) -> None:
        """A ticket could not be released; with the fence that was meant."""
        self._notes.owed[key] = fence

    def waive(self, key: TicketKey) -> None:
        """A ticket is claimed again: nothing is owed."""
        if key in self._notes.owed:
            with self._lock:  # Not while it is being given back.
                self._notes.owed.pop(key, None)

    def settle(self, give_back: Callable[[TicketKey, int | None, str], object]) -> None:
        """Give back what is owed: ticket, fence, and the session that alone may own it."""
        for key in tuple(self._notes.owed):
            with self._lock:
                notes = self._notes
                if notes.session is not None and key in notes.owed:
                    give_back(key, notes.owed[key], notes.session)
                    del notes.owed[key]
