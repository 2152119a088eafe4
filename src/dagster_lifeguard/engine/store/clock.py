"""The clock of the stores that have none of their own."""

from __future__ import annotations

import time


def clock() -> float:
    """Seconds since the epoch in whole microseconds, cut off, as PostgreSQL's clock has them.

    Rates are judged by the microsecond: a finer time would be rounded there, some of them up, and
    a step let in before it may start.
    """
    return time.time_ns() // 1000 / 1_000_000
