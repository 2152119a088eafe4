"""Who is ahead of whom at the queue of one pool.

Priority first. Then, where the order is fair, the smaller share: the slots that the waiter's group
holds in this pool, and those that waiters of its group ahead of it ask for; and of equal shares,
the group that was let in longer ago. Then the smaller number; a number is given once, so there are
no ties.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from dagster_lifeguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dagster_lifeguard.model import PoolView, Ticket, Waiter

BACKFILL_TAG = "dagster/backfill"
"""The tag by which Dagster tells the runs of a backfill."""

_ORDER = re.compile(r"fifo|fair\((?:tag:(?P<tag>[^\s()]+)|backfill)\)")

SERVED_GRANTS_MAX = 1000
"""For how many grants of a pool it is remembered which group was let in."""

Rank = tuple[int, int, int, float]
"""Minus the priority, the share, the fence of the group's last grant, the number."""


def ranked(
    waiters: Iterable[Waiter],
    held: Mapping[str, int] | None = None,
    served: Mapping[str, int] | None = None,
) -> list[tuple[Rank, Waiter]]:
    """Waiters with their ranks, best first.

    Args:
        waiters: Of one pool; with each of them all of its group that are ahead of it.
        held: Slots held by each group where the order is fair; None where it is not.
        served: The fence of the last grant to each group; none for long ago and never.
    """
    in_line = sorted(waiters, key=lambda waiter: (-waiter.priority, waiter.number))
    if held is None:
        return [((-waiter.priority, 0, 0, waiter.number), waiter) for waiter in in_line]
    shares = dict(held)
    found = []
    for waiter in in_line:
        share = shares.get(waiter.group, 0)
        shares[waiter.group] = share + waiter.slots
        fence = (served or {}).get(waiter.group, 0)
        found.append(((-waiter.priority, share, fence, waiter.number), waiter))
    return sorted(found, key=lambda item: item[0])  # By rank alone, which no two share.


def queue_of(pool: PoolView) -> list[tuple[Rank, Waiter]]:
    """The waiters in view of a pool with their ranks, best first."""
    return ranked(pool.queue, pool.held, pool.served)


def rank_of(ticket: Ticket, pool: PoolView) -> Rank:
    """Where a ticket stands at a pool's queue, or would stand."""
    number = math.inf if ticket.number is None else ticket.number
    if pool.held is None:
        return -ticket.priority, 0, 0, number
    group = ticket.groups.get(pool.pool, "")
    share = pool.held.get(group, 0) + sum(
        w.slots
        for w in pool.queue
        if w.group == group and (-w.priority, w.number) < (-ticket.priority, number)
    )
    return -ticket.priority, share, pool.served.get(group, 0), number


def parse_order(text: str) -> str | None:
    """The tag by whose values a pool is shared fairly; None for ``fifo``.

    Raises:
        ConfigError: The text says neither.
    """
    found = _ORDER.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"{text!r} is not an order.",
            remedy="Write fifo, fair(tag:NAME) or fair(backfill).",
            names=[text],
        )
    return None if text == "fifo" else found["tag"] or BACKFILL_TAG


def format_order(fair_by: str | None) -> str:
    """An order as it is written in ``lifeguard.yaml``."""
    if fair_by is None:
        return "fifo"
    return "fair(backfill)" if fair_by == BACKFILL_TAG else f"fair(tag:{fair_by})"
