"""What is taken from the contexts that Dagster hands to assets, ops and IO managers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster import DagsterInstance


class StepInContext(NamedTuple):
    """The step that executes, the instance that it executes on, and the priority of its claims."""

    instance: DagsterInstance
    run_id: str
    step_key: str
    priority: int


def step_of(context: Any) -> StepInContext | None:
    """The step of a context; None if it belongs to no step, as in a direct call.

    Relies on: ``get_step_execution_context`` of the contexts of assets, ops and asset checks,
    ``step_context`` of the context of an output, and ``instance``, ``run_id``, ``run_tags``,
    ``step.key`` and ``step.tags`` of their results; the priority of a claim is the sum of the
    priorities in the tags of the run and of the step (1.10.0).
    """
    try:
        if isinstance(context, dg.OutputContext):
            step: Any = context.step_context
        else:
            step = context.get_step_execution_context()
    except (AttributeError, dg.DagsterError):
        return None
    priority = _priority_in(step.run_tags) + _priority_in(step.step.tags)
    return StepInContext(step.instance, step.run_id, step.step.key, priority)


def _priority_in(tags: Mapping[str, str]) -> int:
    try:
        return int(tags.get("dagster/priority", 0))
    except ValueError:
        return 0
