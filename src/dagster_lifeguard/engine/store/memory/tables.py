"""The tables of the reference store, and what a transaction writes into them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.model import QueuedTicket
from dagster_lifeguard.engine.rules.pool_settings import NOTHING_SET, PoolSettings

if TYPE_CHECKING:
    from dagster_lifeguard.engine.rules.model import Entry, Holding, Ticket, TicketKey
    from dagster_lifeguard.engine.store.contract import Changes


@dataclasses.dataclass
class MemoryTables:
    """The tables.

    Attributes:
        slots: For each pool, the ticket that holds each of its slots.
        queues: For each pool, the tickets that stand in its queue: written by ``put_ticket`` alone.
        trimmed: How many rows of the ledger were deleted.
        last_number: The number of the newest ticket.
    """

    settings: dict[str, PoolSettings] = dataclasses.field(default_factory=dict)
    fences: dict[str, int] = dataclasses.field(default_factory=dict)
    limits_known: dict[str, int | None] = dataclasses.field(default_factory=dict)
    due_ns: dict[str, int] = dataclasses.field(default_factory=dict)
    turn: dict[str, int] = dataclasses.field(default_factory=dict)
    turns: dict[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    lease_until: dict[str, float] = dataclasses.field(default_factory=dict)
    tickets: dict[TicketKey, Ticket] = dataclasses.field(default_factory=dict)
    queues: dict[str, dict[TicketKey, QueuedTicket]] = dataclasses.field(default_factory=dict)
    holdings: dict[TicketKey, Holding] = dataclasses.field(default_factory=dict)
    slots: dict[str, dict[int, TicketKey]] = dataclasses.field(default_factory=dict)
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    owners: dict[TicketKey, set[str]] = dataclasses.field(default_factory=dict)
    executing: dict[TicketKey, set[str]] = dataclasses.field(default_factory=dict)
    ledger: list[Entry] = dataclasses.field(default_factory=list)
    trimmed: int = 0
    last_number: int = 0

    def apply(self, changes: Changes, now: float) -> None:
        """Write all changes with this time, or raise an error and write none."""
        grant = changes.grant
        if grant is not None:
            self._refuse_what_is_held(grant)
        for ticket in changes.drop_tickets:
            self.drop_ticket(ticket.key)
        for session in changes.drop_sessions:
            self._drop_session(session, is_expiry=changes.is_expiry)
        for holding in changes.drop_holdings:
            self.holdings.pop(holding.key, None)
            self.owners.pop(holding.key, None)
            self.executing.pop(holding.key, None)
            for pool, numbers in holding.slots.items():
                for number in numbers:
                    self.slots[pool].pop(number, None)
        if changes.enqueue is not None:
            self.last_number += 1
            self.put_ticket(dataclasses.replace(changes.enqueue, number=self.last_number))
        if changes.requeue is not None and changes.requeue.key in self.tickets:
            self.put_ticket(changes.requeue)
        if grant is not None:
            self.drop_ticket(grant.key)
            self.holdings[grant.key] = grant
            self.owners[grant.key] = {changes.session}
            for pool, numbers in grant.slots.items():
                self.fences[pool] = grant.fence
                self.slots.setdefault(pool, {}).update(dict.fromkeys(numbers, grant.key))
        if changes.adopt is not None:
            self.owners[changes.adopt].add(changes.session)
            if changes.executes:
                self.executing.setdefault(changes.adopt, set()).add(changes.session)
        if changes.disown is not None:
            disowned, session = changes.disown
            self.owners[disowned].discard(session)
            self.executing.get(disowned, set()).discard(session)
        for pool, before, after in changes.settings:
            self.settings[pool] = after
            if after == NOTHING_SET:
                del self.settings[pool]
            if after.lasting_limit != before.lasting_limit:
                self.limits_known[pool] = after.lasting_limit
            if after.fair_by not in (None, before.fair_by):
                self._ungroup(pool)
        self.limits_known.update(changes.limits_known)
        self.due_ns.update(changes.due)
        for pool, group, begins, turn in changes.turns:
            self.turns[pool, group] = begins
            self.turn[pool] = turn
            in_line = {waiter.group for waiter in self.queues.get(pool, {}).values()}
            for at in [at for at, ends in self.turns.items() if at[0] == pool and ends <= turn]:
                if at[1] not in in_line:
                    del self.turns[at]
        self.ledger += (
            entry if entry.at == now else dataclasses.replace(entry, at=now)
            for entry in changes.ledger
        )

    def _refuse_what_is_held(self, grant: Holding) -> None:
        assert grant.key not in self.holdings, f"{grant.key} holds already"
        for pool, numbers in grant.slots.items():
            held = self.slots.get(pool, {}).keys() & set(numbers)
            assert not held, f"slot {min(held)} of {pool} is held"

    def put_ticket(self, ticket: Ticket) -> None:
        """Write a ticket that waits, in place of the one with its key if there is one."""
        before = self.tickets.get(ticket.key)
        if before is not None:
            self._unqueue(before)
        self.tickets[ticket.key] = ticket
        for pool in ticket.queue_at:
            self.queues.setdefault(pool, {})[ticket.key] = QueuedTicket(
                ticket.number or 0,
                ticket.priority,
                ticket.demand.slots_of(pool),
                ticket.since or 0.0,
                ticket.key,
                ticket.session,
                ticket.groups.get(pool, ""),
            )

    def _unqueue(self, ticket: Ticket) -> None:
        for pool in ticket.queue_at:
            del self.queues[pool][ticket.key]

    def drop_ticket(self, key: TicketKey) -> None:
        """Delete a ticket that waits, if there is one with this key."""
        ticket = self.tickets.pop(key, None)
        if ticket is not None:
            self._unqueue(ticket)

    def _drop_session(self, session: str, *, is_expiry: bool) -> None:
        self.lease_until.pop(session, None)
        label = self.labels.pop(session, "")
        for owners in self.owners.values():
            owners.discard(session)
        for executed, sessions in self.executing.items():
            if session in sessions:
                sessions.remove(session)
                if is_expiry:
                    lost = dataclasses.replace(self.holdings[executed], lost=label)
                    self.holdings[executed] = lost

    def _ungroup(self, pool: str) -> None:
        for ticket in tuple(self.tickets.values()):
            if pool in ticket.demand.pools:
                groups = {**ticket.groups, pool: ""}
                self.put_ticket(dataclasses.replace(ticket, groups=groups))
        for key, holding in self.holdings.items():
            if pool in holding.slots:
                groups = {**holding.groups, pool: ""}
                self.holdings[key] = dataclasses.replace(holding, groups=groups)
        for group in [group for group in self.turns if group[0] == pool]:
            del self.turns[group]
