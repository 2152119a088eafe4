"""Runs that arrive at drawn times and hold a slot of one pool for drawn times, without a queue."""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_lifeguard.deployment.instance import InstanceDeployment
from dagster_lifeguard.insight.simulation.history import read_recording
from instances import QUIET, ours, processes
from queued_runs import NUMBER

if TYPE_CHECKING:
    from pathlib import Path

    from dagster_lifeguard.insight.simulation.recording import Recording

POOL = "warehouse"
MEAN_SECONDS = 4.0
LOAD = 1.4
"""Of the slots with a limit of 2."""


@dg.asset(pool=POOL)
def loaded(context) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - Dagster reads it
    time.sleep(float(context.run.tags["seconds"]))


def _job() -> dg.JobDefinition:
    jobs = [dg.define_asset_job("load", executor_def=dg.in_process_executor)]
    defs = dg.Definitions([loaded], jobs=jobs)
    return defs.get_repository_def().get_job("load")


def _execute(home: str, number: int, seconds: float, at: float, ready: Any) -> None:
    """One run, in a process of its own that has opened the instance before it is time."""
    job = _job()
    with dg.DagsterInstance.from_config(home) as instance:
        ready.release()
        time.sleep(max(0.0, at - time.time()))
        tags = {NUMBER: str(number), "seconds": str(seconds)}
        job.execute_in_process(instance=instance, tags=tags)


def drawn(runs: int) -> list[tuple[float, float]]:
    """When each run arrives and for how long it holds its slot, in seconds."""
    draws = random.Random(1)
    span = runs * MEAN_SECONDS / (LOAD * 2)
    return sorted(
        (draws.uniform(0, span), draws.uniform(0.2, 1.8) * MEAN_SECONDS) for _ in range(runs)
    )


def executed(home: Path, limit: int, arrivals: list[tuple[float, float]]) -> Recording:
    """Execute the runs, and read what the ledger tells of them."""
    home.mkdir()
    storage = ours("sqlite", {"base_dir": str(home)})
    (home / "dagster.yaml").write_text(json.dumps({**QUIET, "storage": storage}))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.event_log_storage.set_concurrency_slots(POOL, limit)
        context = processes()
        began, ready = time.time(), context.Semaphore(0)
        # Until all of them are open; each takes as long as the machine allows.
        start = began + 1.5 * len(arrivals)
        runs = [
            context.Process(target=_execute, args=(str(home), n, seconds, start + at, ready))
            for n, (at, seconds) in enumerate(arrivals)
        ]
        for run in runs:
            run.start()
        for _ in runs:
            ready.acquire()
        for run in runs:
            run.join()
        deployment = InstanceDeployment(instance, str(home))
        return read_recording(deployment, since=began, until=time.time(), by="ledger")
