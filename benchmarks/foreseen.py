"""What ``simulate`` foresees of a larger limit, beside what the larger limit really does.

Runs of Dagster arrive at drawn times and hold a slot of one pool for drawn times. All of them are
executed with a limit of 2; what the ledger then tells is played with a limit of 3. Then the same
runs are executed again, at the same times and on a new instance, with a limit of 3. The error is
the difference between the wait that was foreseen and the one that came.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_lifeguard.deployment.instance import InstanceDeployment
from dagster_lifeguard.insight.durations import quantile
from dagster_lifeguard.insight.simulation.answer import play_recording
from dagster_lifeguard.insight.simulation.history import read_recording
from instances import QUIET, processes
from measures import Measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagster_lifeguard.insight.simulation.recording import Recording

POOL, BEFORE, AFTER = "warehouse", 2, 3
MEAN_SECONDS = 4.0
LOAD = 1.4
"""Of the slots with the limit before."""


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
        tags = {"number": str(number), "seconds": str(seconds)}
        job.execute_in_process(instance=instance, tags=tags)


def _executed(home: Path, limit: int, arrivals: list[tuple[float, float]]) -> Recording:
    """Execute the runs, and read what the ledger tells of them."""
    ours = {
        "module": "dagster_lifeguard.storage",
        "class": "LifeguardSqliteStorage",
        "config": {"base_dir": str(home)},
    }
    home.mkdir()
    (home / "dagster.yaml").write_text(json.dumps({**QUIET, "storage": {"custom": ours}}))
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


def _numbers(recording: Recording) -> list[int]:
    return [int(arrival.tags["number"]) for arrival in recording.arrivals]


def _compare(runs: int) -> dict[str, float]:
    draws = random.Random(1)
    span = runs * MEAN_SECONDS / (LOAD * BEFORE)
    arrivals = sorted(
        (draws.uniform(0, span), draws.uniform(0.2, 1.8) * MEAN_SECONDS) for _ in range(runs)
    )
    with tempfile.TemporaryDirectory() as folder:
        before = _executed(Path(folder) / "before", BEFORE, arrivals)
        after = _executed(Path(folder) / "after", AFTER, arrivals)
    now = play_recording(before, 60.0)
    foreseen = play_recording(before.with_settings({POOL: {"limit": AFTER}}), 60.0)
    waits = {n: foreseen.waited(p) or 0.0 for p, n in enumerate(_numbers(before))}
    real = dict(zip(_numbers(after), (wait or 0.0 for wait in after.waited), strict=True))
    recorded = [wait or 0.0 for wait in before.waited]
    assert waits.keys() == real.keys(), "not every run was written down"
    return {
        "before": statistics.mean(recorded),
        "played": statistics.mean(now.waited(p) or 0.0 for p in range(runs)),
        "foreseen": statistics.mean(waits.values()),
        "real": statistics.mean(real.values()),
        "foreseen_p95": quantile(sorted(waits.values()), 0.95),
        "real_p95": quantile(sorted(real.values()), 0.95),
        "error_p50": quantile(sorted(abs(waits[n] - real[n]) for n in waits), 0.5),
        "error_p90": quantile(sorted(abs(waits[n] - real[n]) for n in waits), 0.9),
    }


def measures(*, full: bool) -> Iterator[Measure]:
    """The error of what was foreseen, and the waits themselves."""
    found = _compare(60 if full else 20)
    change = f"limit {BEFORE} to {AFTER}"
    yield Measure(f"foreseen, {change}: mean wait before", found["before"], "s")
    yield Measure(f"foreseen, {change}: the same, played", found["played"], "s")
    yield Measure(f"foreseen, {change}: mean wait foreseen", found["foreseen"], "s")
    yield Measure(f"foreseen, {change}: mean wait that came", found["real"], "s")
    yield Measure(f"foreseen, {change}: p95 foreseen", found["foreseen_p95"], "s")
    yield Measure(f"foreseen, {change}: p95 that came", found["real_p95"], "s")
    yield Measure(f"foreseen, {change}: error of a run, median", found["error_p50"], "s")
    yield Measure(f"foreseen, {change}: error of a run, p90", found["error_p90"], "s")


if __name__ == "__main__":
    print(json.dumps(_compare(int(sys.argv[1])), indent=2))
