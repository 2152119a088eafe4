"""Switching the engine on and off, and its status.

Both are safe while runs execute. A fleet in which some processes use the engine and some Dagster's
own storage is safe too: see ``stock_slots``. A process uses the storage that ``dagster.yaml`` named
when it started.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as db

from dagster_lifeguard.compat import storages
from dagster_lifeguard.engine.rules.pool_expressions import is_reserved
from dagster_lifeguard.engine.rules.pool_settings import own_limits
from dagster_lifeguard.engine.rules.shown_names import enumerate_some
from dagster_lifeguard.engine.store.sql import newest_version
from dagster_lifeguard.engine.store.upkeep import package_version
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.storage.event_log import PoolMethods
from dagster_lifeguard.storage.sessions import Process, processes
from dagster_lifeguard.storage.stock_slots import STOCK, StockSlots, ended_runs

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from dagster_lifeguard.engine.store.contract import Store


def tables_newest() -> int:
    """The version of the tables that this package makes, on either database."""
    return newest_version("sqlite")


# Of columns that the tables have had since their first version: older ones are looked at, too.
_HOLDERS = """SELECT h.pool, h.run_id, h.step_key, count(*) FROM lifeguard_holdings h
WHERE NOT EXISTS (SELECT 1 FROM lifeguard_owners o
  WHERE o.run_id = h.run_id AND o.step_key = h.step_key AND o.session = :stock)
GROUP BY h.pool, h.run_id, h.step_key ORDER BY h.pool, min(h.since)"""


@dataclass(frozen=True)
class SlotHolder:
    """A step that holds slots of a pool.

    Attributes:
        world: The storage that granted the slots: ``engine`` or ``stock``.
    """

    world: str
    pool: str
    run_id: str
    step_key: str
    slots: int


@dataclass(frozen=True)
class Status:
    """The status of the engine in an instance's database.

    Attributes:
        storage: The class of the storage in use.
        is_ours: Whether that is one of ours.
        package: The version of this package.
        tables_known: The version of the engine's tables that this package makes.
        tables: The version of the engine's tables; None if there are none.
        usable_from: The oldest version that a package must know to use these tables.
        processes: Those that have a session. While there is one, workers on the stock storage get
            no slots.
        waiting: The steps that wait for the engine.
        waiting_on_stock: The steps that wait for a slot of the stock storage.
        unmatched: The pools that have more or fewer slots on the stock storage than their limit.
    """

    storage: str
    is_ours: bool
    package: str
    tables_known: int
    tables: int | None
    usable_from: int | None
    processes: tuple[Process, ...]
    holders: tuple[SlotHolder, ...]
    waiting: int
    waiting_on_stock: int
    unmatched: tuple[str, ...]


def store_of(event_log: Any) -> Store:
    """A store of the engine on the database of an event log storage, stock or ours."""
    if isinstance(event_log, PoolMethods):
        return event_log.make_store()
    if isinstance(event_log, storages.SqliteEventLogStorage):
        from dagster_lifeguard.engine.store.sqlite.store import SqliteStore  # noqa: PLC0415

        return SqliteStore(storages.sqlite_index_path(event_log))
    from dagster_lifeguard.engine.store.postgres.store import PostgresStore  # noqa: PLC0415 - an extra

    return PostgresStore(storages.postgres_opener(event_log))


def status(instance: DagsterInstance) -> Status:
    """Look, and change nothing."""
    event_log = instance.event_log_storage
    slots = _stock_slots(event_log)
    has_stock_tables = cast("Any", event_log).has_table("concurrency_slots")
    held = slots.holders() if has_stock_tables else ()
    tables: int | None = None
    usable_from: int | None = None
    found: tuple[Process, ...] = ()
    engine_holders: tuple[SlotHolder, ...] = ()
    waiting = 0
    if cast("Any", event_log).has_table("lifeguard_schema"):
        question = "SELECT version, usable_from FROM lifeguard_schema"
        ((tables, usable_from),) = _rows(event_log, question)
        found = processes(event_log)
        engine_holders = tuple(
            SlotHolder("engine", *row) for row in _rows(event_log, _HOLDERS, stock=STOCK)
        )
        ((waiting,),) = _rows(event_log, "SELECT count(*) FROM lifeguard_tickets")
    stock_holders = [SlotHolder("stock", h.pool, *h.key, h.slots) for h in held]
    return Status(
        storage=type(event_log).__name__,
        is_ours=isinstance(event_log, PoolMethods),
        package=package_version(),
        tables_known=tables_newest(),
        tables=tables,
        usable_from=usable_from,
        processes=found,
        holders=(*engine_holders, *stock_holders),
        waiting=waiting,
        waiting_on_stock=slots.waiting() if has_stock_tables else 0,
        unmatched=slots.unmatched() if has_stock_tables else (),
    )


def take_over(instance: DagsterInstance) -> int:
    """Make the engine's tables, and the slots of the stock storage as many as each limit says.

    Returns:
        How many steps hold slots of the stock storage. These count as held until they are freed.

    Raises:
        ConfigError: A pool has a limit, and a name that the engine would not take for that pool's.
    """
    event_log = instance.event_log_storage
    assert isinstance(event_log, PoolMethods)
    reserved = sorted(filter(is_reserved, own_limits(event_log.lifeguard.engine.settings())))
    if reserved:
        raise ConfigError(
            f"{enumerate_some(reserved)}: limited, and would not be under the engine, which has "
            "its own use for names that begin so.",
            remedy="Give the pool another name, and delete this limit: "
            "lifeguard apply --prune NAME.",
            names=reserved,
        )
    slots = event_log.lifeguard.stock_slots
    slots.match(slots.unmatched())
    return len({holder.key for holder in slots.holders()})


def give_back(instance: DagsterInstance) -> int:
    """Make the slots of the stock storage as many as each limit says.

    Returns:
        How many processes still use the engine. Workers on the stock storage wait for their end.
    """
    slots = _stock_slots(instance.event_log_storage)
    slots.match(slots.unmatched())
    return sum(process.seconds_left > 0 for process in status(instance).processes)


def _stock_slots(event_log: Any) -> StockSlots:
    return StockSlots(
        event_log, lambda run_ids: ended_runs(storages.instance_of(event_log), run_ids)
    )


def _rows(event_log: Any, question: str, **values: str) -> list[Any]:
    with event_log.index_connection() as connection:
        return list(connection.execute(db.text(question), values).fetchall())
