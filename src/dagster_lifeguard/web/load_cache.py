"""A cache of what takes long to compute: the outline of all pools, loads and trends of periods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.insight.load import Load, read_load
from dagster_lifeguard.insight.overview import Overview, overview
from dagster_lifeguard.insight.trend import Trend, read_trend
from dagster_lifeguard.insight.waits import NOBODY, read_held_back
from dagster_lifeguard.web.cache import Cache
from dagster_lifeguard.web.pages.window import PARTS

if TYPE_CHECKING:
    from dagster_lifeguard.web.look import Look
    from dagster_lifeguard.web.pages.window import Period

LOAD_SECONDS = 2.0
"""A load is used for at least this long; see ``Cache``."""

TREND_SECONDS = 15.0
"""A trend is used for at least this long."""

PERIODS_MAX = 50
"""At most this many loads, and as many trends, are in the cache."""


class LoadCache:
    """All pools in outline, and the loads of the periods that pages show; any thread may ask.

    To read a load goes through every execution of its period, so that is done seldom and not with
    every news.
    """

    def __init__(self) -> None:
        self._loads: Cache[tuple[Period, str | None], Load] = Cache(LOAD_SECONDS, PERIODS_MAX)
        self._trends: Cache[tuple[Period, str], Trend] = Cache(TREND_SECONDS, PERIODS_MAX)
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
        """The load of a period, of one pool or of all."""

        def read() -> Load:
            since, until = period.bounds(look.at)
            return read_load(
                look.deployment,
                look.settings,
                look.states,
                look.deployment.held_back(look.at) or NOBODY,
                since=since,
                until=until,
                now=look.at,
                count=PARTS,
                only=pool,
            )

        return self._loads.get((period, pool), read, even_old=bool(look.trouble))

    def trend(self, look: Look, period: Period, pool: str) -> Trend | None:
        """The waits and holds of a pool in a period, beside those of the period before.

        None until the server has read its history: until then it would be read for each page.
        """
        if look.past.until <= look.past.since:
            return None

        def read() -> Trend:
            since, until = period.bounds(look.at)
            return read_trend(
                look.deployment,
                look.settings,
                pool,
                since=since,
                until=until,
                known_since=look.deployment.remembered_since(2 * since - until),
            )

        return self._trends.get((period, pool), read, even_old=bool(look.trouble))
