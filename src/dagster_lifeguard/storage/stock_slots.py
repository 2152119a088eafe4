"""The slots of the stock storage: closed to all, and those that are held respected until freed.

The truth about a worker that is still on the stock storage (Dagster 1.10.0 to 1.13.27). It takes a
slot by writing its name into a free row of ``concurrency_slots``, so with no free rows it waits. It
never makes rows when it claims in a pool that has a limit. But it does make them, as many as the
limit says, whenever it sets a limit, and when it meets a pool without a limit, or with an old
default limit, while there is a default limit. So rows alone do not keep it out: a trigger lets no
row be inserted.

Rows that name a holder were taken before that, by runs that go on executing. Each becomes a
holding of the engine, without a session, so no lease ends it. Its worker frees it by deleting the
row, which is marked as deleted for that. The engine notices when a waiting step looks, and also
when the run has ended.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as db
from dagster import RunsFilter

from dagster_lifeguard.errors import SchemaError
from dagster_lifeguard.model import Entry, EntryKind, Holding, TicketKey
from dagster_lifeguard.store.contract import Changes, Scope, TryAgainError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dagster import DagsterInstance

    from dagster_lifeguard import compat
    from dagster_lifeguard.engine import Engine
    from dagster_lifeguard.store.contract import Store

logger = logging.getLogger(__name__)

STOCK = "stock"
"""The owner of holdings that were taken over; no process has a session of this name."""

_LOOK_SECONDS = 1.0
_TRIES_MAX = 10

_IS_CLOSED = {
    "sqlite": """SELECT 1 FROM sqlite_master
WHERE type = 'trigger' AND name = 'lifeguard_closes_stock_slots'""",
    "postgresql": """SELECT 1 FROM pg_trigger
WHERE tgname = 'lifeguard_closes_stock_slots' AND tgrelid = to_regclass('concurrency_slots')""",
}

# The trigger first: a row inserted before it is seen after it. On PostgreSQL it waits for those
# who are writing, and all of it is one transaction.
_CLOSE = {
    "sqlite": (
        """CREATE TRIGGER IF NOT EXISTS lifeguard_closes_stock_slots
BEFORE INSERT ON concurrency_slots BEGIN SELECT RAISE(IGNORE); END""",
        "DELETE FROM concurrency_slots WHERE run_id IS NULL",
        "UPDATE concurrency_slots SET deleted = 1",
    ),
    "postgresql": (
        """BEGIN;
