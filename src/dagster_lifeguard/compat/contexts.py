"""What is taken from the contexts that Dagster hands to assets, ops and IO managers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg

if TYPE_CHECKING:
    from dagster import DagsterInstance


class StepInContext(NamedTuple):
    """The step that executes, and the instance that it executes on."""

    instance: DagsterInstance
    run_id: str
    step_key: str


def step_of(context: Any) -> StepInContext | None:
    """The step of a context; None for one that belongs to no step, as in a call by hand.

    Relies on: ``get_step_execution_context`` of the contexts of assets, ops and asset checks,
    ``step_context`` of the context of an output, and ``instance``, ``run_id`` and ``step.key`` of
    what they give (1.10.0).
    """
    try:
        if isinstance(context, dg.OutputContext):
            step: Any = context.step_context
        else:
            step = context.get_step_execution_context()
    except (AttributeError, dg.DagsterError):
        return None
    return StepInContext(step.instance, step.run_id, step.step.key)
