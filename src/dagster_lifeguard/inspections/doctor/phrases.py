"""How the doctor words durations and runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster_lifeguard.deployment.contract import Run


def duration(seconds: float) -> str:
    """A length of time, such as ``40 s``, ``12 min``, ``3 h`` or ``2 d``."""
    if seconds < 100:  # noqa: PLR2004
        return f"{max(seconds, 0):.0f} s"
    for size, unit, end in ((60, "min", 100), (3600, "h", 48)):
        if seconds < size * end:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def end_of(run: Run | None, now: float) -> str:
    """How and when a run ended, or that it is not there."""
    if run is None:
        return "no such run: it was deleted"
    when = "" if run.ended is None else f" {duration(now - run.ended)} ago"
    return f"{run.status}{when}"
