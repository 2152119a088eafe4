"""An instance with many pools, waiting steps, queued runs and a past, written in seconds.

What is written is what Dagster and the storages write: one run executes, one step holds, one
waits, and their rows are written again for each further one, with names and ids of its own.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import uuid
import zlib
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import sqlalchemy as db
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable, SnapshotsTable
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._serdes import serialize_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

NAME = "crowd_seed"
"""The model's asset, step and pool, as long as the names that take its place: so its bytes fit."""
ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(
        ManagedGrpcPythonEnvCodeLocationOrigin(
            LoadableTargetOrigin(module_name="warehouse.definitions"), "warehouse"
        ),
        "__repository__",
    ),
    "__ASSET_JOB",
)
TAGS = {
    "dagster/partition": "2026-03-01",
    "dagster/priority": "1",
    ".dagster/repository": "__repository__@warehouse",
    "team": "analytics",
}
QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
NEVER = 1e7
DAY = 86400.0
AT_ONCE = 5_000
UNDERWAY = ("PIPELINE_SUCCESS", "STEP_SUCCESS", "ASSET_MATERIALIZATION", "STEP_OUTPUT")
"""What a step that still executes has not written yet."""


@dataclass(frozen=True)
class Crowd:
    """How many of each there are.

    Attributes:
        pools: With a limit of 1 each, and a step that holds it.
        waiting: Steps that wait, shared out among the pools; each of a run of its own.
        queued: Runs in the run queue, shared out among the pools.
        over: Runs that ended within the last day, shared out among the pools.
    """

    pools: int
    waiting: int
    queued: int
    over: int


@dataclass(frozen=True)
class _Made:
    """A run to be written."""

    run_id: str
    name: str
    status: str
    created: float
    started: float | None = None
    ended: float | None = None


def name_of(number: int) -> str:
    """The asset, the step and the pool of this number."""
    return f"pool_{number:05}"


def fill(instance: dg.DagsterInstance, crowd: Crowd) -> None:
    """Write all of it to an empty instance, on Dagster's own storage or on the engine's."""
    model = _execute(instance)
    now = time.time()
    names = [name_of(number) for number in range(crowd.pools)]
    over = [
        _Made(_id(), names[n % crowd.pools], "SUCCESS", at - 60.0, at - 50.0, at)
        for n in range(crowd.over)
        for at in [now - 60.0 - (crowd.over - n) * (DAY - 120.0) / max(1, crowd.over)]
    ]
    holding = [_Made(_id(), name, "STARTED", now - 600.0, now - 590.0) for name in names]
    waiting = [
        _Made(_id(), names[n % crowd.pools], "STARTED", now - 500.0, now - 490.0)
        for n in range(crowd.waiting)
    ]
    queued = [
        _Made(_id(), names[n % crowd.pools], "QUEUED", now - 400.0) for n in range(crowd.queued)
    ]
    plans = _write_plans(instance, model, names)
    _write_runs(instance, model, [*over, *holding, *waiting, *queued], plans)
    _write_events(instance, model, over, [*holding, *waiting])
    _write_slots(instance, names, holding, waiting)
    instance.run_storage.delete_run(model.run_id)


def _id() -> str:
    return str(uuid.uuid4())


def _execute(instance: dg.DagsterInstance) -> dg.DagsterRun:
    @dg.asset(name=NAME, pool=NAME)
    def model() -> None: ...

    assert dg.materialize([model], instance=instance, tags=TAGS, run_config=QUIET).success
    (run,) = instance.get_runs()
    assert run.run_op_concurrency is not None, "the model asks for its pool"
    return run


def _write_plans(
    instance: dg.DagsterInstance, model: dg.DagsterRun, names: Iterable[str]
) -> dict[str, str]:
    """A plan for each asset, and what names it."""
    storage: Any = instance.run_storage
    of_model = SnapshotsTable.c.snapshot_id == model.execution_plan_snapshot_id
    with storage.connect() as connection:
        query = db.select(SnapshotsTable.c.snapshot_body, SnapshotsTable.c.snapshot_type)
        body, kind = connection.execute(query.where(of_model)).one()
        text = zlib.decompress(body).decode()
        plans = {name: uuid.uuid4().hex + uuid.uuid4().hex[:8] for name in names}
        rows = (
            {
                "snapshot_id": plan,
                "snapshot_type": kind,
                "snapshot_body": zlib.compress(text.replace(NAME, name).encode()),
            }
            for name, plan in plans.items()
        )
        _insert(connection, SnapshotsTable, rows)
    return plans


