"""Fences for writers: a late one is refused by its sink.

A lease cannot stop a process. One that was silent for longer than its lease, and then goes on, may
write beside its successor until it notices. So each grant of a pool has a number larger than every
earlier one, its fence, and a sink that remembers the largest fence it has seen can refuse a writer
that comes with a smaller one. There is one module for each kind of sink.

Fences of one pool can be compared, and no others: all writers of a sink are to hold one pool.
"""

from __future__ import annotations

from typing import Any

from dagster_lifeguard.compat.contexts import step_of
from dagster_lifeguard.engine.rules.model import TicketKey
from dagster_lifeguard.errors import NoFenceError
from dagster_lifeguard.storage.event_log import PoolMethods

__all__ = ["fence"]


def fence(context: Any) -> int:
    """The fence of the step that executes: larger at each grant of its pools.

    It stays what it was when the step began, also when another holds the slots by now: it is for
    the sink to find that out.

    Args:
        context: Of the asset, op or asset check, or of an IO manager's ``handle_output``.

    Raises:
        NoFenceError: The context belongs to no step, the instance is not on the engine, or the
            step holds no slot.
    """
    step = step_of(context)
    if step is None:
        raise NoFenceError(
            f"A {type(context).__name__} belongs to no step that Dagster executes, so there is no "
            "fence.",
            remedy="Call fence(context) with the context of an asset, op or asset check in a run, "
            "or of an IO manager's handle_output.",
        )
    event_log = step.instance.event_log_storage
    if not isinstance(event_log, PoolMethods):
        raise NoFenceError(
            f"The instance is on {type(event_log).__name__}, which gives no fences.",
            remedy="Switch the engine on: lifeguard engine enable.",
            names=[step.run_id, step.step_key],
        )
    parts = event_log.lifeguard
    found = parts.steps.fence(parts.tickets.of(TicketKey(step.run_id, step.step_key)))
    if found is None:
        raise NoFenceError(
            f"Step {step.step_key} of run {step.run_id} holds no slot, so it has no fence.",
            remedy="Give its op a pool that has a limit, at granularity op.",
            names=[step.run_id, step.step_key],
        )
    return found
