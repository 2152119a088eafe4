"""Histories read from an instance, run by run and in bulk."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from dagster_lifeguard.compat.events import read_event_rows
from dagster_lifeguard.compat.plans import StepPlan, all_step_plans
from dagster_lifeguard.compat.stored_runs import (
    latest_run_ids,
    runs_changed_since,
    runs_with_ids,
)
from dagster_lifeguard.deployment.history.executions import READ, RunExecution, put_together
from dagster_lifeguard.engine.rules.launch_order import IN_PROGRESS, OVER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from dagster import DagsterInstance

    from dagster_lifeguard.compat.stored_runs import StoredRun

RUNS_AT_ONCE = 64
"""How many runs are read with one query at most."""

STEPS_AT_ONCE = 5_000
"""How many steps these may have planned together, or a single run: so much is in memory."""

_Planned: TypeAlias = "tuple[StoredRun, tuple[StepPlan, ...] | None]"


def read_runs(
    instance: DagsterInstance, run_ids: Collection[str] | None = None
) -> tuple[RunExecution, ...]:
    """Read the history of runs, in the order in which they were created.

    Args:
        instance: Where to read.
        run_ids: The runs to read; None for all of them. An id that the instance does not know is
            left out.
    """
    if run_ids is None:
        return tuple(read_history(instance))
    return tuple(_executions(instance, runs_with_ids(instance, run_ids)))


def read_history(
    instance: DagsterInstance,
    since: float = 0.0,
    until: float | None = None,
    *,
    latest: int | None = None,
    queued: bool = True,
) -> Iterator[RunExecution]:
    """Read the history of the runs that were not over before ``since``, oldest first.

    No more than a few runs are in memory at once, and of large ones only one.

    Args:
        instance: Where to read.
        since: Seconds since the epoch.
        until: Only runs that were created before; None for all.
        latest: See ``Deployment.history``.
        queued: The same.

    Raises:
        DeploymentError: The event log cannot be read.
    """
    runs: Iterable[StoredRun]
    if latest is None:
        but = () if queued else ("QUEUED",)
        runs = runs_changed_since(instance, since, OVER, created_before=until, but=but)
    else:
        over = latest_run_ids(instance, OVER, since, created_before=until, count_max=latest)
        going = latest_run_ids(instance, IN_PROGRESS, 0.0, created_before=until, count_max=latest)
        runs = runs_with_ids(instance, [*over, *going])
    return _executions(instance, (run for run in runs if run.ended is None or run.ended >= since))


def _executions(instance: DagsterInstance, runs: Iterable[StoredRun]) -> Iterator[RunExecution]:
    for batch in _batches(_planned(instance, runs)):
        events = read_event_rows(instance, [run.run_id for run, _ in batch], READ)
        for run, plan in batch:
            rows = events[run.run_id]
            yield put_together(run.run_id, run.job_name, run.status, rows, plan)


def _planned(instance: DagsterInstance, runs: Iterable[StoredRun]) -> Iterator[_Planned]:
    """The runs with what they planned; plans that follow each other are read once."""
    left = iter(runs)
    plans: dict[str, tuple[StepPlan, ...]] = {}
    while some := list(islice(left, RUNS_AT_ONCE)):
        names = {run.told.plan for run in some if run.told.plan is not None}
        known = {name: plan for name, plan in plans.items() if name in names}
        plans = known | all_step_plans(instance, names - known.keys())
        yield from ((run, plans.get(run.told.plan or "")) for run in some)


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
