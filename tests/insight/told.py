"""A deployment that tells what a test says, for what is pure over the protocol."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from dagster_lifeguard.compat.health import RunQueue
from dagster_lifeguard.deployment.contract import (
    UNFINISHED,
    HoldingStep,
    LifeSign,
    PlannedStep,
    PoolState,
    Run,
    Settings,
    WaitingStep,
)
from dagster_lifeguard.deployment.history import Outcome, RunExecution, StepExecution
from dagster_lifeguard.deployment.judgement import judge
from dagster_lifeguard.engine.rules.duplicates import DUPLICATE_TAG, NO_DUPLICATE
from dagster_lifeguard.engine.rules.pool_settings import NOTHING_SET, PoolSettings

NOW = 1_000_000.0
SETTINGS = Settings("1.13.27", False, None, "op", 0, 1000)
BY_RUN = replace(SETTINGS, granularity="run")


def run(run_id: str, status: str = "STARTED", **more) -> Run:
    moments = {"created": NOW - 100.0, "started": NOW - 90.0, "ended": None}
    if status == "QUEUED":
        moments["started"] = None
    if "pools" in more:
        more = {"first_pools": dict.fromkeys(more["pools"], 1), **more}
    return Run(run_id=run_id, status=status, **{"job_name": "job", **moments, **more})


def holds(run_id: str, step: str = "step", elapsed: float = 10.0, slots: int = 1) -> HoldingStep:
    return HoldingStep(run_id, step, slots, since=NOW - elapsed)


def waits(run_id: str, step: str = "step", waited: float = 5.0, **more) -> WaitingStep:
    return WaitingStep(run_id, step, since=NOW - waited, **more)


def pool(
    name: str, limit: int | None = 1, holding=(), waiting=(), *, default=False, **more
) -> PoolState:
    settings = PoolSettings(limit, more.pop("rate", None), more.pop("fair_by", None))
    return PoolState(name, settings, default, tuple(holding), tuple(waiting), **more)


def executed(
    run_id: str,
    pools: dict[str, str],
    seconds: float,
    *,
    waited: float = 0.0,
    queued: float = 0.0,
    ended: bool = True,
) -> RunExecution:
    """A run whose steps, each with its pool, took so long after they had waited so long.

    ``queued`` is how long the run was in the run queue before.
    """
    start = NOW - 1000.0
    steps = tuple(
        StepExecution(
            run_id,
            step,
            (),
            1,
            start + waited,
            start + waited + seconds if ended else None,
            Outcome.SUCCESS if ended else Outcome.UNFINISHED,
            pool=name,
            waiting=start if waited else None,
        )
        for step, name in pools.items()
    )
    return RunExecution(
        run_id,
        "job",
        "SUCCESS" if ended else "STARTED",
        start + waited - queued,
        start + waited,
        start + waited,
        start + waited + seconds if ended else None,
        steps,
        tuple(sorted(set(pools.values()))),
    )


@dataclass
class Told:
    """What a test says of a deployment."""

    states: list[PoolState] = field(default_factory=list)
    all_runs: list[Run] = field(default_factory=list)
    plans: dict[str, list[PlannedStep]] = field(default_factory=dict)
    asset_pools: dict[str, tuple[str, ...]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    past: list[RunExecution] = field(default_factory=list)
    signs: dict[tuple[str, str], list[LifeSign]] = field(default_factory=dict)
    told_settings: Settings = SETTINGS
    told_queue: RunQueue | None = None
    name: str = "told"
    instance: None = None
    freed: list[tuple[str, str | None]] = field(default_factory=list)

    def settings(self):
        return self.told_settings

    def run_queue(self):
        return self.told_queue

    def daemons(self):
        return ()

    def pools(self, names=None):
        known = {state.pool: state for state in self.states}
        if names is None:
            return tuple(sorted(self.states, key=lambda state: state.pool))
        return tuple(known.get(name, pool(name, None)) for name in sorted(names))

    def pool_settings(self):
        return {s.pool: s.settings for s in self.states if s.settings != NOTHING_SET}

    def set_limit(self, pool, limit):
        raise NotImplementedError

    def set_pools(self, settings):
        raise NotImplementedError

    def unfinished_runs(self, statuses=UNFINISHED):
        return tuple(run for run in self.all_runs if run.status in statuses)

    def runs(self, run_ids):
        return tuple(run for run in self.all_runs if run.run_id in run_ids)

    def runs_between(self, since, until=None):
        return tuple(run for run in self.all_runs if run.ended is None or run.ended >= since)

    def dropped_runs(self, since, count_max):
        dropped = [
            r for r in self.all_runs if r.tags.get(DUPLICATE_TAG, NO_DUPLICATE) != NO_DUPLICATE
        ]
        return tuple(r for r in dropped if r.ended is not None and r.ended >= since)[-count_max:]

    def find_runs(self, prefix, count_max):
        return tuple(r for r in self.all_runs if r.run_id.startswith(prefix))[:count_max]

    def planned_steps(self, run_id):
        return tuple(self.plans.get(run_id, ()))

    def assets(self):
        return self.asset_pools

    def history(self, since, until=None, *, latest=None, queued=True):
        return iter(self.past)

    def asset_groups(self):
        return self.groups

    def executions(self, run_ids):
        return tuple(execution for execution in self.past if execution.run_id in run_ids)

    def life_signs(self, run_id, step_key=None):
        return tuple(self.signs.get((run_id, step_key), ()))

    def free(self, run_id, step_key=None, *, force=False):
        found = judge(self.runs([run_id])[0], self.life_signs(run_id, step_key), NOW)
        if force or found.is_safe:
            self.freed.append((run_id, step_key))
        return found

    def close(self):
        pass
