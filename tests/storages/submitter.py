"""A process that submits one run, and stops at two points to be told to go on.

Arguments: the home, the run, the directory of the files by which it is steered, its name in
them, and ``locked`` or ``unlocked``.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_lifeguard.compat import submissions
from dagster_lifeguard.storage import run_coordinator


def main(home: str, run_id: str, control: str, name: str, lock: str) -> None:
    def stop(where: str) -> None:
        Path(control, f"{name}.{where}").touch()
        deadline = time.monotonic() + 120
        while not Path(control, f"{name}.{where}.go").exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody let {name} go on from {where}")
            time.sleep(0.01)

    inner, look = run_coordinator.exclusion, submissions.runs_ahead

    @contextmanager
    def exclusion(instance: Any) -> Any:
        stop("asks")
        with inner(instance) if lock == "locked" else nullcontext():
            yield

    def runs_ahead(instance: Any, run: Any) -> Any:
        found = look(instance, run)
        stop("looked")
        return found

    run_coordinator.exclusion = exclusion
    submissions.runs_ahead = runs_ahead
    with dg.DagsterInstance.from_config(home) as instance:
        instance.submit_run(run_id, None)


if __name__ == "__main__":
    main(*sys.argv[1:])
