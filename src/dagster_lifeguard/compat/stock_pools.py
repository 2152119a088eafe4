"""The stock storage's tables of pools, read whole: one question for thousands of pools."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as db
from dagster._core.storage.event_log.schema import (
    ConcurrencyLimitsTable,
    ConcurrencySlotsTable,
    PendingStepsTable,
)

from dagster_lifeguard.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from dagster._core.storage.event_log import SqlEventLogStorage
    from dagster._core.storage.event_log.base import PoolLimit

logger = logging.getLogger(__name__)

_NAMED_MAX = 500
"""For more pools than this, all rows are read: a statement takes a limited number of values."""


class HeldSlot(NamedTuple):
    """A held slot, including a slot that is deleted when it is freed."""

    pool: str
    run_id: str
    step_key: str


class PendingStep(NamedTuple):
    """A step that asked for a slot: it waits, or it was assigned one, which it then holds."""

    pool: str
    run_id: str
    step_key: str
    priority: int
    created: float
    assigned: float | None


def held_slots(
    event_log: SqlEventLogStorage, pools: Collection[str] | None = None
) -> tuple[HeldSlot, ...]:
    """The slots that are held, of these pools or of all.

    Relies on: ``ConcurrencySlotsTable``, ``SqlEventLogStorage.index_connection`` (1.10.0).
    """
    table: Any = ConcurrencySlotsTable.c
    held = db.select(table.concurrency_key, table.run_id, table.step_key).where(
        table.run_id.is_not(None)
    )
    with event_log.index_connection() as connection:
        found = connection.execute(_of(held, table.concurrency_key, pools)).fetchall()
    return tuple(
        HeldSlot(pool, run_id, step_key or "")
        for pool, run_id, step_key in found
        if pools is None or pool in pools
    )


def pending_steps(
    event_log: SqlEventLogStorage, pools: Collection[str] | None = None
) -> tuple[PendingStep, ...]:
    """The pending steps of these pools, or of all pools, in the order in which they start.

    SQLite stores arrival times in whole seconds. Among steps of one second and one priority,
    Dagster may take any first.

    Relies on: ``PendingStepsTable``; the order is that of ``assign_pending_steps`` (1.10.0).
    """
    table: Any = PendingStepsTable.c
    with event_log.index_connection() as connection:
        pending = db.select(
            table.concurrency_key,
            table.run_id,
            table.step_key,
            table.priority,
            _moment(connection, table.create_timestamp),
            _moment(connection, table.assigned_timestamp),
        ).order_by(
            table.assigned_timestamp.is_(None),
            table.priority.desc(),
            table.create_timestamp,
            table.id,
        )
        found = connection.execute(_of(pending, table.concurrency_key, pools)).fetchall()
    return tuple(
        PendingStep(pool, run_id, step_key, priority or 0, _seconds(created), _seconds(assigned))
        for pool, run_id, step_key, priority, created, assigned in found
        if pools is None or pool in pools
    )


def pool_limits(event_log: SqlEventLogStorage) -> Sequence[PoolLimit]:
    """The limits that are written down, defaults among them.

    Relies on: ``get_pool_limits``, which fills the table of limits if there are only slots yet,
    and fails in that where all slots are held ones whose limits were deleted (1.10.0).
    """
    if has_limits_table(event_log) and not _is_any(event_log, ConcurrencyLimitsTable.c.id):
        live = ConcurrencySlotsTable.c.deleted.is_(False)
        if not _is_any(event_log, ConcurrencySlotsTable.c.id, live):
            return ()
    return event_log.get_pool_limits()


def _is_any(event_log: SqlEventLogStorage, column: Any, *conditions: Any) -> bool:
    with event_log.index_connection() as connection:
        found = connection.execute(db.select(column).where(*conditions).limit(1)).fetchone()
    return found is not None


def has_limits_table(event_log: SqlEventLogStorage) -> bool:
    """Whether the database is new enough for a limit of 0.

    Relies on: ``SqlEventLogStorage.has_table`` and what the webserver asks by it (1.10.0).
    """
    return bool(event_log.has_table("concurrency_limits"))


def set_limits(event_log: SqlEventLogStorage, limits: Mapping[str, int | None]) -> None:
    """Set or, with None, delete limits in one transaction.

    Once they are set, no error follows. If the new slots could not be assigned to waiting steps,
    this is logged, and ``lifeguard doctor --fix`` assigns them.

    Works like ``set_concurrency_slots`` and ``delete_concurrency_limit`` for one pool, with one
    difference: slots that drain after the limit was lowered still count. Dagster forgets them when
    the limit is raised again, and then assigns too many slots.

    Relies on: ``_upsert_and_lock_limit_row``, ``_allocate_concurrency_slots``,
    ``assign_pending_steps``, the column ``deleted`` of ``ConcurrencySlotsTable`` (1.10.0).
    """
    pool_limits(event_log)  # Fills the table of limits if there are only slots yet.
    has_default_column = event_log.has_default_pool_limit_col  # Asks over a connection of its own.
    has_table = event_log.has_concurrency_limits_table
    to_assign: list[str] = []
    with event_log.index_transaction() as connection:
        for pool, limit in sorted(limits.items()):  # In one order for all, against deadlocks.
            if limit is not None:
                event_log._upsert_and_lock_limit_row(connection, pool, limit, has_default_column)
            elif has_table:
                of_pool = ConcurrencyLimitsTable.c.concurrency_key == pool
                connection.execute(ConcurrencyLimitsTable.delete().where(of_pool))
            _keep_held(connection, pool, limit or 0)
            added = event_log._allocate_concurrency_slots(connection, pool, limit or 0)
            to_assign += added
    try:
        event_log.assign_pending_steps(to_assign)
    except db.exc.DBAPIError as error:
        logger.warning("The limits are set, but who waits was not told: %s", first_line(error))


def _keep_held(connection: Any, pool: str, limit: int) -> None:
    """Let held slots of a pool that were to go stay, as many as the limit has room for."""
    slots: Any = ConcurrencySlotsTable
    of_pool = slots.c.concurrency_key == pool
    kept = db.select(db.func.count()).where(of_pool, slots.c.deleted.is_(False))
    room = limit - connection.execute(kept).scalar_one()
    if room > 0:
        going = db.select(slots.c.id).where(of_pool, slots.c.deleted.is_(True)).limit(room)
        ids = [slot for (slot,) in connection.execute(going.with_for_update()).fetchall()]
        stays = slots.update().where(slots.c.id.in_(ids), slots.c.run_id.is_not(None))
        connection.execute(stays.values(deleted=False))


def _of(query: Any, column: Any, pools: Collection[str] | None) -> Any:
    if pools is None or len(pools) > _NAMED_MAX:
        return query
    return query.where(column.in_(list(pools)))


def _moment(connection: Any, column: Any) -> Any:
    """The column, on PostgreSQL with the time zone by which the server wrote it."""
    if connection.dialect.name == "postgresql":
        return db.cast(column, db.TIMESTAMP(timezone=True))
    return column


def _seconds(moment: datetime | None) -> Any:
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
