"""How often waits end within their estimated range, on a real backfill through a real daemon.

A job with assets of one pool is backfilled, through the queue of Dagster's daemon. The pool has
fewer slots than runs go on at once, so runs wait in the queue and steps wait at the pool. A smaller
backfill before it gives the history that estimates are drawn from.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

import fork_launcher
from dagster_lifeguard.deployment.instance import InstanceDeployment
from dagster_lifeguard.insight.durations import read_history
from dagster_lifeguard.insight.past import read_recent
from dagster_lifeguard.insight.simulation.track_record import Judged, Rules, judge, record_of
from instances import NO_COMPUTE_LOGS, QUIET, ours
from measures import Measure

if TYPE_CHECKING:
    from collections.abc import Iterator

POOL, SLOTS, RUNS_AT_ONCE = "warehouse", 2, 4
ASSETS = 5
BEFORE = 20
"""Runs of the backfill that gives the history."""
SECONDS = (0.3, 1.5)
INTERVAL_SECONDS = 1
LOST_SECONDS = 3600.0
WAIT_MIN = 0.25
"""Shorter waits are not counted: nobody asks for an estimate of them."""
HELD_PERCENT = 70.0
ERROR_PERCENT = 25.0

PARTITIONS = dg.StaticPartitionsDefinition([f"p{n:03}" for n in range(200)])


def _asset(number: int) -> dg.AssetsDefinition:
    before = [f"part{number - 1}"] if number else []

    @dg.asset(name=f"part{number}", pool=POOL, deps=before, partitions_def=PARTITIONS)
    def part(context) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - Dagster reads it
        draws = random.Random(f"{number} {context.partition_key}")
        time.sleep(draws.uniform(*SECONDS))

    return part


_ASSETS = [_asset(number) for number in range(ASSETS)]
defs = dg.Definitions(
    assets=_ASSETS,
    jobs=[dg.define_asset_job("parts", _ASSETS)],
    executor=dg.in_process_executor,
)


def _home(home: Path) -> dg.DagsterInstance:
    queue = {
        "module": "dagster.core.run_coordinator",
        "class": "QueuedRunCoordinator",
        "config": {"dequeue_interval_seconds": INTERVAL_SECONDS},
    }
    settings = {
        **QUIET,
        **NO_COMPUTE_LOGS,
        "storage": ours("sqlite", {"base_dir": str(home)}),
        "run_coordinator": queue,
        "run_launcher": fork_launcher.stanza("estimates"),
        "concurrency": {
            # As many runs go on as may, so that their steps wait at the pool too.
            "pools": {"granularity": "op", "op_granularity_run_buffer": RUNS_AT_ONCE - SLOTS},
            "runs": {"max_concurrent_runs": RUNS_AT_ONCE},
        },
    }
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text(json.dumps(settings))  # JSON is YAML.
    sys.path.append(str(Path(__file__).parent))  # The launcher is found there.
    instance = dg.DagsterInstance.from_config(str(home))
    instance.event_log_storage.set_concurrency_slots(POOL, SLOTS)
    return instance


def backfill(home: Path, count: int) -> None:
    """Run both backfills to their end."""
    folder = Path(__file__).parent
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
    }
    binaries = Path(sys.executable).parent

    def command(name: str, *arguments: str) -> list[str]:
        return [str(binaries / name), *arguments]

    with _home(home) as instance, (home / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(
            command("dagster-daemon", "run", "-f", str(Path(__file__))),
            env=environment, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            first = 0
            for runs in (BEFORE, count):
                names = ",".join(f"p{n:03}" for n in range(first, first + runs))
                first += runs
                subprocess.run(
                    command("dagster", "job", "backfill", "-f", str(Path(__file__)), "-j", "parts",
                            "--partitions", names, "--noprompt"),
                    env=environment, stdout=log, stderr=log, check=True,
                )  # fmt: skip
                _await_end(instance, first, daemon)
        finally:
            daemon.terminate()
            daemon.wait()


def _await_end(instance: dg.DagsterInstance, runs: int, daemon: Any) -> None:
    over = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])
    until = time.monotonic() + LOST_SECONDS
    while instance.get_runs_count(over) < runs:
        assert daemon.poll() is None, "the daemon is dead"
        assert time.monotonic() < until, "the backfill does not end"
        time.sleep(2)


def judged(home: Path) -> list[Judged]:
    """The waits of the backfills and what would have been estimated when they began."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        deployment = InstanceDeployment(instance, str(home))
        settings = deployment.settings()
        history = read_history(deployment, 0.0, time.time())
        recent = read_recent(deployment, settings, history, 0.0)
        runs = {run.run_id: run for run in deployment.runs([run.run_id for run in history])}
        pools = {state.pool: state.settings for state in deployment.pools()}
        rules = Rules(pools, deployment.run_queue())
    found, _ = judge(recent, rules, runs, wait_min=WAIT_MIN, count_max=10_000, work=1_000_000)
    return found


def measures(*, full: bool) -> Iterator[Measure]:
    """The share of waits that ended within their range, and the error of its middle."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        backfill(home, 60 if full else 20)
        yield from told(judged(home))


def told(found: list[Judged]) -> Iterator[Measure]:
    """The figures of these waits, in all, in the run queue and at the pool."""
    places = (
        ("", found),
        (" in the run queue", [one for one in found if one.is_of_run]),
        (" at the pool", [one for one in found if not one.is_of_run]),
    )
    for place, waits in places:
        record = record_of(waits, 0, 0.0)
        if record.share is None or record.error is None:
            continue
        yield Measure(f"estimates, waits{place}", record.waits, "", better="higher")
        yield Measure(f"estimates, waits within the range{place}", 100 * record.share, "%",
                      goal=None if place else HELD_PERCENT, better="higher")  # fmt: skip
        yield Measure(f"estimates, error of the middle{place}, median", 100 * record.error, "%",
                      goal=None if place else ERROR_PERCENT)  # fmt: skip
        middle = sorted(one.wait for one in waits)[len(waits) // 2]
        yield Measure(f"estimates, wait{place}, median", middle, "s")


if __name__ == "__main__":
    backfill(Path(sys.argv[1]), int(sys.argv[2]))
    for measure in told(judged(Path(sys.argv[1]))):
        print("  ".join(measure.cells[:3]))
