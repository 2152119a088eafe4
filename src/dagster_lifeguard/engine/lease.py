"""How long a process may trust its session, by its own clock, even if the database is silent."""

from __future__ import annotations

import time

_MARGIN = 0.05
"""The share of a lease held in reserve: threads start late, and clocks differ in speed."""

_ANSWER_PART = 0.1
_ANSWER_SECONDS_MAX = 1.0

_CLOCK_ID = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


def process_clock() -> float:
    """Seconds that never go back, and that pass while the machine sleeps too."""
    return time.monotonic() if _CLOCK_ID is None else time.clock_gettime(_CLOCK_ID)


def answer_seconds(lease_seconds: float) -> float:
    """How many seconds a process whose lease may be over waits for the database's answer."""
    return min(_ANSWER_SECONDS_MAX, lease_seconds * _ANSWER_PART)


class Lease:
    """Knows from when on another process may hold this process's slots.

    The database counts a lease from the moment at which it writes the heartbeat. The process counts
    from the earlier moment at which it sent the heartbeat, so its lease ends first.

    A process that was stopped wakes up with its lease over and no heartbeat sent meanwhile. It may
    still be the owner, if no other ticket took its slots: it asks once, and has ``answer_seconds``
    to get the answer. A process whose heartbeats stay unanswered has asked already.

    Args:
        seconds: How long one heartbeat is good for.
        asked_at: When the session's opening was sent, by ``process_clock``.

    Attributes:
        ends_at: When the lease is over, by ``process_clock``.
        answer_seconds: How long to wait for the answer to the first heartbeat after the last
            answered one.
    """

    def __init__(self, seconds: float, asked_at: float) -> None:
        self._trusted_seconds = seconds * (1 - _MARGIN)
        self.ends_at = asked_at + self._trusted_seconds
        self.answer_seconds = answer_seconds(seconds)
        self._asking_since: float | None = None

    def ask(self, now: float) -> None:
        """A heartbeat is sent."""
        if self._asking_since is None:
            self._asking_since = now

    def renew(self, asked_at: float) -> None:
        """The heartbeat that was sent then has been answered."""
        self.ends_at = asked_at + self._trusted_seconds
        self._asking_since = None

    def over_at(self) -> float | None:
        """When the process must treat its slots as lost; None while it has not asked."""
        if self._asking_since is None:
            return None
        return max(self.ends_at, self._asking_since + self.answer_seconds)
