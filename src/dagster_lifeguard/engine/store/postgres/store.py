"""The store on PostgreSQL: row locks on the pools; one message to look and one to write, or one.

READ COMMITTED, and the view is a statement of its own after the locks. The clock is the server's.
Needs a session of its own on the server: see ``pooler``.
"""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dagster_lifeguard.engine.rules.model import (
    Entry,
    EntryKind,
    Holding,
    PoolSnapshot,
    PoolView,
    QueuedTicket,
    Ticket,
    TicketKey,
    View,
)
from dagster_lifeguard.engine.rules.pool_settings import most_slots
from dagster_lifeguard.engine.store import rows
from dagster_lifeguard.engine.store.contract import Changes, Scope, TryAgainError
from dagster_lifeguard.engine.store.postgres import answers
from dagster_lifeguard.engine.store.postgres.connection import (
    BEGIN,
    PostgresConnection,
    Statement,
    call,
)
from dagster_lifeguard.engine.store.postgres.tables import migrate
from dagster_lifeguard.engine.store.postgres.transaction import (
    PostgresTransaction,
    channel,
    entries_of,
    slots_of,
    wake_ups,
)
from dagster_lifeguard.engine.store.sql import newest_version
from dagster_lifeguard.engine.store.upkeep import package_version

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from dagster_lifeguard.engine.rules.model import Granted
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings

logger = logging.getLogger(__name__)

_POOLS_KNOWN_MAX = 100_000


