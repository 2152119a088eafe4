"""How much of the past and of a long list a page shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dagster_lifeguard.insight.timeline import Phase, Timeline

if TYPE_CHECKING:
    from collections.abc import Mapping

HOURS = (1, 6, 24)
BARS_MAX = 2000
"""Of a timeline so many of the newest bars are looked at."""

_DONE_SHOWN = 24
_WAITING_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Window:
    """What of a page about one thing is shown.

    Attributes:
        hours: So much of the past.
        rows: So many of those who hold and of those who wait.
    """

    hours: int = 1
    rows: int = 50

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Window:
        """What the query of an address asks for; what it cannot ask for is passed over."""
        hours = query.get("hours", "")
        return cls(
            hours=int(hours) if hours in map(str, HOURS) else cls().hours,
            rows=500 if query.get("rows") == "500" else cls().rows,
        )

    @property
    def seconds(self) -> float:
        """So much of the past."""
        return self.hours * 3600.0


def readable(found: Timeline, window: Window) -> Timeline:
    """A timeline of few enough bars: of those that executed the newest, of waiting ones the first.

    A long queue would else leave no room for what it waits for.
    """
    waiting = [bar for bar in found.bars if bar.spans[-1].phase is Phase.WAITING]
    others = [bar for bar in found.bars if bar.spans[-1].phase is not Phase.WAITING]
    shown = (*others[-_DONE_SHOWN:], *waiting[:_WAITING_SHOWN])
    left_out = found.left_out + len(found.bars) - len(shown)
    return replace(found, since=found.until - window.seconds, bars=shown, left_out=left_out)
