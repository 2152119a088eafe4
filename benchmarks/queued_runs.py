"""Runs that are submitted at given times to Dagster's run queue, and executed by its real daemon.

``dagster-daemon`` runs as a process of its own and launches each run in a fork. Every run is real:
its steps ask for their pools through the engine's storage.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
from dagster._core.run_coordinator import SubmitRunContext

import fork_launcher
from dagster_lifeguard.deployment.instance import InstanceDeployment
from dagster_lifeguard.insight.simulation.history import read_recording
from instances import NO_COMPUTE_LOGS, ORIGIN, QUIET

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dagster_lifeguard.insight.simulation.recording import Recording

LOST_SECONDS = 1800.0
QUEUE_DAEMON = "QUEUED_RUN_COORDINATOR"
NUMBER = "number"
"""The tag by which a run is found again in the other execution of the same project."""


@dataclass(frozen=True)
class Request:
    """A run to submit.

    Attributes:
        at: When, in seconds after the beginning.
        job: The name of its job.
        tags: Its tags; the number of the request comes on top.
        config: Its run config.
        assets: The assets that it makes, as ``a/b``; empty: all of the job.
    """

    at: float
    job: str
    tags: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    assets: Sequence[str] = ()


@dataclass(frozen=True)
class Deployed:
    """A project and the settings of its instance.

    Attributes:
        defs: Its definitions.
        module: The module that has them as ``defs``; it must be importable.
        folder: Where that module is.
        settings: What dagster.yaml says, without the storage and the launcher.
        pools: The settings of pools, by the names of ``PoolSettings``.
    """

    defs: dg.Definitions
    module: str
    folder: Path
    settings: Mapping[str, object]
    pools: Mapping[str, Mapping[str, object]]


def executed(
    deployed: Deployed, home: Path, storage: Mapping[str, object], requests: Sequence[Request]
) -> Recording:
    """Submit the runs in time, wait for their end, and read what ``simulate`` reads of them.

    The first request is executed once before, since it starts what all others use.
    """
    home.mkdir()
    settings = {
        **QUIET,
        **NO_COMPUTE_LOGS,
        "storage": dict(storage),
        "run_launcher": fork_launcher.stanza(deployed.module),
        **deployed.settings,
    }
    (home / "dagster.yaml").write_text(json.dumps(settings))  # JSON is YAML.
    repository = deployed.defs.get_repository_def()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        log: Any = instance.event_log_storage
        coordinator: Any = instance.run_coordinator
        for pool, found in deployed.pools.items():
            log.change_pool(pool, **found)

        def submit(number: int, request: Request) -> None:
            run = instance.create_run_for_job(
                repository.get_job(request.job),
                tags={**request.tags, NUMBER: str(number)},
                run_config=request.config,
                asset_selection={dg.AssetKey.from_user_string(a) for a in request.assets} or None,
                remote_job_origin=ORIGIN,
            )
            coordinator.submit_run(SubmitRunContext(run, workspace=cast("Any", None)))

        with _daemon(home, deployed.folder) as daemon:
            submit(-1, requests[0])
            _await_ends(instance, 1, daemon)
            begin = time.time()
            for number, request in enumerate(requests):
                time.sleep(max(0.0, begin + request.at - time.time()))
                submit(number, request)
            _await_ends(instance, 1 + len(requests), daemon)
        deployment = InstanceDeployment(instance, str(home))
        return read_recording(deployment, since=begin, until=time.time())


@contextmanager
def _daemon(home: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    places = [str(Path(__file__).parent), str(folder), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": os.pathsep.join(place for place in places if place),
    }
    command = [str(Path(sys.executable).parent / "dagster-daemon"), "run", "--empty-workspace"]
    with (home / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            yield daemon
        finally:
            daemon.terminate()
            daemon.wait()


def _await_ends(instance: dg.DagsterInstance, runs: int, daemon: subprocess.Popen[bytes]) -> None:
    over = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])
    until = time.monotonic() + LOST_SECONDS
    while instance.get_runs_count(over) < runs:
        assert daemon.poll() is None, "the daemon is dead"
        assert not instance.get_runs_count(failed), "a run failed"
        assert time.monotonic() < until, "the runs do not end"
        time.sleep(0.5)
