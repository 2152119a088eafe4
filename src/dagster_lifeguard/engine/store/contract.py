"""What the engine asks of a store: lock, read, write; no decision is made in one.

Every store keeps the same guarantees, and one conformance suite holds them to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from dagster_lifeguard.engine.rules.model import (
        Entry,
        EntryKind,
        Granted,
        Holding,
        PoolSnapshot,
        QueuedTicket,
        Ticket,
        TicketKey,
        View,
    )
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings


class TryAgainError(Exception):
    """The outcome of the transaction is unknown: lost connection, lock timeout. Retry the verb."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a transaction locks, and whose rows it sees.

    Attributes:
        pools: The pools to lock, in any order; the store locks them sorted, and makes the row of
            a pool it never saw.
        run_id: See the tickets of this run.
        step_key: Of that run, only this step.
        session: The session that asks. It cannot be reaped before the transaction ends.
        groups: The group of the step in pools with a fair order, if it is known: the view then
            contains where the group's turn begins.
        ended: Lock the existing ones of these sessions and, with ``expired_only``, only sessions
            whose lease has run out. The view contains all holdings that they own, alone or with
            others, and some of their waiting tickets.
    """

    pools: tuple[str, ...]
    run_id: str | None = None
    step_key: str | None = None
    session: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    ended: tuple[str, ...] = ()
    expired_only: bool = True


@dataclass(frozen=True, slots=True)
class Changes:
    """What a transaction writes, all or nothing.

    Attributes:
        session: The owner of what is granted, enqueued or adopted.
        grant: Slots to hold; its ticket stops waiting.
        enqueue: A new ticket.
        requeue: A waiting ticket with its new queues or session.
        adopt: A holding gets ``session`` as one more owner.
        executes: Whether that owner is the process that executes the step.
        disown: A holding loses this session as an owner.
        drop_tickets: Tickets that stop waiting.
        drop_holdings: Holdings that end, with all their owners.
        drop_sessions: Sessions that end, with their ownership of holdings that have other owners
            too. A session with more waiting tickets than the view contains is revoked, and left to
            ``Store.bury``.
        is_expiry: Whether these sessions end because their lease ran out. Holdings that other
            owners keep then record that the process that executed their step is lost.
        settings: Pools with their old and new settings. The limit is written to Dagster's table.
            If the order becomes fair by another tag, present waiters and holders are in the empty
            group from then on, and turns begin anew.
        limits_known: Limits that another program wrote and the engine has now seen.
        due: The new due times of pools with a rate; see ``rate``.
        turns: For fair pools: a group, where its next turn begins, and the pool's turn. A group
            need not be stored if it is not in the queue and its turn is not after the pool's.
        ledger: Rows to append; the store stamps them with the time of the view.
        wake: Tickets that should look again.
    """

    session: str = ""
    grant: Holding | None = None
    enqueue: Ticket | None = None
    requeue: Ticket | None = None
    adopt: TicketKey | None = None
    executes: bool = False
    disown: tuple[TicketKey, str] | None = None
    drop_tickets: tuple[Ticket, ...] = ()
    drop_holdings: tuple[Holding, ...] = ()
    drop_sessions: tuple[str, ...] = ()
    is_expiry: bool = False
    settings: tuple[tuple[str, PoolSettings, PoolSettings], ...] = ()
    limits_known: tuple[tuple[str, int | None], ...] = ()
    due: tuple[tuple[str, int], ...] = ()
    turns: tuple[tuple[str, str, int, int], ...] = ()
    ledger: tuple[Entry, ...] = ()
    wake: tuple[QueuedTicket, ...] = ()


class Transaction(Protocol):
    """A view under locks. Leaving it without ``commit`` changes nothing."""

    @property
    def view(self) -> View:
        """The locked rows: no other transaction can grant slots of these pools meanwhile."""

    def wait_until(self, at: float) -> View:
        """Hold the locks until this near time; return the view of then, for ``commit``."""

    def commit(self, changes: Changes) -> None:
        """Write all changes, release the locks, wake. A slot already held is an error."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Store(Protocol):
    """The tables, for the threads of one process; a fork connects anew.

    Any verb may raise ``TryAgainError`` (do it again) or ``StoreUnavailableError``.
    """

    def migrate(self) -> int:
        """Bring the tables to the newest version that this package knows; return their version.

        The tables may be newer: an older package uses them if they allow it. Several processes may
        call this at once.

        Raises:
            SchemaError: The tables are newer, and this package must not use them.
            OldTablesError: The tables are older, and this process may not change them.
            OldProcessesError: The tables are older, and live processes could not use newer ones.
        """

    def begin(self, scope: Scope) -> Transaction:
        """Lock what the scope names, in one order for all, and only then read the view."""

    def release(
        self,
        key: TicketKey,
        grant: Granted,
        session: str,
        next_up: Callable[[View], tuple[QueuedTicket, ...]],
    ) -> bool:
        """End the grant of a ticket, with its owners, and wake waiters that can start.

        Has the effect of a transaction, in a single message if the store can: the caller knows the
        grant, so nothing is read before the write. Wake-ups may then come after the commit, and may
        be lost.

        Args:
            key: The ticket.
            grant: Its grant. No other grant of these pools has this fence.
            session: The session that releases it, for the ledger.
            next_up: Maps the view before the release to the waiters to wake after it.

        Returns:
            False, with nothing changed, when that grant has ended already.
        """

    @property
    def grant_unseen(self) -> Callable[[View, Changes], int | None] | None:
        """Writes a grant that was decided on a guessed view, if the guess is right.

        Has the effect of a transaction, in a single message. None for a store in the same process,
        where a guess saves no message.

        Args:
            presumed: Pools of which nobody holds or waits for a slot, without a rate or a fair
                order, each with its limit in Dagster's table and the limit in force. Where the
                engine does not know that one yet, a row of the ledger tells it.
            changes: A grant to a new ticket and its rows of the ledger; all fences are ignored.

        Returns:
            The fence of the grant, larger than every earlier fence of these pools. None, with
            nothing changed, if a pool differs from the guess, the ticket waits or holds already,
            the session no longer exists, or some lease has run out. Then read the view.
        """

    def pools_of(
        self, run_id: str | None, step_key: str | None, sessions: Collection[str]
    ) -> tuple[str, ...]:
        """The pools where these tickets hold or wait, read without a lock: check under a lock."""

    def open_session(
        self, session: str, label: str, lease_seconds: float, *, is_listening: bool = True
    ) -> None:
        """Record a live process, with its package's version and the version of tables it knows.

        Serialised with the gate for Dagster's own claims (``storage.stock_slots``): such a claim is
        either committed before this session or sees it. A change of the tables that this package
        could not use is serialised with it in the same way.

        Args:
            session: The session.
            label: The name of the process, for people.
            lease_seconds: How long the process is trusted from now on, by the store's clock.
            is_listening: Whether this process polls for the session's wake-ups from now on.

        Raises:
            SchemaError: The tables are newer by now, and this package must not use them.
        """

    def heartbeat(self, session: str, lease_seconds: float) -> bool:
        """Renew the lease of the session. False: it was reaped or revoked, and no longer exists.

        A session is revoked by setting its lease to 0. A late heartbeat still counts: until a
        session is revoked or reaped, its lease can be renewed even after it has run out.
        """

    def expired_sessions(self, count_max: int) -> tuple[str, ...]:
        """Sessions whose lease has run out, oldest first."""

    def bury(self, count_max: int) -> None:
        """Delete some rows of sessions whose lease has run out.

        A session that holds nothing is revoked, so that it cannot come back. The waiting tickets of
        revoked sessions are deleted, then the sessions. Holdings stay. No decision reads a ticket
        whose session is over, so no pool is locked and no waiter is woken.

        Args:
            count_max: The most sessions, and the most tickets, to handle.
        """

    def holders_over(self, pools: Collection[str], count_max: int) -> tuple[str, ...]:
        """At most this many sessions whose lease has run out and that own holdings here."""

    def revoked_sessions(self) -> tuple[str, ...]:
        """The sessions that were revoked: their slots may have been granted again since."""

    def poll(
        self, session: str, timeout_seconds: float, *, is_next: bool = False
    ) -> frozenset[TicketKey]:
        """Wait for a wake-up; return the session's tickets that should look again.

        Wake-ups may be lost or doubled. Waiting costs the database next to nothing.

        Args:
            session: The session.
            timeout_seconds: How long to wait at most.
            is_next: Whether one of its tickets takes the next slots. A store that polls for
                wake-ups then polls more often.
        """

    def settings(self) -> Mapping[str, PoolSettings]:
        """The settings of all pools that have any, by name.

        Dagster's own storage writes the default limit into its table. Here and in every view such a
        row does not count as a limit of the pool.
        """

    # These reads take no lock, and judge by the store's clock which leases are over. A ticket is
    # over with the lease of its session, and a holding with the last lease of its owners. An owner
    # without a session, such as ``stock_slots.STOCK``, keeps its holding for ever.

    def snapshots(self, pools: Sequence[str]) -> tuple[PoolSnapshot, ...]:
        """Everything in each of these pools, in their order, at one moment."""

    def ticket(self, key: TicketKey) -> Ticket | Holding | None:
        """The waiting ticket or the holding with this key, also if its lease is over."""

    def has_expired(self, key: TicketKey) -> bool:
        """Whether the ledger contains a holding of this ticket that ended with its lease."""

    def busy_pools(self, *, with_over: bool = False) -> tuple[str, ...]:
        """The pools with holders or waiters, sorted.

        Args:
            with_over: Also pools where the leases of all holders and waiters are over.
        """

    def run_ids(self) -> frozenset[str]:
        """The runs that hold or wait under at least one good lease."""

    def ledger(self, *, pool: str | None = None, count_max: int = 1000) -> tuple[Entry, ...]:
        """The newest rows of the ledger, newest first."""

    def entries(
        self,
        *,
        pool: str | None = None,
        kind: EntryKind | None = None,
        since: float = 0.0,
        after: int = 0,
        count_max: int = 1000,
    ) -> tuple[Entry, ...]:
        """One page of the ledger: its next rows, in the order of their numbers.

        The rows of one pool are numbered in the order of their commits, because every transaction
        takes the number and commits the row while it has the pool's row locked. On PostgreSQL, a
        row of another pool with a smaller number may be committed later. In memory and on SQLite,
        which has one writer, that does not happen.

        Args:
            pool: Only the rows of this pool.
            kind: Only rows of this kind.
            since: Only rows of this time or later, by the database's clock.
            after: Only rows with a larger number.
            count_max: At most this many rows.
        """

    def held_at(self, number: int, *, pool: str | None = None) -> tuple[Entry, ...]:
        """The grants whose slots were held when this number was given, by pool and fence.

        The entries have neither their numbers nor the seconds that they waited.
        """

    def now(self) -> float:
        """The clock of the database."""

    def trim_ledger(self, keep_seconds: float, count_max: int) -> int:
        """Delete the oldest rows, at most ``count_max``, and none younger than ``keep_seconds``.

        Returns:
            How many were deleted.
        """

    def close(self) -> None:
        """Close this process's connection; the next verb opens another."""
