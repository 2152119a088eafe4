"""What a run planned to execute, and for which pools its steps ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    import dagster as dg

_OLDER_TAG = "dagster/concurrency_key"


class StepPlan(NamedTuple):
    """One step of a plan.

    Attributes:
        pool: What stands in ``op.pool``, or in the tag that named a pool before; None if neither.
        asset_keys: The assets it makes, in the order of their names.
    """

    step_key: str
    pool: str | None
    asset_keys: tuple[dg.AssetKey, ...]


def step_plans(
    instance: dg.DagsterInstance, snapshot_id: str | None
) -> tuple[StepPlan, ...] | None:
    """The steps that a run planned to execute, in the order of its plan; None if it left no plan.

    A step that is made while the run goes on stands here once, its key with a ``?``.

    Args:
        instance: Where the run is.
        snapshot_id: ``DagsterRun.execution_plan_snapshot_id``; many runs share one.

    Relies on: ``DagsterInstance.get_execution_plan_snapshot``; the steps, pools, tags and outputs
    of an ``ExecutionPlanSnapshot`` (1.10.0).
    """
    if snapshot_id is None:
        return None
    snapshot: Any = cast("Any", instance).get_execution_plan_snapshot(snapshot_id)
    if snapshot is None:
        return None
    steps = {step.key: step for step in snapshot.steps}
    found = []
    for step_key in snapshot.step_keys_to_execute:
        step = steps.get(step_key)
        if step is not None:
            pool = step.pool or (step.tags or {}).get(_OLDER_TAG)
            made = {o.properties.asset_key for o in step.outputs if o.properties is not None}
            keys = sorted(filter(None, made), key=lambda key: key.to_user_string())
            found.append(StepPlan(step.key, pool, tuple(keys)))
    return tuple(found)
