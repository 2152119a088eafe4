"""Slots of the stock storage beside the engine: their holders, and a gate for further claims.

A worker on the stock storage (Dagster 1.10.0 to 1.13.27) acquires a slot by writing its name into a
free row of ``concurrency_slots``. If the update finds no row, it waits and asks again. So a trigger
on that update is a gate. The gate refuses an update

- while any process has a session of the engine. A session whose lease has run out is revoked first,
  so that its process cannot come back after its slots were granted to another;
- of a row that another worker has taken meanwhile, which the stock storage itself would overwrite.

Before a process gets a session, it makes sure that the gate exists. Then it takes over the held
stock slots: each becomes a holding of the engine without a lease, until its row is freed or its run
has ended. So the two storages may use one database at the same time, or one after the other, in any
order. Without a process of the engine the stock storage works as it always did: its table is kept
at as many rows as each limit says.

Not guaranteed: that a worker on the stock storage gets a slot while processes with sessions come
and go without a pause. It waits outside the queues.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as db

from dagster_lifeguard.compat import storages
from dagster_lifeguard.compat.runs import runs_under_way
from dagster_lifeguard.engine.forks import ProcessLock
from dagster_lifeguard.engine.rules.model import Entry, EntryKind, Holding, TicketKey, is_script
from dagster_lifeguard.engine.store.contract import Changes, Scope, TryAgainError
from dagster_lifeguard.engine.store.retry import retry
from dagster_lifeguard.errors import OldSchemaError, StoreUnavailableError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dagster import DagsterInstance

    from dagster_lifeguard.engine.engine import Engine
    from dagster_lifeguard.engine.store.contract import Store

logger = logging.getLogger(__name__)

STOCK = "stock"
"""The owner of holdings that were taken over; no process has a session of this name."""

_LOOK_SECONDS = 1.0

_HAS_GATE = {
    "sqlite": "SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND name = 'lifeguard_gate'",
    "postgresql": """SELECT 1 FROM pg_trigger
WHERE tgname = 'lifeguard_gate' AND tgrelid = to_regclass('concurrency_slots')""",
}

# A new session takes the advisory lock 1734440037, "gate", alone. A session that is claiming at
# this moment is not revoked, and counts as alive. Changes of the stock table take another lock,
# "slot", so that they do not wait for a claim that waits at the gate.
_MAKE_GATE = {
    "sqlite": """CREATE TRIGGER IF NOT EXISTS lifeguard_gate
BEFORE UPDATE OF run_id ON concurrency_slots WHEN NEW.run_id IS NOT NULL BEGIN
  UPDATE lifeguard_sessions SET lease_until = 0
  WHERE lease_until <= (julianday('now') - 2440587.5) * 86400.0;
  SELECT RAISE(IGNORE) WHERE OLD.run_id IS NOT NULL
    OR EXISTS (SELECT 1 FROM lifeguard_sessions WHERE lease_until > 0);
END""",
    "postgresql": """BEGIN;
SELECT pg_advisory_xact_lock(1936486260);
CREATE OR REPLACE FUNCTION lifeguard_gate() RETURNS trigger LANGUAGE plpgsql AS $gate$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(1734440037);
  UPDATE lifeguard_sessions SET lease_until = 0 WHERE session IN (
    SELECT session FROM lifeguard_sessions
    WHERE lease_until <= extract(epoch FROM clock_timestamp()) FOR UPDATE SKIP LOCKED);
  IF OLD.run_id IS NOT NULL
    OR EXISTS (SELECT 1 FROM lifeguard_sessions WHERE lease_until > 0)
  THEN RETURN NULL; END IF;
  RETURN NEW;
END $gate$;
DO $make$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_trigger WHERE tgname = 'lifeguard_gate'
    AND tgrelid = to_regclass('concurrency_slots'))
  THEN
    CREATE TRIGGER lifeguard_gate BEFORE UPDATE OF run_id ON concurrency_slots
    FOR EACH ROW WHEN (NEW.run_id IS NOT NULL) EXECUTE PROCEDURE lifeguard_gate();
  END IF;
