"""Rows of Dagster's event log, read in bulk: only the columns that are needed, nothing decoded.

Dagster's own reading decodes every event, which takes hundreds of times as long as the query.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import dagster as dg
import sqlalchemy as db
from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage

from dagster_lifeguard.errors import DeploymentError, first_line

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

Kind = dg.DagsterEventType

WITH_ERROR = (Kind.STEP_FAILURE.value, Kind.STEP_UP_FOR_RETRY.value)
"""The types of events whose error is read."""


WAITS = ("Step blocked by", "Step still blocked by")
"""How an ``ENGINE_EVENT`` begins that says that a step waits."""

IN_PROCESS = "Executing steps in process"
"""How the ``ENGINE_EVENT`` of a run begins whose process executes its steps one after another."""


class EventRow(NamedTuple):
    """What is read of one event.

    Attributes:
        kind: Its type, such as ``STEP_START``. An ``ENGINE_EVENT`` of a step says that it waits;
            without a step it says that the run executes its steps one after another.
        at: When it was written, by the clock of the process that did.
        asset: Its asset's key as it is stored; see ``asset_key_of``.
        error: What the innermost exception said, of an event in ``WITH_ERROR``.
    """

    kind: str
    at: float
    step_key: str | None = None
    asset: str | None = None
    partition: str | None = None
    error: str | None = None


# A column that holds UTC without saying so: text that ``_seconds`` reads, or seconds.
_AT = {
    "sqlite": "timestamp",
    "postgresql": "CAST(extract(epoch FROM timestamp) AS double precision)",
}
_QUERY = """\
SELECT dagster_event_type, {at}, step_key, asset_key, partition,
  CASE WHEN dagster_event_type IN ({with_error}) THEN event END, run_id
FROM event_logs
WHERE {runs} dagster_event_type IN ({kinds})
  AND (dagster_event_type <> 'ENGINE_EVENT'
    OR (step_key IS NULL AND event LIKE '%Executing steps in process%')
    OR (step_key IS NOT NULL
      AND (event LIKE '%Step blocked by%' OR event LIKE '%Step still blocked by%')))
ORDER BY id
"""


def read_event_rows(
    instance: dg.DagsterInstance, run_ids: Sequence[str], kinds: Collection[Kind]
) -> Mapping[str, list[EventRow]]:
    """The events of these types of each of these runs, in the order in which they were stored.

    An engine event is left out unless ``says`` knows it.

    Raises:
        DeploymentError: The event log cannot be read, or needs a migration first.

    Relies on: the columns of ``event_logs``; ``SqliteEventLogStorage.path_for_shard``, one file
    for each run; ``index_connection`` of the other SQL storages, one table (1.10.0).
    """
    storage: Any = instance.event_log_storage
    names = [kind.value for kind in kinds]
    found: dict[str, list[EventRow]] = {run_id: [] for run_id in run_ids}
    try:
        if isinstance(storage, SqliteEventLogStorage):
            query = _query("sqlite", names, runs="")
            for run_id in run_ids:
                path = Path(storage.path_for_shard(run_id))
                if path.exists():
                    found[run_id] = [
                        EventRow(kind, _seconds(at), step, asset, partition, _error(event))
                        for kind, at, step, asset, partition, event, _ in _of_file(path, query)
                    ]
            return found
        if isinstance(storage, SqlEventLogStorage):
            with storage.index_connection() as connection:
                if connection.dialect.name in _AT:
                    text = _query(connection.dialect.name, names, runs="run_id IN :runs AND")
                    bound = db.text(text).bindparams(db.bindparam("runs", expanding=True))
                    rows = connection.execute(bound, {"runs": list(run_ids)})
                    for kind, at, step, asset, partition, event, run_id in rows:
                        row = EventRow(kind, at, step, asset, partition, _error(event))
                        found[run_id].append(row)
                    return found
    except (sqlite3.Error, db.exc.SQLAlchemyError) as error:
        raise DeploymentError(
            f"The event log cannot be read: {first_line(error)}.",
            remedy="If Dagster was upgraded, run: dagster instance migrate",
        ) from error
    return {run_id: list(_decoded(instance, run_id, set(kinds))) for run_id in run_ids}


def _query(dialect: str, names: Sequence[str], runs: str) -> str:
    def quoted(texts: Sequence[str]) -> str:
        return ", ".join(f"'{text}'" for text in texts)

    return _QUERY.format(
        at=_AT[dialect],
        with_error=quoted(WITH_ERROR),
        kinds=quoted(names),
        runs=runs,
    )


def _of_file(path: Path, query: str) -> list[Any]:
    """The rows of one run's file, which is opened as it is: not made, not migrated."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=20.0)) as file:
        # A run that begins makes its file first, and the tables in it a moment later.
        begun = file.execute("SELECT 1 FROM sqlite_master WHERE name = 'event_logs'").fetchone()
        return file.execute(query).fetchall() if begun else []


