"""A process of a world: its engine, and the store as it reaches it."""

from __future__ import annotations

from functools import partial

from promises import LEASE, LOOK_AGAIN, PATIENCE

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.model import TicketKey
from dagster_lifeguard.engine.session import Session
from dagster_lifeguard.engine.store.contract import TryAgainError
from dagster_lifeguard.engine.store.memory.store import MemoryStore


class Wire:
    """The store as one process reaches it.

    Attributes:
        is_cut: Whether no message arrives.
        is_deaf: Whether no wake-up arrives.
        falters: How many of the next messages fail; the answer of each other one is lost.
        loses: Whether the next commit is done and its answer lost.
    """

    grant_unseen = None

    def __init__(self, store, world):
        self._store = store
        self._world = world
        self.is_cut = self.is_deaf = self.loses = False
        self.falters = 0
        self.answered_at = self.asking_since = None
        for verb in (
            *("pools_of", "expired_sessions", "bury", "holders_over", "revoked_sessions"),
            *("settings", "snapshots", "ticket", "now", "trim_ledger", "run_ids", "busy_pools"),
        ):
            setattr(self, verb, partial(self._ask, getattr(store, verb)))

    def _ask(self, verb, *args, **named):
        self._world.baton.point()
        if self.is_cut:
            raise TryAgainError("cut")
        if self.falters:
            self.falters -= 1
            self._world.trouble()
            if self.falters % 2:
                verb(*args, **named)
            raise TryAgainError("faltered")
        return verb(*args, **named)

    def begin(self, scope):
        if self.is_cut or self.falters:
            self.falters = max(0, self.falters - 1)
            raise TryAgainError("no transaction")
        transaction = self._store.begin(scope)
        if self.loses:
            self.loses = False
            transaction.commit = partial(self._lose, transaction.commit)
        return transaction

    def release(self, key, grant, session, next_up):
        return MemoryStore.release(self, key, grant, session, next_up)

    def _lose(self, commit, changes):
        commit(changes)
        self._world.trouble()
        raise TryAgainError("the answer is lost")

    def heartbeat(self, *args):
        return self._heard(self._store.heartbeat, *args)

    def open_session(self, *args, **named):
        return self._heard(self._store.open_session, *args, **named)

    def _heard(self, verb, *args, **named):
        """Remember when the database last answered a heartbeat, and since when it does not."""
        now = self._world.clock.now
        try:
            found = self._ask(verb, *args, **named)
        except TryAgainError:
            self.asking_since = now if self.asking_since is None else self.asking_since
            raise
        self.answered_at, self.asking_since = now, None
        return found

    def may_believe(self):
        """Whether its process may still believe in what it was granted, as nobody answers it."""
        if self.asking_since is None:
            return False
        return self._world.clock.now < max(self.answered_at + LEASE, self.asking_since + 1.0)

    def poll(self, session, timeout_seconds, *, is_next=False):
        del timeout_seconds, is_next
        woken = self._store.woken(session)
        return frozenset() if self.is_deaf else woken

    def close(self):
        """Nothing."""


class Process:
    """A process: its engine, what it was granted, and what it waits for.

    Attributes:
        granted: The runs that hold, as it believes, with their fences.
        waiting: The runs that wait.
        claiming: The runs that one of its threads claims at this moment.
    """

    def __init__(self, world, number):
        self.world = world
        self.number = number
        self.wire = Wire(world.store, world)
        options = EngineOptions(
            lease_seconds=LEASE,
            look_again_seconds=LOOK_AGAIN,
            patience_seconds=PATIENCE,
            on_lease_lost=self.lost,
        )
        self.session = Session(self.wire, LEASE)
        self.engine = Engine(self.wire, options, self.passing, self.session)
        self.is_paused = False
        self.granted = {}
        self.waiting = {}
        self.claiming = set()

    def passing(self, point):
        del point
        self.world.baton.point()

    def lost(self, keys):
        for key in keys:
            self.granted.pop(key.run_id, None)

    @property
    def can_ask(self):
        return not (self.is_paused or self.wire.is_cut)

    def claim(self, run):
        if run in self.claiming:
            return
        demand, priority, team = self.world.asked[run]
        self.world.claims += 1
        self.claiming.add(run)
        try:
            verdict = self.engine.claim(run, "s", demand, priority, tags=lambda: {"team": team})
        except TryAgainError:
            return
        finally:
            self.claiming.discard(run)
        self.world.granted += verdict.granted
        if run not in self.waiting:  # Another thread gave it up meanwhile.
            self.engine.release(run, "s")
        elif verdict.granted:
            del self.waiting[run]
            self.granted[run] = verdict.fence

    def look(self):
        """Beat if it is time, hear wake-ups, and claim again what is woken or due.

        Returns:
            Whether it claimed.
        """
        heart = self.session._heartbeat
        if heart is not None:
            heart.look()
        if self.wire.is_cut or not self.waiting:
            return False
        own, now, did = self.engine._own, self.world.clock.now, False
        if self.session.id is not None:
            own.woke(self.wire.poll(self.session.id, 0))
        for run in tuple(self.waiting):
            key = TicketKey(run, "s")
            # The database's clock counts in microseconds, and ours in less.
            is_due = own.look_again_at(key, now) <= now + 1e-6 or not own.waits(key)
            if run in self.waiting and (own.takes_wake(key) or is_due):
                self.claim(run)
                did = True
        return did
