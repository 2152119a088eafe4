"""The engine's words as frozen values: what is asked for, what is seen, what is decided.

Nothing here knows Dagster, a database or a clock. Times are seconds since the epoch by the clock
of the database, durations are seconds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Literal, NamedTuple

from dagster_lifeguard.engine.rules.pool_expressions import (
    SLOTS_MAX,
    Term,
    format_expression,
    parse_expression,
)
from dagster_lifeguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings

PRIORITY_MAX = 2**31 - 1
"""The largest distance of a priority from 0: Dagster keeps priorities in 32 bits."""

POOLS_PER_DEMAND_MAX = 10_000
"""The most pools one step may ask for, so that a claim locks a bounded number of rows."""

SCRIPT_RUN = "script-"
"""How the id begins under which a script asks, which has no run."""


def is_script(run_id: str) -> bool:
    """Whether this is the id under which a script asks, and not that of a run."""
    return run_id.startswith(SCRIPT_RUN)


WAITERS_SEEN_MAX = 32
"""How many of a pool's best-ranked waiters a decision looks at."""


_INSIDE = "[slots:"


class TicketKey(NamedTuple):
    """Names a ticket: one step of one run, or slots asked for inside it.

    Slots inside a step are named after what they are inside of: ``orders[slots:1]`` inside the step
    ``orders``, ``orders[slots:1][slots:2]`` inside those. So a ticket tells what is held while it
    waits. Dagster's own step keys have no colon in brackets.
    """

    run_id: str
    step_key: str

    def inside(self, name: str) -> TicketKey:
        """The ticket of this name inside this one."""
        return TicketKey(self.run_id, f"{self.step_key}{_INSIDE}{name}]")

    @property
    def around(self) -> tuple[TicketKey, ...]:
        """The tickets that this one is inside of, outermost first."""
        first, *more = self.step_key.split(_INSIDE)
        texts = [first]
        for part in more[:-1]:
            texts.append(f"{texts[-1]}{_INSIDE}{part}")
        return tuple(TicketKey(self.run_id, text) for text in texts) if more else ()

    @property
    def step(self) -> TicketKey:
        """The step that it is, or is inside of."""
        return TicketKey(self.run_id, self.step_key.partition(_INSIDE)[0])


@dataclass(frozen=True, slots=True)
class Demand:
    """The pools one step asks for, sorted by name, and how many slots of each.

    Raises:
        ConfigError: No pool, too many pools, a pool named twice, or slots out of bounds.
    """

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        names = self.pools
        if not 1 <= len(names) <= POOLS_PER_DEMAND_MAX:
            raise ConfigError(
                f"A step asks for {len(names)} pools.",
                remedy=f"Ask for 1 to {POOLS_PER_DEMAND_MAX} pools.",
                names=names,
            )
        if list(names) != sorted(set(names)):
            raise ConfigError(
                "A demand names its pools once each, in sorted order.",
                remedy="Build it with Demand.of or Demand.parse.",
                names=names,
            )
        for term in self.terms:
            if not 1 <= term.slots <= SLOTS_MAX:
                raise ConfigError(
                    f"{str(term)!r} asks for {term.slots} slots.",
                    remedy=f"Ask for 1 to {SLOTS_MAX} slots.",
                    names=[term.name],
                )

    @classmethod
    def of(cls, slots: Mapping[str, int]) -> Demand:
        """The demand for these slots of these pools."""
        return cls(tuple(Term(name, slots[name]) for name in sorted(slots)))

    @classmethod
    def parse(cls, expression: str) -> Demand:
        """The demand that a pool expression without templates asks for."""
        return cls(tuple(sorted(parse_expression(expression), key=lambda term: term.name)))

    @property
    def pools(self) -> tuple[str, ...]:
        """The names of the pools, sorted: the one order in which their rows are locked."""
        return tuple(term.name for term in self.terms)

    def __str__(self) -> str:
        return format_expression(self.terms)


@dataclass(frozen=True, slots=True)
class Ticket:
    """One step of one run asking for its demand, waiting.

    Attributes:
        number: Smaller for a ticket that came earlier; None while the ticket is new.
        since: When it began to wait; None while the ticket is new.
        queue_at: The pools of the demand at whose queue it stands.
        session: The session whose life it shares.
        groups: Its group in each pool whose order is fair, while it asks.
        is_over: Whether that session's lease is over, so that the next claim withdraws the ticket.
            Told by reads without a lock; a view under locks leaves it False.
    """

    key: TicketKey
    demand: Demand
    priority: int = 0
    number: int | None = None
    since: float | None = None
    queue_at: tuple[str, ...] = ()
    session: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    is_over: bool = False

    def __post_init__(self) -> None:
        if abs(self.priority) > PRIORITY_MAX:
            raise ConfigError(
                f"The priority {self.priority} does not fit in 32 bits.",
                remedy=f"Use a priority between -{PRIORITY_MAX} and {PRIORITY_MAX}.",
                names=[self.key.step_key],
            )


