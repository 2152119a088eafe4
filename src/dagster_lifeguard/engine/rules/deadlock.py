"""Deadlocks: which tickets wait for each other in a circle, as a pure function of snapshots.

Only a ticket inside a step, or inside other slots, can be part of a deadlock: its step keeps its
slots while the ticket waits. Every other ticket holds nothing while it waits.

Algorithm. Assume that every ticket that can go on does so and then releases its slots: a holding
without a waiting ticket inside it ends, and a ticket whose demand fits into the free slots starts
and ends. Repeat until nothing changes. The tickets that still wait will wait for ever. Each of them
waits for the tickets inside the holdings of its pools, and for the tickets ahead that reserve
slots. Tickets that reach each other on these edges form a circle; the youngest must give up.

A paused pool, or a limit lower than a demand, is not a deadlock: a higher limit ends such a wait.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.admission import PATIENCE_SECONDS
from dagster_lifeguard.engine.rules.model import WAITERS_SEEN_MAX
from dagster_lifeguard.engine.rules.order import line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dagster_lifeguard.engine.rules.model import Holding, PoolSnapshot, Ticket, TicketKey


@dataclass(frozen=True)
class Wait:
    """One wait of a circle: a ticket, and a pool that it waits for."""

    key: TicketKey
    pool: str


def circle_of(
    key: TicketKey,
    pools: Iterable[PoolSnapshot],
    now: float,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
) -> tuple[Wait, ...]:
    """The circle that this ticket must break, or nothing.

    Args:
        key: A ticket that waits.
        pools: Snapshots, of one moment, of all pools in which the tickets hold or wait.
        now: The time by which patience is judged, in seconds since the epoch.
        patience_seconds: See ``admission``.

    Returns:
        The shortest circle through the ticket, beginning with it: each ticket waits for the next,
        and the last for the first. Empty if there is none, or if a younger ticket must break it.
    """
    seen = _Seen(pools, now, patience_seconds)
    seen.let_go_on()
    if key not in seen.waiting:
        return ()
    behind = {ticket: seen.waits_for(ticket) for ticket in seen.waiting}
    together = {
        other for other in _reached(key, behind) if key in _reached(other, behind)
    }  # They wait for each other.
    breakers = [other for other in together if seen.holds_something(other)]
    if key not in breakers or max(breakers, key=lambda k: seen.waiting[k].number or 0) != key:
        return ()
    return _shortest(key, behind)


class _Seen:
    """The snapshots, without the tickets that can go on."""

    def __init__(self, pools: Iterable[PoolSnapshot], now: float, patience_seconds: float) -> None:
        self._limits: dict[str, int] = {}
        self._held: dict[str, dict[TicketKey, Holding]] = {}
        self._pools: dict[str, PoolSnapshot] = {}
        self._now = now
        self._patience_seconds = patience_seconds
        self.waiting: dict[TicketKey, Ticket] = {}
        for pool in pools:
            if pool.settings.limit is None:
                continue
            self._limits[pool.pool] = pool.settings.limit
            self._pools[pool.pool] = pool
            self._held[pool.pool] = {holding.key: holding for holding in pool.holdings}
            for ticket in pool.waiting:  # What each pool tells of a ticket is its group there.
                known = self.waiting.get(ticket.key, ticket)
                groups = {**known.groups, **ticket.groups}
                self.waiting[ticket.key] = replace(ticket, groups=groups)

    def let_go_on(self) -> None:
        """Remove tickets that can start and holdings that can end, until none is left."""
        before = None
        while before != (len(self.waiting), sum(map(len, self._held.values()))):
            before = len(self.waiting), sum(map(len, self._held.values()))
            around = {outer for key in self.waiting for outer in key.around}
            for held in self._held.values():
                for key in [key for key in held if key not in around]:
                    del held[key]
            for key in [key for key in self.waiting if not self._holding_up(key)]:
                del self.waiting[key]

    def _holding_up(self, key: TicketKey) -> dict[str, set[TicketKey]]:
        """The pools that hold a ticket up, and the tickets ahead of it that do so there."""
        ticket = self.waiting[key]
        wanted = {t.name: t.slots for t in ticket.demand.terms if t.name in self._limits}
        if any(slots > self._limits[pool] for pool, slots in wanted.items()):
            return {}
        found = {}
        for pool, slots in wanted.items():
            ahead = self._ahead_of(ticket, pool)
            aside = {other.key: _slots_of(other, pool) for other in ahead if self._insists(other)}
            held = self._held[pool].values()
            free = self._limits[pool] - sum(len(holding.slots[pool]) for holding in held)
            if len(ahead) >= WAITERS_SEEN_MAX:
                found[pool] = {other.key for other in ahead}
            elif slots > free - sum(aside.values()):
                found[pool] = set(aside)
        return found

    def _ahead_of(self, ticket: Ticket, pool: str) -> list[Ticket]:
        standing = [other for other in self.waiting.values() if pool in other.queue_at]
        if ticket not in standing:
            standing.append(ticket)
        ordered = line(self._pools[pool], standing, self._held[pool].values())
        return ordered[: ordered.index(ticket)]

    def _insists(self, ticket: Ticket) -> bool:
        waited = self._now - (ticket.since if ticket.since is not None else self._now)
        return waited > self._patience_seconds and all(
            term.slots <= self._limits.get(term.name, term.slots) for term in ticket.demand.terms
        )

    def waits_for(self, key: TicketKey) -> dict[TicketKey, str]:
        """The waiting tickets that this one waits for, and a pool at which it does."""
        found: dict[TicketKey, str] = {}
        for pool, ahead in self._holding_up(key).items():
            held = self._held[pool]
            found.update((other, pool) for other in ahead)
            found.update(
                (other, pool) for other in self.waiting if any(k in held for k in other.around)
            )
        return found

    def holds_something(self, key: TicketKey) -> bool:
        """Whether something is held around the ticket, which it would give back."""
        return any(outer in held for held in self._held.values() for outer in key.around)


def _slots_of(ticket: Ticket, pool: str) -> int:
    return next(term.slots for term in ticket.demand.terms if term.name == pool)


def _reached(key: TicketKey, behind: Mapping[TicketKey, Mapping[TicketKey, str]]) -> set[TicketKey]:
    """The tickets that this one waits for, directly or not."""
    found: set[TicketKey] = set()
    left = [key]
    while left:
        for other in behind[left.pop()]:
            if other not in found:
                found.add(other)
                left.append(other)
    return found


def _shortest(
    key: TicketKey, behind: Mapping[TicketKey, Mapping[TicketKey, str]]
) -> tuple[Wait, ...]:
    """The shortest way from a ticket back to itself."""
    paths: deque[tuple[tuple[Wait, ...], TicketKey]] = deque(
        ((Wait(key, pool),), other) for other, pool in behind[key].items()
    )
    seen: set[TicketKey] = set()
    while paths:
        path, at = paths.popleft()
        if at == key:
            return path
        if at not in seen:
            seen.add(at)
            paths.extend(((*path, Wait(at, pool)), other) for other, pool in behind[at].items())
    raise AssertionError(f"{key} is in no circle")