def _error(event: str | None) -> str | None:
    return None if event is None else innermost_error(event)


def _seconds(text: str) -> float:
    """Seconds since the epoch of ``2026-11-25 13:42:25.526000``, UTC."""
    return _minute(text[:16]) + float(text[17:])


@lru_cache(maxsize=1024)
def _minute(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


@lru_cache(maxsize=100_000)
def asset_key_of(text: str) -> dg.AssetKey:
    """The key of an ``EventRow.asset``.

    Relies on: ``AssetKey.from_db_string``, which also knows the forms of old (1.10.0).
    """
    key = dg.AssetKey.from_db_string(text)
    assert key is not None, text
    return key


def mapping_key_of(entry: dg.EventLogEntry) -> str | None:
    """The mapping key of a dynamic output, if the event says that one was yielded.

    Relies on: ``DagsterEvent.step_output_data.mapping_key`` (1.10.0).
    """
    event: Any = entry.dagster_event
    if event is None or event.event_type is not Kind.STEP_OUTPUT:
        return None
    key: str | None = event.step_output_data.mapping_key
    return key


def innermost_error(event: str) -> str | None:
    """What the exception at the root said: Dagster wraps it in exceptions of its own.

    Relies on: the fields ``dagster_event``, ``event_specific_data``, ``error``, ``cause`` and
    ``message`` of a stored event (1.10.0).
    """
    data = (json.loads(event).get("dagster_event") or {}).get("event_specific_data") or {}
    error = data.get("error")
    while error is not None and error.get("cause") is not None:
        error = error["cause"]
    return None if error is None else str(error["message"]).strip()


def _decoded(instance: dg.DagsterInstance, run_id: str, kinds: set[Kind]) -> Iterator[EventRow]:
    """The same through the public API, for a storage of an unknown class."""
    cursor: str | None = None
    while True:
        page = instance.get_records_for_run(run_id, cursor=cursor, of_type=kinds)
        for record in page.records:
            event = record.event_log_entry.dagster_event
            if event is None or (
                event.event_type is Kind.ENGINE_EVENT
                and not says(event.step_key, event.message or "")
            ):
                continue
            error = getattr(event.event_specific_data, "error", None)
            while error is not None and error.cause is not None:
                error = error.cause
            yield EventRow(
                event.event_type_value,
                record.timestamp,
                event.step_key,
                None if event.asset_key is None else event.asset_key.to_string(),
                cast("Any", event).partition,
                str(error.message).strip()
                if error is not None and event.event_type_value in WITH_ERROR
                else None,
            )
        if not page.has_more:
            return
        cursor = page.cursor


def says(step_key: str | None, message: str) -> bool:
    """Whether an ``ENGINE_EVENT`` says that a step waits, or that steps execute in process.

    Relies on: the messages of ``InstanceConcurrencyContext`` and ``InProcessExecutor`` (1.10.0).
    """
    return message.startswith(IN_PROCESS if step_key is None else WAITS)
