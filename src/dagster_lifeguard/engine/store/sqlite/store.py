"""The store on SQLite: one file, one writer at a time, ``BEGIN IMMEDIATE``.

A transaction takes the database's write lock before it reads, so what it decides on cannot
change under it. The journal is WAL, as in Dagster's own use of the file, so that readers and the
writer do not wait for each other; ``synchronous`` stays FULL, as in Dagster: a grant that was
answered survives a power failure.

The clock is the host's: an SQLite database in WAL mode lives on one host. A process stopped
(SIGSTOP) within the millisecond that it holds the write lock holds up every writer of the file,
Dagster's own included, until it goes on: SQLite has nothing against that.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dagster_lifeguard.engine.rules.model import (
    WAITERS_SEEN_MAX,
    Entry,
    EntryKind,
    PoolSnapshot,
    PoolView,
    Ticket,
    TicketKey,
    View,
)
from dagster_lifeguard.engine.rules.pool_settings import most_slots
from dagster_lifeguard.engine.store import rows
from dagster_lifeguard.engine.store.clock import clock
from dagster_lifeguard.engine.store.contract import TryAgainError
from dagster_lifeguard.engine.store.local_store import LocalStore
from dagster_lifeguard.engine.store.sql import newest_version, statements
from dagster_lifeguard.engine.store.sqlite.connection import BUSY_SECONDS, SqliteConnection
from dagster_lifeguard.engine.store.sqlite.tables import migrate
from dagster_lifeguard.engine.store.sqlite.transaction import SqliteTransaction
from dagster_lifeguard.engine.store.upkeep import package_version

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping, Sequence

    from dagster_lifeguard.engine.rules.model import Holding
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
    from dagster_lifeguard.engine.store.contract import Scope

_POLL_PAUSE_SECONDS = 0.025
_POLL_PAUSE_SECONDS_OF_NEXT = 0.006
"""Of one process for each pool, mostly: all that wait would keep a core busy at this pace."""
_SQL = statements("sqlite")


class SqliteStore(LocalStore):
    """Keeps the tables in an SQLite file, beside Dagster's.

    Args:
        path: The file; Dagster's ``concurrency_limits`` is in it.
        busy_seconds: How long to wait for another writer before ``TryAgainError``.
    """

    def __init__(self, path: str | os.PathLike[str], busy_seconds: float = BUSY_SECONDS) -> None:
        self.path = os.fspath(path)
        self.connection = SqliteConnection(self.path, busy_seconds)
        # What ``poll`` saw last.
        self._seen: tuple[int, int, int] | None = None
        # How often each ticket was woken, by its number: a step that asks anew has another.
        self._wakes: dict[int, int] = {}

    # ---- transactions --------------------------------------------------------------------------

    def migrate(self) -> int:
        return migrate(self.connection, self.path)

    def begin(self, scope: Scope) -> SqliteTransaction:
        connection = self.connection.acquire()
        try:
            with self.connection.errors():
                self.connection.lock(connection)
                view = self._view(connection, scope)
                return SqliteTransaction(self.connection, connection, view)
        except BaseException:
            self.connection.leave()
            raise

    def _view(self, connection: sqlite3.Connection, scope: Scope) -> View:
        now = clock()
        execute = connection.execute
        named = {"session": scope.session, "run_id": scope.run_id, "step_key": scope.step_key}
        alive, lease_ends, holds, waits = execute(_SQL["at_a_glance"], named).fetchone()
        sessions = []
        for session in scope.ended:
            row = execute(_SQL["ending_session"], (session,)).fetchone()
            if row is not None and (not scope.expired_only or row[0] <= now):
                sessions.append(session)
        held, tickets = self._in_question(
            connection, scope.run_id, scope.step_key, sessions, holds=holds, waits=waits
        )
        return View(
            now=now,
            session_alive=bool(alive),
            lease_ends=lease_ends,
            pools={
                pool: self._pool_view(connection, pool, now, scope.groups.get(pool))
                for pool in scope.pools
            },
            holdings=held,
            tickets=tickets,
            sessions=tuple(sessions),
        )

    def _pool_view(
        self, connection: sqlite3.Connection, pool: str, now: float, group: str | None
    ) -> PoolView:
        row = connection.execute(_SQL["pool"], (pool,)).fetchone()
        if row is None:
            connection.execute(_SQL["add_pool"], (pool,))
            row = connection.execute(_SQL["pool"], (pool,)).fetchone()
        is_asked_for, *of_pool = row
        taken = [number for (number,) in connection.execute(_SQL["taken"], (pool,))]
        view = rows.pool_view(pool, of_pool, taken, now)
        is_fair = view.settings.fair_by is not None
        if not (is_asked_for or is_fair):
            return view
        most = most_slots(pool, view.settings.limit, view.limit_known)
        seen = {"pool": pool, "now": now, "most": most, "count": WAITERS_SEEN_MAX + 1}
        queue: list[Any] = []
        for (slots,) in connection.execute(
            _SQL["sizes_of_lines" if is_fair else "sizes"], seen
        ).fetchall():
            of_size = {**seen, "slots": slots}
            queue += connection.execute(_SQL["heads" if is_fair else "queue_of_size"], of_size)
        if not is_fair:
            return rows.with_queue(view, queue)
        holders = connection.execute(_SQL["holders"], (pool,)).fetchall()
        begins = connection.execute(_SQL["turn_of_group"], (pool, group)).fetchone()
        view = rows.fair_view(
            view, holders, queue, {group: begins[0]} if group is not None and begins else {}
        )
        view, groups = rows.groups_to_see(view)
        members: list[Any] = []
        for of_group, count in groups.items():
            of_line = {**seen, "group": of_group, "count": count}
            for (slots,) in connection.execute(_SQL["sizes_of_group"], of_line).fetchall():
                members += connection.execute(_SQL["queue_of_line"], {**of_line, "slots": slots})
        return rows.with_queue(view, members)

    def _in_question(
        self,
        connection: sqlite3.Connection,
        run_id: str | None,
        step_key: str | None,
        sessions: Collection[str],
        *,
        holds: bool = True,
        waits: bool = True,
    ) -> tuple[tuple[Holding, ...], tuple[Ticket, ...]]:
        """What a run, or one of its steps, and what sessions hold and wait for.

        Args:
            connection: The connection.
            run_id: The run; None for none.
            step_key: One of its steps; None for all.
            sessions: The sessions.
            holds: Whether the run may hold anything; its holdings are not read if not.
            waits: Whether it may wait for anything.
        """
        held: list[Any] = []
        waiting: list[Any] = []
        if run_id is not None:
            of = "of_run" if step_key is None else "of_step"
            key = {"run_id": run_id, "step_key": step_key}
            if holds:
                held += connection.execute(_SQL[f"holdings_{of}"], key)
            if waits:
                waiting += connection.execute(_SQL[f"tickets_{of}"], key)
        for session in sessions:
            held += connection.execute(_SQL["holdings_of_session"], {"session": session})
            waiting += connection.execute(_SQL["tickets_of_session"], {"session": session})
        return _holdings(held), self._tickets(connection, waiting)

    def _tickets(self, connection: sqlite3.Connection, waiting: list[Any]) -> tuple[Ticket, ...]:
        return tuple(
            rows.ticket(row, [pool for (pool,) in connection.execute(_SQL["queued_at"], row[:1])])
            for row in waiting
        )

    # ---- sessions and wake-ups -----------------------------------------------------------------

    def open_session(
        self, session: str, label: str, lease_seconds: float, *, is_listening: bool = True
    ) -> None:
        del is_listening  # Wake-ups are rows.
        row = {"session": session, "label": label, "now": clock(), "lease": lease_seconds}
        row.update(package=package_version(), tables=newest_version("sqlite"))
        with self.connection.writing() as connection:
            is_open = connection.execute(_SQL["open_session"], row).rowcount == 1
        if not is_open:
            self.migrate()  # Tells that the tables are newer than this package.
            raise TryAgainError("lifeguard_schema has no row")

    def heartbeat(self, session: str, lease_seconds: float) -> bool:
        with self.connection.writing() as connection:
            until = clock() + lease_seconds
            return connection.execute(_SQL["heartbeat"], (until, session)).rowcount == 1

    def expired_sessions(self, count_max: int) -> tuple[str, ...]:
        with self.connection.reading() as connection:
            found = connection.execute(_SQL["expired_sessions"], (clock(), count_max))
            return tuple(session for (session,) in found)

    def bury(self, count_max: int) -> None:
        piece = {"now": clock(), "count": count_max}
        with self.connection.writing() as connection:
            connection.execute(_SQL["revoke_expired"], piece)
            numbers = connection.execute(_SQL["dead_tickets"], piece).fetchall()
            for name in ("drop_ticket", "drop_from_queue"):
                connection.executemany(_SQL[name], numbers)
            connection.execute(_SQL["drop_dead_sessions"], piece)

    def holders_over(self, pools: Collection[str], count_max: int) -> tuple[str, ...]:
        found: dict[str, None] = {}
        with self.connection.reading() as connection:
            for pool in pools:
                of_pool = {"pool": pool, "now": clock(), "count": count_max - len(found)}
                rows_ = connection.execute(_SQL["holders_over"], of_pool)
                found.update((session, None) for (session,) in rows_)
        return tuple(found)

    def revoked_sessions(self) -> tuple[str, ...]:
        with self.connection.reading() as connection:
            found = connection.execute(_SQL["revoked_sessions"])
            return tuple(session for (session,) in found)

    def poll(
        self, session: str, timeout_seconds: float, *, is_next: bool = False
    ) -> frozenset[TicketKey]:
        pause_seconds = _POLL_PAUSE_SECONDS_OF_NEXT if is_next else _POLL_PAUSE_SECONDS
        deadline = time.monotonic() + timeout_seconds
        while True:
            # No look before the first pause: a waiter comes back at once, and has just looked.
            left = deadline - time.monotonic()
            if left > 0:
                time.sleep(min(left, pause_seconds))
            woken = self._new_wakes(session)
            if woken or time.monotonic() >= deadline:
                return woken

    def _new_wakes(self, session: str) -> frozenset[TicketKey]:
        with self.connection.reading() as connection:
            # Changes with every commit of another connection, and costs a look at shared memory.
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            # Wake-ups by a thread of this process come over this very connection.
            seen = (self.connection.opened, version, connection.total_changes)
            if seen == self._seen:
                return frozenset()
            found = connection.execute(_SQL["wakes"], (session,)).fetchall()
            before, self._wakes = self._wakes, {number: wakes for number, *_, wakes in found}
            self._seen = seen
            return frozenset(
                TicketKey(run_id, step_key)
                for number, run_id, step_key, wakes in found
                if wakes > before.get(number, 0)
            )

    # ---- reading without a lock ----------------------------------------------------------------

    def pools_of(
        self, run_id: str | None, step_key: str | None, sessions: Collection[str]
    ) -> tuple[str, ...]:
        with self.connection.reading() as connection:
            return rows.pools_of(*self._in_question(connection, run_id, step_key, sessions))

    def settings(self) -> Mapping[str, PoolSettings]:
        with self.connection.reading() as connection:
            return rows.all_settings(connection.execute(_SQL["all_settings"]), clock())

    def snapshots(self, pools: Sequence[str]) -> tuple[PoolSnapshot, ...]:
        with self.connection.reading() as connection:
            # One read transaction, so that no ticket is seen both waiting and holding.
            connection.execute("BEGIN")
            now = clock()
            over = self._over(connection, now)
            lost = {
                TicketKey(run_id, step_key): label
                for run_id, step_key, label in connection.execute(_SQL["lost_steps"], {"now": now})
            }
            found = tuple(self._snapshot(connection, pool, now, *over, lost) for pool in pools)
            connection.execute("COMMIT")
            return found

    @staticmethod
    def _over(connection: sqlite3.Connection, now: float) -> tuple[set[tuple[str, str]], set[int]]:
        """The keys of the holdings that are over, and the numbers of the tickets."""
        by_now = {"now": now}
        holdings = set(connection.execute(_SQL["over_holdings"], by_now))
        tickets = {number for (number,) in connection.execute(_SQL["over_tickets"], by_now)}
        return holdings, tickets

    def _snapshot(
        self,
        connection: sqlite3.Connection,
        pool: str,
        now: float,
        over_holdings: Collection[tuple[str, str]],
        over_tickets: Collection[int],
        lost: Mapping[TicketKey, str],
    ) -> PoolSnapshot:
        due_ns, turn, *of_settings = connection.execute(
            _SQL["settings_of_pool"], (pool,)
        ).fetchone()
        held = list(connection.execute(_SQL["holdings_of_pool"], {"pool": pool}))
        waiting = list(connection.execute(_SQL["tickets_of_pool"], {"pool": pool}))
        found = PoolSnapshot(
            pool=pool,
            settings=rows.settings(of_settings, now),
            holdings=_holdings(held),
            waiting=self._tickets(connection, waiting),
            due_ns=due_ns or 0,
        )
        found = rows.without_over(found, over_holdings, over_tickets, lost)
        if found.settings.fair_by is None:
            return found
        holders, turns, groups = (
            connection.execute(_SQL[name], (pool,)).fetchall()
            for name in ("holders", "turns", "groups_of_tickets")
        )
        return rows.fair_snapshot(found, holders, turn, turns, groups)

    def ticket(self, key: TicketKey) -> Ticket | Holding | None:
        with self.connection.reading() as connection:
            connection.execute("BEGIN")
            held, waiting = self._in_question(connection, *key, ())
            over_holdings, over_tickets = self._over(connection, clock())
            connection.execute("COMMIT")
        for holding in held:
            return replace(holding, is_over=holding.key in over_holdings)
        for ticket in waiting:
            return replace(ticket, is_over=ticket.number in over_tickets)
        return None

    def has_expired(self, key: TicketKey) -> bool:
        with self.connection.reading() as connection:
            return connection.execute(_SQL["expired_entry"], key).fetchone() is not None

    def busy_pools(self, *, with_over: bool = False) -> tuple[str, ...]:
        name = "busy_pools" if with_over else "busy_pools_without_over"
        with self.connection.reading() as connection:
            found = connection.execute(_SQL[name], {"now": clock()})
            return tuple(pool for (pool,) in found)

    def run_ids(self) -> frozenset[str]:
        with self.connection.reading() as connection:
            found = connection.execute(_SQL["run_ids"], {"now": clock()})
            return frozenset(run_id for (run_id,) in found)

    def ledger(self, *, pool: str | None = None, count_max: int = 1000) -> tuple[Entry, ...]:
        name = "ledger" if pool is None else "ledger_of_pool"
        with self.connection.reading() as connection:
            found = connection.execute(_SQL[name], {"pool": pool, "count": count_max})
            return tuple(rows.entry(row) for row in found)

    def entries(
        self,
        *,
        pool: str | None = None,
        kind: EntryKind | None = None,
        since: float = 0.0,
        after: int = 0,
        count_max: int = 1000,
    ) -> tuple[Entry, ...]:
        name = "entries" if pool is None else "entries_of_pool"
        with self.connection.reading() as connection:
            found = connection.execute(
                _SQL[name],
                {
                    "pool": pool,
                    "kind": None if kind is None else kind.value,
                    "since": since,
                    "after": after,
                    "count": count_max,
                },
            )
            return tuple(rows.entry(row) for row in found)

    def held_at(self, number: int, *, pool: str | None = None) -> tuple[Entry, ...]:
        with self.connection.reading() as connection:
            found = connection.execute(_SQL["held_at"], {"number": number, "pool": pool})
            return tuple(rows.entry(row) for row in found)

    def now(self) -> float:
        return clock()

    def trim_ledger(self, keep_seconds: float, count_max: int) -> int:
        before = clock() - keep_seconds
        with self.connection.writing() as connection:
            return connection.execute(
                _SQL["trim_ledger"], {"before": before, "count": count_max}
            ).rowcount

    def close(self) -> None:
        self.connection.close()


def _holdings(held: Sequence[Any]) -> tuple[Holding, ...]:
    return rows.holdings((*of_slot, owners and owners.split(",")) for *of_slot, owners in held)
