"""The tables of the reference store, and what a transaction writes into them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.pool_settings import NOTHING_SET, PoolSettings

if TYPE_CHECKING:
    from dagster_lifeguard.engine.rules.model import Entry, Holding, Ticket, TicketKey
    from dagster_lifeguard.engine.store.contract import Changes


@dataclasses.dataclass
class MemoryTables:
    """The tables."""

    settings: dict[str, PoolSettings] = dataclasses.field(default_factory=dict)
    fences: dict[str, int] = dataclasses.field(default_factory=dict)
    limits_known: dict[str, int | None] = dataclasses.field(default_factory=dict)
    due_ns: dict[str, int] = dataclasses.field(default_factory=dict)
    turn: dict[str, int] = dataclasses.field(default_factory=dict)
    turns: dict[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    lease_until: dict[str, float] = dataclasses.field(default_factory=dict)
    tickets: dict[TicketKey, Ticket] = dataclasses.field(default_factory=dict)
    holdings: dict[TicketKey, Holding] = dataclasses.field(default_factory=dict)
    slots: dict[tuple[str, int], TicketKey] = dataclasses.field(default_factory=dict)
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    owners: dict[TicketKey, set[str]] = dataclasses.field(default_factory=dict)
    executing: dict[TicketKey, set[str]] = dataclasses.field(default_factory=dict)
    ledger: list[Entry] = dataclasses.field(default_factory=list)
    trimmed: int = 0
    last_number: int = 0

    def copy(self) -> MemoryTables:
        """The same rows in new tables."""
        return MemoryTables(
            settings=dict(self.settings),
            fences=dict(self.fences),
            limits_known=dict(self.limits_known),
            due_ns=dict(self.due_ns),
            turn=dict(self.turn),
            turns=dict(self.turns),
            lease_until=dict(self.lease_until),
            tickets=dict(self.tickets),
            holdings=dict(self.holdings),
            slots=dict(self.slots),
            labels=dict(self.labels),
            owners={key: set(owners) for key, owners in self.owners.items()},
            executing={key: set(sessions) for key, sessions in self.executing.items()},
            ledger=list(self.ledger),
            trimmed=self.trimmed,
            last_number=self.last_number,
        )

    def apply(self, changes: Changes, now: float) -> None:
        """Write all changes; an error leaves some of them."""
        for ticket in changes.drop_tickets:
            self.tickets.pop(ticket.key, None)
        for session in changes.drop_sessions:
            self.lease_until.pop(session, None)
            label = self.labels.pop(session, "")
            for owners in self.owners.values():
                owners.discard(session)
            for executed, sessions in self.executing.items():
                if session in sessions:
                    sessions.remove(session)
                    if changes.is_expiry:
                        lost = dataclasses.replace(self.holdings[executed], lost=label)
                        self.holdings[executed] = lost
        for holding in changes.drop_holdings:
            self.holdings.pop(holding.key, None)
            self.owners.pop(holding.key, None)
            self.executing.pop(holding.key, None)
            for pool, numbers in holding.slots.items():
                for number in numbers:
                    self.slots.pop((pool, number), None)
        if changes.enqueue is not None:
            self.last_number += 1
            self.tickets[changes.enqueue.key] = dataclasses.replace(
                changes.enqueue, number=self.last_number, since=now, session=changes.session
            )
        if changes.requeue is not None:
            self.tickets[changes.requeue.key] = dataclasses.replace(
                changes.requeue, session=changes.session
            )
        if changes.grant is not None:
            grant = dataclasses.replace(changes.grant, since=now)
            self.tickets.pop(grant.key, None)
            assert grant.key not in self.holdings, f"{grant.key} holds already"
            self.holdings[grant.key] = grant
            self.owners[grant.key] = {changes.session}
            for pool, numbers in grant.slots.items():
                self.fences[pool] = grant.fence
                for number in numbers:
                    assert (pool, number) not in self.slots, f"slot {number} of {pool} is held"
                    self.slots[pool, number] = grant.key
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
            in_line = {t.groups.get(pool, "") for t in self.tickets.values() if pool in t.queue_at}
            for key in [k for k, at in self.turns.items() if k[0] == pool and at <= turn]:
                if key[1] not in in_line:
                    del self.turns[key]
        self.ledger.extend(dataclasses.replace(entry, at=now) for entry in changes.ledger)

    def _ungroup(self, pool: str) -> None:
        for key, ticket in self.tickets.items():
            if pool in ticket.demand.pools:
                groups = {**ticket.groups, pool: ""}
                self.tickets[key] = dataclasses.replace(ticket, groups=groups)
        for key, holding in self.holdings.items():
            if pool in holding.slots:
                groups = {**holding.groups, pool: ""}
                self.holdings[key] = dataclasses.replace(holding, groups=groups)
        for group in [group for group in self.turns if group[0] == pool]:
            del self.turns[group]