def _write_runs(
    instance: dg.DagsterInstance,
    model: dg.DagsterRun,
    runs: Iterable[_Made],
    plans: Mapping[str, str],
) -> None:
    storage: Any = instance.run_storage
    told = model._replace(remote_job_origin=ORIGIN)
    row = storage._get_run_insertion_values(told, datetime.now(timezone.utc))  # noqa: SLF001
    bodies = {
        status: serialize_value(told._replace(status=dg.DagsterRunStatus(status)))
        for status in ("QUEUED", "STARTED", "SUCCESS")
    }
    plan_of_model = model.execution_plan_snapshot_id or ""

    def written() -> Iterator[dict[str, Any]]:
        for run in runs:
            body = bodies[run.status].replace(model.run_id, run.run_id)
            body = body.replace(plan_of_model, plans[run.name]).replace(NAME, run.name)
            changed = run.ended or run.started or run.created
            yield {
                **row,
                "run_id": run.run_id,
                "status": run.status,
                "run_body": body,
                "create_timestamp": datetime.fromtimestamp(run.created, timezone.utc),
                "update_timestamp": datetime.fromtimestamp(changed, timezone.utc),
                "start_time": run.started,
                "end_time": run.ended,
            }

    tags = list(told.tags_for_storage().items())
    with storage.connect() as connection:
        _insert(connection, RunsTable, written())
        _insert(
            connection,
            RunTagsTable,
            ({"run_id": run.run_id, "key": k, "value": v} for run in runs for k, v in tags),
        )
        if connection.dialect.name == "postgresql":
            connection.execute(db.text("ANALYZE runs"))


# ---- events --------------------------------------------------------------------------------------


def _write_events(
    instance: dg.DagsterInstance,
    model: dg.DagsterRun,
    over: Iterable[_Made],
    underway: Iterable[_Made],
) -> None:
    event_log: Any = instance.event_log_storage
    if isinstance(event_log, SqliteEventLogStorage):
        _write_files(event_log, model.run_id, over, underway)
        return
    columns = "event, dagster_event_type, step_key, asset_key, partition"
    names = columns.replace("event, ", "").replace("step_key, asset_key, ", "")
    question = f"""INSERT INTO event_logs (run_id, timestamp, event, step_key, asset_key, {names})
    SELECT r.run_id,
      to_timestamp(CAST(r.at AS double precision)) AT TIME ZONE 'UTC' + (e.timestamp - m.at),
      replace(replace(event, :model, r.run_id), :name, r.name),
      replace(step_key, :name, r.name), replace(asset_key, :name, r.name), {names}
    FROM event_logs e,
      (SELECT min(timestamp) AS at FROM event_logs WHERE run_id = :model) m,
      unnest(CAST(:runs AS text[]), CAST(:names AS text[]), CAST(:begins AS text[]))
        AS r (run_id, name, at)
    WHERE e.run_id = :model AND NOT e.dagster_event_type = ANY(CAST(:left_out AS text[]))
    ORDER BY r.run_id, e.id"""
    with event_log.index_connection() as connection:
        for runs, left_out in ((list(over), ()), (list(underway), UNDERWAY)):
            for start in range(0, len(runs), AT_ONCE):
                some = runs[start : start + AT_ONCE]
                values = {
                    "model": model.run_id,
                    "name": NAME,
                    "runs": [run.run_id for run in some],
                    "names": [run.name for run in some],
                    "begins": [str(run.started) for run in some],
                    "left_out": list(left_out),
                }
                connection.execute(db.text(question), values)
        connection.execute(db.text("ANALYZE event_logs"))


