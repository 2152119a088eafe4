"""How much of the past and of a long list a page shows."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from math import ceil, floor, isfinite
from typing import TYPE_CHECKING

from dagster_lifeguard.insight.timeline import Phase, Timeline

if TYPE_CHECKING:
    from collections.abc import Mapping

PERIODS: Mapping[str, float] = {
    "15m": 900.0,
    "1h": 3600.0,
    "6h": 21600.0,
    "24h": 86400.0,
    "7d": 604800.0,
}
"""The periods to choose from, by what an address calls them."""

USUAL = "1h"

PARTS = 60
"""Into how many parts a chart divides its period."""

SHORTEST_SECONDS = 60.0
"""The shortest period that a person can draw or type."""

BARS_MAX = 2000
"""The most bars of a timeline that are read, the newest ones."""

ALL_ROWS = "all"
"""How an address asks for all rows of a list."""

ROWS_MAX = 100_000
"""This many rows stand for all rows."""

_DONE_SHOWN = 24
_WAITING_SHOWN = 8
_FORMS = ("%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S")


@dataclass(frozen=True, slots=True)
class Period:
    """The period that all charts of a page show.

    Attributes:
        name: One of ``PERIODS``, up to now; empty for one with both ends.
        begin: Its beginning, in seconds since the epoch; None if it has a name.
        end: Its end; None if it has a name.
    """

    name: str = USUAL
    begin: float | None = None
    end: float | None = None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Period:
        """The period in the query of an address; without one, the usual period.

        ``from`` and ``to`` are seconds since the epoch, or moments by this machine's clock such as
        ``2026-11-30T14:05``. Without ``to`` the period ends now.
        """
        begin, end = _moment(query.get("from", "")), _moment(query.get("to", ""))
        if begin is not None:
            end = time.time() if end is None else end
            begin, end = min(begin, end), max(begin, end)
            short = SHORTEST_SECONDS - (end - begin)
            return cls("", *((begin, end) if short <= 0 else (begin - short / 2, end + short / 2)))
        name = query.get("period", "")
        return cls(name if name in PERIODS else USUAL)

    @property
    def seconds(self) -> float:
        """The length of the period."""
        if self.begin is None or self.end is None:
            return PERIODS[self.name]
        return self.end - self.begin

    @property
    def query(self) -> dict[str, str]:
        """How an address asks for it; empty for the usual one."""
        if self.begin is None or self.end is None:
            return {} if self.name == USUAL else {"period": self.name}
        return {"from": f"{floor(self.begin)}", "to": f"{ceil(self.end)}"}

    def bounds(self, now: float) -> tuple[float, float]:
        """Its beginning and its end.

        One that ends now ends with the part that has begun: so the edges of parts stay where they
        are, and only the newest part changes.
        """
        if self.begin is not None and self.end is not None:
            return self.begin, self.end
        part = self.seconds / PARTS
        until = ceil(now / part) * part
        return until - self.seconds, until


def _moment(text: str) -> float | None:
    """A moment in an address; None if the text is no moment."""
    for form in _FORMS:
        try:
            return time.mktime(time.strptime(text, form))
        except (ValueError, OverflowError):
            continue
    try:
        found = float(text)
    except ValueError:
        return None
    return found if isfinite(found) and 0 <= found < 1e11 else None  # noqa: PLR2004


@dataclass(frozen=True, slots=True)
class Window:
    """How much a page about one thing shows.

    Attributes:
        period: The period of its charts.
        rows: The most holders, and the most waiters.
    """

    period: Period = field(default_factory=Period)
    rows: int = 50

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Window:
        """What the query of an address asks for; a wrong value counts as the usual one."""
        return cls(
            period=Period.of(query),
            rows={"500": 500, ALL_ROWS: ROWS_MAX}.get(query.get("rows", ""), cls().rows),
        )

    @property
    def shows_all(self) -> bool:
        """Whether a list shows all rows."""
        return self.rows == ROWS_MAX

    def bounds(self, now: float) -> tuple[float, float]:
        """The beginning and the end of the period."""
        return self.period.bounds(now)


def readable(found: Timeline, window: Window, since: float, until: float) -> Timeline:
    """A timeline with few bars: the newest that executed, and the first that wait.

    Without this, a long queue would leave no room for the holders that it waits for.
    """
    if window.shows_all:
        return replace(found, since=since, until=until)
    waiting = [bar for bar in found.bars if bar.spans[-1].phase is Phase.WAITING]
    others = [bar for bar in found.bars if bar.spans[-1].phase is not Phase.WAITING]
    shown = (*others[-_DONE_SHOWN:], *waiting[:_WAITING_SHOWN])
    left_out = found.left_out + len(found.bars) - len(shown)
    return replace(found, since=since, until=until, bars=shown, left_out=left_out)
