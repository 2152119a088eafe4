"""What is reckoned over all pools or a whole period, kept for everybody who asks for the same."""

from __future__ import annotations

import time
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from dagster_lifeguard.insight.load import Load, read_load
from dagster_lifeguard.insight.pools import Overview, overview
from dagster_lifeguard.insight.waits import NOBODY, read_held_back
from dagster_lifeguard.web.pages.window import PARTS

if TYPE_CHECKING:
    from dagster_lifeguard.web.look import Look
    from dagster_lifeguard.web.pages.window import Period

KEPT_SECONDS = 2.0
"""A load is read anew after so long, or after ``_SHARE`` times as long as it took to read."""

LOADS_MAX = 50
"""So many loads are kept, those that were asked for last."""

_SHARE = 20


class _Kept(NamedTuple):
    load: Load
    read: float
    took: float


class KeptSums:
    """All pools in outline, and the loads of the periods that pages show; any thread may ask.

    To read a load goes through every execution of its period, so that is done seldom and not with
    every news.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Period, str | None], _Kept] = OrderedDict()
        self._lock = Lock()
        self._outline: tuple[tuple[int, float], Overview] | None = None

    def outline(self, look: Look) -> Overview:
        """All pools in outline."""
        kept, key = self._outline, (look.number, look.at)
        if kept is not None and kept[0] == key:
            return kept[1]
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
            kept = self._kept.get(key)
        if kept is not None and not _is_old(kept, look):
            return kept.load
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
            self._kept[key] = _Kept(load, read, read - began)
            self._kept.move_to_end(key)
            while len(self._kept) > LOADS_MAX:
                self._kept.popitem(last=False)
        return load


def _is_old(kept: _Kept, look: Look) -> bool:
    if look.trouble:  # Nothing new is known.
        return False
    return time.monotonic() - kept.read > max(KEPT_SECONDS, _SHARE * kept.took)
