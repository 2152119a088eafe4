"""The pools of an instance, read and set through its storage: the stock one, or the engine's."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from dagster_lifeguard.compat import stock_pools as stock
from dagster_lifeguard.compat import storages
from dagster_lifeguard.deployment.contract import (
    HoldingStep,
    PoolState,
    WaitingStep,
    idle_pool,
)
from dagster_lifeguard.deployment.limits_alone import limits_alone, temporary_needs_engine
from dagster_lifeguard.engine.rules.launch_order import IN_PROGRESS
from dagster_lifeguard.engine.rules.model import Holding
from dagster_lifeguard.engine.rules.pool_settings import (
    LIMIT_MAX,
    NOTHING_SET,
    PoolSettings,
)
from dagster_lifeguard.engine.store.retry import retry
from dagster_lifeguard.errors import DeploymentError
from dagster_lifeguard.storage.event_log import PoolMethods
from dagster_lifeguard.storage.sessions import owners

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from dagster_lifeguard.deployment.contract import Run
    from dagster_lifeguard.engine.rules.model import PoolSnapshot, Ticket


S = TypeVar("S", HoldingStep, WaitingStep)


class Pools(Protocol):
    """What an instance's storage says of pools."""

    limit_min: int
    limit_max: int
    patience_seconds: float | None

    def states(self, names: Collection[str] | None, default_limit: int | None) -> list[PoolState]:
        """As ``Deployment.pools``, but for the steps under granularity ``run``."""

    def settings(self) -> Mapping[str, PoolSettings]:
        """As ``Deployment.pool_settings``."""

    def set_pools(self, settings: Mapping[str, PoolSettings | None]) -> None:
        """As ``Deployment.set_pools``, all or nothing."""

    def set_limit(self, pool: str, limit: int | None, until: float | None = None) -> None:
        """As ``Deployment.set_limit``."""

    def has_any(self, run_id: str, step_key: str | None) -> bool:
        """Whether a run or a step holds or waits."""

    def free(self, run_id: str, step_key: str | None) -> None:
        """Free what a run or a step holds, and withdraw what waits of it, whoever works there."""

    def free_dead(self, run_id: str, step_key: str | None) -> bool:
        """The same for what was judged to be dead.

        Returns:
            False if a process holds or waits there after all: judge again.
        """


def pools_of(event_log: Any) -> Pools:
    """The pools of an instance with this event log storage.

    Raises:
        DeploymentError: It is none of Dagster's SQL storages, or its tables are too old.
    """
    if not isinstance(event_log, storages.SqlEventLogStorage):
        raise DeploymentError(
            f"{type(event_log).__name__} is none of Dagster's SQL storages.",
            remedy="Name the deployment's webserver with --url.",
        )
    if not all(map(event_log.has_table, ("concurrency_slots", "pending_steps"))):
        raise DeploymentError(
            "The instance's database is older than pools.", remedy="Run: dagster instance migrate"
        )
    if isinstance(event_log, PoolMethods):
        return EnginePools(event_log)
    return StockPools(event_log)


class EnginePools:
    """The engine's pools.

    Args:
        event_log: The storage with the engine's pool methods.
    """

    limit_min = 0

    def __init__(self, event_log: PoolMethods) -> None:
        self._event_log = event_log
        self.limit_max = min(storages.limit_max(), LIMIT_MAX)
        self.patience_seconds: float | None = event_log.lifeguard.engine.options.patience_seconds

    def states(self, names: Collection[str] | None, default_limit: int | None) -> list[PoolState]:
        parts = self._event_log.lifeguard
        parts.stock_slots.look(parts.engine)
        own = parts.engine.settings()
        busy = set(parts.engine.busy_pools(with_over=True))
        if names is None:
            asked = busy | own.keys() | self._event_log.pools_by_default()
        else:
            asked = set(names)
        # Idle pools are told by their settings, so that thousands of them cost one question.
        unused = [
            idle_pool(pool, default_limit, own.get(pool, NOTHING_SET)) for pool in asked - busy
        ]
        return [*map(_state, parts.engine.snapshots(sorted(asked & busy))), *unused]

    def settings(self) -> Mapping[str, PoolSettings]:
        return self._event_log.lifeguard.engine.settings()

    def set_pools(self, settings: Mapping[str, PoolSettings | None]) -> None:
        self._event_log.set_pools(settings)

    def set_limit(self, pool: str, limit: int | None, until: float | None = None) -> None:
        if limit is None or until is None:
            self._event_log.change_pool(pool, limit=limit)
        else:
            self._event_log.limit_until(pool, limit, until)

    def has_any(self, run_id: str, step_key: str | None) -> bool:
        store = self._event_log.lifeguard.engine.store
        return bool(retry(lambda: store.pools_of(run_id, step_key, ())))

    def free(self, run_id: str, step_key: str | None) -> None:
        _free(self._event_log, run_id, step_key)

    def free_dead(self, run_id: str, step_key: str | None) -> bool:
        engine = self._event_log.lifeguard.engine
        sessions = {process.session for process in owners(self._event_log, run_id, step_key)}
        if sessions:
            engine.end_expired(sessions)
        else:  # The slots of a worker on the stock storage, which has no session.
            self._event_log.free_stock_slots(run_id, step_key)
        return not self.has_any(run_id, step_key)