def _write_files(
    event_log: Any, model: str, over: Iterable[_Made], underway: Iterable[_Made]
) -> None:
    source = Path(event_log.path_for_shard(model))
    with closing(sqlite3.connect(source)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        file.execute("PRAGMA journal_mode = DELETE")
    whole = source.read_bytes()
    for run in over:
        body = whole.replace(model.encode(), run.run_id.encode()).replace(
            NAME.encode(), run.name.encode()
        )
        Path(event_log.path_for_shard(run.run_id)).write_bytes(body)
    with closing(sqlite3.connect(source, isolation_level=None)) as file:
        marks = ", ".join("?" * len(UNDERWAY))
        file.execute(f"DELETE FROM event_logs WHERE dagster_event_type IN ({marks})", UNDERWAY)
    # Nobody writes to these, so one file does for all: of each its own, they take gigabytes.
    for run in underway:
        os.link(source, event_log.path_for_shard(run.run_id))


# ---- slots ---------------------------------------------------------------------------------------


def _write_slots(
    instance: dg.DagsterInstance,
    names: list[str],
    holding: list[_Made],
    waiting: list[_Made],
) -> None:
    event_log: Any = instance.event_log_storage
    event_log.set_concurrency_slots(NAME, 1)
    holder, waiter = _id(), _id()
    assert event_log.claim_concurrency_slot(NAME, holder, NAME).is_claimed
    assert not event_log.claim_concurrency_slot(NAME, waiter, NAME).is_claimed
    with event_log.index_connection() as connection:
        has_engine = hasattr(event_log, "lifeguard")
        rows = _Rows(connection)
        rows.copy("concurrency_limits", {"concurrency_key": NAME}, [{NAME: n} for n in names])
        of_holders = [{holder: run.run_id, NAME: run.name} for run in holding]
        of_waiters = [{waiter: run.run_id, NAME: run.name} for run in waiting]
        if has_engine:
            _write_tickets(rows, holder, waiter, of_holders, of_waiters)
        else:
            rows.copy("concurrency_slots", {"run_id": holder}, of_holders)
            rows.copy("pending_steps", {"run_id": holder}, of_holders)
            rows.copy("pending_steps", {"run_id": waiter}, of_waiters)
    event_log.free_concurrency_slots_for_run(waiter)
    event_log.free_concurrency_slots_for_run(holder)
    if has_engine:
        event_log.delete_concurrency_limit(NAME)


def _write_tickets(
    rows: _Rows,
    holder: str,
    waiter: str,
    holders: list[dict[str, str]],
    waiters: list[dict[str, str]],
) -> None:
    """The engine's rows; each run has a process, and so a session, of its own."""
    (ticket,) = rows.found("lifeguard_tickets", {"run_id": waiter})
    session = ticket["session"]
    holders = [{**changes, session: _id()} for changes in holders]
    waiters = [{**changes, session: _id()} for changes in waiters]
    rows.copy("lifeguard_pools", {"pool": NAME}, holders)
    rows.copy("lifeguard_holdings", {"run_id": holder}, holders)
    rows.copy("lifeguard_owners", {"run_id": holder}, holders)
    rows.copy("lifeguard_ledger", {"run_id": holder}, holders)
    sessions = [*holders, *waiters]
    rows.copy(
        "lifeguard_sessions",
        {"session": session},
        sessions,
        ({"lease_until": time.time() + NEVER, "label": f"host:{n}"} for n in range(len(sessions))),
    )
    numbers = [ticket["number"] + 1 + n for n in range(len(waiters))]
    numbered = [{"number": number} for number in numbers]
    rows.copy("lifeguard_tickets", {"run_id": waiter}, waiters, numbered)
    rows.copy("lifeguard_queue", {"number": ticket["number"]}, waiters, numbered)


class _Rows:
    """Writes rows of a table again, with other texts in them."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._tables: dict[str, db.Table] = {}

    def found(self, name: str, where: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows with these values, without the number that the database gives."""
        table = self._table(name)
        query = db.select(table).where(*(table.c[key] == value for key, value in where.items()))
        rows = self._connection.execute(query).mappings().all()
        return [{k: v for k, v in row.items() if k not in ("id", "entry")} for row in rows]

    def copy(
        self,
        name: str,
        where: Mapping[str, Any],
        changes: list[dict[str, str]],
        values: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        """Write each such row once for each of the changes of its texts, and of its values."""
        for row in self.found(name, where):
            own = values or ({} for _ in changes)
            _insert(
                self._connection,
                self._table(name),
                ({**_changed(row, c), **v} for c, v in zip(changes, own, strict=True)),
            )

    def _table(self, name: str) -> db.Table:
        if name not in self._tables:
            self._tables[name] = db.Table(name, db.MetaData(), autoload_with=self._connection)
        return self._tables[name]


def _changed(row: Mapping[str, Any], changes: Mapping[str, str]) -> dict[str, Any]:
    def change(value: Any) -> Any:
        if isinstance(value, str):
            for old, new in changes.items():
                value = value.replace(old, new)
        elif isinstance(value, dict):  # PostgreSQL's JSON.
            value = json.loads(change(json.dumps(value)))
        return value

    return {key: change(value) for key, value in row.items()}


def _insert(connection: Any, table: db.Table, rows: Iterable[Mapping[str, Any]]) -> None:
    batch: list[Mapping[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == AT_ONCE:
            connection.execute(table.insert(), batch)
            batch = []
    if batch:
        connection.execute(table.insert(), batch)
