"""What commands read grows with what they show: counted with ten of each thing and with many."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import sqlalchemy as db
from click.testing import CliRunner
from dagster._core.storage.runs import SqlRunStorage

from dagster_lifeguard.cli import main
from dagster_lifeguard.compat import events, stored_runs
from dagster_lifeguard.deployment.history import instance_history as reading

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from crowd import Crowd, fill, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

FEW = Crowd(pools=10, waiting=10, queued=10, over=10)
MANY = Crowd(pools=1000, waiting=1000, queued=1000, over=1000)
UNFINISHED = MANY.pools + MANY.waiting + MANY.queued
PAST = 2 * 500
"""The runs whose past is read: those that ended last, and those under way."""
RECORD = 2 * 500
"""The runs whose waits are judged, for how often estimates held: those that ended last, and others."""
SHOWN = 10
"""The runs at the pool, or those that the command shows."""
LATEST = 600
"""The newest runs, of which doctor and explain read what they planned."""


class Work(NamedTuple):
    """What a command did.

    Attributes:
        statements: To Dagster's tables.
        bodies: Of runs that were parsed.
        histories: Runs whose events were read.
    """

    statements: int
    bodies: int
    histories: int


@contextmanager
def counted(monkeypatch) -> Iterator[Counter[str]]:
    counts: Counter[str] = Counter()

    def told_by(body):
        counts["bodies"] += 1
        return original_told_by(body)

    def row_to_run(self, row):
        counts["bodies"] += 1
        return original_row_to_run(self, row)

    def read_event_rows(instance, run_ids, kinds):
        counts["histories"] += len(run_ids)
        return original_read(instance, run_ids, kinds)

    def sent(*_):
        counts["statements"] += 1

    original_told_by = stored_runs.told_by
    original_row_to_run = SqlRunStorage._row_to_run
    original_read = events.read_event_rows
    db.event.listen(db.engine.Engine, "before_cursor_execute", sent)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(stored_runs, "told_by", told_by)
            patched.setattr(SqlRunStorage, "_row_to_run", row_to_run)
            patched.setattr(reading, "read_event_rows", read_event_rows)
            yield counts
    finally:
        db.event.remove(db.engine.Engine, "before_cursor_execute", sent)


COMMANDS = {
    "engine status": 0,
    "plan --config {home}/lifeguard.yaml": 0,
    "status": UNFINISHED + PAST,
    "status {pool}": UNFINISHED + PAST + RECORD,
    "explain {pool}": UNFINISHED + PAST + LATEST,
    "explain {run}": UNFINISHED + PAST + LATEST,
    "doctor": UNFINISHED + LATEST,
}
"""How many bodies of runs each may parse where there are many."""

MORE_STATEMENTS = 40
"""A statement reads 500 runs, or 200 plans."""


@pytest.mark.parametrize(("kind", "storage"), [("sqlite", "lifeguard"), ("postgres", "stock")])
def test_what_a_command_reads_is_bounded(make_home, monkeypatch, kind, storage):
    found = {}
    for crowd in (FEW, MANY):
        home = make_home(kind, stock=storage == "stock")
        with home.instance() as instance:
            fill(instance, crowd)
            queued = instance.get_run_ids(limit=1)[0]
        (home.path / "lifeguard.yaml").write_text("engine: lifeguard\n")
        names = {"home": home.path, "pool": name_of(crowd.pools - 1), "run": queued}
        for command in COMMANDS:
            with counted(monkeypatch) as counts:
                arguments = command.format(**names).split()
                result = CliRunner(env={"DAGSTER_HOME": str(home.path)}).invoke(main, arguments)
            assert result.exit_code in (0, 1), result.output
            found[crowd, command] = Work(
                counts["statements"], counts["bodies"], counts["histories"]
            )
    for command, bodies in COMMANDS.items():
        few, many = found[FEW, command], found[MANY, command]
        print(f"{command}: {few} {many}")  # noqa: T201 - shown where it fails
        assert many.statements <= few.statements + MORE_STATEMENTS, command
        assert many.bodies <= bodies + SHOWN, command
        assert many.histories <= PAST + SHOWN, command
