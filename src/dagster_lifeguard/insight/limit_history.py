"""The limit of a pool as it was in each part of a window."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster_lifeguard.insight.pool_account import LimitChange


def limits_over_time(
    changes: Sequence[LimitChange],
    now: int | None,
    default: int | None,
    *,
    since: float,
    until: float,
    count: int,
) -> tuple[int | None, ...]:
    """The limit at the end of each part; None where it was unlimited, or is not known.

    Args:
        changes: The known changes of its own limit, newest first; none if it never changed.
        now: The limit in force now.
        default: The limit of a pool that has none of its own.
        since: The beginning of the window, in seconds since the epoch.
        until: Its end.
        count: Into how many parts the window is divided.
    """
    length = (until - since) / count
    left = list(changes)
    found = []
    limit = now
    for part in reversed(range(count)):
        end = since + (part + 1) * length
        while left and left[0].at >= end:
            left.pop(0)
            limit = _set_by(left[0], default) if left else None
        found.append(limit)
    return tuple(reversed(found))


def _set_by(change: LimitChange, default: int | None) -> int | None:
    return default if change.limit is None else change.limit
