"""The one background thread of a process that owns tickets: it says that the process lives."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Protocol

from dagster_lifeguard.errors import StoreUnavailableError
from dagster_lifeguard.store.contract import TryAgainError

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

_BEATS_PER_LEASE = 3
_RETRY_SECONDS_MAX = 1.0


class Beat(Protocol):
    """One heartbeat: False when the lease is lost."""

    def __call__(self) -> bool: ...


class Heartbeat:
    """Beats three times per lease until it is stopped or the lease is lost.

    A process that cannot reach the database stops trusting its own lease when the lease has run
    out by its own clock, counted from before the last beat that succeeded: no later than others
    may take its slots.

    Args:
        lease_seconds: How long one beat is good for.
        beat: Says to the database that the process lives.
        lost: Called when the lease ran out and the database could not be asked.
        tidy: Called after each beat, for small chores.
    """

    def __init__(
        self,
        lease_seconds: float,
        beat: Beat,
        lost: Callable[[], None],
        tidy: Callable[[], None],
    ) -> None:
        self._lease_seconds = lease_seconds
        self._beat = beat
        self._lost = lost
        self._tidy = tidy
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lifeguard-heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for a beat that is under way (unless called by the beat itself)."""
        self._stopped.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        good_since = time.monotonic()
        pause = self._lease_seconds / _BEATS_PER_LEASE
        while not self._stopped.wait(pause):
            begun = time.monotonic()
            try:
                if not self._beat():
                    return
                good_since = begun
                pause = self._lease_seconds / _BEATS_PER_LEASE
                self._tidy()
            except Exception as error:
                if not isinstance(error, (TryAgainError, StoreUnavailableError)):
                    logger.exception("A heartbeat or a chore of it failed")
                if time.monotonic() - good_since > self._lease_seconds:
                    logger.warning("The lease ran out while the database was away: %s", error)
                    self._lost()
                    return
                logger.info("No heartbeat, trying again: %s", error)
                pause = min(_RETRY_SECONDS_MAX, self._lease_seconds / _BEATS_PER_LEASE)
