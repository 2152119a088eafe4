"""A cache of the past that is played with other limits, once for each move of a slider."""

from __future__ import annotations

import time
from threading import Lock
from typing import TYPE_CHECKING

from dagster_lifeguard.insight.simulation.answer import PlayedRecording
from dagster_lifeguard.insight.simulation.history import read_recording
from dagster_lifeguard.web.cache import Cache

if TYPE_CHECKING:
    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.web.pages.window import Period

FRESH_SECONDS = 60.0
"""A recording is used for at least this long; see ``Cache``."""

RECORDINGS_MAX = 2
"""At most this many recordings are in the cache: one of 100,000 executions needs some 100 MB."""


class RecordingCache:
    """The recordings of the periods that were asked for last; any thread may ask."""

    def __init__(self) -> None:
        self._recordings: Cache[Period, PlayedRecording] = Cache(FRESH_SECONDS, RECORDINGS_MAX)
        self._lock = Lock()

    def played(self, deployment: Deployment, period: Period) -> PlayedRecording:
        """The recording of a period, and its play. One is read at a time, however many ask.

        Raises:
            DeploymentError: It cannot be read, or pools have no effect.
        """
        with self._lock:
            return self._recordings.get(period, lambda: _read(deployment, period))


def _read(deployment: Deployment, period: Period) -> PlayedRecording:
    now = time.time()
    since, until = period.bounds(now)
    recording = read_recording(deployment, since=since, until=min(until, now))
    return PlayedRecording.of(recording, deployment.settings().patience_seconds)
