"""Switching the engine on and off, and what there is to see of it in the meantime.

Safe while runs execute:
    Switching on. Slots that runs hold on the stock storage count as held until they are freed. A
    run worker on the stock storage whose step still waits for a slot gets none: it waits until it
    is ended or started again.

Not safe while runs execute:
    Switching off, which therefore refuses while steps hold or wait, and so does a worker that
    still runs with our class when it claims afterwards: end run workers, webserver, daemon and
    code servers, or start them again, before runs are launched.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as db

from dagster_lifeguard.compat import storages
from dagster_lifeguard.engine import Engine
from dagster_lifeguard.errors import EngineBusyError
from dagster_lifeguard.storage.event_log import PoolMethods
from dagster_lifeguard.storage.stock_slots import STOCK, StockSlots, ended_runs

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from dagster_lifeguard.model import PoolSnapshot
    from dagster_lifeguard.store.contract import Store


@dataclass(frozen=True)
class Process:
    """A process that holds or waits.

    Attributes:
        label: Host and process id.
        seconds_left: Of its lease; negative when it has run out.
    """

    label: str
    seconds_left: float


@dataclass(frozen=True)
class Holder:
    """A step that holds slots of a pool.

    Attributes:
        world: ``engine`` or ``stock``: who gave the slots.
    """

    world: str
    pool: str
    run_id: str
    step_key: str
    slots: int


@dataclass(frozen=True)
class Status:
    """What an instance's database says of the engine.

    Attributes:
        storage: The class of the storage in use.
        is_ours: Whether that is one of ours.
        version: Of the engine's tables; None if there are none.
        stock_is_closed: Whether workers on the stock storage are kept out.
    """

    storage: str
    is_ours: bool
    version: int | None
    stock_is_closed: bool
    processes: tuple[Process, ...]
    holders: tuple[Holder, ...]
    waiting: int

    @property
    def problem(self) -> str | None:
        """What is wrong, with its remedy; None if nothing is."""
        if not self.is_ours and self.stock_is_closed:
            return (
                "The stock storage is in use, and its slots are closed: every step with a pool "
                "waits for ever. Run lifeguard engine disable to open them, or enable to go back."
            )
        if self.is_ours and self.version is not None and not self.stock_is_closed:
            return (
                "The engine is in use, and a worker on the stock storage could take slots too. "
                "Run lifeguard engine enable to close them."
            )
        return None


def store_of(event_log: Any) -> Store:
    """A store of the engine on the database of an event log storage, stock or ours."""
    if isinstance(event_log, storages.SqliteEventLogStorage):
        from dagster_lifeguard.store.sqlite import SqliteStore  # noqa: PLC0415

        return SqliteStore(storages.sqlite_index_path(event_log))
    from dagster_lifeguard.store.postgres import PostgresStore  # noqa: PLC0415 - an extra

    return PostgresStore(storages.postgres_opener(event_log))


def status(instance: DagsterInstance) -> Status:
    """Look, and change nothing."""
    event_log = instance.event_log_storage
    slots = _stock_slots(event_log)
    has_stock_tables = cast("Any", event_log).has_table("concurrency_slots")
    held = slots.holders() if has_stock_tables else ()
    version: int | None = None
    processes: tuple[Process, ...] = ()
    snapshots: tuple[PoolSnapshot, ...] = ()
    if cast("Any", event_log).has_table("lifeguard_schema"):
        version, processes = _look(event_log)
        snapshots = _snapshots(event_log)
    engine_holders = [
        Holder("engine", snapshot.pool, *holding.key, len(holding.slots[snapshot.pool]))
        for snapshot in snapshots
        for holding in snapshot.holdings
        if STOCK not in holding.owners
    ]
    stock_holders = [Holder("stock", h.pool, *h.key, h.slots) for h in held]
    waiting = {ticket.key for snapshot in snapshots for ticket in snapshot.waiting}
    return Status(
        storage=type(event_log).__name__,
        is_ours=isinstance(event_log, PoolMethods),
        version=version,
        stock_is_closed=has_stock_tables and slots.is_closed(),
        processes=processes,
        holders=(*engine_holders, *stock_holders),
        waiting=len(waiting),
    )


def take_over(instance: DagsterInstance) -> int:
    """Make the engine's tables, close the stock slots, respect those that are held.

    Returns:
        How many steps hold stock slots.
    """
    event_log = instance.event_log_storage
    assert isinstance(event_log, PoolMethods)
    slots = event_log.lifeguard.stock_slots
    return len({holder.key for holder in slots.close(event_log.lifeguard.engine.store)})


def refuse_while_busy(instance: DagsterInstance) -> None:
    """Refuse to switch off while steps hold or wait.

    Raises:
        EngineBusyError: Some do.
    """
    if not cast("Any", instance.event_log_storage).has_table("lifeguard_schema"):
        return
    store = store_of(instance.event_log_storage)
    try:
        engine = Engine(store)
        engine.reap()
        slots = _stock_slots(instance.event_log_storage)
        slots.some_left = True
        slots.drop_freed(engine)
        run_ids = sorted(store.run_ids())
    finally:
        store.close()
    if run_ids:
        raise EngineBusyError(
            f"{len(run_ids)} runs hold slots or wait for some; nothing was changed.",
            remedy="Wait until they have ended, or end them; --force gives all their slots away "
            "while their steps may go on.",
            names=run_ids,
        )


def give_back(instance: DagsterInstance) -> None:
    """Open the stock slots again, as many as each limit says; what is still held is given up."""
    event_log = instance.event_log_storage
    slots = _stock_slots(event_log)
    if cast("Any", event_log).has_table("lifeguard_schema"):
        store = store_of(event_log)
        try:
            engine = Engine(store)
            for run_id in store.run_ids():
                engine.release_run(run_id)
            limits = [(row.pool, row.limit) for row in engine.limits()]
        finally:
            store.close()
        slots.open(limits)


def _stock_slots(event_log: Any) -> StockSlots:
    return StockSlots(
        event_log, lambda run_ids: ended_runs(storages.instance_of(event_log), run_ids)
    )


def _look(event_log: Any) -> tuple[int, tuple[Process, ...]]:
    with event_log.index_connection() as connection:
        (version,) = connection.execute(db.text("SELECT version FROM lifeguard_schema")).fetchone()
        now = time.time()
        if connection.dialect.name == "postgresql":
            (now,) = connection.execute(
                db.text("SELECT extract(epoch FROM clock_timestamp())::double precision")
            ).fetchone()
        found = connection.execute(
            db.text("SELECT label, lease_until FROM lifeguard_sessions ORDER BY started_at")
        ).fetchall()
    return int(version), tuple(Process(label, until - now) for label, until in found)


def _snapshots(event_log: Any) -> tuple[PoolSnapshot, ...]:
    with event_log.index_connection() as connection:
        found = connection.execute(
            db.text(
                "SELECT pool FROM lifeguard_holdings UNION SELECT pool FROM lifeguard_queue "
                "ORDER BY 1"
            )
        ).fetchall()
    store = store_of(event_log)
    try:
        return tuple(store.snapshot(pool) for (pool,) in found)
    finally:
        store.close()