END $make$;
COMMIT""",
}

_HELD = """SELECT concurrency_key, run_id, step_key, count(*) FROM concurrency_slots
WHERE run_id IS NOT NULL GROUP BY concurrency_key, run_id, step_key"""

_WAITING = """SELECT DISTINCT run_id, step_key FROM pending_steps
WHERE run_id NOT IN (SELECT run_id FROM concurrency_slots
  WHERE run_id IS NOT NULL AND step_key = pending_steps.step_key)"""

# As the stock storage does it: of the rows beyond the limit the free ones go at once, and the held
# ones are marked, to go when they are freed.
_DROP_FREE = "DELETE FROM concurrency_slots WHERE concurrency_key = :pool AND run_id IS NULL"
_MARK_HELD = """UPDATE concurrency_slots SET deleted = (id NOT IN (
  SELECT id FROM concurrency_slots WHERE concurrency_key = :pool ORDER BY id LIMIT :slots))
WHERE concurrency_key = :pool"""
_LIMIT = 'SELECT "limit" FROM concurrency_limits WHERE concurrency_key = :pool'
_ADD_FREE = "INSERT INTO concurrency_slots (concurrency_key, deleted) VALUES (:pool, false)"

_UNMATCHED = """SELECT l.concurrency_key FROM concurrency_limits l
LEFT JOIN concurrency_slots s ON s.concurrency_key = l.concurrency_key AND NOT s.deleted
GROUP BY l.concurrency_key, l."limit" HAVING count(s.id) <> l."limit"
ORDER BY l.concurrency_key"""


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

    Attributes:
        some_left: Whether the engine may still have holdings that were taken over.
    """

    def __init__(
        self,
        event_log: storages.SqlEventLogStorage,
        has_ended: Callable[[Iterable[str]], set[str]],
    ) -> None:
        self._event_log = event_log
        self._has_ended = has_ended
        self._lock = ProcessLock()
        self._looked_at = 0.0
        self.some_left = False

    def require(self) -> None:
        """Find Dagster's tables of pools.

        Raises:
            OldSchemaError: They are older than pools.
        """
        with _refusing():
            found = map(self._event_log.has_table, ("concurrency_slots", "concurrency_limits"))
            missing = not all(found)
        if missing:
            raise OldSchemaError(
                "Dagster's tables of pools are missing in its database; nothing was granted.",
                remedy="Run: dagster instance migrate",
            )

    def holders(self) -> tuple[StockHolder, ...]:
        """The holders of stock slots."""
        with _refusing(), self._event_log.index_connection() as connection:
            found = connection.execute(db.text(_HELD)).fetchall()
        return tuple(
            StockHolder(TicketKey(run_id, step_key or ""), pool, count)
            for pool, run_id, step_key, count in found
        )

    def waiting(self) -> int:
        """How many steps of runs that have not ended wait for a stock slot."""
        with _refusing(), self._event_log.index_connection() as connection:
            run_ids = [run_id for run_id, _ in connection.execute(db.text(_WAITING))]
        ended = self._has_ended(set(run_ids))
        return sum(run_id not in ended for run_id in run_ids)

    # ---- while the engine is in use ------------------------------------------------------------

    def has_gate(self) -> bool:
        """Whether the gate is there."""
        with _refusing(), self._event_log.index_connection() as connection:
            return bool(connection.execute(db.text(_HAS_GATE[connection.dialect.name])).fetchone())

    def close(self, engine: Engine) -> None:
        """See to it that the gate is there, and respect the slots that were taken before.

        To be done after a session is opened and before anything is claimed under it.

        Raises:
            TryAgainError: The database did not answer.
        """
        try:
            if not self.has_gate():
                with _refusing(), self._event_log.index_connection() as connection:
                    connection.exec_driver_sql(_MAKE_GATE[connection.dialect.name])
            with self._lock:
                self._compare(engine)
        except StoreUnavailableError as error:
            raise TryAgainError(error.message) from error

    def look(self, engine: Engine) -> None:
        """Compare the taken-over holdings with the present stock slots; once a second at most."""
        if time.monotonic() - self._looked_at >= _LOOK_SECONDS:
            self.compare(engine)

    def compare(self, engine: Engine) -> None:
        """Compare the taken-over holdings with the present stock slots."""
        with self._lock:
            retry(lambda: self._compare(engine))

    def _compare(self, engine: Engine) -> None:
        self._looked_at = time.monotonic()
        pools = engine.store.pools_of(None, None, (STOCK,))
        taken_over = {
            holding.key: holding.fence
            for snapshot in engine.store.snapshots(pools)
            for holding in snapshot.holdings
            if STOCK in holding.owners
        }
        found = self.holders()
        held = {holder.key for holder in found}
        ended = self._has_ended({key.run_id for key in held | taken_over.keys()})
        alive = {key for key in held if key.run_id not in ended}
        for key in taken_over.keys() - alive:
            logger.info("The stock slot of %s in run %s is free.", key.step_key, key.run_id)
            engine.release(*key, taken_over[key])
        for key in alive - taken_over.keys():
            _take_over(engine.store, key, {h.pool: h.slots for h in found if h.key == key})
        self.some_left = bool(alive)

    # ---- for the time when it is not -----------------------------------------------------------

    def match(self, pools: Iterable[str]) -> None:
        """Make as many free rows as there are slots left of each pool's limit in Dagster's table.

        Waits for another process that does the same; the last one sees the limit as it is then.
        """
        with _refusing(), self._event_log.index_transaction() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(db.text("SELECT pg_advisory_xact_lock(1936486260)"))
            for pool in pools:
                of_pool = {"pool": pool}
                connection.execute(db.text(_DROP_FREE), of_pool)
                row = connection.execute(db.text(_LIMIT), of_pool).fetchone()
                slots = row[0] if row else 0
                marked = connection.execute(db.text(_MARK_HELD), {"pool": pool, "slots": slots})
                if slots > marked.rowcount:
                    free = [of_pool] * (slots - marked.rowcount)
                    connection.execute(db.text(_ADD_FREE), free)

    def unmatched(self) -> tuple[str, ...]:
        """The pools that have more or fewer rows than their limit says."""
        with _refusing(), self._event_log.index_connection() as connection:
            return tuple(pool for (pool,) in connection.execute(db.text(_UNMATCHED)).fetchall())


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except storages.database_errors() as error:
        raise StoreUnavailableError(
            f"Dagster's database did not answer: {first_line(error)}.",
            remedy="Check that it runs, is reachable and is writable; nothing was granted.",
        ) from error


