"""The pool methods of Dagster's event log storages, answered by the engine."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

from dagster_lifeguard.compat import storages
from dagster_lifeguard.engine.forks import ProcessLock
from dagster_lifeguard.engine.rules.model import Granted, Holding, TicketKey
from dagster_lifeguard.engine.rules.pool_expressions import (
    is_of_all_partitions,
)
from dagster_lifeguard.engine.rules.pool_settings import (
    NOTHING_SET,
    PoolSettings,
    own_limits,
)
from dagster_lifeguard.engine.session import shared_session
from dagster_lifeguard.engine.store.contract import TryAgainError
from dagster_lifeguard.engine.store.retry import retry
from dagster_lifeguard.errors import ConfigError, LifeguardError, StoreUnavailableError, first_line
from dagster_lifeguard.storage import progress
from dagster_lifeguard.storage.assembly import Assembly
from dagster_lifeguard.storage.expressions import is_deferred
from dagster_lifeguard.storage.halves import OfTheEngine, refuse_half
from dagster_lifeguard.storage.limits_for_dagster import (
    NO_DEFAULT,
    LimitRefusedError,
    limits_to_tell,
    refuse_settings,
)
from dagster_lifeguard.storage.step_events import STEP_BEGINS, STEP_FAILS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dagster import EventLogEntry

    from dagster_lifeguard.engine.rules.model import PoolSnapshot
    from dagster_lifeguard.engine.store.contract import Store
    from dagster_lifeguard.storage.config import StorageOptions
    from dagster_lifeguard.storage.progress import StepProgress

logger = logging.getLogger(__name__)

_TEXTS_KNOWN_MAX = 10_000
"""The most pools and expressions that a process remembers being asked about."""


class PoolMethods(OfTheEngine):
    """Mixed into a stock event log storage, before it; everything else is the stock storage's.

    Guarantees:
        Claims are decided by the engine, with its promises. A database that cannot be read or
        written is an error in every pool method: nothing is granted without it.

    Not guaranteed:
        Pools of a run that Dagster executes under the granularity ``run`` are counted by the run
        queue alone, as in stock Dagster.
    """

    def use_options(self, options: StorageOptions) -> None:
        """Set up how the engine behaves; before anything is asked of it."""
        self._lifeguard_options = options
        self._lifeguard_lock = ProcessLock()
        self._lifeguard_parts: Assembly | None = None
        self._lifeguard_met: dict[str, None] = {}

    def make_store(self) -> Store:
        """The store on this storage's database."""
        raise NotImplementedError

    def require_same_database(self, store: Store) -> None:
        """Refuse a store that was set up to be elsewhere than this storage.

        Raises:
            ConfigError: It is elsewhere.
        """

    def database_name(self) -> str:
        """What tells this storage's database from others."""
        raise NotImplementedError

    def wipe_events(self) -> None:
        """Delete everything that Dagster's storage deletes in a wipe, but the limits."""
        cast("Any", super()).wipe()

    @property
    def lifeguard(self) -> Assembly:
        """Engine and claims of this instance.

        All instances of the process on this database share one session and one connection.

        Raises:
            StoreUnavailableError: The database cannot be read or written.
            SchemaError: The engine's tables are too new.
            OldSchemaError: Dagster's tables are too old.
            ConfigError: The run storage of the instance is not ours.
        """
        parts = self._lifeguard_parts
        if parts is None:
            self._refuse_half()
            with self._lifeguard_lock:
                if self._lifeguard_parts is None:
                    options = self._lifeguard_options
                    session = shared_session(
                        self.database_name(), options.lease_seconds, self.make_store
                    )
                    self._lifeguard_parts = retry(
                        lambda: Assembly(cast("Any", self), self.step_progress, session, options)
                    )
                parts = self._lifeguard_parts
        return parts

    def optimize_for_webserver(self, *arguments: Any, **named: Any) -> None:
        """Prepare for a webserver, which starts so.

        Raises:
            ConfigError: The run storage of the instance is not ours.
        """
        self._refuse_half()
        cast("Any", super()).optimize_for_webserver(*arguments, **named)

    def _refuse_half(self) -> None:
        # The instance takes in its run storage later than this one.
        if cast("Any", self).has_instance:
            refuse_half(storages.instance_of(self))

    # ---- claims --------------------------------------------------------------------------------

    @property
    def supports_global_concurrency_limits(self) -> bool:
        """Always: a database whose tables are too old is an error when it is asked for a slot."""
        return True

    def claim_concurrency_slot(
        self, concurrency_key: str, run_id: str, step_key: str, priority: int | None = None
    ) -> storages.ConcurrencyClaimStatus:
        """Ask for the slots of the pool, or of all pools of the expression; wait 100 ms at most."""
        parts = self.lifeguard
        asking = parts.demands.of(run_id, step_key, concurrency_key)
        if asking.demand is None:
            return storages.claim_status(concurrency_key, claimed=True, priority=priority)
        parts.tickets.note(TicketKey(run_id, step_key), asking.ticket)
        if not parts.tickets.may_ask(asking.ticket):
            parts.claims.put_off(asking.ticket)
            return storages.claim_status(concurrency_key, claimed=False, priority=priority)
        verdict = parts.claims.claim(asking.ticket, asking.demand, priority or 0)
        granted = isinstance(verdict, Granted)
        return storages.claim_status(
            concurrency_key,
            claimed=granted,
            priority=priority,
            since=None if isinstance(verdict, Granted) else verdict.since,
        )

    def check_concurrency_claim(
        self, concurrency_key: str, run_id: str, step_key: str
    ) -> storages.ConcurrencyClaimStatus:
        """What a step's claim has come to, without asking again; nothing, if its lease is over."""
        parts = self.lifeguard
        found = parts.engine.ticket(*parts.tickets.of(TicketKey(run_id, step_key)))
        if found is None or found.is_over:
            return storages.claim_status(concurrency_key, claimed=False)
        return storages.claim_status(
            concurrency_key,
            claimed=isinstance(found, Holding),
            priority=found.priority,
            since=found.since,
        )

    def free_concurrency_slot_for_step(self, run_id: str, step_key: str) -> None:
        """Release the slots of the step, whichever process owns them, or delete its wait.

        Slots that it shares with other steps of its graph asset are released with the last step.
        """
        parts = self.lifeguard
        key = TicketKey(run_id, step_key)
        is_ours = parts.claims.fence(parts.tickets.of(key)) is not None
        self._release(parts, key)
        if not is_ours:  # Somebody frees it by hand: all of it.
            parts.claims.release_inside(key)
        if parts.stock_slots.some_left:
            cast("Any", super()).free_concurrency_slot_for_step(run_id, step_key)

    def _release(self, parts: Assembly, key: TicketKey) -> None:
        ticket = parts.tickets.of(key)
        if ticket == key or parts.tickets.is_over(ticket):
            parts.claims.release(ticket)

    def free_concurrency_slots_for_run(self, run_id: str) -> None:
        """Give back what the run holds, and withdraw its waiting steps."""
        self.lifeguard.claims.release_run(run_id)
        self.lifeguard.tickets.forget(run_id)
        if self.lifeguard.stock_slots.some_left:
            cast("Any", super()).free_concurrency_slots_for_run(run_id)

    def free_stock_slots(self, run_id: str, step_key: str | None) -> None:
        """Free what a run, or a step of it, holds of the stock storage's slots."""
        if step_key is None:
            cast("Any", super()).free_concurrency_slots_for_run(run_id)
        else:
            cast("Any", super()).free_concurrency_slot_for_step(run_id, step_key)
        self.lifeguard.stock_slots.compare(self.lifeguard.engine)

    def get_concurrency_run_ids(self) -> set[str]:
        """The runs that hold or wait under a lease."""
        parts = self.lifeguard
        parts.stock_slots.look(parts.engine)
        return set(parts.engine.run_ids())

    # ---- limits --------------------------------------------------------------------------------

    def get_pool_config(self) -> storages.PoolConfig:
        """The instance's settings, as Dagster's claim path needs them to ask about every pool."""
        config: storages.PoolConfig = cast("Any", super()).get_pool_config()
        if config.default_pool_limit is not None:
            return config
        return storages.pool_config_with_default(config, NO_DEFAULT)

    def get_pool_limits(self) -> Sequence[storages.PoolLimit]:
        """The pools that have a limit of their own, and what else this process was asked about."""
        parts = self.lifeguard
        default = parts.engine.options.default_limit
        return limits_to_tell(parts.claims.settings(), self._lifeguard_met, default)

    def get_concurrency_keys(self) -> set[str]:
        """The pools that have a limit: one of their own, or the default one while they are used."""
        return own_limits(self.lifeguard.claims.settings()).keys() | self.pools_by_default()

    def pools_by_default(self) -> set[str]:
        """The pools that are held, waited for or planned, if there is a limit for them by default.

        The run queue blocks runs only for pools that it knows of before it looks at the runs.
        """
        parts = self.lifeguard
        if parts.engine.options.default_limit is None:
            return set()
        return {*parts.engine.busy_pools(), *parts.planned.now()}

    def get_concurrency_info(self, concurrency_key: str) -> storages.ConcurrencyKeyInfo:
        """The holders and waiters of a pool under a good lease: the run queue decides by these."""
        return self.get_concurrency_infos([concurrency_key])[concurrency_key]

    def get_concurrency_infos(
        self, concurrency_keys: Sequence[str]
    ) -> Mapping[str, storages.ConcurrencyKeyInfo]:
        """The holders and waiters of each of these pools under a good lease."""
        parts = self.lifeguard
        parts.stock_slots.look(parts.engine)
        pools = tuple(dict.fromkeys(concurrency_keys))
        return {found.pool: _key_info(found) for found in parts.engine.snapshots(pools)}

    def set_concurrency_slots(self, concurrency_key: str, num: int) -> None:
        """Set a pool's limit. What is held beyond it is not taken away. A temporary limit ends.

        Raises:
            LimitRefusedError: Out of bounds, or the name is an expression or of all partitions.
        """
        try:
            refuse_settings(concurrency_key, PoolSettings(num))
            self.lifeguard.engine.change_pool(concurrency_key, limit=num)
        except ConfigError as error:
            raise LimitRefusedError(
                error.message, remedy=error.remedy, names=error.names
            ) from error
        self._limits_changed(concurrency_key)

    def set_pools(self, settings: Mapping[str, PoolSettings | None]) -> None:
        """Set all settings of these pools; None deletes them. All or nothing.

        Once they are set, no error follows. If the stock storage then has too many or too few
        slots, ``lifeguard engine status`` reports it.

        Raises:
            ConfigError: Out of bounds, or a name is a pool expression or stands for all partitions.
        """
        for pool, found in settings.items():
            if found is not None:
                refuse_settings(pool, found)
        self.lifeguard.engine.set_pools(settings)
        self._told_of_change(settings)

    def change_pool(self, pool: str, **changes: Any) -> None:
        """Change some settings of a pool, by the names of ``PoolSettings``; the others stay.

        Raises:
            ConfigError: Out of bounds, or the name is a pool expression or of all partitions.
        """
        changed = PoolSettings(**changes)
        if changed != NOTHING_SET:
            refuse_settings(pool, changed)
        self.lifeguard.engine.change_pool(pool, **changes)
        self._told_of_change([pool])

    def limit_until(self, pool: str, limit: int, until: float) -> None:
        """Set a limit that falls back by itself; see ``Engine.limit_until``.

        Dagster's table keeps the lasting limit meanwhile, so nobody has to write it at the end.

        Raises:
            ConfigError: Out of bounds, in the past, or the name is a pool expression or of all
                partitions.
        """
        refuse_settings(pool, PoolSettings(limit))
        self.lifeguard.engine.limit_until(pool, limit, until)
        self._told_of_change([pool])

    def _told_of_change(self, pools: Iterable[str]) -> None:
        try:
            self._limits_changed(*sorted(pools))
        except StoreUnavailableError as error:
            logger.warning("The limits are set, but not the stock storage's slots: %s", error)

    def delete_concurrency_limit(self, concurrency_key: str) -> None:
        """Delete a pool's limit: the default one from now on, or none."""
        self.lifeguard.engine.change_pool(concurrency_key, limit=None)
        self._limits_changed(concurrency_key)

    def initialize_concurrency_limit_to_default(self, concurrency_key: str) -> bool:
        """Take note that this pool is asked for. Nothing is written: it has the default limit.

        The run queue asks so for the pools of runs, and an executor for what stands in ``op.pool``.

        Raises:
            ConfigError: It has the mark of an expression and is none.
        """
        if not is_of_all_partitions(concurrency_key):
            is_deferred(concurrency_key)
        self._lifeguard_met[concurrency_key] = None
        while len(self._lifeguard_met) > _TEXTS_KNOWN_MAX:
            self._lifeguard_met.pop(next(iter(self._lifeguard_met)))
        return True

    # ---- runs that are deleted -----------------------------------------------------------------

    def wipe(self) -> None:
        """Delete all events, the holdings and waits of all runs, and the engine's ledger.

        The settings of pools stay. So do fences, which never go back, and the slots of scripts. A
        process that still executes steps learns this at its next heartbeat, as if its lease were
        lost.
        """
        parts = self.lifeguard
        limits = own_limits(parts.engine.settings())
        self.wipe_events()
        for run_id in sorted(parts.engine.wipe()):
            parts.claims.forget_run(run_id)
            parts.tickets.forget(run_id)
        self._limits_changed(*limits)  # Dagster has deleted the rows of its slots.

    def _limits_changed(self, *pools: str) -> None:
        parts = self.lifeguard
        parts.claims.forget_settings()
        parts.stock_slots.match(pools)

    # ---- the life of steps ---------------------------------------------------------------------

    def store_event(self, event: EventLogEntry) -> None:
        """Store an event; a step that begins in this process gets its process as an owner first."""
        kind = event.dagster_event_type if event.is_dagster_event else None
        step = TicketKey(event.run_id, event.step_key or "")
        if kind in STEP_BEGINS and step.step_key:
            self.lifeguard.events.begins(step)
        cast("Any", super()).store_event(event)
        parts = self._lifeguard_parts
        if parts is None and kind in STEP_FAILS:  # It may have left something in another process.
            try:
                parts = self.lifeguard
            except LifeguardError as error:
                logger.info("What is left of %s is left to its lease: %s", step.step_key, error)
        if parts is not None:
            parts.events.stored(kind, step)

    def step_progress(self, run_id: str) -> StepProgress:
        """What the steps of a run did, by the events that are stored.

        Raises:
            StoreUnavailableError: The database cannot be read.
        """

        def read() -> StepProgress:
            try:
                entries = cast("Any", self).get_logs_for_run(run_id, of_type=progress.EVENTS)
            except storages.database_errors() as error:
                raise TryAgainError(first_line(error)) from error
            return progress.of_events(entries)

        return retry(read)

    def dispose(self) -> None:
        """Let go of the database. What is held is held on until its lease runs out."""
        parts, self._lifeguard_parts = self._lifeguard_parts, None
        if parts is not None:
            if parts.claims.is_holding():
                parts.engine.leave()
            else:
                parts.engine.close()
        cast("Any", super()).dispose()


def _key_info(snapshot: PoolSnapshot) -> storages.ConcurrencyKeyInfo:
    return storages.key_info(
        snapshot.pool,
        limit=snapshot.settings.limit,
        from_default=snapshot.from_default,
        held=[(h.key, len(h.slots[snapshot.pool]), h.priority, h.since) for h in snapshot.holdings],
        waiting=[(t.key, t.priority, t.since or 0.0) for t in snapshot.waiting],
    )
