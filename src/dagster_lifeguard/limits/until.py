"""The end of a temporary limit, as people write it."""

from __future__ import annotations

import re
import time

from dagster_lifeguard.errors import ConfigError

_UNITS = {"m": 60, "h": 3600, "d": 86400}
_FOR = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)\s*([mhd])")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")
_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})[ T](\d{2}):(\d{2})(?::(\d{2}))?")


def read_until(text: str, now: float) -> float:
    """When a limit ends, in seconds since the epoch.

    Args:
        text: ``06:00``, the next time that this machine's clock shows it; ``2026-12-01 06:00``; or
            for how long, such as ``45m`` or ``2h``.
        now: The time, in seconds since the epoch.

    Raises:
        ConfigError: It is neither, or it is over.
    """
    written = text.strip()
    until: float | None = None
    if found := _FOR.fullmatch(written.lower()):
        until = now + float(found[1]) * _UNITS[found[2]]
    elif found := _CLOCK.fullmatch(written):
        today = time.localtime(now)
        ends = (_moment(*today[:2], day, *found.groups("0")) for day in (today[2], today[2] + 1))
        until = next((end for end in ends if end is None or end > now), None)
    elif found := _DATE.fullmatch(written):
        until = _moment(*found.groups("0"))
    if until is None:
        raise ConfigError(
            f"{text[:50]!r} is no end of a limit.",
            remedy="Write 06:00, 2026-12-01 06:00, 45m or 2h.",
        )
    if until <= now:
        raise ConfigError(f"{written!r} is over already.", remedy="Give an end in the future.")
    return until


def _moment(*parts: str | int) -> float | None:
    """A moment of this machine's clock; None if its calendar has no such moment."""
    year, month, day, hour, minute, second = map(int, parts)
    try:
        found = time.mktime((year, month, day, hour, minute, second, 0, 0, -1))
    except (OverflowError, ValueError):
        return None
    is_valid = hour < 24 and minute < 60 and second < 60  # noqa: PLR2004
    return found if is_valid and time.localtime(found)[5] == second else None