def ended_runs(instance: DagsterInstance, run_ids: Iterable[str]) -> set[str]:
    """The runs that have ended or never existed.

    For a script, which has no run, this is not known: its slots stay held until they are freed.
    """
    asked = set(run_ids)
    alive = runs_under_way(instance, asked)
    return {run_id for run_id in asked - alive if not is_script(run_id)}


def _take_over(store: Store, key: TicketKey, slots: dict[str, int]) -> None:
    with store.begin(Scope(tuple(slots), *key)) as transaction:
        view = transaction.view
        if view.holdings:
            return  # Another process was here first.
        held = {pool: _lowest_free(view.pools[pool].taken, count) for pool, count in slots.items()}
        fence = 1 + max(view.pools[pool].fence for pool in slots)
        entries = tuple(
            Entry(EntryKind.GRANTED, pool, *key, len(numbers), fence, STOCK, 0.0)
            for pool, numbers in held.items()
        )
        transaction.commit(Changes(session=STOCK, grant=Holding(key, held, fence), ledger=entries))


def _lowest_free(taken: frozenset[int], count: int) -> tuple[int, ...]:
    """Numbers of free slots, above the limit if necessary, because held slots are never revoked."""
    free = (number for number in range(1, len(taken) + count + 1) if number not in taken)
    return tuple(number for number, _ in zip(free, range(count), strict=False))
