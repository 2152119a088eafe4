"""Private parts of Dagster's storages that our storages use; Dagster may change any of them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import dagster as dg
from dagster import _record
from dagster._core.instance.config import PoolConfig
from dagster._core.storage import sqlite_storage
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.dagster_run import RunOpConcurrency
from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage
from dagster._core.storage.event_log.base import EventLogStorage, PoolLimit
from dagster._core.storage.runs import RunStorage, SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from dagster._utils.concurrency import (
    ClaimedSlotInfo,
    ConcurrencyClaimStatus,
    ConcurrencyKeyInfo,
    ConcurrencySlotStatus,
    PendingStepInfo,
    get_max_concurrency_limit_value,
)
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "ConcurrencyClaimStatus",
    "ConcurrencyKeyInfo",
    "ConfigurableClassData",
    "DagsterSqliteStorage",
    "EventLogStorage",
    "PoolConfig",
    "PoolLimit",
    "RunOpConcurrency",
    "RunStorage",
    "SqlEventLogStorage",
    "SqliteEventLogStorage",
    "SqliteRunStorage",
    "SqliteScheduleStorage",
]

Slot = tuple[str, str]
"""A run id and a step key."""


# --- the parts of a storage -----------------------------------------------------------------------


def wipe_all_but_limits(event_log: SqlEventLogStorage) -> None:
    """Delete what a wipe deletes, and keep the limits of pools.

    Relies on: ``SqlEventLogStorage._wipe_index``, which a wipe of an SQLite storage consists of;
    that of a PostgreSQL storage, which keeps no run's events elsewhere, deletes the limits, and
    then calls it too (1.10.0).
    """
    cast("Any", event_log)._wipe_index()


def assemble(
    storage: DagsterStorage,
    *,
    runs: object,
    event_log: object,
    schedules: object,
    inst_data: ConfigurableClassData | None,
) -> None:
    """Give a unified storage its parts, in place of its stock initializer.

    That would make stock parts first, each of which connects to its database.

    Relies on: ``_run_storage``, ``_event_log_storage``, ``_schedule_storage`` and ``_inst_data`` of
    ``DagsterSqliteStorage`` and ``DagsterPostgresStorage``, and no other private one (1.10.0).
    """
    made = cast("Any", storage)
    made._run_storage = runs
    made._event_log_storage = event_log
    made._schedule_storage = schedules
    made._inst_data = inst_data
    cast("Any", DagsterStorage).__init__(storage)


class SqliteDirectories(NamedTuple):
    """Where the stock SQLite storage keeps its files.

    Relies on: the functions of ``dagster._core.storage.sqlite_storage`` (1.10.0).
    """

    runs: str
    event_logs: str
    schedules: str

    @classmethod
    def of(cls, base_dir: str) -> SqliteDirectories:
        """Those of a storage with this ``base_dir``."""
        return cls(
            sqlite_storage._runs_directory(base_dir),
            sqlite_storage._event_logs_directory(base_dir),
            sqlite_storage._schedule_directory(base_dir),
        )


def sqlite_index_path(event_log: SqliteEventLogStorage) -> str:
    """The file with Dagster's concurrency tables.

    Relies on: the shard named ``index`` (1.10.0).
    """
    return event_log.path_for_shard("index")


def instance_of(part: Any) -> dg.DagsterInstance:
    """The instance that a part of a storage belongs to.

    Relies on: ``MayHaveInstanceWeakref._instance`` (1.10.0).
    """
    return cast("dg.DagsterInstance", part._instance)


def postgres_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the stock PostgreSQL storage makes of its configuration.

    Relies on: ``pg_url_from_config`` (1.10.0) and, where there is one (1.13),
    ``get_token_provider_from_config``.
    """
    from dagster_postgres import utils  # noqa: PLC0415 - an extra

    arguments: dict[str, Any] = {
        "postgres_url": utils.pg_url_from_config(config),
        "should_autocreate_tables": config.get("should_autocreate_tables", True),
    }
    provider = getattr(utils, "get_token_provider_from_config", None)
    if provider is not None:
        arguments["token_provider"] = provider(config)
    return arguments


def postgres_opener(event_log: Any, lease_seconds: float = 30.0) -> Callable[[], Any]:
    """What opens psycopg2 connections to an event log's database, with its credentials.

    Args:
        event_log: The event log storage.
        lease_seconds: The lease that is extended over such a connection, which is given up in time
            when the network falls silent; not where Dagster itself opens connections with a token.

    Relies on: ``PostgresEventLogStorage.postgres_url`` and, where there is one (1.13),
    ``_token_provider`` with ``create_pg_engine``.
    """
    from dagster_lifeguard.engine.store.postgres.connection import connector  # noqa: PLC0415 - an extra

    provider = getattr(event_log, "_token_provider", None)
    if provider is None:
        return connector(event_log.postgres_url, lease_seconds)

    database = event_log._engine  # Not the event log, which the connection may outlive.

    def connect() -> Any:
        pooled = database.raw_connection()
        raw = pooled.dbapi_connection
        pooled.detach()  # Ours alone from now on.
        return raw

    return connect


