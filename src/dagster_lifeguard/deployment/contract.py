"""What can be asked of a deployment, whatever runs it: the stock storage, the engine, or GraphQL.

Everything that shows, explains or changes pools is written over this protocol. All times are
seconds since the epoch. None stands for what a deployment does not tell.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from dagster_lifeguard.engine.rules.launch_order import OVER
from dagster_lifeguard.engine.rules.model import is_script
from dagster_lifeguard.engine.rules.pool_expressions import refuse_unsettable
from dagster_lifeguard.engine.rules.pool_settings import (
    NOTHING_SET,
    is_by_default,
    settings_in_force,
)
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from dagster import DagsterInstance

    from dagster_lifeguard.compat.health import Daemon, RunQueue
    from dagster_lifeguard.deployment.history import RunExecution
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings

Granularity = Literal["op", "run"]


@dataclass(frozen=True, slots=True)
class LifeSign:
    """Whether one process of a run is alive, by one source.

    Attributes:
        source: The engine's ``session``, or ``run-worker``: what the run launcher says.
        name: The name of the process in that source.
        alive: None where the source cannot tell.
        detail: What the source says, in a few words.
    """

    source: Literal["session", "run-worker"]
    name: str
    alive: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a step still has a live process, at one moment.

    Attributes:
        alive: Whether a process still works under the step's slots; None if that cannot be known.
        evidence: What the judgement is based on, in sentences.
    """

    alive: bool | None
    evidence: tuple[str, ...]

    @property
    def is_safe(self) -> bool:
        """Whether certainly no process works under these slots any more."""
        return self.alive is False


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a deployment that apply to all of its pools.

    Attributes:
        dagster_version: The version of the instance or the webserver.
        engine: Whether the engine admits steps; None where that cannot be seen.
        default_limit: The limit of a pool without a limit of its own; None: it is unlimited.
        granularity: Whether steps wait in their run, or runs in the queue.
        limit_min: The lowest limit that can be set.
        limit_max: The highest limit that can be set.
        patience_seconds: A step that has waited longer is not passed by later steps of its
            priority. None without the engine, or where that cannot be seen.
    """

    dagster_version: str
    engine: bool | None
    default_limit: int | None
    granularity: Granularity
    limit_min: int
    limit_max: int
    patience_seconds: float | None = None

    def refuse(self, limits: Mapping[str, int | None]) -> None:
        """Refuse limits that cannot be set in this deployment.

        Raises:
            ConfigError: A limit is out of bounds, or its name is an expression or stands for the
                pools of all partitions.
        """
        refuse_unsettable(pool for pool, limit in limits.items() if limit is not None)
        wrong = [
            pool
            for pool, limit in limits.items()
            if limit is not None and not self.limit_min <= limit <= self.limit_max
        ]
        if wrong:
            raise ConfigError(
                "A limit is out of bounds: "
                + ", ".join(f"{pool_text(pool)}: {limits[pool]}" for pool in wrong)
                + ".",
                remedy=f"Give limits from {self.limit_min} to {self.limit_max}.",
                names=wrong,
            )


@dataclass(frozen=True, slots=True)
class HoldingStep:
    """A step that holds slots of a pool.

    Attributes:
        step_key: Empty under granularity ``run``, where the run holds the slots.
        since: When the step got its slots; where that is not told, when they were assigned to it.
        fence: The fence of the engine's grant.
        group: The group of the step, if the pool's order is fair.
        lost: The process that executed the step, as host and process id, if that process is dead
            or silent while the run worker, or another process, keeps the slots.
    """

    run_id: str
    step_key: str
    slots: int = 1
    since: float | None = None
    fence: int | None = None
    group: str | None = None
    lost: str | None = None


@dataclass(frozen=True, slots=True)
class WaitingStep:
    """A step that waits for slots of a pool.

    Attributes:
        step_key: Empty under granularity ``run``, where the run waits in the queue.
        assigned: When Dagster's storage assigned it a slot that it has not taken yet.
        group: The group of the step, if the pool's order is fair.
    """

    run_id: str
    step_key: str
    slots: int = 1
    since: float | None = None
    priority: int = 0
    assigned: float | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class PoolState:
    """One pool at one moment.

    Attributes:
        settings: The settings of the pool, with the limit in force: 0 is paused, None unlimited.
            Over a webserver only the limit is known.
        from_default: Whether the limit is the default limit.
        holding: The holders, the oldest first as far as that is known.
        waiting: The waiters, in the order in which they start.
        due_ns: The state of the rate; see ``rate``.
        over: Holders and waiters whose lease is over: their processes are dead or silent. The next
            claim takes their slots back, so they count neither as held nor as waiting.
    """

    pool: str
    settings: PoolSettings
    from_default: bool
    holding: tuple[HoldingStep, ...] = ()
    waiting: tuple[WaitingStep, ...] = ()
    due_ns: int = 0
    over: tuple[HoldingStep | WaitingStep, ...] = ()

    @property
    def limit(self) -> int | None:
        """The limit in force."""
        return self.settings.limit

    @property
    def held(self) -> int:
        """How many slots are held."""
        return sum(step.slots for step in self.holding)

    @property
    def everyone(self) -> tuple[HoldingStep | WaitingStep, ...]:
        """The holders, then the waiters."""
        return (*self.holding, *self.waiting)

    @property
    def with_over(self) -> tuple[HoldingStep | WaitingStep, ...]:
        """The holders, the waiters, then those whose lease is over."""
        return (*self.everyone, *self.over)


def idle_pool(pool: str, default_limit: int | None, own: PoolSettings = NOTHING_SET) -> PoolState:
    """A pool without holders and waiters.

    Args:
        pool: The pool.
        default_limit: The limit of pools without a limit of their own.
        own: What is set of this pool.
    """
    by_default = is_by_default(pool, own.limit, default_limit)
    return PoolState(pool, settings_in_force(pool, own, default_limit), from_default=by_default)


@dataclass(frozen=True, slots=True)
class Run:
    """One run, as the deployment knows it now.

    Attributes:
        status: Dagster's status, such as ``QUEUED`` or ``STARTED``.
        created: When the run was submitted.
        started: When its process began to execute.
        ended: When the run succeeded, failed or was canceled.
        pools: The pools that its steps will ask for; None where the run does not tell.
        first_pools: For each pool, how many slots the first steps of the run will ask for. None
            where the run does not tell, or where one of these steps has no pool.
        priority: Its priority in the run queue.
        assets: The assets that it was launched for, each as ``a/b``; empty where that is not told.
    """

    run_id: str
    job_name: str
    status: str
    created: float
    started: float | None
    ended: float | None
    pools: frozenset[str] | None = None
    first_pools: Mapping[str, int] | None = None
    priority: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)
    location: str | None = None
    assets: tuple[str, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether it succeeded, failed or was canceled."""
        return self.status in OVER


