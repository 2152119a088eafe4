"""Count the database connections of real runs with 4 active steps.

Each run is a process that executes 4 steps at once, each in a process of its own (the multiprocess
executor). "steady" is the most that the server saw at one look while all steps execute; "peak" the
most from the first process to the last, starts and ends included.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import sqlalchemy as db

from instances import places
from measures import Measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from instances import Place

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

@dg.job(executor_def=dg.multiprocess_executor.configured({{"max_concurrent": {STEPS}}}))
def active():
    for number in range({STEPS}):
        made(number)()

defs = dg.Definitions(jobs=[active])
"""


def count(place: Place, runs: int, folder: Path) -> tuple[int, int, int]:
    """The engine's connections while all steps execute, all of them, and the peak of all."""
    control = folder / f"{place.storage}{runs}"
    control.mkdir()
    definitions = folder / "active.py"
    definitions.write_text(DEFINITIONS)
    with place.instance() as instance:
        address = instance.event_log_storage.postgres_url  # type: ignore[attr-defined]
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
    with closing(
        psycopg2.connect(
            db.make_url(address).set(drivername="postgresql").render_as_string(hide_password=False)
        )
    ) as connection:
        connection.autocommit = True

        def look() -> tuple[int, int]:
            nonlocal peak
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT count(*) FILTER (WHERE application_name = 'dagster-lifeguard'), "
                    "count(*) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND pid <> pg_backend_pid()",
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


def measures(*, full: bool) -> Iterator[Measure]:
    """Connections of so many runs at once."""
    with tempfile.TemporaryDirectory() as folder, places() as homes:
        for runs in (1, 10) if full else (1,):
            (engine, ours, peak), (_, stock, stock_peak) = (
                count(homes["PostgreSQL", storage], runs, Path(folder))
                for storage in ("lifeguard", "stock")
            )
            name = f"Connections of {runs} {'run' if runs == 1 else 'runs'}, {STEPS} steps each"
            processes = runs * (STEPS + 1)
            yield Measure(f"{name}, the engine's per process", engine / processes, "", None, 1)
            yield Measure(f"{name}, all, steady", ours, "", stock)
            yield Measure(f"{name}, all, peak", peak, "", stock_peak)
