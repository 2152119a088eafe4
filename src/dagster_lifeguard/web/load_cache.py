"""A cache of what takes long to compute: the outline of all pools, loads and trends of periods."""

from __future__ import annotations

import time
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from dagster_lifeguard.insight.load import Load, read_load
from dagster_lifeguard.insight.overview import Overview, overview
from dagster_lifeguard.insight.trend import Trend, read_trend
from dagster_lifeguard.insight.waits import NOBODY, read_held_back
from dagster_lifeguard.web.pages.window import PARTS

if TYPE_CHECKING:
    from dagster_lifeguard.web.look import Look
    from dagster_lifeguard.web.pages.window import Period

FRESH_SECONDS = 2.0
"""A load is used for this long, or for ``_SHARE`` times as long as it took to read."""

LOADS_MAX = 50
"""At most this many loads are in the cache: the ones that were used last."""

TREND_SECONDS = 15.0
"""A trend is used for this long, or for ``_SHARE`` times as long as it took to read."""

_SHARE = 20


class _Cached(NamedTuple):
    load: Load
    read: float
    took: float


class _CachedTrend(NamedTuple):
    trend: Trend
    read: float
    took: float


class LoadCache:
    """All pools in outline, and the loads of the periods that pages show; any thread may ask.

    To read a load goes through every execution of its period, so that is done seldom and not with
    every news.
    """

    def __init__(self) -> None:
        self._loads: OrderedDict[tuple[Period, str | None], _Cached] = OrderedDict()
        self._trends: OrderedDict[tuple[Period, str], _CachedTrend] = OrderedDict()
        self._lock = Lock()
        self._outline: tuple[tuple[int, float], Overview] | None = None

    def outline(self, look: Look) -> Overview:
        """All pools in outline."""
        cached, key = self._outline, (look.number, look.at)
        if cached is not None and cached[0] == key:
            return cached[1]
        deployment, now = look.deployment, look.at
        held_back = deployment.held_back(now)
        if held_back is None:
            held_back = read_held_back(deployment, look.settings, look.states, now)
        found = overview(look.states, held_back, look.settings, look.past, now)
        self._outline = (key, found)
        return found

    def load(self, look: Look, period: Period, pool: str | None = None) -> Load:
        """The load of a period.

        Args:
            look: What the server's reader knows.
            period: The period.
            pool: Only this pool; None for all.
        """
        key = (period, pool)
        with self._lock:
            cached = self._loads.get(key)
        if cached is not None and not _is_old(cached, look):
            return cached.load
        began = time.monotonic()
        since, until = period.bounds(look.at)
        deployment = look.deployment
        load = read_load(
            deployment,
            look.settings,
            look.states,
            deployment.held_back(look.at) or NOBODY,
            since=since,
            until=until,
            now=look.at,
            count=PARTS,
            only=pool,
        )
        read = time.monotonic()
        with self._lock:
            self._loads[key] = _Cached(load, read, read - began)
            self._loads.move_to_end(key)
            while len(self._loads) > LOADS_MAX:
                self._loads.popitem(last=False)
        return load

    def trend(self, look: Look, period: Period, pool: str) -> Trend | None:
        """The waits and holds of a pool in a period, beside those of the period before.

        None until the server has read its history: until then it would be read for each page.
        """
        if look.past.until <= look.past.since:
            return None
        key = (period, pool)
        with self._lock:
            cached = self._trends.get(key)
        if cached is not None and not _is_old(cached, look, TREND_SECONDS):
            return cached.trend
        began = time.monotonic()
        since, until = period.bounds(look.at)
        known = look.deployment.remembered_since(2 * since - until)
        trend = read_trend(
            look.deployment, look.settings, pool, since=since, until=until, known_since=known
        )
        read = time.monotonic()
        with self._lock:
            self._trends[key] = _CachedTrend(trend, read, read - began)
            self._trends.move_to_end(key)
            while len(self._trends) > LOADS_MAX:
                self._trends.popitem(last=False)
        return trend


def _is_old(cached: _Cached | _CachedTrend, look: Look, fresh: float = FRESH_SECONDS) -> bool:
    if look.trouble:  # Nothing new is known.
        return False
    return time.monotonic() - cached.read > max(fresh, _SHARE * cached.took)
