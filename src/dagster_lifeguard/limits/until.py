"""The end of a temporary limit, as people write it."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

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
    try:
        until = _read(written.lower(), now)
    except (ValueError, OverflowError):  # The calendar has no such moment.
        until = None
    if until is None:
        raise ConfigError(
            f"{text[:50]!r} is no end of a limit.",
            remedy="Write 06:00, 2026-12-01 06:00, 45m or 2h.",
        )
    if until <= now:
        raise ConfigError(f"{written!r} is over already.", remedy="Give an end in the future.")
    return until


def _read(text: str, now: float) -> float | None:
    if found := _FOR.fullmatch(text):
        return now + float(found[1]) * _UNITS[found[2]]
    if found := _CLOCK.fullmatch(text):
        hour, minute, second = map(int, found.groups("0"))
        today = datetime.fromtimestamp(now).replace(  # noqa: DTZ006 - as this machine's clock
            hour=hour, minute=minute, second=second, microsecond=0
        )
        return next(
            (at for day in (0, 1) if (at := (today + timedelta(day)).timestamp()) > now), None
        )
    if found := _DATE.fullmatch(text.replace("t", " ")):
        year, month, day, hour, minute, second = map(int, found.groups("0"))
        return datetime(year, month, day, hour, minute, second).timestamp()  # noqa: DTZ001
    return None
