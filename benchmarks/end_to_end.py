"""What a run of 60 assets takes without pools, with stock's pools, with the engine's, by turns.

Each asset has a pool of its own with a limit of 1, for which nobody contends: what is measured is
the price of protection. The runs are Dagster's own, in the process that asks for them and with the
multiprocess executor, and take turns, so that all meet the same machine; figures are medians.
Protection is free (at most 5 % more than without pools), and cheaper than stock's pools.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository

from instances import DATABASES, places
from measures import Measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ASSETS = 60
FREE = 1.05
EXECUTORS: dict[str, dict[str, Any]] = {
    "in process": {"in_process": {}},
    # Otherwise each step imports Dagster anew, beside which nothing else can be seen.
    "multiprocess": {
        "multiprocess": {
            "max_concurrent": 2,
            "start_method": {"forkserver": {"preload_modules": ["dagster", "dagster_lifeguard"]}},
        }
    },
}


def _pool(number: int) -> str:
    return f"pool{number:02}"


def _asset(number: int) -> str:
    return f"asset{number:02}"


def _job(*, pools: bool) -> dg.JobDefinition:
    def made(number: int) -> dg.AssetsDefinition:
        @dg.asset(name=_asset(number), pool=_pool(number) if pools else None)
        def asset() -> None: ...

        return asset

    assets = [made(number) for number in range(ASSETS)]
    jobs = [dg.define_asset_job("sixty")]
    return dg.Definitions(assets=assets, jobs=jobs).get_repository_def().get_job("sixty")


def without_pools() -> dg.JobDefinition:
    return _job(pools=False)


def with_pools() -> dg.JobDefinition:
    return _job(pools=True)


def _importable(function: Callable[[], dg.JobDefinition]) -> ReconstructableJob:
    """A job that the process of a step can import, whatever directory this one is in."""
    here = Path(__file__)
    code = ReconstructableRepository.for_file(str(here), function.__name__, str(here.parent))
    return code.get_reconstructable_job("sixty")


def _seconds(job: Any, instance: dg.DagsterInstance, executor: str, count: int) -> float:
    config = {"execution": {"config": EXECUTORS[executor]}}
    chosen = [dg.AssetKey(_asset(number)) for number in range(count)]
    began = time.perf_counter()
    with dg.execute_job(job, instance, run_config=config, asset_selection=chosen) as result:
        assert result.success, f"the run of {count} assets failed: {_first_failure(result)}"
    return time.perf_counter() - began


def _import_seconds(database: str) -> float:
    """Processor time in which a process that has imported Dagster imports this package."""
    known = "dagster, dagster_lifeguard" + (", dagster_postgres" if database != "SQLite" else "")
    code = (
        f"import {known}, time; began = time.process_time(); "
        "import dagster_lifeguard.storage; print(time.process_time() - began)"
    )
    command = [sys.executable, "-c", code]
    told = (subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(3))
    return statistics.median(float(each.stdout) for each in told)


def _first_failure(result: dg.ExecuteJobResult) -> str:
    failed = (event for event in result.all_events if event.is_failure)
    return next((f"{event.message} {event.event_specific_data}" for event in failed), "no reason")


def measures(*, full: bool) -> Iterator[Measure]:
    """A run on each database with each executor."""
    plain, pooled = (_importable(function) for function in (without_pools, with_pools))
    # How many assets and how many runs: each step of the multiprocess executor is a process.
    sizes = {"in process": (ASSETS, 9), "multiprocess": (ASSETS, 3)}
    if not full:
        sizes = {"in process": (ASSETS // 3, 3), "multiprocess": (ASSETS // 10, 1)}
    with places() as homes:
        for database in DATABASES:
            with (
                homes[database, "stock"].instance() as stock,
                homes[database, "lifeguard"].instance() as ours,
            ):
                for instance in (stock, ours):
                    for number in range(ASSETS):
                        instance.event_log_storage.set_concurrency_slots(_pool(number), 1)
                kinds = {"none": (plain, stock), "stock": (pooled, stock), "ours": (pooled, ours)}
                for job, instance in kinds.values():  # The first opens connections.
                    _seconds(job, instance, "in process", 1)
                for executor, (count, repeats) in sizes.items():
                    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
                    for _ in range(repeats):
                        for kind, (job, instance) in kinds.items():
                            taken[kind].append(_seconds(job, instance, executor, count))
                    middle = {kind: statistics.median(times) for kind, times in taken.items()}
                    dearer = 1000 * (middle["ours"] - middle["none"]) / count
                    reason = f"{dearer:.1f} ms more for each asset"
                    if executor == "multiprocess":
                        reason += (
                            "; the process of its step opens a session, and imports the package: "
                            f"{1000 * _import_seconds(database):.0f} ms of a processor"
                        )
                    name = f"{database}: a run of {count} assets, {executor}"
                    for kind, text, most in (
                        ("none", "without pools", FREE), ("stock", "with its pools", 1.0),
                    ):  # fmt: skip
                        yield Measure(
                            f"{name}, stock {text}", middle["ours"], "s", middle[kind],
                            goal=most * middle[kind], reason=reason,
                        )  # fmt: skip
