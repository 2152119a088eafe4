"""A cache of the past that is played with other limits, once for each move of a slider."""

from __future__ import annotations

import time
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from dagster_lifeguard.insight.simulation.answer import PlayedRecording
from dagster_lifeguard.insight.simulation.history import read_recording

if TYPE_CHECKING:
    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.web.pages.window import Period

FRESH_SECONDS = 60.0
"""A recording is used for this long, or for ``_SHARE`` times as long as it took to read."""

RECORDINGS_MAX = 2
"""At most this many recordings are in the cache: one of 100,000 executions needs some 100 MB."""

_SHARE = 20


class _Cached(NamedTuple):
    past: PlayedRecording
    read: float
    took: float


class RecordingCache:
    """The recordings of the periods that were asked for last; any thread may ask."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Period, _Cached] = OrderedDict()
        self._lock = Lock()

    def played(self, deployment: Deployment, period: Period) -> PlayedRecording:
        """The recording of a period, and its play. One is read at a time, however many ask.

        Raises:
            DeploymentError: It cannot be read, or pools have no effect.
        """
        with self._lock:
            found = self._kept.get(period)
            if found is None or _is_old(found):
                found = self._kept[period] = _read(deployment, period)
            self._kept.move_to_end(period)
            while len(self._kept) > RECORDINGS_MAX:
                self._kept.popitem(last=False)
            return found.past


def _read(deployment: Deployment, period: Period) -> _Cached:
    began, now = time.monotonic(), time.time()
    since, until = period.bounds(now)
    recording = read_recording(deployment, since=since, until=min(until, now))
    past = PlayedRecording.of(recording, deployment.settings().patience_seconds)
    read = time.monotonic()
    return _Cached(past, read, read - began)


def _is_old(cached: _Cached) -> bool:
    return time.monotonic() - cached.read > max(FRESH_SECONDS, _SHARE * cached.took)
