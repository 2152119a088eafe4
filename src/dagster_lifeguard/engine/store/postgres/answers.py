"""Values of what PostgreSQL's statements answer: one row each, with arrays for what is many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagster_lifeguard.engine.rules.model import (
    PoolSnapshot,
    PoolView,
    Ticket,
    TicketKey,
)
from dagster_lifeguard.engine.store import rows

if TYPE_CHECKING:
    from collections.abc import Sequence


def pool_view(found: Sequence[Any], now: float) -> PoolView:
    """A pool, and those of its queue that decisions look at unless its order is fair."""
    pool, *row, taken, queue = found
    view = rows.pool_view(pool, row, taken or (), now)
    return view if view.settings.fair_by is not None else rows.with_queue(view, queue or ())


def snapshot(found: Sequence[Any]) -> PoolSnapshot:
    """A pool with everybody who holds or waits."""
    pool, now, *of_settings = found[:9]
    (due_ns, held, waiting, turn, holders, turns, groups) = found[9:-3]
    over_holdings, over_tickets, lost_steps = found[-3:]
    seen = PoolSnapshot(
        pool=pool,
        settings=rows.settings(of_settings, now),
        holdings=rows.holdings(held or ()),
        waiting=tickets(waiting),
        due_ns=due_ns or 0,
    )
    over_keys = {TicketKey(*key) for key in over_holdings or ()}
    lost = {TicketKey(run_id, step_key): label for run_id, step_key, label in lost_steps or ()}
    seen = rows.without_over(seen, over_keys, set(over_tickets or ()), lost)
    if seen.settings.fair_by is None:
        return seen
    return rows.fair_snapshot(seen, holders or (), turn, turns or (), groups or ())


def tickets(found: Sequence[Any] | None) -> tuple[Ticket, ...]:
    """The tickets of an array of them, each with the pools of its queues last; None for none."""
    return tuple(rows.ticket(row, sorted(row[7] or ())) for row in found or ())
