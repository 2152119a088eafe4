"""Limits, numbers, names, durations and moments as people read them."""

from __future__ import annotations

import time

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_WITH_TENTHS_BELOW = 9.95


def limit_text(limit: int | None) -> str:
    """Return a limit as a message tells it."""
    return "unlimited" if limit is None else str(limit)


def number(count: int, noun: str) -> str:
    """Return a number of things, such as ``1 error`` and ``2,000 errors``."""
    return f"{count} {noun}" if count == 1 else f"{count:,} {noun}s"


def often(count: int) -> str:
    """Return how often something was, such as ``once`` and ``2,000 times``."""
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def printable(text: str) -> str:
    """Escape what would move the cursor, break the line or not encode: names are the user's."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def short(run_id: str) -> str:
    """As much of a run's id as tells it from others, and as Dagster's UI shows."""
    return printable(run_id[:8])


def duration_text(seconds: float) -> str:
    """A duration as one word, in at most two units: ``0.4s``, ``52s``, ``3m20s``, ``2h5m``."""
    if seconds < _WITH_TENTHS_BELOW:
        return f"{max(0.0, seconds):.1f}s"
    left = round(seconds)
    parts: list[str] = []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
        elif parts:
            break  # 2h5s is no more exact than 2h
    return "".join(parts[:2])


def window_text(seconds: float) -> str:
    """A window of time, as an option is given it: ``24h``, ``7d``, ``90s``."""
    for unit, size in _UNITS:
        # One day is more often written as 24h.
        if seconds >= size and seconds % size == 0 and (unit, seconds) != ("d", size):
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def clock_text(at: float, now: float) -> str:
    """A moment by this machine's clock; with the date if it is not today."""
    moment, today = time.localtime(at), time.localtime(now)
    form = "%H:%M:%S" if moment[:3] == today[:3] else "%Y-%m-%d %H:%M:%S"
    return time.strftime(form, moment)


def until_text(at: float, now: float) -> str:
    """An end, as ``clock_text`` writes it, without seconds if it has none: ``06:00``."""
    text = clock_text(at, now)
    return text.removesuffix(":00")


def temporary_text(limit: int | None, at: float, then: int | None, now: float) -> str:
    """A temporary limit in one line: ``12 until 06:00, then 2``."""
    return f"{limit_text(limit)} until {until_text(at, now)}, then {limit_text(then)}"


def date_text(at: float) -> str:
    """A moment by this machine's clock, with its date."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
