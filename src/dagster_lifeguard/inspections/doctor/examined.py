"""What is examined: a machine, the file in DAGSTER_HOME, the instance in it, a deployment."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dagster_lifeguard.compat import health
from dagster_lifeguard.compat.instance import instance_config_problem
from dagster_lifeguard.compat.plans import all_step_plans
from dagster_lifeguard.compat.runs import plan_of_run
from dagster_lifeguard.deployment.home import home_folder, home_problem
from dagster_lifeguard.deployment.instance import InstanceDeployment
from dagster_lifeguard.deployment.open import instance_in
from dagster_lifeguard.engine.rules.pool_expressions import stands_for
from dagster_lifeguard.errors import DeploymentError, LifeguardError
from dagster_lifeguard.insight.durations import terms_of, terms_of_asset, terms_of_step
from dagster_lifeguard.insight.pools import runs_in
from dagster_lifeguard.insight.waits import read_held_back
from dagster_lifeguard.storage import switch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import dagster as dg

    from dagster_lifeguard.compat.plans import StepPlan
    from dagster_lifeguard.deployment.contract import Deployment, PoolState, Run, Settings
    from dagster_lifeguard.engine.rules.pool_expressions import Term
    from dagster_lifeguard.insight.waits import HeldBack

Source = Literal["machine", "file", "instance", "deployment"]
"""Where a check looks: the environment of this process, ``dagster.yaml``, the instance's database,
or what any deployment answers."""

_RUNS_MAX = 100


@dataclass(frozen=True)
class Machine:
    """The machine and the shell that the doctor runs in.

    Attributes:
        home: What DAGSTER_HOME says; None if it is not set or empty.
        here: The working directory.
    """

    home: str | None
    here: Path


class Examined:
    """A deployment, as far as it is visible from here.

    Args:
        name: What to call it.
        machine: None where the deployment is on another machine.
        file: ``dagster.yaml`` in DAGSTER_HOME, which may not exist; None if there is no such place.
        instance: None where its database is not open to this process.
        deployment: None where it could not be opened.
        trouble: Why something that should be visible is not, in a few words.
        remedy: What to do about the trouble.
    """

    def __init__(
        self,
        name: str,
        *,
        machine: Machine | None = None,
        file: Path | None = None,
        instance: dg.DagsterInstance | None = None,
        deployment: Deployment | None = None,
        trouble: str = "",
        remedy: str = "",
    ) -> None:
        self.name = name
        self._machine = machine
        self._file = file
        self._instance = instance
        self._deployment = deployment
        self.trouble = trouble
        self.remedy = remedy

    def why_not(self, source: Source) -> str | None:
        """Why one cannot look there from here; None if one can."""
        seen = {
            "machine": self._machine,
            "file": self._file,
            "instance": self._instance,
            "deployment": self._deployment,
        }
        if seen[source] is not None:
            return None
        if self._machine is None:
            return "not visible from here: ask on its machine"
        return self.trouble

    @property
    def machine(self) -> Machine:
        assert self._machine is not None
        return self._machine

    @property
    def file(self) -> Path:
        assert self._file is not None
        return self._file

    @property
    def instance(self) -> dg.DagsterInstance:
        assert self._instance is not None
        return self._instance

    @property
    def deployment(self) -> Deployment:
        assert self._deployment is not None
        return self._deployment

    def ask_through(self, wrap: Callable[[Deployment], Deployment]) -> None:
        """Ask a wrapper of the deployment from now on, if the deployment could be opened."""
        if self._deployment is not None:
            self._deployment = wrap(self._deployment)

    # ---- what several checks look at, read once -------------------------------------------------

    @cached_property
    def now(self) -> float:
        """The moment of the examination."""
        return time.time()

    @cached_property
    def refusal(self) -> str | None:
        """What Dagster has against ``dagster.yaml``; None if nothing."""
        return instance_config_problem(str(self.file.parent)) if self.file.exists() else None

    @cached_property
    def settings(self) -> Settings:
        """What holds for all pools."""
        return self.deployment.settings()

    def has_engine(self) -> bool:
        """Whether the engine admits steps.

        Raises:
            DeploymentError: That is not visible, so the check cannot be answered.
        """
        if self.settings.engine is None:
            raise DeploymentError(
                "not visible from here: whether the engine is used", remedy="", names=[self.name]
            )
        return self.settings.engine

    @cached_property
    def pools(self) -> tuple[PoolState, ...]:
        """All pools that have a limit, a holder or a waiter."""
        return self.deployment.pools()

    @cached_property
    def assets(self) -> Mapping[str, tuple[str, ...]]:
        """The pools of each asset that is known; in a name, a template stands for any value."""
        return {
            asset: tuple(term.name for term in terms) for asset, terms in self._of_assets.items()
        }

    @cached_property
    def used_pools(self) -> frozenset[str]:
        """The pools that assets, runs or steps name; without names that have a template."""
        terms = (term for terms in self._of_assets.values() for term in terms)
        of_assets = {term.name for term in terms if not term.fields}
        texts = {text for run in self.unfinished for text in run.pools or ()}
        of_runs = {term.name for text in texts for term in terms_of(text, self.settings)}
        busy = {state.pool for state in self.pools if state.holding or state.waiting}
        return frozenset(of_assets | of_runs | busy)

    def may_be_used(self, pool: str) -> bool:
        """Whether this is one of ``used_pools``, or a name that a template of an asset fits."""
        return pool in self.used_pools or any(
            stands_for(term, pool) for terms in self._of_assets.values() for term in terms
        )

    @cached_property
    def _of_assets(self) -> Mapping[str, tuple[Term, ...]]:
        return {
            asset: tuple(terms_of_asset(asset, texts, self.settings))
            for asset, texts in self.deployment.assets().items()
        }

    @cached_property
    def unfinished(self) -> tuple[Run, ...]:
        """The runs that are not over."""
        return self.deployment.unfinished_runs()

    @cached_property
    def held_back(self) -> HeldBack:
        """The runs that the run queue holds back because of pools."""
        return read_held_back(self.deployment, self.settings, self.pools, self.now, self.unfinished)

    @cached_property
    def users(self) -> Mapping[str, Run]:
        """The runs that hold or wait, or did until their lease was over, and are known; by id."""
        return runs_in(self.deployment, self.pools, self.unfinished)

    @cached_property
    def plans(self) -> dict[str, tuple[StepPlan, ...]]:
        """What the newest runs of the instance planned, by what names each plan, newest first."""
        plans = dict.fromkeys(filter(None, map(plan_of_run, self.latest_runs)))
        found = all_step_plans(self.instance, plans)
        return {plan: found.get(plan, ()) for plan in plans}

    def asked_by(self, step: StepPlan) -> frozenset[str]:
        """The pools for which a step of these plans asks; a partition is not filled in."""
        if step.pool is None:
            return frozenset()
        assets = [key.to_user_string() for key in step.members]
        return frozenset(term.name for term in terms_of_step(step.pool, assets, self.settings))

    @cached_property
    def tables(self) -> health.DagsterTables:
        """What the tables of the instance's event log can hold."""
        return health.tables(self.instance)

    @cached_property
    def engine_status(self) -> switch.Status | None:
        """What the database says of the engine; None if it is no database for it."""
        can_hold = self.tables.is_sql and self.tables.has_pools
        return switch.status(self.instance) if can_hold else None

    @cached_property
    def latest_runs(self) -> tuple[dg.DagsterRun, ...]:
        """The newest runs of the instance, newest first."""
        return tuple(self.instance.get_runs(limit=_RUNS_MAX))


@contextmanager
def examine_instance(machine: Machine) -> Iterator[Examined]:
    """The instance in DAGSTER_HOME, as far as it can be opened."""
    problem = home_problem(machine.home)
    if problem is not None:
        yield Examined(machine.home or "no instance", machine=machine, trouble=problem)
        return
    home = str(home_folder(machine.home or ""))
    file = Path(home) / "dagster.yaml"
    try:
        instance = instance_in(home)
    except LifeguardError as error:
        yield Examined(home, machine=machine, file=file, trouble=error.message, remedy=error.remedy)
        return
    with instance:
        try:
            deployment = InstanceDeployment(instance, home)
        except LifeguardError as error:
            yield Examined(
                home, machine=machine, file=file, instance=instance, trouble=error.message
            )
            return
        yield Examined(home, machine=machine, file=file, instance=instance, deployment=deployment)
