"""Runs as they are stored, read by the thousands: columns, and of each body only what is needed.

Dagster's own reading makes an object of every part of a body, which takes ten times as long.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from sys import intern
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as db
from dagster import DagsterRun
from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable
from dagster._serdes import deserialize_value

from dagster_lifeguard.compat.runs import (
    assets_of_run,
    first_pools_of_run,
    location_of_run,
    plan_of_run,
    pools_of_run,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    import dagster as dg

_AT_ONCE = 500
"""How many bodies are read with one query, and so how many are in memory."""


class RunBody(NamedTuple):
    """What the body of a run tells.

    Attributes:
        pools: See ``pools_of_run``.
        first_pools: See ``first_pools_of_run``.
        plan: See ``plan_of_run``.
        location: See ``location_of_run``.
        assets: See ``assets_of_run``.
    """

    tags: Mapping[str, str]
    pools: frozenset[str] | None
    first_pools: Mapping[str, int] | None
    plan: str | None
    location: str | None
    assets: tuple[str, ...] = ()


class StoredRun(NamedTuple):
    """A run.

    Attributes:
        number: Of its row: grows from run to run.
        status: Dagster's, such as ``QUEUED``.
        created: Seconds since the epoch, like ``started`` and ``ended``.
    """

    number: int
    run_id: str
    job_name: str
    status: str
    created: float
    started: float | None
    ended: float | None
    told: RunBody


def runs_with_status(instance: dg.DagsterInstance, statuses: Collection[str]) -> list[StoredRun]:
    """The runs that have one of these statuses, oldest first.

    Relies on: the index of ``RunsTable`` by status (1.10.0).
    """
    storage = _storage(instance)
    found = db.select(RunsTable.c.id).where(RunsTable.c.status.in_(sorted(statuses)))
    runs = _read(storage, RunsTable.c.id, _numbers(storage, found))
    # One may have gone on meanwhile.
    return [run for run in runs if run.status in statuses]


def runs_with_ids(instance: dg.DagsterInstance, run_ids: Iterable[str]) -> list[StoredRun]:
    """These runs, as far as they are known, oldest first.

    SQLite may keep whole seconds of when a run was created: the order of two runs within one is
    that of their rows.
    """
    runs = _read(_storage(instance), RunsTable.c.run_id, sorted(set(run_ids)))
    return sorted(runs, key=lambda run: (run.created, run.number))


def latest_plans(instance: dg.DagsterInstance, count_max: int) -> list[str]:
    """What names the plans of the newest runs, the newest first; each once."""
    storage = _storage(instance)
    found = db.select(RunsTable.c.id).order_by(RunsTable.c.id.desc()).limit(count_max)
    plans = [run.told.plan for run in _read(storage, RunsTable.c.id, _numbers(storage, found))]
    return list(dict.fromkeys(filter(None, reversed(plans))))


def runs_changed_since(
    instance: dg.DagsterInstance,
    since: float,
    over: Collection[str],
    *,
    created_before: float | None = None,
    but: Collection[str] = (),
) -> Iterator[StoredRun]:
    """The runs that changed since ``since``, and all unfinished runs, oldest first.

    Args:
        instance: Where to read.
        since: Seconds since the epoch; of a run that is over, its end or later counts.
        over: The statuses of runs that are over.
        created_before: Seconds since the epoch; None for all.
        but: Runs with these statuses are left out.
    """
    runs = RunsTable.c
    query = db.select(runs.id).where(
        db.or_(runs.update_timestamp > _moment(since - 1.0), runs.status.not_in(sorted(over))),
        *([runs.status.not_in(sorted(but))] if but else []),
        *_created_before(created_before),
    )
    storage = _storage(instance)
    return _read(storage, runs.id, _numbers(storage, query))


def runs_with_tag(
    instance: dg.DagsterInstance,
    key: str,
    statuses: Collection[str],
    since: float,
    *,
    but: str,
    count_max: int,
) -> list[StoredRun]:
    """The newest runs that have a tag and changed since then, the oldest of them first.

    Args:
        instance: Where to read.
        key: The tag.
        statuses: Only runs with one of these.
        since: Seconds since the epoch.
        but: Runs with this value of the tag are left out.
        count_max: At most this many.

    Relies on: ``RunTagsTable`` and its index by key and value (1.10.0).
    """
    runs, tags = RunsTable.c, RunTagsTable.c
    query = (
        db.select(runs.id)
        .select_from(RunsTable.join(RunTagsTable, runs.run_id == tags.run_id))
        .where(
            tags.key == key,
            tags.value != but,
            runs.status.in_(sorted(statuses)),
            runs.update_timestamp > _moment(since - 1.0),
        )
        .order_by(runs.id.desc())
        .limit(count_max)
    )
    storage = _storage(instance)
    return list(_read(storage, runs.id, _numbers(storage, query)))


def latest_run_ids(
    instance: dg.DagsterInstance,
    statuses: Iterable[str],
    since: float,
    *,
    created_before: float | None,
    count_max: int,
) -> list[str]:
    """The runs with these statuses that changed since then, the latest change first.

    Relies on: ``update_timestamp``, which is written whenever the status of a run changes, and the
    index of ``RunsTable`` by status and that (1.10.0).
    """
    runs = RunsTable.c
    found: list[tuple[Any, int, str]] = []
    with _storage(instance).connect() as connection:
        for status in statuses:  # Each along the index.
            query = db.select(runs.update_timestamp, runs.id, runs.run_id).where(
                runs.status == status,
                runs.update_timestamp > _moment(since - 1.0),
                *_created_before(created_before),
            )
            query = query.order_by(runs.update_timestamp.desc()).limit(count_max)
            found += map(tuple, connection.execute(query).fetchall())
    return [run_id for _, _, run_id in sorted(found, reverse=True)[:count_max]]


def _created_before(seconds: float | None) -> list[Any]:
    return [] if seconds is None else [RunsTable.c.create_timestamp < _moment(seconds)]


def _moment(seconds: float) -> datetime:
    """As the table keeps it: UTC, without saying so."""
    return datetime.fromtimestamp(max(seconds, 0.0), timezone.utc).replace(tzinfo=None)


def _storage(instance: dg.DagsterInstance) -> SqlRunStorage:
    """Relies on: ``SqlRunStorage.connect``, of all of Dagster's storages of runs (1.10.0)."""
    storage = instance.run_storage
    assert isinstance(storage, SqlRunStorage)
    return storage


