"""What a transaction on SQLite writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.engine.store import rows
from dagster_lifeguard.engine.store.locked_view import LockedView
from dagster_lifeguard.engine.store.sql import statements

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from dagster_lifeguard.engine.rules.model import View
    from dagster_lifeguard.engine.store.contract import Changes
    from dagster_lifeguard.engine.store.sqlite.connection import SqliteConnection

_SQL = statements("sqlite")
_REGROUP = ("regroup_queue", "regroup_holdings", "drop_groups")


class SqliteTransaction(LockedView):
    """Holds the file's write lock until it is left.

    Args:
        file: Where it began; told when it is over.
        connection: On which it began.
        view: What is true meanwhile.
    """

    def __init__(self, file: SqliteConnection, connection: sqlite3.Connection, view: View) -> None:
        super().__init__(view)
        self._file = file
        self._connection = connection

    def commit(self, changes: Changes) -> None:
        with self._file.errors():
            _write(self._connection.execute, self.view.now, changes)
            self._connection.execute("COMMIT")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.leave()


def _write(execute: Callable[..., sqlite3.Cursor], now: float, changes: Changes) -> None:
    for ticket in changes.drop_tickets:
        execute(_SQL["drop_ticket"], (ticket.number,))
        execute(_SQL["drop_from_queue"], (ticket.number,))
    for holding in changes.drop_holdings:
        execute(_SQL["drop_holding"], holding.key)
        execute(_SQL["drop_owners"], holding.key)
    for session in changes.drop_sessions:
        if changes.is_expiry:
            execute(_SQL["lose"], {"session": session})
        execute(_SQL["drop_owner_session"], (session,))
        execute(_SQL["drop_session"], {"session": session})
        execute(_SQL["revoke_session"], {"session": session})
    if changes.enqueue is not None:
        ticket = changes.enqueue
        number = execute(
            _SQL["add_ticket"],
            (
                *ticket.key,
                ticket.priority,
                rows.demand_text(ticket.demand),
                changes.session,
                now,
            ),
        ).lastrowid
        for term in ticket.demand.terms:
            queued = term.name in ticket.queue_at
            execute(
                _SQL["add_to_queue"],
                (term.name, number, ticket.priority, term.slots, queued),
            )
    if changes.requeue is not None:
        ticket = changes.requeue
        for pool in ticket.demand.pools:
            execute(_SQL["requeue"], (pool in ticket.queue_at, pool, ticket.number))
        execute(_SQL["hand_ticket"], (changes.session, ticket.number))
    if changes.grant is not None:
        grant = changes.grant
        for pool, numbers in grant.slots.items():
            for number in numbers:
                execute(
                    _SQL["add_holding"],
                    (pool, number, *grant.key, grant.fence, grant.priority, now),
                )
            execute(_SQL["raise_fence"], (grant.fence, pool))
        execute(_SQL["add_owner"], (*grant.key, changes.session))
    if changes.adopt is not None:
        execute(_SQL["adopt"], (*changes.adopt, changes.session, changes.executes))
    if changes.disown is not None:
        key, session = changes.disown
        execute(_SQL["drop_owner"], (*key, session))
    for name, arguments in rows.set_settings(changes):
        for statement in _REGROUP if name == "regroup" else (name,):
            execute(_SQL[statement], arguments)
    for pool, due_ns in changes.due:
        execute(_SQL["set_due"], (due_ns, pool))
    for name, arguments in rows.groups(changes):
        execute(_SQL[name], arguments)
    for entry in changes.ledger:
        execute(_SQL["add_entry"], rows.entry_row(entry, now))
    for waiter in changes.wake:
        execute(_SQL["wake"], (waiter.number,))
