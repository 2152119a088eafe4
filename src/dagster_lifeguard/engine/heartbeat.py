"""The one lasting thread of a process that owns tickets: it keeps the lease, and watches it."""

from __future__ import annotations

import logging
import math
import threading
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.lease import Lease, process_clock
from dagster_lifeguard.engine.store.contract import TryAgainError
from dagster_lifeguard.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

_BEATS_PER_LEASE = 3
_RETRY_SECONDS_MAX = 1.0
_LOOK_SECONDS = 1.0
"""The clock of a waiting thread stands still while the machine sleeps: look at least so often."""


class Heartbeat:
    """Sends three heartbeats per lease until it is stopped or the lease is lost.

    Each heartbeat is sent by a short-lived thread of its own, so that a database that does not
    answer cannot hold up the look at the clock. When the lease is over by that clock (see
    ``Lease``), ``lost`` is called, whether or not the database has answered.

    Not promised: any of this while a step holds Python's interpreter lock. No thread of the
    process runs then; the lease is looked at as soon as one does.

    Args:
        lease_seconds: How long one heartbeat is good for.
        asked_at: When the session's opening was sent, by ``process_clock``.
        beat: Sends one heartbeat; False when the database says that the lease is lost.
        lost: Called when the lease is over by the process's clock; must not ask the database.
        tidy: Called after each heartbeat that was answered soon, for small chores.
    """

    def __init__(
        self,
        lease_seconds: float,
        asked_at: float,
        beat: Callable[[], bool],
        lost: Callable[[], None],
        tidy: Callable[[], None],
    ) -> None:
        self._lease = Lease(lease_seconds, asked_at)
        self._pause_seconds = lease_seconds / _BEATS_PER_LEASE
        self._beat = beat
        self._lost = lost
        self._tidy = tidy
        self._due_at = asked_at + self._pause_seconds
        self._is_beating = False
        self._stopped = False
        self._look = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="lifeguard-lease", daemon=True).start()

    def stop(self) -> None:
        """Stop. A heartbeat that is under way may still arrive."""
        self._stopped = True
        self._look.set()

    def _run(self) -> None:
        while (pause_seconds := self.look()) is not None:
            self._look.wait(pause_seconds)
            self._look.clear()

    def look(self) -> float | None:
        """Send a heartbeat if one is due, and see whether the lease is over.

        Returns:
            In how many seconds to look again; None if the heartbeat was stopped or the lease lost.
        """
        if self._stopped:
            return None
        now = process_clock()
        if not self._is_beating and now >= self._due_at:
            self._send(now)
        over_at = self._lease.over_at()
        if over_at is not None and now >= over_at:
            logger.warning("The lease ran out while the database did not answer.")
            self._lost()
            return None
        next_at = min(
            math.inf if over_at is None else over_at,
            math.inf if self._is_beating else self._due_at,
        )
        return min(max(next_at - now, 0.0), _LOOK_SECONDS)

    def _send(self, now: float) -> None:
        self._lease.ask(now)
        self._is_beating = True
        try:
            threading.Thread(
                target=self._once, args=(now,), name="lifeguard-heartbeat", daemon=True
            ).start()
        except RuntimeError as error:  # No thread is to be had: the lease goes on to its end.
            logger.warning("No heartbeat: %s", error)
            self._is_beating = False
            self._due_at = now + min(_RETRY_SECONDS_MAX, self._pause_seconds)

    def _once(self, asked_at: float) -> None:
        pause_seconds = self._pause_seconds
        try:
            if not self._beat():
                self._stopped = True
                return
            self._lease.renew(asked_at)
            # On a slow link a chore would take the time in which the next answer must come.
            if process_clock() - asked_at < self._pause_seconds / 2:
                self._tidy()
        except Exception as error:
            if not isinstance(error, (TryAgainError, StoreUnavailableError)):
                logger.exception("A heartbeat or a chore of it failed")
            logger.info("No heartbeat, trying again: %s", error)
            pause_seconds = min(_RETRY_SECONDS_MAX, pause_seconds)
        finally:
            self._due_at = asked_at + pause_seconds
            self._is_beating = False
            self._look.set()
