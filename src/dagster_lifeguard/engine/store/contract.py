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
    """The transaction came to no known end: lost connection, lock timeout. Do the verb again."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a transaction locks, and whose rows it sees.

    Attributes:
        pools: The pools to lock, in any order; the store locks them sorted, and makes the row of
            a pool it never saw.
        run_id: See the tickets of this run.
        step_key: Of that run, only this step.
        session: The session that asks. It cannot be reaped before the transaction ends.
        groups: The group of the step in pools whose order is fair, as far as it is known: a view
            tells where its turn begins.
        ended: Lock those of these sessions that exist and, with ``expired_only``, whose lease
            has run out; see the tickets they own, alone or not. Of those that wait, some.
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
        drop_sessions: Sessions that end, with whatever they own besides others. One that waits for
            more than was in view is revoked, and left to ``Store.bury``.
        is_expiry: Whether these end with their lease: holdings that others keep then remember that
            the process that executed their step is lost.
        settings: Pools with what was set of them and what is set from now on. The limit is written
            in Dagster's table. Where another tag makes the order fair, who waits or holds is in
            the empty group from then on, and turns begin anew.
        limits_known: Limits that another wrote and the engine has now seen.
        due: What the rates of pools count with from now on.
        turns: Of fair pools: a group, where its next turn begins, and the pool's turn. Groups whose
            turn does not begin after the pool's need not be remembered unless they stand in line.
        ledger: Rows to append; the store stamps them with its clock.
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
        """What is true while the locks are held: no other can grant slots of these pools."""

    def wait_until(self, at: float) -> View:
        """Hold the locks until this time, which is near; the view as of then, to be written by."""

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
        """Bring the tables to this package's newest version, and return theirs.

        They may be newer than that: an older package uses them as long as they say that it may.
        Safe to call at once in several processes.

        Raises:
            SchemaError: The tables are newer, and not for this package.
            OldTablesError: They are older, and this process may not change them.
            OldProcessesError: They are older, and live processes could not use the newer ones.
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
        """End what a ticket was granted, with its owners, and wake whoever can go in.

        As a transaction would, in a single message where the store can: who knows the grant needs
        no look before it writes. The wake-ups may then come after the commit, and be lost.

        Args:
            key: The ticket.
            grant: What it was told. There is no other grant of these pools with this fence.
            session: Who gives it back, for the ledger.
            next_up: Of the view before the end, who should look again after it.

        Returns:
            False, with nothing changed, when that grant has ended already.
        """

    def grant_unseen(self, presumed: View, changes: Changes) -> int | None:
        """Write a grant that was decided on a presumed view, if nothing speaks against it.

        As a transaction would, in a single message where the store can; elsewhere it may refuse
        every time, for then presuming gains nothing.

        Args:
            presumed: Pools of which nobody holds or waits for a slot, without a rate or a fair
                order, each with its limit in Dagster's table and the limit in force. Where the
                engine does not know that one yet, a row of the ledger tells it.
            changes: A grant to a new ticket and its rows of the ledger; all fences are ignored.

        Returns:
            The fence that the grant got: larger than any of these pools gave before. None, with
            nothing changed, when a pool is not as presumed, the ticket waits or holds already, the
            session is no more, or some lease has run out: look, then.
        """

    def pools_of(
        self, run_id: str | None, step_key: str | None, sessions: Collection[str]
    ) -> tuple[str, ...]:
        """The pools where these tickets hold or wait, without a lock: verify under one."""

    def open_session(
        self, session: str, label: str, lease_seconds: float, *, is_listening: bool = True
    ) -> None:
        """Record a live process, trusted for ``lease_seconds`` from now by the store's clock.

        With it goes the version of this package and of the tables that it knows.

        ``is_listening``: this process polls for the session's wake-ups from now on.

        Whoever keeps out others while there are sessions (see ``storage.stock_slots``) lets none
        of them slip in beside this one: they are before it, and committed, or after it. The same
        holds for a change of the tables that this package could not use.

        Raises:
            SchemaError: The tables are newer by now, and not for this package.
        """

    def heartbeat(self, session: str, lease_seconds: float) -> bool:
        """Trust the session anew from now on. False: it was reaped, or revoked, and is no more.

        A session is revoked by setting its lease to 0. Late is not lost: until then, or until it
        is reaped, one whose lease has run out can be trusted anew.
        """

    def expired_sessions(self, count_max: int) -> tuple[str, ...]:
        """Sessions whose lease has run out, oldest first."""

    def bury(self, count_max: int) -> None:
        """Do a piece of what is left to do for sessions whose lease has run out.

        Those that own nothing are revoked, so that none comes back; of the revoked, the waiting
        tickets are deleted, and then they themselves. What is held stays. Nobody looks at a ticket
        whose session is over, so no pool is locked, and nobody is woken.

        Args:
            count_max: The most sessions, and the most tickets.
        """

    def holders_over(self, pools: Collection[str], count_max: int) -> tuple[str, ...]:
        """Sessions whose lease has run out and that own something in these pools, so many."""

    def revoked_sessions(self) -> tuple[str, ...]:
        """Those of them that were revoked: another may have been let in since."""

    def poll(
        self, session: str, timeout_seconds: float, *, is_next: bool = False
    ) -> frozenset[TicketKey]:
        """Wait for a wake-up, at most so long: the session's tickets that should look again.

        Wake-ups may be lost or doubled. Costs the database next to nothing while none comes.

        Args:
            session: The session.
            timeout_seconds: How long.
            is_next: One of its tickets takes the next slots: a store that has to look for wake-ups
                looks more often.
        """

    def settings(self) -> Mapping[str, PoolSettings]:
        """All pools of which anything is set, and what, by name.

        Here and in every view, a row of Dagster's table where the stock storage has written the
        default limit down is no limit: the default one is asked for where it is set.
        """

    # Of these reads, made without a lock, each tells by the store's clock what is over. A ticket is
    # over with the lease of its session, and a holding with the last lease of its owners: an owner
    # that has no session, such as ``stock_slots.STOCK``, keeps it for ever.

    def snapshots(self, pools: Sequence[str]) -> tuple[PoolSnapshot, ...]:
        """Everything in each of these pools, in their order, at one moment."""

    def ticket(self, key: TicketKey) -> Ticket | Holding | None:
        """What this ticket does now, or did when its lease was over: see ``is_over``."""

    def has_expired(self, key: TicketKey) -> bool:
        """Whether the ledger knows of a holding of this ticket that ended with its lease."""

    def busy_pools(self, *, with_over: bool = False) -> tuple[str, ...]:
        """The pools that somebody holds or waits for, sorted.

        Args:
            with_over: Also the pools where all of that is over.
        """

    def run_ids(self) -> frozenset[str]:
        """The runs that hold or wait, without those of which all is over."""

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
        """The next rows of the ledger, in the order of their numbers: read it in pages so.

        The rows of one pool are numbered in the order of their commits: a number is given, and its
        row committed, while the pool's row is locked, by claims, releases, expiries and changes of
        limits alike. On PostgreSQL a row of another pool with a smaller number may come later; on
        SQLite, which has one writer, and in memory none does.

        Args:
            pool: Only this pool's.
            kind: Only these.
            since: Only what the clock says happened then or later.
            after: Only rows with a larger number.
            count_max: The most rows.
        """

    def held_at(self, number: int, *, pool: str | None = None) -> tuple[Entry, ...]:
        """The grants of what was held when this number was given, by pool and fence.

        As they would be told, without their numbers and the seconds that they waited.
        """

    def now(self) -> float:
        """The clock of the database."""

    def trim_ledger(self, keep_seconds: float, count_max: int) -> int:
        """Delete at most so many of the oldest rows, up to the first that is younger than that.

        Returns:
            How many were deleted.
        """

    def close(self) -> None:
        """Close this process's connection; the next verb opens another."""
