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
"""The prefix of the id that a script uses in place of a run's id."""


def is_script(run_id: str) -> bool:
    """Whether this id is a script's and not a run's."""
    return run_id.startswith(SCRIPT_RUN)


WAITERS_SEEN_MAX = 32
"""How many of a pool's best-ranked waiters a decision looks at."""


_INSIDE = "[slots:"


class TicketKey(NamedTuple):
    """Names a ticket: one step of one run, or slots asked for inside it.

    Slots inside a step have names that begin with the name of the step: ``orders[slots:1]`` is
    inside the step ``orders``, and ``orders[slots:1][slots:2]`` inside those slots. So the name
    shows what is held while the ticket waits. Dagster's step keys have no colon in brackets.
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

    Attributes:
        terms: The pools with their slots.
        pools: The names of the pools: the one order in which their rows are locked.

    Raises:
        ConfigError: No pool, too many pools, a pool named twice, or slots out of bounds.
    """

    terms: tuple[Term, ...]
    pools: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = tuple(term.name for term in self.terms)
        object.__setattr__(self, "pools", names)
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

    def slots_of(self, pool: str) -> int:
        """How many slots of this pool it asks for."""
        for term in self.terms:
            if term.name == pool:
                return term.slots
        raise KeyError(pool)

    def __str__(self) -> str:
        return format_expression(self.terms)


@dataclass(frozen=True, slots=True)
class Ticket:
    """One step of one run asking for its demand, waiting.

    Attributes:
        number: Smaller for a ticket that came earlier; None while the ticket is new.
        since: When it began to wait; None while the ticket is new.
        queue_at: The pools of the demand in whose queues it stands.
        session: The session that owns it; the ticket ends with this session.
        groups: Its group in each pool with a fair order, while it asks.
        is_over: Whether that session's lease is over, so that the next claim deletes the ticket.
            Set only by reads without a lock; in a view under locks it is False.
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
        groups: Its group in each pool with a fair order, when it is granted.
        is_over: Whether the leases of all its owners are over, so that the next claim frees its
            slots. Set only by reads without a lock; in a view under locks it is False.
        lost: The process that executed the step, as host and process id, if its lease is over
            while another owner keeps the holding. Set only in snapshots.
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
        settings: The settings of the pool. For a decision they contain the limit in force.
        taken: The slot numbers held, which may exceed the limit after it was lowered.
        queue: The first live waiters of this pool's queue, in order; without waiters that ask for
            more slots than the limit.
        whole: Whether ``queue`` is the whole queue and not just its front.
        fence: The largest fence given so far.
        limit_known: The lasting limit that the engine last saw or set; another program may have
            changed it.
        due_ns: When the next start of the rate is due, in nanoseconds; see ``rate``.
        holders: If the order is fair: for each held slot, the group that holds it.
        turn: If the order is fair: the pool's turn, in 1/1000 of a slot; see ``order``.
        turns: If the order is fair: per group, where its next turn begins; a group not listed
            begins at the pool's turn.
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
        """Slots without a holder; negative while a lowered limit drains. Limited pools only."""
        assert self.settings.limit is not None, f"{self.pool} is unlimited"
        return self.settings.limit - len(self.taken)

    @property
    def held(self) -> Mapping[str, int] | None:
        """Slots held by each group; None if the order is not fair."""
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
        lease_ends: When the first lease of all sessions runs out or ran out; None without sessions.
        pools: The pools that are locked, by name.
        holdings: The holdings of the tickets in question.
        tickets: The tickets in question that wait.
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
        """Whether the lease of some session has run out, so that the session can be ended."""
        return self.lease_ends is not None and self.lease_ends <= self.now


class WaitReason(str, Enum):
    """Why a ticket waits at a pool.

    A claim never gets ``PROMISED`` or ``NEXT``: these are only for reports about other tickets.
    """

    PAUSED = "paused"
    """The limit is 0."""
    TOO_LARGE = "too-large"
    """The step asks for more slots than the limit: only a higher limit can help."""
    FULL = "full"
    """Too few slots are free."""
    BEHIND = "behind"
    """Enough slots are free, but they are for steps ahead."""
    PROMISED = "promised"
    """Dagster's own storage has assigned it a slot; the step takes it at its next look."""
    NEXT = "next"
    """Enough slots are free and no step is ahead; the step takes them at its next look."""
    RATE = "rate"
    """Enough slots are free, but the rate of the pool allows no start yet."""


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
    """The ticket waits.

    Attributes:
        pool: The pool that holds it up.
        reason: Why that pool holds it up.
        ahead: Live tickets ahead of it at that pool, among those that the decision read.
        queue_at: The pools in whose queues it now stands.
        since: When it began to wait; None while that is not known.
        ready_at: With the reason ``RATE``: when it may start, if all tickets ahead start as early
            as they may.
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
    """The holdings, waiting tickets and settings of one pool at one moment.

    A holding or ticket whose lease is over is only in ``over``. So ``holdings`` and ``waiting``
    show the pool as the next claim will find it.

    Attributes:
        holdings: Holdings with at least one owner whose lease is good.
        waiting: Tickets that wait for the pool under a lease, in the order of the pool (see
            ``order``), also those that stand in another pool's queue.
        over: Holdings and tickets whose lease is over; see ``Holding.is_over``.
        settings: The settings of the pool. Snapshots of the engine contain the limit in force.
        from_default: Whether the limit is the default limit; a store knows only a pool's own.
        due_ns: When the next start of the rate is due, in nanoseconds; see ``rate``.
        turn: If the order is fair: the pool's turn, in 1/1000 of a slot; see ``order``.
        turns: If the order is fair: per group, where its next turn begins; a group not listed
            begins at the pool's turn.
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
        """All holdings without an end in the ledger; holdings whose lease is over come last."""
        return (*self.holdings, *(found for found in self.over if isinstance(found, Holding)))

    @property
    def tickets(self) -> tuple[Ticket, ...]:
        """All tickets that still exist; tickets whose lease is over come last."""
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
        at: The time, by the database's clock, which may be set back.
        slots: Slots granted or released.
        fence: For a grant or its end: its fence. For a change of the limit: the pool's largest
            fence until then, so that grants and changes of a pool are in order of their fences.
        seconds: For a grant: seconds waited. For a release or expiry: seconds held. Else None.
        limit: For a limit entry: the new limit; None if the limit was deleted.
        detail: For a limit entry: if the limit is temporary, its end, as ``FallBack`` writes it.
            The end itself has no entry: see ``fall_backs``. For a rate entry: the new rate, such as
            ``100/minute, burst 10``; None if it was deleted. If the clock was set back and
            ``due_ns`` was corrected, the entry repeats the rate. For an order entry: the new order,
            such as ``fair(tag:team)`` or ``fifo``.
        number: Larger for a later entry of the same pool, in the order of their commits, even if
            the clock is set back; filled in by the store. For entries of different pools,
            PostgreSQL may commit the larger number first.
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