@dataclass(frozen=True, slots=True)
class Holding:
    """The slots that one ticket holds.

    Attributes:
        slots: The slot numbers held in each pool.
        fence: Larger than every earlier fence of each of these pools.
        owners: The sessions that own it; it ends with the last of them.
        groups: Its group in each pool whose order is fair, when it is granted.
        is_over: Whether the leases of all its owners are over, so that the next claim frees its
            slots. Told by reads without a lock; a view under locks leaves it False.
        lost: The process that executed the step, as host and process id, if its lease is over
            though another owner keeps the holding. Told by snapshots alone.
    """

    key: TicketKey
    slots: Mapping[str, tuple[int, ...]]
    fence: int
    priority: int = 0
    since: float = 0.0
    owners: frozenset[str] = frozenset()
    groups: Mapping[str, str] = field(default_factory=dict)
    is_over: bool = False
    lost: str = ""


class QueuedTicket(NamedTuple):
    """A live waiting ticket as seen at the queue of one pool."""

    number: int
    priority: int
    slots: int
    since: float
    key: TicketKey
    session: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class PoolView:
    """What a decision needs to know of one pool, read while the pool is locked.

    Attributes:
        settings: What is set of it. To decide by, with the limit in force.
        taken: The slot numbers held, which may exceed the limit after it was lowered.
        queue: The best-ranked live waiters at this pool's queue, best first; without those that
            ask for more slots than the limit.
        whole: Whether ``queue`` is the whole queue and not just its front.
        fence: The largest fence given so far.
        limit_known: The limit that the engine last saw or set; differs when another wrote it.
        due_ns: What the rate counts with, see ``rate``.
        holders: Of a pool whose order is fair, the group that holds each slot.
        turn: And its turn, in 1/1000 of a slot, see ``order``.
        turns: And where the turns of groups begin; of those missing, with the pool's.
    """

    pool: str
    settings: PoolSettings
    taken: frozenset[int] = frozenset()
    queue: tuple[QueuedTicket, ...] = ()
    whole: bool = True
    fence: int = 0
    limit_known: int | None = None
    due_ns: int = 0
    holders: Mapping[int, str] = field(default_factory=dict)
    turn: int = 0
    turns: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limit = self.settings.limit
        assert limit is None or limit >= 0, f"{self.pool}: limit {limit} < 0"
        assert self.whole or self.queue, f"{self.pool}: nothing seen of a queue"

    @property
    def free(self) -> int:
        """Slots that nobody holds; negative while a lowered limit drains. Limited pools only."""
        assert self.settings.limit is not None, f"{self.pool} is unlimited"
        return self.settings.limit - len(self.taken)

    @property
    def held(self) -> Mapping[str, int] | None:
        """Slots held by each group; None where the order is not fair."""
        if self.settings.fair_by is None:
            return None
        return Counter(group for slot, group in self.holders.items() if slot in self.taken)

    def free_slots(self, count: int) -> tuple[int, ...]:
        """The ``count`` lowest slot numbers that are free, each at most the limit."""
        limit = self.settings.limit
        assert limit is not None, f"{self.pool} is unlimited"
        found = []
        for number in range(1, limit + 1):
            if number not in self.taken:
                found.append(number)
                if len(found) == count:
                    return tuple(found)
        raise AssertionError(f"{self.pool} has no {count} free slots of {limit}")


@dataclass(frozen=True, slots=True)
class View:
    """What one transaction sees after it has its locks.

    Attributes:
        now: The database's clock.
        session_alive: Whether the session that asks still exists.
        lease_ends: When the first lease of all sessions runs out, or did; None without sessions.
        pools: The pools that are locked, by name.
        holdings: What the tickets in question hold.
        tickets: Those of the tickets in question that wait.
        sessions: The sessions that are locked.
    """

    now: float
    session_alive: bool
    lease_ends: float | None
    pools: Mapping[str, PoolView]
    holdings: tuple[Holding, ...] = ()
    tickets: tuple[Ticket, ...] = ()
    sessions: tuple[str, ...] = ()

    @property
    def expired(self) -> bool:
        """Whether some session's lease has run out and waits to be reaped."""
        return self.lease_ends is not None and self.lease_ends <= self.now