SELECT pg_advisory_xact_lock(1818846821);
CREATE OR REPLACE FUNCTION lifeguard_closes_stock_slots() RETURNS trigger LANGUAGE plpgsql
AS 'BEGIN RETURN NULL; END';
DROP TRIGGER IF EXISTS lifeguard_closes_stock_slots ON concurrency_slots;
CREATE TRIGGER lifeguard_closes_stock_slots BEFORE INSERT ON concurrency_slots
FOR EACH ROW EXECUTE PROCEDURE lifeguard_closes_stock_slots();
DELETE FROM concurrency_slots WHERE run_id IS NULL;
UPDATE concurrency_slots SET deleted = true;
COMMIT""",
    ),
}

# What is still held on the stock storage counts among the slots that are made then.
_OPEN = {
    "sqlite": (
        "DROP TRIGGER IF EXISTS lifeguard_closes_stock_slots",
        "UPDATE concurrency_slots SET deleted = 0",
    ),
    "postgresql": (
        "DROP TRIGGER IF EXISTS lifeguard_closes_stock_slots ON concurrency_slots",
        "DROP FUNCTION IF EXISTS lifeguard_closes_stock_slots()",
        "UPDATE concurrency_slots SET deleted = false",
    ),
}

_HELD = (
    "SELECT concurrency_key, run_id, step_key, count(*) FROM concurrency_slots "
    "WHERE run_id IS NOT NULL GROUP BY concurrency_key, run_id, step_key"
)


@dataclass(frozen=True)
class StockHolder:
    """A step of a run on the stock storage, and the slots it holds of one pool."""

    key: TicketKey
    pool: str
    slots: int


class StockSlots:
    """The stock table of slots of one event log storage.

    Args:
        event_log: Whose connection to use.
        has_ended: Which of these runs have ended, or never were.
    """

    def __init__(
        self,
        event_log: compat.storages.SqlEventLogStorage,
        has_ended: Callable[[Iterable[str]], set[str]],
    ) -> None:
        self._event_log = event_log
        self._has_ended = has_ended
        self._lock = threading.Lock()
        self._looked_at = 0.0
        self.some_left = False

    def is_closed(self) -> bool:
        """Whether workers on the stock storage are kept out."""
        with self._event_log.index_connection() as connection:
            return bool(connection.execute(db.text(_IS_CLOSED[connection.dialect.name])).fetchone())

    def holders(self) -> tuple[StockHolder, ...]:
        """Who holds stock slots."""
        with self._event_log.index_connection() as connection:
            found = connection.execute(db.text(_HELD)).fetchall()
        return tuple(
            StockHolder(TicketKey(run_id, step_key or ""), pool, count)
            for pool, run_id, step_key, count in found
        )

    def close(self, store: Store) -> tuple[StockHolder, ...]:
        """Keep stock workers out from now on, and respect the slots that they hold.

        Every process does this before its first claim, so none claims before it is done; doing it
        again changes nothing.

        Returns:
            The holders taken over, by this process or an earlier one.

        Raises:
            SchemaError: Dagster's tables are older than pools.
        """
        if not self._event_log.has_table("concurrency_slots") or not self._event_log.has_table(
            "concurrency_limits"
        ):
            raise SchemaError(
                "Dagster's tables of pools are missing in its database; nothing was granted.",
                remedy="Run: dagster instance migrate",
            )
        if not self.is_closed():
            with self._event_log.index_connection() as connection:
                for statement in _CLOSE[connection.dialect.name]:
                    connection.exec_driver_sql(statement)
        found = self.holders()
        ended = self._has_ended({holder.key.run_id for holder in found}) if found else set()
        kept = tuple(holder for holder in found if holder.key.run_id not in ended)
        for key in {holder.key for holder in kept}:
            _take_over(store, key, {h.pool: h.slots for h in kept if h.key == key})
        self.some_left = bool(kept) or bool(store.pools_of(None, None, (STOCK,)))
        return kept

    def open(self, limits: Iterable[tuple[str, int]]) -> None:
        """Give the slots back to the stock storage: as many free ones as each limit says."""
        from dagster_lifeguard.compat import storages  # noqa: PLC0415 - not needed to claim

        with self._event_log.index_connection() as connection:
            for statement in _OPEN[connection.dialect.name]:
                connection.exec_driver_sql(statement)
        storages.make_stock_slots(self._event_log, tuple(limits))

    def drop_freed(self, engine: Engine) -> None:
        """End the holdings whose stock slot was freed since, or whose run has ended.

        Looks once a second at most, and not at all once none is left.
        """
        if not self.some_left or time.monotonic() - self._looked_at < _LOOK_SECONDS:
            return
        with self._lock:
            self._looked_at = time.monotonic()
            pools = engine.store.pools_of(None, None, (STOCK,))
            if not pools:
                self.some_left = False
                return
            taken_over = {
                holding.key
                for pool in pools
                for holding in engine.snapshot(pool).holdings
                if STOCK in holding.owners
            }
            left = {holder.key for holder in self.holders()}
            ended = self._has_ended({key.run_id for key in taken_over})
            for key in taken_over:
                if key not in left or key.run_id in ended:
                    logger.info("The stock slot of %s in run %s is free.", key.step_key, key.run_id)
                    engine.release(*key)


def ended_runs(instance: DagsterInstance, run_ids: Iterable[str]) -> set[str]:
    """Those of the runs that have ended, or never were."""
    asked = sorted(run_ids)
    records = instance.get_run_records(RunsFilter(run_ids=asked)) if asked else []
    alive = {r.dagster_run.run_id for r in records if not r.dagster_run.is_finished}
    return set(asked) - alive


def _take_over(store: Store, key: TicketKey, slots: dict[str, int]) -> None:
    for _ in range(_TRIES_MAX):
        try:
            with store.begin(Scope(tuple(slots), *key)) as transaction:
                view = transaction.view
                if view.holdings:
                    return  # Another process was here first.
                held = {
                    pool: _lowest_free(view.pools[pool].taken, count)
                    for pool, count in slots.items()
                }
                fence = 1 + max(view.pools[pool].fence for pool in slots)
                entries = tuple(
                    Entry(EntryKind.GRANTED, pool, *key, len(numbers), fence, STOCK, 0.0)
                    for pool, numbers in held.items()
                )
                transaction.commit(
                    Changes(session=STOCK, grant=Holding(key, held, fence), ledger=entries)
                )
                return
        except TryAgainError as error:
            logger.info("Taking over a stock slot again: %s", error)
            time.sleep(0.1)
    raise TryAgainError(f"the stock slots of {key} could not be taken over")


def _lowest_free(taken: frozenset[int], count: int) -> tuple[int, ...]:
    """Numbers of slots that nobody holds, over the limit if need be: what is held is held."""
    free = (number for number in range(1, len(taken) + count + 1) if number not in taken)
    return tuple(number for number, _ in zip(free, range(count), strict=False))
