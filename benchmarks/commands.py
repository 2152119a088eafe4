"""Measure the commands at scale: seconds and memory of each, beside the goal.

Each command runs as its own process on an instance that `crowd.py` filled. "start" is a command on
an empty instance: importing Dagster is most of it. Stock's figures are those of the same command
on Dagster's own storage.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import dagster as dg

from crowd import Crowd, fill, name_of
from instances import DATABASES, places
from measures import Measure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from instances import Place

GOAL_SECONDS = 3.0
GOAL_MB = 300
DECLARED = """\
engine: lifeguard
default_limit: 1
rules: [{assets: "*", pools: ["{asset}"]}]
"""


class Cost(NamedTuple):
    """What a process took; memory in MB."""

    seconds: float
    memory: float


def measure(arguments: Sequence[str], home: str) -> Cost:
    """Run a command, and fail if it fails."""
    environment = os.environ | {"DAGSTER_HOME": home, "PYTHONWARNINGS": "ignore"}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster_lifeguard", *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    error = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode in (0, 1), error.decode()
    return Cost(
        time.perf_counter() - began,
        used.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2),
    )


def costs(place: Place, crowd: Crowd) -> dict[str, Cost]:
    """What each command costs on an instance that is filled for this."""
    home = place.home
    with place.instance() as instance:
        start = measure(["status"], home)
        fill(instance, crowd)
        (queued,) = instance.get_run_ids(
            dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]), limit=1
        )
    declared = Path(home, "lifeguard.yaml")
    declared.write_text(DECLARED)
    pool = name_of(crowd.pools - 1)
    commands = {
        "plan": ["plan", "--config", str(declared)],
        "status": ["status"],
        "status POOL": ["status", pool],
        "explain ASSET": ["explain", pool],
        "explain RUN": ["explain", queued],
        "doctor": ["doctor"],
        "engine status": ["engine", "status"],
    }
    return {"start": start, **{name: measure(words, home) for name, words in commands.items()}}


def measures(*, full: bool) -> Iterator[Measure]:
    """Each command; in full at the scale of the goal, on both databases and beside stock."""
    crowd = Crowd(5_000, 20_000, 20_000, 2_000) if full else Crowd(500, 2_000, 2_000, 200)
    scale = f"{crowd.pools:,} pools, {crowd.waiting:,} waiting, {crowd.queued:,} queued"
    with places() as homes:
        for database in DATABASES if full else DATABASES[:1]:
            found = costs(homes[database, "lifeguard"], crowd)
            stock = costs(homes[database, "stock"], crowd) if full else {}
            for command, cost in found.items():
                name = f"{database}: {command}" + (f", {scale}" if command != "start" else "")
                theirs = stock.get(command)
                yield Measure(
                    name, cost.seconds, "s", theirs.seconds if theirs else None, GOAL_SECONDS
                )
                yield Measure(name, cost.memory, "MB", theirs.memory if theirs else None, GOAL_MB)