class WaitReason(str, Enum):
    """Why a ticket waits at a pool.

    A claim is never answered ``PROMISED`` or ``NEXT``: only who looks at others sees these.
    """

    PAUSED = "paused"
    """The limit is 0."""
    TOO_LARGE = "too-large"
    """The limit is lower than the slots asked for: only a higher limit can help."""
    FULL = "full"
    """The slots that are free are too few."""
    BEHIND = "behind"
    """Enough slots are free, and they are for those ahead of it."""
    PROMISED = "promised"
    """Dagster's own storage gave it a slot, which it takes when it looks next."""
    NEXT = "next"
    """Enough slots are free, nobody is ahead of it, and it has not taken them yet."""
    RATE = "rate"
    """Enough slots are free, and the rate of the pool lets no more steps start yet."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The ticket holds its demand.

    Attributes:
        slots: The slot numbers held in each limited pool; empty when every pool is unlimited.
        fence: Larger than every earlier fence of these pools; 0 when every pool is unlimited.
    """

    slots: Mapping[str, tuple[int, ...]]
    fence: int = 0
    granted: Literal[True] = field(default=True, init=False)


@dataclass(frozen=True, slots=True)
class Waiting:
    """The ticket waits, and why.

    Attributes:
        pool: The pool that holds it up.
        reason: What about that pool.
        ahead: Live tickets ahead of it at that pool, as far as a decision looks.
        queue_at: The pools at whose queue it now stands.
        since: When it began to wait; None while that is not known.
        ready_at: With the reason ``RATE``: when it may start, if all ahead of it start as early as
            they may.
    """

    pool: str
    reason: WaitReason
    ahead: int
    queue_at: tuple[str, ...]
    since: float | None = None
    ready_at: float | None = None
    granted: Literal[False] = field(default=False, init=False)


Verdict = Granted | Waiting


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """Who holds and who waits in one pool at one moment, and what is set of it.

    A holding or ticket whose lease is over is in ``over`` alone: whoever decides by a snapshot
    sees the pool as the next claim will find it.

    Attributes:
        holdings: Holdings that an owner with a lease keeps.
        waiting: Tickets that wait under a lease, in the order of the pool (see ``order``),
            wherever they stand in line.
        over: Holdings and tickets whose lease is over; see ``Holding.is_over``.
        settings: What is set of the pool. The engine tells it with the limit in force.
        from_default: Whether the limit is the default one; a store knows only a pool's own.
        due_ns: What the rate counts with, see ``rate``.
        turn: Of a pool whose order is fair, its turn, see ``order``.
        turns: And where the turns of groups begin; of those missing, with the pool's.
    """

    pool: str
    settings: PoolSettings
    holdings: tuple[Holding, ...]
    waiting: tuple[Ticket, ...]
    from_default: bool = False
    due_ns: int = 0
    turn: int = 0
    turns: Mapping[str, int] = field(default_factory=dict)
    over: tuple[Holding | Ticket, ...] = ()

    @property
    def granted(self) -> tuple[Holding, ...]:
        """All holdings that the ledger knows no end of, those whose lease is over last."""
        return (*self.holdings, *(found for found in self.over if isinstance(found, Holding)))

    @property
    def tickets(self) -> tuple[Ticket, ...]:
        """All tickets that were not withdrawn, those whose lease is over last."""
        return (*self.waiting, *(found for found in self.over if isinstance(found, Ticket)))


class EntryKind(str, Enum):
    """What a row of the ledger records."""

    GRANTED = "granted"
    RELEASED = "released"
    EXPIRED = "expired"
    LIMIT = "limit"
    RATE = "rate"
    ORDER = "order"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the ledger.

    Attributes:
        at: When, by the database's clock, which may step back; filled in by the store.
        slots: Slots granted or given back.
        fence: Of a grant or its end: its fence. Of a change of the limit: the pool's largest fence
            until then, so that grants and changes of a pool are in order of their fences.
        seconds: A grant: seconds waited. A release or expiry: seconds held. A limit: None.
        limit: A limit entry: the new limit, None when it was deleted.
        detail: A rate entry: the rate from then on, such as ``100/minute, burst 10``; None when
            deleted. It repeats the rate when the clock was set back and what is due was corrected.
            An order entry: the new order, such as ``fair(tag:team)`` or ``fifo``.
        number: Larger for a later entry of the same pool, in the order of their commits, whatever
            the clock says; filled in by the store. Of different pools, PostgreSQL may commit the
            larger of two numbers first.
    """

    kind: EntryKind
    pool: str
    run_id: str = ""
    step_key: str = ""
    slots: int = 0
    fence: int = 0
    session: str = ""
    seconds: float | None = None
    limit: int | None = None
    at: float = 0.0
    detail: str | None = None
    number: int = 0