class PostgresStore:
    """Keeps the tables in a PostgreSQL database, beside Dagster's.

    Args:
        connect: Opens a psycopg2 connection; ``connector(url)`` makes one of a URL.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self.connection = PostgresConnection(connect)
        self._pools_known: set[str] = set()

    # ---- transactions --------------------------------------------------------------------------

    def migrate(self) -> int:
        return migrate(self.connection)

    def begin(self, scope: Scope) -> PostgresTransaction:
        connection = self.connection
        connection.acquire()
        try:
            connection.prepare()
            return PostgresTransaction(connection, self._locked_view(scope))
        except BaseException:
            connection.roll_back()
            connection.mutex.release()
            raise

    def _locked_view(self, scope: Scope) -> View:
        connection = self.connection
        pools = list(scope.pools)
        self._make_rows(pools)
        statements = [BEGIN]
        if scope.session:
            statements.append(call("lock_session", scope.session))
        sessions: tuple[str, ...] = ()
        if scope.ended:
            lock = call("lock_ended", list(scope.ended), scope.expired_only)
            sessions = tuple(session for (session,) in connection.execute([*statements, lock]))
            statements = []
        if pools:
            statements.append(call("lock_pools", pools))
        statements.append(_look(scope, sessions))
        view = self._view(connection.execute(statements), sessions, scope.groups)
        if len(view.pools) < len(pools):
            # Their rows were deleted by hand: forget them, and have them made.
            self._pools_known.difference_update(pools)
            raise TryAgainError(f"the rows of {pools} in lifeguard_pools are gone")
        return view

    def release(
        self,
        key: TicketKey,
        grant: Granted,
        session: str,
        next_up: Callable[[View], tuple[QueuedTicket, ...]],
    ) -> bool:
        pools = sorted(grant.slots)
        slots = [len(grant.slots[pool]) for pool in pools]
        with self._using():
            # One message is one transaction, which is committed once its rows are here.
            lock = call("lock_pools", pools)
            drop = call("release", pools, *key, grant.fence, session, slots)
            found = self.connection.execute([lock, drop])
            if not found:
                return False
            ((now, since, views),) = found
            view = View(
                now=now,
                session_alive=True,
                lease_ends=None,
                pools=self._pool_views(views, {}, now),
                holdings=(Holding(key, grant.slots, grant.fence, since=since),),
            )
            notifications = wake_ups(next_up(view))
            if notifications:
                try:
                    self.connection.execute(notifications)
                except TryAgainError as error:
                    # It is released all the same. Done again, it would seem never to have been.
                    logger.info("A wake-up was lost: %s", error)
            return True

    def grant_unseen(self, presumed: View, changes: Changes) -> int | None:
        grant = changes.grant
        assert grant is not None, "only a grant is written unseen"
        pools = sorted(presumed.pools)
        views = [presumed.pools[pool] for pool in pools]
        with self._using():
            unknown = self._unknown(pools)
            found = self.connection.execute(
                [
                    call("lock_session", changes.session),
                    *([call("add_pools", unknown)] if unknown else ()),
                    call("lock_pools", pools),
                    call(
                        "grant_unseen",
                        pools,
                        [view.settings.limit for view in views],
                        [view.limit_known for view in views],
                        *grant.key,
                        changes.session,
                        grant.priority,
                        *slots_of(grant),
                        *entries_of(changes.ledger, grant.key),
                    ),
                ]
            )
            self._know(unknown)
            return found[0][0] if found else None

    def _make_rows(self, pools: Sequence[str]) -> None:
        unknown = self._unknown(pools)
        if unknown:
            self.connection.execute([call("add_pools", unknown)])
            self._know(unknown)

    def _unknown(self, pools: Sequence[str]) -> list[str]:
        """Those that may have no row yet, in the order in which all lock them."""
        return [pool for pool in sorted(pools) if pool not in self._pools_known]

    def _know(self, pools: Sequence[str]) -> None:
        if len(self._pools_known) > _POOLS_KNOWN_MAX:
            self._pools_known.clear()
        self._pools_known.update(pools)

    def _view(
        self,
        found: list[tuple[Any, ...]],
        sessions: tuple[str, ...],
        groups: Mapping[str, str] | None = None,
    ) -> View:
        ((now, alive, lease_ends, pools, held, waiting),) = found
        return View(
            now=now,
            session_alive=alive,
            lease_ends=lease_ends,
            pools=self._pool_views(pools, groups or {}, now),
            holdings=rows.holdings(held or ()),
            tickets=answers.tickets(waiting),
            sessions=sessions,
        )

    def _pool_views(
        self, found: Sequence[Any] | None, groups: Mapping[str, str], now: float
    ) -> dict[str, PoolView]:
        views = {pool[0]: answers.pool_view(pool, now) for pool in found or ()}
        for name, view in views.items():
            if view.settings.fair_by is not None:
                views[name] = self._fair_view(view, groups.get(name))
        return views

    def _fair_view(self, found: PoolView, group: str | None) -> PoolView:
        ((holders, begins, heads),) = self._call("heads", found.pool, group)
        asking = {} if group is None or begins is None else {group: begins}
        view = rows.fair_view(found, holders or (), heads or (), asking)
        view, groups = rows.groups_to_see(view)
        if not groups:
            return rows.with_queue(view, ())
        most = most_slots(found.pool, found.settings.limit, found.limit_known)
        members = self._call("members", found.pool, list(groups), list(groups.values()), most)
        return rows.with_queue(view, members)

    # ---- sessions and wake-ups -----------------------------------------------------------------

    def open_session(
        self, session: str, label: str, lease_seconds: float, *, is_listening: bool = True
    ) -> None:
        with self._using():
            # First, so that no wake-up for its tickets is missed.
            if is_listening:
                self.connection.listen(channel(session))
            mine = (package_version(), newest_version("postgres"))
            # One message is one transaction.
            opened = self.connection.execute(
                [call("lock_gate"), call("open_session", session, label, lease_seconds, *mine)]
            )
        if not opened:
            self.migrate()  # Tells that the tables are newer than this package.
            raise TryAgainError("lifeguard_schema has no row")

    def heartbeat(self, session: str, lease_seconds: float) -> bool:
        return bool(self._run("heartbeat", session, lease_seconds))

    def expired_sessions(self, count_max: int) -> tuple[str, ...]:
        return tuple(session for (session,) in self._run("expired_sessions", count_max))

    def bury(self, count_max: int) -> None:
        with self._using():
            # One message is one transaction.
            names = ("revoke_expired", "drop_dead_tickets", "drop_dead_sessions")
            self.connection.execute([call(name, count_max) for name in names])

    def holders_over(self, pools: Collection[str], count_max: int) -> tuple[str, ...]:
        found = self._run("holders_over", list(pools), count_max)
        return tuple(session for (session,) in found)

    def revoked_sessions(self) -> tuple[str, ...]:
        return tuple(session for (session,) in self._run("revoked_sessions"))

    def poll(
        self, session: str, timeout_seconds: float, *, is_next: bool = False
    ) -> frozenset[TicketKey]:
        del is_next  # Who is woken need not look.
        payloads = self.connection.notified(timeout_seconds)  # To the one session of this process.
        if self.connection.takes_missed():
            return frozenset(TicketKey(*key) for key in self._run("waiting", session))
        return frozenset(TicketKey(*key) for payload in payloads for key in json.loads(payload))

    # ---- reading without a lock ----------------------------------------------------------------

    def pools_of(
        self, run_id: str | None, step_key: str | None, sessions: Collection[str]
    ) -> tuple[str, ...]:
        scope = Scope((), run_id, step_key)
        with self._using():
            found = self.connection.execute([_look(scope, tuple(sessions))])
        view = self._view(found, ())
        return rows.pools_of(view.holdings, view.tickets)

    def settings(self) -> Mapping[str, PoolSettings]:
        found = self._run("all_settings")
        return rows.all_settings((row for _, *row in found), found[0][0]) if found else {}

    def snapshots(self, pools: Sequence[str]) -> tuple[PoolSnapshot, ...]:
        return tuple(map(answers.snapshot, self._run("snapshots", list(pools))))

    def ticket(self, key: TicketKey) -> Ticket | Holding | None:
        ((held, waiting, holding_is_over, ticket_is_over),) = self._run("ticket", *key)
        for holding in rows.holdings(held or ()):
            return replace(holding, is_over=holding_is_over)
        for ticket in answers.tickets(waiting):
            return replace(ticket, is_over=ticket_is_over)
        return None

    def has_expired(self, key: TicketKey) -> bool:
        return bool(self._run("expired_entry", *key))

    def busy_pools(self, *, with_over: bool = False) -> tuple[str, ...]:
        found = self._run("busy_pools" if with_over else "busy_pools_without_over")
        return tuple(sorted(pool for (pool,) in found))

    def run_ids(self) -> frozenset[str]:
        return frozenset(run_id for (run_id,) in self._run("run_ids"))

    def ledger(self, *, pool: str | None = None, count_max: int = 1000) -> tuple[Entry, ...]:
        found = (
            self._run("ledger", count_max)
            if pool is None
            else self._run("ledger_of_pool", count_max, pool)
        )
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
        wanted = None if kind is None else kind.value
        found = (
            self._run("entries", since, after, count_max, wanted)
            if pool is None
            else self._run("entries_of_pool", since, after, count_max, wanted, pool)
        )
        return tuple(rows.entry(row) for row in found)

    def held_at(self, number: int, *, pool: str | None = None) -> tuple[Entry, ...]:
        return tuple(rows.entry(row) for row in self._run("held_at", number, pool))

    def now(self) -> float:
        ((now,),) = self._run("now")
        return float(now)

    def trim_ledger(self, keep_seconds: float, count_max: int) -> int:
        ((count,),) = self._run("trim_ledger", keep_seconds, count_max)
        return int(count)

    def close(self) -> None:
        self.connection.drop()

    @contextmanager
    def _using(self) -> Iterator[None]:
        self.connection.acquire()
        try:
            self.connection.prepare()
            yield
        finally:
            self.connection.mutex.release()

    def _call(self, name: str, *arguments: object) -> list[tuple[Any, ...]]:
        return self.connection.execute([call(name, *arguments)])

    def _run(self, name: str, *arguments: object) -> list[tuple[Any, ...]]:
        """One statement by itself, which is a transaction of its own."""
        with self._using():
            return self._call(name, *arguments)


def _look(scope: Scope, sessions: Sequence[str]) -> Statement:
    common = (list(scope.pools), scope.session)
    if scope.run_id is not None and scope.step_key is not None:
        return call("view_of_step", *common, scope.run_id, scope.step_key)
    if scope.run_id is not None:
        return call("view_of_run", *common, scope.run_id)
    if sessions:
        return call("view_of_sessions", *common, list(sessions))
    return call("view_of_nothing", *common)
