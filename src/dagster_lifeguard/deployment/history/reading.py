"""Histories read from an instance, run by run and in bulk."""

from __future__ import annotations

import heapq
from datetime import datetime, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from dagster import DagsterRunStatus, RunsFilter

from dagster_lifeguard.compat.events import read_event_rows
from dagster_lifeguard.compat.plans import StepPlan, step_plans
from dagster_lifeguard.deployment.history.executions import READ, RunExecution, put_together

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from dagster import DagsterInstance, DagsterRun, RunRecord

RUNS_AT_ONCE = 64
"""How many runs are read with one query at most."""

STEPS_AT_ONCE = 5_000
"""How many steps these may have planned together, or a single run: so much is in memory."""

_Planned: TypeAlias = "tuple[DagsterRun, tuple[StepPlan, ...] | None]"
_PAGE = 500
_PLANS_KEPT = 200
_OVER = (DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)
_NOT_OVER = [status for status in DagsterRunStatus if status not in _OVER]


def read_runs(
    instance: DagsterInstance, run_ids: Collection[str] | None = None
) -> tuple[RunExecution, ...]:
    """Read the history of runs, in the order in which they were created.

    Args:
        instance: Where to read.
        run_ids: The runs to read; None for all of them. An id that the instance does not know is
            left out.
    """
    if run_ids is not None and not run_ids:
        return ()
    filters = None if run_ids is None else RunsFilter(run_ids=list(run_ids))
    records = instance.get_run_records(filters=filters, ascending=True)
    return tuple(_executions(instance, (record.dagster_run for record in records)))


def read_history(
    instance: DagsterInstance, since: float = 0.0, until: float | None = None
) -> Iterator[RunExecution]:
    """Read the history of the runs that were not over before ``since``, oldest first.

    No more than a few runs are in memory at once, and of large ones only one.

    Args:
        instance: Where to read.
        since: Seconds since the epoch.
        until: Only runs that were created before; None for all.

    Raises:
        DeploymentError: The event log cannot be read.
    """
    before = None if until is None else datetime.fromtimestamp(until, timezone.utc)
    # The record of a run that is over was last written at its end, or later.
    later = _records(
        instance,
        RunsFilter(
            updated_after=datetime.fromtimestamp(max(since - 1.0, 0.0), timezone.utc),
            created_before=before,
        ),
    )
    unfinished = _records(instance, RunsFilter(statuses=_NOT_OVER, created_before=before))
    merged = heapq.merge(later, unfinished, key=lambda record: record.storage_id)
    return _executions(instance, _wanted(merged, since))


def _records(instance: DagsterInstance, filters: RunsFilter) -> Iterator[RunRecord]:
    cursor: str | None = None
    while True:
        page = instance.get_run_records(filters, limit=_PAGE, cursor=cursor, ascending=True)
        yield from page
        if len(page) < _PAGE:
            return
        cursor = page[-1].dagster_run.run_id


def _wanted(records: Iterable[RunRecord], since: float) -> Iterator[DagsterRun]:
    last = None
    for record in records:
        is_over_before = record.end_time is not None and record.end_time < since
        if record.storage_id != last and not is_over_before:
            yield record.dagster_run
        last = record.storage_id


def _executions(instance: DagsterInstance, runs: Iterable[DagsterRun]) -> Iterator[RunExecution]:
    @lru_cache(maxsize=_PLANS_KEPT)
    def plan_of(snapshot_id: str | None) -> tuple[StepPlan, ...] | None:
        return step_plans(instance, snapshot_id)

    planned = ((run, plan_of(run.execution_plan_snapshot_id)) for run in runs)
    for batch in _batches(planned):
        events = read_event_rows(instance, [run.run_id for run, _ in batch], READ)
        for run, plan in batch:
            rows = events[run.run_id]
            yield put_together(run.run_id, run.job_name, run.status.value, rows, plan)


def _batches(planned: Iterable[_Planned]) -> Iterator[list[_Planned]]:
    batch: list[_Planned] = []
    steps = 0
    for run, plan in planned:
        count = len(plan or ())
        if batch and (len(batch) == RUNS_AT_ONCE or steps + count > STEPS_AT_ONCE):
            yield batch
            batch, steps = [], 0
        batch.append((run, plan))
        steps += count
    if batch:
        yield batch
