"""What can be asked of a deployment, whatever runs it: the stock storage, the engine, or GraphQL.

Everything that shows, explains or changes pools is written over this protocol. All times are
seconds since the epoch. None stands for what a deployment does not tell.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

from dagster_lifeguard.engine.rules.launch_order import OVER
from dagster_lifeguard.engine.rules.model import is_script
from dagster_lifeguard.engine.rules.pool_expressions import refuse_unsettable
from dagster_lifeguard.engine.rules.pool_settings import (
    NOTHING_SET,
    is_by_default,
    limit_in_force,
    limits_of,
)
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.errors import ConfigError, DeploymentError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from dagster_lifeguard.compat.health import Daemon, RunQueue
    from dagster_lifeguard.deployment.history import RunExecution
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings

Granularity = Literal["op", "run"]


@dataclass(frozen=True, slots=True)
class LifeSign:
    """Whether a process of a run lives, by one witness.

    Attributes:
        source: ``session`` of the engine, or ``run-worker`` by word of the run launcher.
        name: What the witness calls the process.
        alive: None where the witness does not know.
        detail: What it says, in a few words.
    """

    source: Literal["session", "run-worker"]
    name: str
    alive: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is known of the processes of a step at one moment.

    Attributes:
        alive: Whether a process still works under its slots; None if nobody can tell.
        evidence: By what that was judged, in sentences.
    """

    alive: bool | None
    evidence: tuple[str, ...]

    @property
    def is_safe(self) -> bool:
        """Whether it is known that no process works under these slots any more."""
        return self.alive is False


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for all pools of a deployment.

    Attributes:
        dagster_version: Of the instance or the webserver.
        engine: Whether the engine admits steps; None where that cannot be seen.
        default_limit: Limit of a pool that has none of its own; None if such a pool is unlimited.
        granularity: Whether steps wait in their run, or runs in the queue.
        limit_min: The lowest limit that can be set.
        limit_max: The highest.
        patience_seconds: Who waited longer is passed by nobody of its priority; None without the
            engine, or where that cannot be seen.
    """

    dagster_version: str
    engine: bool | None
    default_limit: int | None
    granularity: Granularity
    limit_min: int
    limit_max: int
    patience_seconds: float | None = None

    def refuse(self, limits: Mapping[str, int | None]) -> None:
        """Find limits that cannot be set here.

        Raises:
            ConfigError: There are some; or one is of an expression, or of a pool that stands for
                all partitions.
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
        step_key: Empty under granularity ``run``, where the run holds.
        since: When it got them, or was promised them where that is not told.
        fence: Of the engine's grant.
        group: With which it shares, where the order of the pool is fair.
        lost: The process that executed the step, as host and process id, if it is dead or silent
            though its run worker, or another process, keeps the slots.
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
        assigned: When Dagster's storage promised it a slot that it has not taken yet.
        group: With which it shares, where the order of the pool is fair.
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
        settings: What is set of it, with the limit in force: 0 is paused, None unlimited. Over a
            webserver the limit alone.
        from_default: Whether that is the default limit.
        holding: Who holds, oldest first as far as that is known.
        waiting: Who waits, in the order in which they go in.
        due_ns: What the rate counts with, see ``rate``.
        over: Holders and waiters whose lease is over. They are dead or silent, and the next claim
            takes back what they have, so they count neither as held nor as waiting.
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
        """Slots that are held."""
        return sum(step.slots for step in self.holding)

    @property
    def everyone(self) -> tuple[HoldingStep | WaitingStep, ...]:
        """Who holds, and then who waits."""
        return (*self.holding, *self.waiting)

    @property
    def with_over(self) -> tuple[HoldingStep | WaitingStep, ...]:
        """The same, and then those whose lease is over."""
        return (*self.everyone, *self.over)


def idle_pool(pool: str, default_limit: int | None, own: PoolSettings = NOTHING_SET) -> PoolState:
    """A pool that nobody uses, of which this is set."""
    in_force = limit_in_force(pool, own.limit, default_limit)
    by_default = is_by_default(pool, own.limit, default_limit)
    return PoolState(pool, replace(own, limit=in_force), from_default=by_default)


@dataclass(frozen=True, slots=True)
class Run:
    """One run as the deployment knows it now.

    Attributes:
        status: Dagster's status, such as ``QUEUED`` or ``STARTED``.
        pools: The pools for which its steps will ask; None where the run does not tell.
        first_pools: The slots for which its first steps will ask, by pool; None where the run does
            not tell, or where one of these steps asks for none.
        priority: By which the run queue orders it.
        created: When it was submitted.
        started: When its process began to execute.
        ended: When it was over.
        assets: The assets that it was asked to make, each as ``a/b``; empty where it does not tell.
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
    """Whether nobody can work on what holds or waits under this id.

    Its run is over, or was deleted. A script has no run that tells; the engine ends what it held
    with its lease, and on Dagster's own storage nobody knows that it died.
    """
    return run.is_over if run is not None else not is_script(run_id)


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step that a run plans to execute.

    Attributes:
        pool: What stands in ``op.pool``, which may be an expression; None: not limited.
        assets: The assets it makes, each as ``a/b``.
    """

    step_key: str
    pool: str | None
    assets: tuple[str, ...] = ()