def is_leaked(run_id: str, run: Run | None) -> bool:
    """Whether slots or waiting steps of this run are left over: it has ended or was deleted.

    A script has no run, so this cannot be told of it. The engine takes its slots back when its
    lease ends; Dagster's own storage never learns that a script died.
    """
    return run.is_over if run is not None else not is_script(run_id)


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step that a run plans to execute.

    Attributes:
        pool: The text in ``op.pool``, which may be an expression; None: the step has no pool.
        assets: The assets that the step materializes, each as ``a/b``.
    """

    step_key: str
    pool: str | None
    assets: tuple[str, ...] = ()


UNFINISHED = ("QUEUED", "NOT_STARTED", "MANAGED", "STARTING", "STARTED", "CANCELING")
"""The statuses of runs that are not over."""


class Deployment(Protocol):
    """A Dagster instance or webserver: where limits are kept and steps wait.

    A read may be repeated after a lost connection, a change never is. Every method may raise
    ``DeploymentError``: the deployment cannot be reached, refuses, or is of a version without this.
    """

    @property
    def name(self) -> str:
        """Its name in messages: a directory or an address, without secrets."""

    @property
    def instance(self) -> DagsterInstance | None:
        """The instance, if this process can open its storage; None over a webserver."""

    def settings(self) -> Settings:
        """The settings that apply to all pools."""

    def pools(self, names: Collection[str] | None = None) -> tuple[PoolState, ...]:
        """The state of pools, sorted by name.

        Args:
            names: The pools to read. One that the deployment does not know has the default limit.
                None: all pools that have a limit or are in use.
        """

    def daemons(self) -> tuple[Daemon, ...]:
        """The threads of Dagster's daemon that this deployment needs, with their heartbeats."""

    def run_queue(self) -> RunQueue | None:
        """The run queue; None if runs are launched as soon as they are submitted."""

    def pool_settings(self) -> Mapping[str, PoolSettings]:
        """The pools with settings of their own, and these settings.

        A default limit that Dagster wrote down for a pool is no setting of its own. Where
        ``Settings.engine`` is None, only limits are known.
        """

    def set_limit(self, pool: str, limit: int | None, until: float | None = None) -> None:
        """Set the limit of a pool; None deletes it. The pool's other settings stay.

        Args:
            pool: The pool.
            limit: The limit.
            until: When the limit falls back to the present lasting one, in seconds since the epoch
                by the clock of the database; needs the engine. None: the limit lasts, and a
                temporary one ends.
        """

    def set_pools(self, settings: Mapping[str, PoolSettings | None]) -> Iterator[str]:
        """Replace the settings of these pools; None deletes them. Yields the name of each pool set.

        Settings other than limits need the engine. Nothing is set before the first name is asked
        for. An instance sets all pools before it yields the first name, and an error means that it
        set none. A webserver sets them one by one.
        """

    def unfinished_runs(self, statuses: Collection[str] = UNFINISHED) -> tuple[Run, ...]:
        """The runs with these statuses, the oldest first.

        Queued runs of one priority are in the order in which the daemon launches them: see
        ``launch_order``. Where the deployment does not tell that order, the oldest is first.
        """

    def runs(self, run_ids: Collection[str]) -> tuple[Run, ...]:
        """The runs with these ids, as far as they are known, the oldest first."""

    def runs_between(self, since: float, until: float | None = None) -> tuple[Run, ...]:
        """The runs that ended after ``since`` or go on, created before ``until``, oldest first.

        Args:
            since: Seconds since the epoch.
            until: Seconds since the epoch; None for now.
        """

    def dropped_runs(self, since: float, count_max: int) -> tuple[Run, ...]:
        """The runs that ended after ``since`` because another run does their work, oldest first.

        Each names that run in the tag ``DUPLICATE_TAG``. Of more runs, the newest ``count_max``.
        """

    def find_runs(self, prefix: str, count_max: int) -> tuple[Run, ...]:
        """The newest runs whose id begins with this prefix."""

    def planned_steps(self, run_id: str) -> tuple[PlannedStep, ...]:
        """The steps of a run, in the order of its plan."""

    def assets(self) -> Mapping[str, tuple[str, ...]]:
        """The assets, each as ``a/b``, and the pools of their ops, as far as they are known.

        An instance knows the plans of its latest runs; a webserver knows its code locations.
        """

    def history(
        self,
        since: float,
        until: float | None = None,
        *,
        latest: int | None = None,
        queued: bool = True,
    ) -> Iterator[RunExecution]:
        """What the runs executed that ended after ``since`` or go on, the oldest run first.

        Args:
            since: Seconds since the epoch.
            until: Leave out runs created after this time; None for now.
            latest: Read at most this many of the runs that ended last, and as many of the runs in
                progress that changed last. None reads all of them, and the runs in the queue.
            queued: Whether to read runs in the queue too, which executed nothing yet.
        """

    def asset_groups(self) -> Mapping[str, str]:
        """The group of each asset; empty where the deployment does not tell, as on an instance."""

    def executions(self, run_ids: Collection[str]) -> tuple[RunExecution, ...]:
        """What the runs with these ids executed so far, the oldest run first."""

    def life_signs(self, run_id: str, step_key: str | None = None) -> tuple[LifeSign, ...]:
        """Whether the processes of a run, or the owners of a step's slots, are alive."""

    def free(self, run_id: str, step_key: str | None = None, *, force: bool = False) -> Judgement:
        """Free the slots of a run or of one of its steps, and withdraw its waiting steps.

        Without ``force``, slots are freed only if the judgement ``is_safe``: no process works under
        them any more. Under the engine, the transaction that frees the slots also judges the
        leases, so a process that comes back either keeps its slots or learns that it lost them.
        Without the engine, the judgement is made just before: a process may come back in between.

        Args:
            run_id: The run.
            step_key: Free only this step of the run.
            force: Free the slots even if a process works under them, or may.

        Returns:
            The judgement that decided whether the slots were freed.
        """

    def close(self) -> None:
        """Close the connections."""
