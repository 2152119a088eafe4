"""What a run planned to execute, for which partitions, and for which pools its steps ask."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import dagster as dg
import sqlalchemy as db
from dagster._core.snap import ExecutionPlanSnapshot
from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.runs.schema import SnapshotsTable
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)
from dagster._serdes import deserialize_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PLANS_LIST_OTHER_CHECKS = tuple(map(int, dg.__version__.split(".")[:2])) < (1, 11)
"""Whether checks that a run has not selected may be among the outputs in its plan."""

_AT_ONCE = 200
_OLDER_TAG = "dagster/concurrency_key"


class StepPlan(NamedTuple):
    """One step of a plan.

    Attributes:
        pool: The text in ``op.pool``, or else in the older tag; None if there is neither.
        asset_keys: The assets it makes, in the order of their names.
        after: The steps of the run that it waits for.
        check_keys: The asset checks that it evaluates. Before 1.11 those not selected may be
            among them, see ``selected``.
    """

    step_key: str
    pool: str | None
    asset_keys: tuple[dg.AssetKey, ...]
    after: frozenset[str] = frozenset()
    check_keys: frozenset[dg.AssetCheckKey] = frozenset()

    @property
    def members(self) -> tuple[dg.AssetKey, ...]:
        """The assets that it makes or checks, sorted: its pools are the pools of these."""
        return tuple(sorted({*self.asset_keys, *(check.asset_key for check in self.check_keys)}))

    def selected(self, run: dg.DagsterRun) -> StepPlan:
        """The step with only the checks that its run has selected.

        Where the plan tells that by itself it is believed: a run of a part of a job may not say
        which checks it selects, and its step would ask for too little.
        """
        if not PLANS_LIST_OTHER_CHECKS:
            return self
        checks = frozenset(check for check in self.check_keys if is_selected(run, check))
        return self if checks == self.check_keys else self._replace(check_keys=checks)


def is_selected(run: dg.DagsterRun, check: dg.AssetCheckKey) -> bool:
    """Whether a run evaluates a check that is among the outputs of its plan.

    Relies on: ``DagsterRun.asset_check_selection``: None for the checks of all assets that are
    selected (1.10.0).
    """
    checks = cast("Any", run).asset_check_selection
    if checks is not None:
        return check in checks
    assets = run.asset_selection
    return assets is None or check.asset_key in assets


def step_plans(
    instance: dg.DagsterInstance, snapshot_id: str | None
) -> tuple[StepPlan, ...] | None:
    """The steps that a run planned to execute, in the order of its plan; None if it left no plan.

    A step that is made during the run is listed once, with a ``?`` in its key. A re-execution from
    failure also lists the steps that its first run made.

    Args:
        instance: Where the run is.
        snapshot_id: ``DagsterRun.execution_plan_snapshot_id``; many runs share one.

    Relies on: ``DagsterInstance.get_execution_plan_snapshot``, which knows a plan before its run
    is stored; the steps, pools, tags, outputs and ``step_deps`` of an ``ExecutionPlanSnapshot``
    (1.10.0).
    """
    if snapshot_id is None:
        return None
    snapshot: Any = cast("Any", instance).get_execution_plan_snapshot(snapshot_id)
    return None if snapshot is None else _steps_of(snapshot)


def all_step_plans(
    instance: dg.DagsterInstance, snapshot_ids: Iterable[str]
) -> dict[str, tuple[StepPlan, ...]]:
    """The same of many plans, as far as they are stored."""
    return {plan: _steps_of(snapshot) for plan, snapshot in read_plans(instance, snapshot_ids)}


def read_plans(
    instance: dg.DagsterInstance, snapshot_ids: Iterable[str]
) -> Iterator[tuple[str, Any]]:
    """Plans by what names them, as Dagster has them, a few hundred with one query.

    Relies on: ``SnapshotsTable``, whose bodies are texts that zlib made small (1.10.0).
    """
    storage = instance.run_storage
    assert isinstance(storage, SqlRunStorage)
    plans = SnapshotsTable.c
    ids = sorted(set(snapshot_ids))
    for start in range(0, len(ids), _AT_ONCE):
        query = db.select(plans.snapshot_id, plans.snapshot_body).where(
            plans.snapshot_id.in_(ids[start : start + _AT_ONCE])
        )
        with storage.connect() as connection:
            rows: Any = connection.execute(query).fetchall()
        for snapshot_id, body in rows:
            text = zlib.decompress(body).decode()
            yield snapshot_id, deserialize_value(text, ExecutionPlanSnapshot)


def _steps_of(snapshot: Any) -> tuple[StepPlan, ...]:
    steps = {step.key: step for step in snapshot.steps}
    executed = set(snapshot.step_keys_to_execute)
    before = snapshot.step_deps
    found = []
    for step_key in snapshot.step_keys_to_execute:
        step = steps.get(step_key)
        if step is not None:
            pool = step.pool or (step.tags or {}).get(_OLDER_TAG)
            outputs = [o.properties for o in step.outputs if o.properties is not None]
            made = {output.asset_key for output in outputs}
            keys = sorted(filter(None, made), key=lambda key: key.to_user_string())
            checks = frozenset(filter(None, (output.asset_check_key for output in outputs)))
            after = frozenset(executed.intersection(before[step.key]))
            found.append(StepPlan(step.key, pool, tuple(keys), after, checks))
    return tuple(found)


def partition_keys(run: dg.DagsterRun) -> tuple[str, ...] | None:
    """The partitions for which a run executes, in order; None if they cannot be listed here.

    They can be for one partition, and for a range of time windows where the run carries it.

    Relies on: Dagster's tags for partitions and ranges of them (1.10.0), and
    ``DagsterRun.partitions_subset`` where there is one (1.12).
    """
    one = run.tags.get(PARTITION_NAME_TAG)
    if one is not None:
        return (one,)
    first = run.tags.get(ASSET_PARTITION_RANGE_START_TAG)
    if first is not None and first == run.tags.get(ASSET_PARTITION_RANGE_END_TAG):
        return (first,)
    subset: Any = getattr(run, "partitions_subset", None)
    # Other subsets need the database to list what is in them.
    if subset is not None and hasattr(subset, "included_time_windows"):
        return tuple(subset.get_partition_keys())
    return None
