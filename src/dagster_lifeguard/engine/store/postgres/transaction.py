"""What a transaction on PostgreSQL writes: the statements of its changes, and its wake-ups."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dagster_lifeguard.engine.store import rows
from dagster_lifeguard.engine.store.locked_view import LockedView
from dagster_lifeguard.engine.store.postgres.connection import (
    COMMIT,
    PostgresConnection,
    Statement,
    call,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from dagster_lifeguard.engine.rules.model import Entry, Holding, QueuedTicket, TicketKey, View
    from dagster_lifeguard.engine.store.contract import Changes

_PAYLOAD_BYTES_MAX = 7999
"""Of a NOTIFY, as PostgreSQL's documentation has it."""


class PostgresTransaction(LockedView):
    """Holds row locks until it is left."""

    def __init__(self, connection: PostgresConnection, view: View) -> None:
        super().__init__(view)
        self._connection = connection

    def commit(self, changes: Changes) -> None:
        self._connection.execute([*self._statements(changes), COMMIT])

    def _statements(self, changes: Changes) -> Iterator[Statement]:
        now = self.view.now
        for entry in changes.ledger:
            if not entry.run_id:  # Else it is written with its holding, after the limit.
                yield call("add_entry", *rows.entry_row(entry, now))
        if changes.drop_tickets:
            yield call("drop_tickets", [ticket.number for ticket in changes.drop_tickets])
        for holding in changes.drop_holdings:
            entries = entries_of(changes.ledger, holding.key)
            yield call("drop_holding", *holding.key, holding.fence, now, *entries)
        if changes.drop_sessions:
            yield call("drop_sessions", list(changes.drop_sessions), changes.is_expiry)
            yield call("drop_ended_sessions", list(changes.drop_sessions))
        if changes.enqueue is not None:
            ticket = changes.enqueue
            terms = ticket.demand.terms
            yield call(
                "enqueue",
                *ticket.key,
                ticket.priority,
                rows.demand_text(ticket.demand),
                changes.session,
                now,
                [term.name for term in terms],
                [term.slots for term in terms],
                [term.name in ticket.queue_at for term in terms],
            )
        if changes.requeue is not None:
            ticket = changes.requeue
            yield call("requeue", ticket.number, changes.session, list(ticket.queue_at))
        if changes.grant is not None:
            grant = changes.grant
            yield call(
                "grant",
                *grant.key,
                changes.session,
                grant.fence,
                grant.priority,
                now,
                *slots_of(grant),
                *entries_of(changes.ledger, grant.key),
            )
        if changes.adopt is not None:
            yield call("adopt", *changes.adopt, changes.session, changes.executes)
        if changes.disown is not None:
            key, session = changes.disown
            yield call("disown", *key, session)
        for name, arguments in rows.set_settings(changes):
            yield call(name, *arguments.values())
        for pool, due_ns in changes.due:
            yield call("set_due", pool, due_ns)
        for name, arguments in rows.groups(changes):
            yield call(name, *arguments.values())
        yield from wake_ups(changes.wake)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._connection.roll_back()
        finally:
            self._connection.mutex.release()


def slots_of(holding: Holding) -> tuple[list[str], list[int]]:
    """A pool and a number for each slot."""
    slots = [(pool, number) for pool, numbers in holding.slots.items() for number in numbers]
    return [pool for pool, _ in slots], [number for _, number in slots]


def entries_of(ledger: Sequence[Entry], key: TicketKey) -> tuple[object, ...]:
    """Kind, session and seconds of a ticket's entries, which all share them; pools; slots."""
    found = [e for e in ledger if e.run_id == key.run_id and e.step_key == key.step_key]
    shared: set[tuple[Any, ...]] = {(e.kind.value, e.session, e.seconds) for e in found}
    (common,) = shared or {("", "", None)}
    return *common, [e.pool for e in found], [e.slots for e in found]


def channel(session: str) -> str:
    return f"lifeguard_{session}"


def wake_ups(wake: Sequence[QueuedTicket]) -> list[Statement]:
    """What wakes them: sent by the server at the commit, and only to the processes meant.

    A NOTIFY makes commits queue for one lock of the database: there is none when nobody waits.
    """
    keys: dict[str, list[TicketKey]] = {}
    for waiter in wake:
        keys.setdefault(waiter.session, []).append(waiter.key)
    return [
        Statement("SELECT pg_notify(%s, %s)", (channel(session), payload))
        for session, found in keys.items()
        for payload in _payloads(found)
    ]


def _payloads(keys: Iterable[TicketKey]) -> Iterator[str]:
    """The keys as JSON, which is ASCII, in as few texts as there must be."""
    batch: list[str] = []
    length = 0
    for text in map(json.dumps, keys):
        if batch and length + len(text) + 2 > _PAYLOAD_BYTES_MAX:
            yield f"[{', '.join(batch)}]"
            batch, length = [], 0
        if len(text) + 2 <= _PAYLOAD_BYTES_MAX:  # Else it looks again by itself, as all do.
            batch.append(text)
            length += len(text) + 2
    if batch:
        yield f"[{', '.join(batch)}]"
