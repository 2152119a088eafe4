"""Executors: those that claim nothing, and those that run the steps of a run one by one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dagster_lifeguard.compat.health import executes_one_by_one, executor_settings
from dagster_lifeguard.compat.runs import plan_of_run
from dagster_lifeguard.engine.rules.shown_names import pool_text, pools_text
from dagster_lifeguard.inspections.doctor.check import Told, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagster_lifeguard.inspections.doctor.examined import Examined

_DASK = ("cluster",)
"""What is configured of the Dask executor, and of no other that Dagster has."""


@check(severity="warning", source="instance")
def steps_one_by_one(subject: Examined) -> Iterator[Told]:
    """An executor runs one step at a time, where the pool allows several."""
    if subject.why_not("deployment") is not None:
        return
    limits = {state.pool: state.limit for state in subject.pools}
    seen = set()
    for run in subject.latest_runs:
        plan = plan_of_run(run)
        if plan is None or (plan, run.job_name) in seen:
            continue
        seen.add((plan, run.job_name))
        asked = Counter(pool for step in subject.plans[plan] for pool in subject.asked_by(step))
        pools = sorted(p for p, count in asked.items() if count > 1 and (limits.get(p) or 0) > 1)
        cause = executes_one_by_one(subject.instance, run) if pools else None
        if cause is not None:
            yield Told(
                f"The job {run.job_name} executes its steps one by one, so it never has more "
                f"than one slot of {pools_text(pools)}.",
                "Use the multiprocess executor without max_concurrent: 1 for it, if its steps "
                "are to run at once.",
                names=[run.job_name, *pools],
                evidence=[
                    f"run {run.run_id}: {cause}",
                    *(
                        f"{pool_text(p)}: limit {limits[p]}, {asked[p]} steps of the job"
                        for p in pools
                    ),
                ],
            )


@check(severity="warning", source="instance")
def executor_without_pools(subject: Examined) -> Iterator[Told]:
    """An executor claims no slots, so no pool limits its steps."""
    pooled = {
        plan
        for plan, steps in subject.plans.items()
        if any(subject.asked_by(step) for step in steps)
    }
    latest = {run.job_name: run for run in reversed(subject.latest_runs)}
    runs = [run for run in latest.values() if plan_of_run(run) in pooled]
    settings = executor_settings(subject.instance, runs)
    jobs = {run.job_name: run.run_id for run in runs if settings[run.run_id] == _DASK}
    for job, run_id in sorted(jobs.items()):
        yield Told(
            f"The job {job} is executed by Dask, which claims no slots, and fails each run with "
            "a pool.",
            "Give the job another executor, or its assets no pool.",
            names=[job],
            evidence=[f"run {run_id}"],
        )


CHECKS = (steps_one_by_one, executor_without_pools)
