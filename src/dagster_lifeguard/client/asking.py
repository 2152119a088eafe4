"""Asking for slots inside a step: of the engine, or of Dagster's own storage as far as it can."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

from dagster_lifeguard.compat import storages
from dagster_lifeguard.engine.rules.deadlock import circle_of
from dagster_lifeguard.engine.rules.model import Demand, Granted, Waiting, WaitReason
from dagster_lifeguard.engine.rules.pool_expressions import OPERATORS, Term, parse_expression
from dagster_lifeguard.engine.rules.pool_settings import NOTHING_SET
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.engine.store.retry import retry
from dagster_lifeguard.errors import ConfigError, DeadlockError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dagster_lifeguard.engine.rules.deadlock import Wait
    from dagster_lifeguard.engine.rules.model import PoolSnapshot, TicketKey, Verdict
    from dagster_lifeguard.storage.assembly import Assembly
    from dagster_lifeguard.storage.event_log import PoolMethods

logger = logging.getLogger(__name__)

_STOCK_PAUSE_SECONDS = 1.0


class Asking(Protocol):
    """What the waiting for slots needs; may be called by any thread."""

    def demand(self, pool: str, n: int) -> Demand:
        """What a block asks for that names this pool or expression, ``n`` slots of each.

        Raises:
            ConfigError: It is neither, or asks for too much.
        """

    def claim(self, key: TicketKey, demand: Demand, priority: int) -> Verdict:
        """Ask for the demand, or ask again. Does not wait."""

    def wait(self, key: TicketKey, seconds: float) -> bool:
        """Wait until the ticket should be claimed again: False when the time ran out before."""

    def check(self, key: TicketKey, waiting_seconds: float) -> None:
        """Raise ``DeadlockError`` if this waiting ticket is the one to break a circle."""

    def release(self, key: TicketKey) -> None:
        """Give back or withdraw."""


class AskingEngine:
    """Asks the engine of an event log storage."""

    def __init__(self, event_log: PoolMethods) -> None:
        self._event_log = ref(event_log)  # Which this is kept for, and no longer than.

    @property
    def _parts(self) -> Assembly:
        event_log = self._event_log()
        assert event_log is not None, "its instance is gone"
        return event_log.lifeguard

    def demand(self, pool: str, n: int) -> Demand:
        engine = self._parts.engine

        def is_pool() -> bool:
            settings = engine.settings().get(pool, NOTHING_SET)
            return settings.limit is not None or settings.rate is not None

        return _demand(pool, n, is_pool)

    def claim(self, key: TicketKey, demand: Demand, priority: int) -> Verdict:
        parts = self._parts
        parts.respect_stock_slots()
        tags = partial(parts.tags, key.run_id)
        verdict = parts.engine.claim(*key, demand, priority, tags)
        if isinstance(verdict, Granted) and verdict.slots:
            # If these slots are lost, the code here is ended like a step that loses its slots.
            parts.steps.started(key, verdict.fence)
        return verdict

    def wait(self, key: TicketKey, seconds: float) -> bool:
        return self._parts.engine.wait(*key, seconds)

    def check(self, key: TicketKey, waiting_seconds: float) -> None:
        parts = self._parts
        if not any(parts.steps.runs_here(outer) for outer in key.around):
            return  # Nothing is held while it waits.
        pools = self._pools_around(key)
        ours = (t for pool in pools for t in pool.waiting if t.key == key)
        since = next((ticket.since for ticket in ours), None)
        now = time.time() if since is None else since + waiting_seconds  # The database's clock.
        circle = circle_of(key, pools, now, patience_seconds=parts.engine.options.patience_seconds)
        if circle:
            raise _deadlock(circle)

    def _pools_around(self, key: TicketKey) -> tuple[PoolSnapshot, ...]:
        """All pools that the ticket may be waiting for, directly or not, at one moment."""
        engine = self._parts.engine
        store = engine.store
        pools = set(retry(lambda: store.pools_of(key.run_id, None, ())))
        while True:
            found = engine.snapshots(sorted(pools))
            # A ticket inside a holding always belongs to a process that owns the holding.
            owners = {o for pool in found for holding in pool.holdings for o in holding.owners}
            more = set(retry(partial(store.pools_of, None, None, owners))) - pools
            if not more:
                return found
            pools |= more

    def release(self, key: TicketKey) -> None:
        parts = self._parts
        fence = parts.steps.fence(key)
        parts.steps.ended(key)
        parts.engine.release(*key, fence)


class AskingStock:
    """Asks Dagster's own storage, through its pool methods and once a second.

    Not guaranteed: what the engine guarantees. It says so once.
    """

    def __init__(self, event_log: Any) -> None:
        self._event_log = ref(event_log)
        self._look_again: dict[TicketKey, float] = {}
        logger.warning(
            "Slots are asked of %s: coinciding claims may exceed a limit, a slot is handed over "
            "after a second or more, a process that dies keeps its slots until its run has ended "
            "or somebody frees them, and a deadlock is not found. The engine does all that: "
            "lifeguard engine enable.",
            type(event_log).__name__,
        )

    @property
    def _storage(self) -> Any:
        event_log = self._event_log()
        assert event_log is not None, "its instance is gone"
        return event_log

    def demand(self, pool: str, n: int) -> Demand:
        return _demand(pool, n, partial(self._is_limited, pool))

    def claim(self, key: TicketKey, demand: Demand, priority: int) -> Verdict:
        if [term.slots for term in demand.terms] != [1]:
            raise ConfigError(
                f"{demand} is more than one slot of one pool, which Dagster's own storage cannot "
                "give at once.",
                remedy="Ask for one slot of one pool, or switch the engine on: lifeguard engine "
                "enable.",
                names=demand.pools,
            )
        (pool,) = demand.pools
        event_log = self._storage
        # As Dagster's own claims do. Without a default limit it would delete the pool's limit.
        if not self._is_limited(pool) and storages.default_pool_limit(event_log) is not None:
            event_log.initialize_concurrency_limit_to_default(pool)
        if not self._is_limited(pool):
            return Granted({})
        status = event_log.claim_concurrency_slot(pool, *key, priority)
        if not status.is_claimed and storages.assign_missed(event_log, pool):
            status = event_log.claim_concurrency_slot(pool, *key, priority)
        if status.is_claimed:
            self._look_again.pop(key, None)
            return Granted({pool: (1,)})
        self._look_again[key] = time.monotonic() + _STOCK_PAUSE_SECONDS
        return Waiting(pool, WaitReason.FULL, ahead=0, queue_at=(pool,))

    def _is_limited(self, pool: str) -> bool:
        return any(limit.name == pool for limit in self._storage.get_pool_limits())

    def wait(self, key: TicketKey, seconds: float) -> bool:
        left = self._look_again.get(key, 0.0) - time.monotonic()
        time.sleep(max(0.0, min(seconds, left)))
        return seconds >= left

    def check(self, key: TicketKey, waiting_seconds: float) -> None:
        """It cannot be seen."""

    def release(self, key: TicketKey) -> None:
        self._look_again.pop(key, None)
        self._storage.free_concurrency_slot_for_step(*key)


def _demand(pool: str, n: int, is_pool: Callable[[], bool]) -> Demand:
    """What a block asks for.

    Args:
        pool: A pool or an expression.
        n: How many slots of each pool.
        is_pool: Whether a pool of exactly this name has a limit of its own; asked only where the
            text may be an expression.
    """
    if OPERATORS.isdisjoint(pool) or is_pool():
        return Demand((Term(pool, n),))
    terms = parse_expression(pool)
    if any(term.is_deferred for term in terms):
        raise ConfigError(
            f"{pool!r} has a template in it, which nothing fills in here.",
            remedy='Write the name as it is to be, such as f"orders[{context.partition_key}]".',
            names=[pool],
        )
    by_name = sorted(terms, key=lambda term: term.name)
    return Demand(tuple(replace(term, slots=term.slots * n) for term in by_name))


def _deadlock(circle: tuple[Wait, ...]) -> DeadlockError:
    """The error for a circle of waits, the one that gives up first."""
    waits = [(f"{w.key.step_key} (run {w.key.run_id}) waits for", w.pool) for w in circle]
    if len(waits) == 1:
        ((waiter, pool),) = waits
        message = f"{waiter} slots of {pool_text(pool)} that it holds itself, for ever."
    else:
        each = "; ".join(f"{waiter} {pool_text(pool)}" for waiter, pool in waits)
        message = (
            "These wait for each other for ever, each for what the next one holds: "
            f"{each}. The first, which is the youngest, gave up."
        )
    return DeadlockError(
        message,
        remedy="Let all ask for these pools in one order, or for all at once.",
        names=tuple(dict.fromkeys(wait.pool for wait in circle)),
    )