def _numbers(storage: SqlRunStorage, query: Any) -> list[int]:
    """The numbers of the rows that a query finds, the smallest first."""
    with storage.connect() as connection:
        return sorted(number for (number,) in connection.execute(query).fetchall())


def _read(storage: SqlRunStorage, column: Any, values: Sequence[object]) -> Iterator[StoredRun]:
    """Relies on: the columns of ``RunsTable``; ``has_run_stats_index_cols`` (1.10.0)."""
    runs = RunsTable.c
    columns = [runs.id, runs.run_id, runs.pipeline_name, runs.status, runs.create_timestamp]
    times: list[Any] = [runs.start_time, runs.end_time]
    if not storage.has_run_stats_index_cols():
        times = [db.null(), db.null()]
    for start in range(0, len(values), _AT_ONCE):
        query = db.select(*columns, *times, runs.run_body).where(
            column.in_(values[start : start + _AT_ONCE])
        )
        with storage.connect() as connection:
            rows: Sequence[Any] = connection.execute(query.order_by(runs.id)).fetchall()
        for number, run_id, job_name, status, created, started, ended, body in rows:
            at = created.replace(tzinfo=timezone.utc).timestamp()
            told = told_by(body)
            yield StoredRun(
                number, run_id, intern(job_name), intern(status), at, started, ended, told
            )


def told_by(body: str) -> RunBody:
    """What a body tells, as Dagster reads it.

    Relies on: the names of the fields in a stored ``DagsterRun``, which is told by ``__class__``
    (1.10.0). A body of another shape is read by Dagster.
    """
    found: Any = json.loads(body)
    try:
        if found["__class__"] != "PipelineRun":
            return _told_by_dagster(body)
        asked = found.get("run_op_concurrency")
        origin = found.get("external_pipeline_origin")
        plan = found.get("execution_plan_snapshot_id")
        pools: frozenset[str] | None = None
        first_pools: dict[str, int] | None = None
        if asked is not None:
            counts = asked["root_key_counts"]
            # A set is stored as {"__set__": [...]} or {"__frozenset__": [...]}.
            (names,) = (asked.get("all_pools") or {"": ()}).values()
            pools = frozenset(map(intern, names or counts))
            if not asked["has_unconstrained_root_nodes"]:
                first_pools = {intern(pool): slots for pool, slots in counts.items()}
        elif plan:
            pools = frozenset()
        return RunBody(
            tags={intern(key): intern(value) for key, value in (found.get("tags") or {}).items()},
            pools=pools,
            first_pools=first_pools,
            plan=plan,
            location=None if origin is None else _location(origin),
            assets=_assets(found.get("asset_selection")),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return _told_by_dagster(body)


def _location(origin: Any) -> str:
    found = origin["external_repository_origin"]["repository_location_origin"]["location_name"]
    return intern(found)


def _assets(selection: Any) -> tuple[str, ...]:
    (keys,) = (selection or {"": ()}).values()
    return tuple(sorted(intern("/".join(key["path"])) for key in keys))


def _told_by_dagster(body: str) -> RunBody:
    run = deserialize_value(body, DagsterRun)
    return RunBody(
        tags=run.tags,
        pools=pools_of_run(run),
        first_pools=first_pools_of_run(run),
        plan=plan_of_run(run),
        location=location_of_run(run),
        assets=assets_of_run(run),
    )