def _state(found: PoolSnapshot) -> PoolState:
    def group(of: Holding | Ticket) -> str | None:
        return None if found.settings.fair_by is None else of.groups.get(found.pool, "")

    def holding(h: Holding) -> HoldingStep:
        slots = len(h.slots[found.pool])
        lost = h.lost or None
        return HoldingStep(*h.key, slots, h.since, h.fence, group=group(h), lost=lost)

    def waiting(t: Ticket) -> WaitingStep:
        slots = next(term.slots for term in t.demand.terms if term.name == found.pool)
        return WaitingStep(*t.key, slots, since=t.since, priority=t.priority, group=group(t))

    return PoolState(
        pool=found.pool,
        settings=found.settings,
        from_default=found.from_default,
        holding=tuple(map(holding, found.holdings)),
        waiting=tuple(map(waiting, found.waiting)),
        due_ns=found.due_ns,
        over=tuple(holding(i) if isinstance(i, Holding) else waiting(i) for i in found.over),
    )


class StockPools:
    """The stock storage's pools, whose tables do not tell since when a slot is held.

    Taken for it is when it was assigned, which its holder finds at its next look.

    Args:
        event_log: The storage.
    """

    def __init__(self, event_log: storages.SqlEventLogStorage) -> None:
        self._event_log = event_log
        self.patience_seconds: float | None = None
        self.limit_min = 0 if stock.has_limits_table(event_log) else 1
        self.limit_max = storages.limit_max()

    def states(self, names: Collection[str] | None, default_limit: int | None) -> list[PoolState]:
        rows = {row.name: row for row in stock.pool_limits(self._event_log)}
        pending: dict[str, list[stock.PendingStep]] = defaultdict(list)
        for step in stock.pending_steps(self._event_log, names):
            pending[step.pool].append(step)
        held: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
        for slot in stock.held_slots(self._event_log, names):
            held[slot.pool][slot.run_id, slot.step_key] += 1
        asked = rows.keys() | pending.keys() | held.keys() if names is None else set(names)
        return [
            PoolState(
                pool=pool,
                settings=PoolSettings(rows[pool].limit if pool in rows else default_limit),
                from_default=rows[pool].from_default if pool in rows else default_limit is not None,
                holding=_holding(held[pool], pending[pool]),
                waiting=tuple(
                    WaitingStep(
                        step.run_id,
                        step.step_key,
                        since=step.created,
                        priority=step.priority,
                        assigned=step.assigned,
                    )
                    for step in pending[pool]
                    if (step.run_id, step.step_key) not in held[pool]
                ),
            )
            for pool in asked
        ]

    def settings(self) -> Mapping[str, PoolSettings]:
        rows = stock.pool_limits(self._event_log)
        return {row.name: PoolSettings(row.limit) for row in rows if not row.from_default}

    def set_pools(self, settings: Mapping[str, PoolSettings | None]) -> None:
        stock.set_limits(self._event_log, limits_alone(settings))

    def set_limit(self, pool: str, limit: int | None, until: float | None = None) -> None:
        if until is not None:
            raise temporary_needs_engine(pool)
        stock.set_limits(self._event_log, {pool: limit})

    def has_any(self, run_id: str, step_key: str | None) -> bool:
        held = {(slot.run_id, slot.step_key) for slot in stock.held_slots(self._event_log)}
        waits = {(step.run_id, step.step_key) for step in stock.pending_steps(self._event_log)}
        return any(run == run_id and step_key in (None, step) for run, step in held | waits)

    def free(self, run_id: str, step_key: str | None) -> None:
        _free(self._event_log, run_id, step_key)

    def free_dead(self, run_id: str, step_key: str | None) -> bool:
        self.free(run_id, step_key)
        return True


def _free(event_log: Any, run_id: str, step_key: str | None) -> None:
    if step_key is None:
        event_log.free_concurrency_slots_for_run(run_id)
    else:
        event_log.free_concurrency_slot_for_step(run_id, step_key)


def _holding(
    held: Mapping[tuple[str, str], int], pending: Iterable[stock.PendingStep]
) -> tuple[HoldingStep, ...]:
    assigned = {(step.run_id, step.step_key): step.assigned for step in pending}
    steps = [HoldingStep(*key, slots, since=assigned.get(key)) for key, slots in held.items()]
    return tuple(sorted(steps, key=lambda step: (step.since or 0.0, step.run_id, step.step_key)))


def with_runs(
    states: Iterable[PoolState],
    runs: Collection[Run],
    names: Collection[str] | None,
    default_limit: int | None,
) -> list[PoolState]:
    """The pools as they are under granularity ``run``: runs hold, and runs wait in the queue.

    Args:
        states: The pools as the storage tells of them.
        runs: Those that are not over, as ``Deployment.unfinished_runs`` tells them.
        names: The pools asked for; None for all.
        default_limit: Of pools that the storage does not know yet.
    """
    holding: dict[str, list[HoldingStep]] = defaultdict(list)
    waiting: dict[str, list[WaitingStep]] = defaultdict(list)
    for run in runs:
        for pool in run.pools or ():
            if run.status == "QUEUED":
                step = WaitingStep(run.run_id, "", since=run.created, priority=run.priority)
                waiting[pool].append(step)
            elif run.status in IN_PROGRESS:
                since = run.started or run.created
                holding[pool].append(HoldingStep(run.run_id, "", since=since))
    tags = {run.run_id: run.tags for run in runs}
    known = {state.pool: state for state in states}
    if names is None:
        for pool in (holding.keys() | waiting.keys()) - known.keys():
            known[pool] = idle_pool(pool, default_limit)
    return [
        replace(
            state,
            holding=_with_groups(holding[state.pool], state.settings.fair_by, tags),
            waiting=_with_groups(
                sorted(waiting[state.pool], key=lambda step: -step.priority),
                state.settings.fair_by,
                tags,
            ),
        )
        for state in known.values()
    ]


def _with_groups(
    steps: Iterable[S], fair_by: str | None, tags: Mapping[str, Mapping[str, str]]
) -> tuple[S, ...]:
    if fair_by is None:
        return tuple(steps)
    return tuple(replace(step, group=tags[step.run_id].get(fair_by, "")) for step in steps)
