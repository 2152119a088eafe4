"""The deployment whose instance is in DAGSTER_HOME, over its own storage."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg

from dagster_lifeguard.compat import health, storages
from dagster_lifeguard.compat import runs as of_runs
from dagster_lifeguard.compat.instance import default_limit_and_granularity
from dagster_lifeguard.compat.launching import worker_health
from dagster_lifeguard.compat.plans import StepPlan, all_step_plans, step_plans
from dagster_lifeguard.compat.stored_runs import (
    StoredRun,
    latest_plans,
    runs_changed_since,
    runs_with_ids,
    runs_with_status,
    runs_with_tag,
)
from dagster_lifeguard.deployment import history
from dagster_lifeguard.deployment.contract import (
    UNFINISHED,
    Judgement,
    LifeSign,
    PlannedStep,
    PoolState,
    Run,
    Settings,
)
from dagster_lifeguard.deployment.instance_pools import EnginePools, pools_of, with_runs
from dagster_lifeguard.deployment.judgement import judge
from dagster_lifeguard.engine.rules.duplicates import DUPLICATE_TAG, NO_DUPLICATE
from dagster_lifeguard.engine.rules.launch_order import IN_PROGRESS, OVER, LaunchOrder, priority_of
from dagster_lifeguard.engine.rules.pool_settings import limits_of
from dagster_lifeguard.errors import (
    DeploymentError,
    StoreUnavailableError,
    UnknownNameError,
    first_line,
)
from dagster_lifeguard.storage.queue_rules import queue_rules, remembered_turns
from dagster_lifeguard.storage.sessions import Process, owners

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from dagster_lifeguard.compat.health import Daemon, RunQueue
    from dagster_lifeguard.deployment.history import RunExecution
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings

_RUNS_FOR_ASSETS_MAX = 500
_JUDGED_MAX = 5
"""What is found changed when it is to be freed is judged so often."""


class InstanceDeployment:
    """An instance of which this process can open the storage.

    Args:
        instance: The instance; closed with the deployment.
        name: What to call it, such as its directory.

    Raises:
        DeploymentError: Its storage cannot be read, or knows no pools.
    """

    def __init__(self, instance: dg.DagsterInstance, name: str) -> None:
        self.instance = instance
        self.name = name
        with self._refusing():
            self._pools = pools_of(instance.event_log_storage)

    def settings(self) -> Settings:
        with self._refusing():
            default_limit, granularity = default_limit_and_granularity(self.instance)
        return Settings(
            dagster_version=dg.__version__,
            engine=isinstance(self._pools, EnginePools),
            default_limit=default_limit,
            granularity=granularity,
            limit_min=self._pools.limit_min,
            limit_max=self._pools.limit_max,
            patience_seconds=self._pools.patience_seconds,
        )

    def daemons(self) -> tuple[Daemon, ...]:
        with self._refusing():
            return health.daemons(self.instance)

    def run_queue(self) -> RunQueue | None:
        with self._refusing():
            return health.run_queue(self.instance)

    # ---- pools ---------------------------------------------------------------------------------

    def pools(self, names: Collection[str] | None = None) -> tuple[PoolState, ...]:
        settings = self.settings()
        with self._refusing():
            found = self._pools.states(names, settings.default_limit)
            if settings.granularity == "run":
                runs = self.unfinished_runs()
                found = with_runs(found, runs, names, settings.default_limit)
        return tuple(sorted(found, key=lambda state: state.pool))

    def pool_settings(self) -> Mapping[str, PoolSettings]:
        with self._refusing():
            return self._pools.settings()

    def set_limit(self, pool: str, limit: int | None, until: float | None = None) -> None:
        self.settings().refuse({pool: limit})
        with self._refusing():
            self._pools.set_limit(pool, limit, until)

    def set_pools(self, settings: Mapping[str, PoolSettings | None]) -> Iterator[str]:
        lasting = {pool: found and found.lasting for pool, found in settings.items()}
        bounds = self.settings()
        for limits in (limits_of(settings), limits_of(lasting)):
            bounds.refuse(limits)
        with self._refusing():
            self._pools.set_pools(settings)
        yield from settings

    def free(self, run_id: str, step_key: str | None = None, *, force: bool = False) -> Judgement:
        for _ in range(_JUDGED_MAX):
            with self._refusing():
                if not self._pools.has_any(run_id, step_key):
                    return Judgement(alive=False, evidence=("It holds nothing any more.",))
            run = next(iter(self.runs([run_id])), None)
            found = judge(run, self.life_signs(run_id, step_key), time.time())
            if not (force or found.is_safe):
                return found
            with self._refusing():
                if force:
                    self._pools.free(run_id, step_key)
                    return found
                if self._pools.free_dead(run_id, step_key):
                    return found
        evidence = (*found.evidence, "Another process took it over meanwhile.")
        return Judgement(alive=None, evidence=evidence)

    # ---- runs ----------------------------------------------------------------------------------

    def unfinished_runs(self, statuses: Collection[str] = UNFINISHED) -> tuple[Run, ...]:
        with self._refusing():
            rules = queue_rules(self.instance) if "QUEUED" in statuses else None
            # The order of the queue depends on the runs that are in progress.
            read = {*statuses, *IN_PROGRESS} if rules is not None else set(statuses)
            found = list(map(_run, runs_with_status(self.instance, read)))
            if rules is None:
                return tuple(found)
            turns = remembered_turns(self.instance, rules)
        order = LaunchOrder(rules, turns, [run for run in found if run.status in IN_PROGRESS])
        in_line = iter(order.of([run for run in found if run.status == "QUEUED"]))
        ordered = (next(in_line) if run.status == "QUEUED" else run for run in found)
        return tuple(run for run in ordered if run.status in statuses)

    def runs(self, run_ids: Collection[str]) -> tuple[Run, ...]:
        with self._refusing():
            return tuple(map(_run, runs_with_ids(self.instance, run_ids)))

    def runs_between(self, since: float, until: float | None = None) -> tuple[Run, ...]:
        with self._refusing():
            found = runs_changed_since(self.instance, since, OVER, created_before=until)
            return tuple(map(_run, (r for r in found if r.ended is None or r.ended >= since)))

    def dropped_runs(self, since: float, count_max: int) -> tuple[Run, ...]:
        with self._refusing():
            found = runs_with_tag(
                self.instance, DUPLICATE_TAG, OVER, since, but=NO_DUPLICATE, count_max=count_max
            )
            return tuple(_run(run) for run in found if run.ended is not None and run.ended >= since)

    def find_runs(self, prefix: str, count_max: int) -> tuple[Run, ...]:
        with self._refusing():
            ids = of_runs.run_ids_beginning(self.instance, prefix, count_max)
        return self.runs(ids)[::-1]

    def planned_steps(self, run_id: str) -> tuple[PlannedStep, ...]:
        with self._refusing():
            run = self.instance.get_run_by_id(run_id)
            if run is None:
                raise UnknownNameError(
                    f"There is no run {run_id} in {self.name}.",
                    remedy="List runs with: dagster run list",
                    names=[run_id],
                )
            steps = step_plans(self.instance, of_runs.plan_of_run(run))
            return tuple(map(_planned, steps or ()))

    def assets(self) -> Mapping[str, tuple[str, ...]]:
        """What the newest runs planned; where plans differ, the newest that has the asset says."""
        with self._refusing():
            found: dict[str, tuple[str, ...]] = {}
            plans = latest_plans(self.instance, _RUNS_FOR_ASSETS_MAX)
            steps = all_step_plans(self.instance, plans)
            for plan in plans:
                of_plan: dict[str, dict[str, None]] = {}
                for step in map(_planned, steps.get(plan, ())):
                    for asset in step.assets:
                        pools = of_plan.setdefault(asset, {})
                        if step.pool is not None:
                            pools[step.pool] = None
                for asset, pools in of_plan.items():
                    found.setdefault(asset, tuple(pools))
        return dict(sorted(found.items()))

    def executions(self, run_ids: Collection[str]) -> tuple[RunExecution, ...]:
        with self._refusing():
            return history.read_runs(self.instance, run_ids)

    def history(
        self,
        since: float,
        until: float | None = None,
        *,
        latest: int | None = None,
        queued: bool = True,
    ) -> Iterator[RunExecution]:
        with self._refusing():
            yield from history.read_history(
                self.instance, since, until, latest=latest, queued=queued
            )

    def asset_groups(self) -> Mapping[str, str]:
        return {}

    def life_signs(self, run_id: str, step_key: str | None = None) -> tuple[LifeSign, ...]:
        signs: list[LifeSign] = []
        with self._refusing():
            if isinstance(self._pools, EnginePools):
                event_log = self.instance.event_log_storage
                signs.extend(map(_session, owners(event_log, run_id, step_key)))
            worker = worker_health(self.instance, run_id)
        if worker is not None:
            signs.append(LifeSign("run-worker", worker.launcher, worker.alive, worker.detail))
        return tuple(signs)

    # ---- the connection ------------------------------------------------------------------------

    def close(self) -> None:
        self.instance.dispose()

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except StoreUnavailableError as error:
            raise DeploymentError(f"{self.name}: {error.message}", remedy=error.remedy) from error
        except storages.database_errors() as error:
            raise DeploymentError(
                f"{self.name}: its database does not answer: {first_line(error)}.",
                remedy="Check that it runs, is reachable and is writable; if it is older than "
                "this Dagster, run: dagster instance migrate",
            ) from error


def _run(stored: StoredRun) -> Run:
    told = stored.told
    return Run(
        run_id=stored.run_id,
        job_name=stored.job_name,
        status=stored.status,
        created=stored.created,
        started=stored.started,
        ended=stored.ended,
        pools=told.pools,
        first_pools=told.first_pools,
        priority=priority_of(told.tags),
        tags=told.tags,
        location=told.location,
        assets=told.assets,
    )


def _planned(step: StepPlan) -> PlannedStep:
    assets = tuple(key.to_user_string() for key in step.asset_keys)
    return PlannedStep(step.step_key, step.pool, assets)


def _session(process: Process) -> LifeSign:
    left = process.seconds_left
    detail = f"{left:.0f} s of its lease left" if left > 0 else "silent, its lease has run out"
    return LifeSign("session", f"process {process.label}", left > 0, detail)