UNFINISHED = ("QUEUED", "NOT_STARTED", "MANAGED", "STARTING", "STARTED", "CANCELING")
"""The statuses of runs that are not over."""


def limits_alone(settings: Mapping[str, PoolSettings | None]) -> dict[str, int | None]:
    """The limits of these settings, where nothing else can be kept.

    Raises:
        DeploymentError: Something else is set.
    """
    more = sorted(pool for pool, found in settings.items() if found and found.texts_set)
    if more:
        raise DeploymentError(
            "Rates and orders of pools need the engine.",
            remedy="Set them where DAGSTER_HOME is, with the engine in its dagster.yaml: "
            "lifeguard engine enable",
            names=more,
        )
    return limits_of(settings)


class Deployment(Protocol):
    """Where limits live and steps wait.

    Reads may be repeated after a lost connection; changes never are. Every method may raise
    ``DeploymentError``: unreachable, refused, or of a version that cannot do it.
    """

    @property
    def name(self) -> str:
        """What to call it in messages: a directory or an address, without secrets."""

    @property
    def is_atomic(self) -> bool:
        """Whether ``set_pools`` does all or nothing."""

    def settings(self) -> Settings:
        """What holds for all pools."""

    def pools(self, names: Collection[str] | None = None) -> tuple[PoolState, ...]:
        """These pools, or all that have a limit or are in use; sorted by name.

        Args:
            names: A pool of which nothing is known is there too, with the default limit.
        """

    def daemons(self) -> tuple[Daemon, ...]:
        """The threads of Dagster's daemon that it needs and that tell of themselves."""

    def run_queue(self) -> RunQueue | None:
        """The run queue; None if runs are launched as soon as they are submitted."""

    def pool_settings(self) -> Mapping[str, PoolSettings]:
        """The pools of which anything is set, and what; defaults written down are not.

        Where ``Settings.engine`` is None, only limits are told.
        """

    def set_limit(self, pool: str, limit: int | None) -> None:
        """Set the limit of a pool or, with None, delete it. What else is set of it stays."""

    def set_pools(self, settings: Mapping[str, PoolSettings | None]) -> Iterator[str]:
        """Set everything that can be set of these pools; None: nothing is.

        Each pool's name comes as soon as it is done. All but limits needs the engine.

        Where ``is_atomic``, all names come after all is done, and an error means that nothing was.
        Nothing is done before the first name is asked for.
        """

    def unfinished_runs(self, statuses: Collection[str] = UNFINISHED) -> tuple[Run, ...]:
        """The runs that are not over, oldest first; only those with these statuses of them.

        Those in the queue are among themselves in the order in which runs of one priority are
        launched: see ``launch_order``, or oldest first where the deployment tells of no other.
        """

    def runs(self, run_ids: Collection[str]) -> tuple[Run, ...]:
        """These runs, as far as they are known, oldest first."""

    def runs_between(self, since: float, until: float | None = None) -> tuple[Run, ...]:
        """The runs that were not over before ``since``, created before ``until``, oldest first.

        Args:
            since: Seconds since the epoch.
            until: The same; None for now.
        """

    def find_runs(self, prefix: str, count_max: int) -> tuple[Run, ...]:
        """The newest runs whose id begins so: what a person types of an id."""

    def planned_steps(self, run_id: str) -> tuple[PlannedStep, ...]:
        """What a run plans to execute, in the order of its plan."""

    def assets(self) -> Mapping[str, tuple[str, ...]]:
        """Assets, each as ``a/b``, and the pools of their ops, as far as the deployment knows.

        An instance knows what its latest runs planned; an endpoint what its code locations define.
        """

    def history(
        self,
        since: float,
        until: float | None = None,
        *,
        latest: int | None = None,
        queued: bool = True,
    ) -> Iterator[RunExecution]:
        """Runs that were not over before ``since``, created before ``until``, oldest first.

        Args:
            since: Seconds since the epoch.
            until: The same; None for now.
            latest: Read only so many of the runs that ended last, and as many of the runs under
                way, those that changed last. None reads all of them, and those in the queue.
            queued: Whether runs that are still in the queue are read too; they executed nothing.
        """

    def asset_groups(self) -> Mapping[str, str]:
        """The group of each asset; empty where the deployment does not tell, as on an instance."""

    def executions(self, run_ids: Collection[str]) -> tuple[RunExecution, ...]:
        """What these runs executed so far, as far as they are known, oldest first."""

    def life_signs(self, run_id: str, step_key: str | None = None) -> tuple[LifeSign, ...]:
        """What is known of the processes of a run, or of those that own what a step holds."""

    def free(self, run_id: str, step_key: str | None = None, *, force: bool = False) -> Judgement:
        """Free the slots that a run or one of its steps holds, and withdraw what waits of it.

        It is judged at the moment of freeing whether a process works under these slots, and
        without ``force`` nothing is freed unless the judgement ``is_safe``. Under the engine the
        leases are judged in the transaction that frees, so a process that comes back keeps its
        slots or has lost them, and is told. Elsewhere the judgement is made just before: a process
        may come back in between.

        Args:
            run_id: The run.
            step_key: Only this step.
            force: Free also what is alive, or may be.

        Returns:
            What was judged, by which the slots were freed or kept.
        """

    def close(self) -> None:
        """Let go of connections."""