def database_errors() -> tuple[type[Exception], ...]:
    """What Dagster's connections raise when the database does not answer or refuses.

    Relies on: ``DagsterPostgresException``, raised after a few tries to connect (1.10.0).
    """
    try:
        from dagster_postgres.utils import DagsterPostgresException  # noqa: PLC0415 - an extra
    except ImportError:
        return (SQLAlchemyError,)
    return (SQLAlchemyError, DagsterPostgresException)


def parts_of(instance: dg.DagsterInstance) -> tuple[Any, Any]:
    """An instance's event log storage and run storage, None for what it does not have yet.

    An instance that is being made takes in its event log storage first.

    Relies on: ``DagsterInstance._event_storage`` and ``_run_storage`` (1.10.0).
    """
    return getattr(instance, "_event_storage", None), getattr(instance, "_run_storage", None)


# --- runs and pools -------------------------------------------------------------------------------


def run_with_pools(run: dg.DagsterRun, pools: RunOpConcurrency) -> dg.DagsterRun:
    """The run as it is, but for the pools that the run queue counts.

    Relies on: ``DagsterRun.run_op_concurrency``; a named tuple in 1.10, a record later.
    """
    if hasattr(run, "_replace"):
        return cast("dg.DagsterRun", cast("Any", run)._replace(run_op_concurrency=pools))
    return cast("dg.DagsterRun", _record.copy(cast("Any", run), run_op_concurrency=pools))


def default_pool_limit(part: Any) -> int | None:
    """The limit of pools that have none of their own; None if such a pool is unlimited.

    Relies on: ``DagsterInstance.global_op_concurrency_default_limit`` (1.10.0).
    """
    if not part.has_instance:
        return None
    found = part._instance.global_op_concurrency_default_limit
    return None if found is None else int(found)


def pool_config_with_default(config: PoolConfig, default_limit: int) -> PoolConfig:
    """The configuration with another default limit.

    Relies on: ``PoolConfig`` is a record (1.10.0).
    """
    return cast(
        "PoolConfig", _record.replace(cast("Any", config), default_pool_limit=default_limit)
    )


def assign_missed(event_log: Any, pool: str) -> bool:
    """Make the stock storage give a free slot to a step that waits, which it can miss.

    A step that begins to wait while the slot is freed is not assigned it, and nothing looks again.

    Relies on: ``SqlEventLogStorage.has_unassigned_slots`` and ``assign_pending_steps`` (1.10.0).

    Returns:
        Whether there was a slot to give.
    """
    if not event_log.has_unassigned_slots(pool):
        return False
    event_log.assign_pending_steps([pool])
    return True


def limit_max() -> int:
    """The highest limit that Dagster lets a user set."""
    return get_max_concurrency_limit_value()


# --- answers --------------------------------------------------------------------------------------


def claim_status(
    pool: str, *, claimed: bool, priority: int | None = None, since: float | None = None
) -> ConcurrencyClaimStatus:
    """The answer to a claim. With interval 0 Dagster's loop asks again at its next turn.

    Relies on: ``ConcurrencyClaimStatus`` and what ``InstanceConcurrencyContext`` makes of its
    ``sleep_interval`` (1.10.0).
    """
    moment = None if since is None else datetime.fromtimestamp(since, timezone.utc)
    return ConcurrencyClaimStatus(
        concurrency_key=pool,
        slot_status=ConcurrencySlotStatus.CLAIMED if claimed else ConcurrencySlotStatus.BLOCKED,
        priority=priority,
        assigned_timestamp=moment if claimed else None,
        enqueued_timestamp=moment,
        sleep_interval=0.0,
    )


def key_info(
    pool: str,
    *,
    limit: int | None,
    from_default: bool,
    held: Iterable[tuple[Slot, int, int, float]],
    waiting: Iterable[tuple[Slot, int, float]],
) -> ConcurrencyKeyInfo:
    """What Dagster's page of pools shows, and what the run queue counts by.

    A holder is in the pending steps too, once for each slot and as assigned: the run queue takes
    the slots less the pending steps for what is free.

    Args:
        pool: The pool.
        limit: Its limit.
        from_default: Whether that is the default limit.
        held: Slot, number of slots, priority and the begin, for each holder.
        waiting: Slot, priority and the begin, for each waiter.

    Relies on: ``ConcurrencyKeyInfo``, ``ClaimedSlotInfo``, ``PendingStepInfo`` (1.10.0).
    """
    claimed, pending = [], []
    for (run_id, step_key), count, priority, since in held:
        moment = datetime.fromtimestamp(since, timezone.utc)
        claimed += [ClaimedSlotInfo(run_id=run_id, step_key=step_key)] * count
        pending += [_pending((run_id, step_key), priority, moment, moment)] * count
    for slot, priority, since in waiting:
        pending.append(_pending(slot, priority, datetime.fromtimestamp(since, timezone.utc), None))
    return ConcurrencyKeyInfo(
        concurrency_key=pool,
        slot_count=limit or 0,
        claimed_slots=claimed,
        pending_steps=pending,
        limit=limit,
        using_default_limit=from_default,
    )


def _pending(
    slot: Slot, priority: int, enqueued: datetime, assigned: datetime | None
) -> PendingStepInfo:
    return PendingStepInfo(
        run_id=slot[0],
        step_key=slot[1],
        enqueued_timestamp=enqueued,
        assigned_timestamp=assigned,
        priority=priority,
    )
