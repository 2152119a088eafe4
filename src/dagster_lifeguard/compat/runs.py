"""What a run tells of its pools, its steps and its origin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as db
from dagster import DagsterRunStatus, RunsFilter
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.runs.schema import RunsTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import dagster as dg

_RUNS_AT_ONCE = 500
"""A statement names at most this many runs: SQLite bounds its parameters."""


def pools_of_run(run: dg.DagsterRun) -> frozenset[str] | None:
    """The pools for which a run's steps will ask; None if it has no plan to tell them from.

    Relies on: ``DagsterRun.run_op_concurrency``, which is None where a plan has no pools, and
    ``execution_plan_snapshot_id`` (1.10.0).
    """
    asked = cast("Any", run).run_op_concurrency
    if asked is None:
        return frozenset() if cast("Any", run).execution_plan_snapshot_id else None
    return frozenset(asked.all_pools or asked.root_key_counts)


def first_pools_of_run(run: dg.DagsterRun) -> dict[str, int] | None:
    """The slots for which a run's first steps will ask, by pool.

    None if one of them asks for none, or if the run has no plan to tell them from.

    Relies on: ``DagsterRun.run_op_concurrency``, with ``root_key_counts`` and
    ``has_unconstrained_root_nodes`` (1.10.0).
    """
    asked = cast("Any", run).run_op_concurrency
    if asked is None or asked.has_unconstrained_root_nodes:
        return None
    return dict(asked.root_key_counts)


def location_of_run(run: dg.DagsterRun) -> str | None:
    """The code location that a run came from.

    Relies on: ``DagsterRun.remote_job_origin.location_name`` (1.10.0).
    """
    origin = cast("Any", run).remote_job_origin
    return None if origin is None else str(origin.location_name)


def assets_of_run(run: dg.DagsterRun) -> tuple[str, ...]:
    """The assets that a run was asked to make, each as ``a/b``, sorted; empty if it does not say.

    Relies on: ``DagsterRun.asset_selection`` (1.10.0).
    """
    keys = cast("Any", run).asset_selection or ()
    return tuple(sorted("/".join(key.path) for key in keys))


def plan_of_run(run: dg.DagsterRun) -> str | None:
    """What names the plan of a run; runs of one plan have the same.

    Relies on: ``DagsterRun.execution_plan_snapshot_id`` (1.10.0).
    """
    return cast("str | None", cast("Any", run).execution_plan_snapshot_id)


def run_ids_beginning(instance: dg.DagsterInstance, prefix: str, count_max: int) -> tuple[str, ...]:
    """The newest runs whose ids begin so, newest first.

    Relies on: ``SqlRunStorage.connect``, ``RunsTable`` (1.10.0).
    """
    storage = instance.run_storage
    assert isinstance(storage, SqlRunStorage)
    found = (
        db.select(RunsTable.c.run_id)
        .where(RunsTable.c.run_id.startswith(prefix, autoescape=True))
        .order_by(RunsTable.c.id.desc())
        .limit(count_max)
    )
    with storage.connect() as connection:
        return tuple(run_id for (run_id,) in connection.execute(found).fetchall())


def statuses_of_runs(
    instance: dg.DagsterInstance, statuses: Iterable[DagsterRunStatus]
) -> Sequence[tuple[str, DagsterRunStatus, object]]:
    """The runs with these statuses, oldest first: id, status, and what changes with each change.

    Without what they are, so that thousands cost little.

    Relies on: ``SqlRunStorage.connect``, ``RunsTable``, and its ``update_timestamp``, which is
    written whenever the status or the tags of a run change (1.10.0).
    """
    storage = instance.run_storage
    assert isinstance(storage, SqlRunStorage)
    found = (
        db.select(RunsTable.c.run_id, RunsTable.c.status, RunsTable.c.update_timestamp)
        .where(RunsTable.c.status.in_([status.value for status in statuses]))
        .order_by(RunsTable.c.id)
    )
    with storage.connect() as connection:
        rows = connection.execute(found).fetchall()
    return [(run_id, DagsterRunStatus(status), changed) for run_id, status, changed in rows]


def runs_under_way(instance: dg.DagsterInstance, run_ids: Iterable[str]) -> set[str]:
    """Those of these runs that are there and have not ended.

    Of a run in Dagster's tables only its status is read, so thousands cost little.

    Relies on: ``SqlRunStorage.connect``, ``RunsTable``, and ``FINISHED_STATUSES`` (1.10.0).
    """
    asked, storage = sorted(run_ids), instance.run_storage
    if not isinstance(storage, SqlRunStorage):
        records = instance.get_run_records(RunsFilter(run_ids=asked)) if asked else []
        return {r.dagster_run.run_id for r in records if not r.dagster_run.is_finished}
    ended = [status.value for status in FINISHED_STATUSES]
    with storage.connect() as connection:
        return {
            run_id
            for first in range(0, len(asked), _RUNS_AT_ONCE)
            for (run_id,) in connection.execute(
                db.select(RunsTable.c.run_id)
                .where(RunsTable.c.run_id.in_(asked[first : first + _RUNS_AT_ONCE]))
                .where(RunsTable.c.status.not_in(ended))
            )
        }


def cursor_value(instance: dg.DagsterInstance, key: str) -> str | None:
    """What stands under a key in the table where Dagster's daemon keeps cursors.

    Relies on: ``RunStorage.get_cursor_values`` (1.10.0).
    """
    found = cast("Any", instance.run_storage).get_cursor_values({key})
    return cast("str | None", found.get(key))


def set_cursor_value(instance: dg.DagsterInstance, key: str, value: str) -> None:
    """Put a value into that table.

    Relies on: ``RunStorage.set_cursor_values`` (1.10.0).
    """
    cast("Any", instance.run_storage).set_cursor_values({key: value})
