"""Measure `lifeguard audit` on a generated history of a million executions.

The history is made of a real run: Dagster executes one with 100 assets, and its rows are written
again for each further run, later and with an id of its own, bodies and all. The ledger has the
rows that the engine writes. Each audit runs in a process of its own, of which the time of the
audit and the largest resident memory are printed; importing Dagster is in the memory and not in
the time. In full it takes 7 GB of disk.
"""

from __future__ import annotations

import json
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack, closing, contextmanager
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
import sqlalchemy as db
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.runs.schema import RunsTable

from dagster_lifeguard.deployment.instance import InstanceDeployment
from dagster_lifeguard.engine.rules.model import EntryKind
from dagster_lifeguard.engine.store.sql import statements
from dagster_lifeguard.inspections.audit.deployment_audit import audit
from instances import QUIET, postgres_server
from measures import Measure

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = 100
PACE_SECONDS = 0.01
IN_FLIGHT = 50
SETTINGS: dict[str, Any] = {
    **QUIET,
    "concurrency": {"pools": {"default_limit": 1}},
}
KINDS = {
    "ledger": "SQLite's ledger",
    "sqlite": "SQLite's event logs",
    "postgres": "PostgreSQL's event logs",
    "postgres-ledger": "PostgreSQL's ledger",
}


@contextmanager
def home_of(kind: str) -> Iterator[Path]:
    """A DAGSTER_HOME for this kind of history, deleted at the end."""
    folder = Path(tempfile.mkdtemp(prefix="lifeguard-audit-"))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lifeguard-audit-")))
        config: dict[str, Any] = {"base_dir": str(folder)}
        database = "sqlite"
        if kind.startswith("postgres"):
            server = stack.enter_context(postgres_server())
            # Without its driver named, Dagster and SQLAlchemy differ in which they take.
            config = {"postgres_url": server.render_as_string(hide_password=False)}
            database = "postgres"
        storage: dict[str, Any] = {database: config}
        if kind.endswith("ledger"):
            name = f"Lifeguard{database.capitalize()}Storage"
            custom = {"module": "dagster_lifeguard.storage", "class": name, "config": config}
            storage = {"custom": custom}
        (folder / "dagster.yaml").write_text(json.dumps({**SETTINGS, "storage": storage}))
        yield folder


def fill(kind: str, home: Path, executions: int) -> None:
    """Write the history."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        if kind.endswith("ledger"):
            fill_ledger(instance, executions)
        else:
            fill_event_logs(instance, kind, max(1, executions // STEPS))


def fill_ledger(instance: dg.DagsterInstance, executions: int) -> None:
    event_log: Any = instance.event_log_storage
    for number in range(STEPS):
        event_log.set_concurrency_slots(f"pool{number}", 1)
    began = time.time() - executions * PACE_SECONDS
    entries = entries_of(executions, began)
    if isinstance(event_log, SqliteEventLogStorage):
        with closing(sqlite3.connect(event_log.path_for_shard("index"))) as file, file:
            file.execute("UPDATE lifeguard_ledger SET at = ?", (began,))
            file.executemany(statements("sqlite")["add_entry"], entries)
        return
    columns = "at, kind, pool, run_id, step_key, slots, fence, session, seconds"
    with event_log.index_connection() as connection:
        connection.execute(db.text("UPDATE lifeguard_ledger SET at = :began"), {"began": began})
        cursor = connection.connection.cursor()
        while rows := "".join("\t".join(map(str, e[:9])) + "\n" for e in islice(entries, 10_000)):
            cursor.copy_expert(f"COPY lifeguard_ledger ({columns}) FROM STDIN", StringIO(rows))
        cursor.execute("ANALYZE lifeguard_ledger")


def entries_of(executions: int, began: float) -> Iterator[tuple[Any, ...]]:
    """Grants and releases as the engine writes them: each pool's turn comes when it is free."""
    for number in range(executions + IN_FLIGHT):
        at = began + number * PACE_SECONDS
        for turn, kind in ((number, EntryKind.GRANTED), (number - IN_FLIGHT, EntryKind.RELEASED)):
            if 0 <= turn < executions:
                run_id = f"{turn // STEPS:08d}-0000-0000-0000-000000000000"
                pool, step = f"pool{turn % STEPS}", f"step{turn % STEPS}"
                fence, held = turn + 1, 0.5
                yield at, kind.value, pool, run_id, step, 1, fence, "session", held, None, None


def fill_event_logs(instance: dg.DagsterInstance, kind: str, runs: int) -> None:
    def asset(number: int) -> dg.AssetsDefinition:
        @dg.asset(name=f"asset{number}", pool=f"pool{number}")
        def made() -> None: ...

        return made

    result = dg.materialize([asset(number) for number in range(STEPS)], instance=instance)
    assert result.success
    (record,) = instance.get_run_records()
    took = cast("float", record.end_time) - cast("float", record.start_time) + 1.0
    run_ids = [str(uuid.uuid4()) for _ in range(runs - 1)]
    storage: Any = instance.run_storage
    with storage.connect() as connection:
        row = dict(connection.execute(db.select(RunsTable)).mappings().one())
        del row["id"]
        for number, run_id in enumerate(run_ids, start=1):
            body = row["run_body"].replace(row["run_id"], run_id)
            moment = row["end_time"] + number * took
            times = {"start_time": row["start_time"] + number * took, "end_time": moment}
            connection.execute(
                RunsTable.insert().values({**row, "run_id": run_id, "run_body": body, **times})
            )
    if kind == "sqlite":
        fill_files(instance, row["run_id"], run_ids, took)
    else:
        fill_table(instance, row["run_id"], run_ids, took)


def fill_files(instance: dg.DagsterInstance, model: str, run_ids: list[str], took: float) -> None:
    event_log: Any = instance.event_log_storage
    source = event_log.path_for_shard(model)
    with closing(sqlite3.connect(source)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for number, run_id in enumerate(run_ids, start=1):
        path = event_log.path_for_shard(run_id)
        shutil.copyfile(source, path)
        with closing(sqlite3.connect(path, isolation_level=None)) as file:
            file.execute("PRAGMA synchronous = OFF")
            file.execute(
                "UPDATE event_logs SET run_id = ?, timestamp = "
                "strftime('%Y-%m-%d %H:%M:%f', timestamp, ?) || '000'",
                (run_id, f"{number * took:+f} seconds"),
            )


def fill_table(instance: dg.DagsterInstance, model: str, run_ids: list[str], took: float) -> None:
    event_log: Any = instance.event_log_storage
    columns = "event, dagster_event_type, step_key, asset_key, partition"
    with event_log.index_connection() as connection:
        for start in range(0, len(run_ids), 100):
            connection.execute(
                db.text(
                    f"INSERT INTO event_logs (run_id, timestamp, {columns}) "
                    "SELECT r.run_id, timestamp + r.number * interval '1 second' * :took, "
                    f"{columns} FROM event_logs e, "
                    "unnest(CAST(:runs AS text[]), CAST(:numbers AS int[])) AS r (run_id, number) "
                    "WHERE e.run_id = :model ORDER BY r.number, e.id"
                ),
                {
                    "runs": run_ids[start : start + 100],
                    "numbers": list(
                        range(start + 1, start + 1 + len(run_ids[start : start + 100]))
                    ),
                    "took": took,
                    "model": model,
                },
            )
        connection.execute(db.text("ANALYZE event_logs"))


def measure(home: Path) -> None:
    """Audit, and print what it took; in a process of its own."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        deployment = InstanceDeployment(instance, str(home))
        by: Any = "ledger" if deployment.settings().engine else "event-logs"
        began = time.perf_counter()
        report = audit(deployment, since=0.0, until=1e11, by=by)
        found = {
            "seconds": time.perf_counter() - began,
            "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "executions": report.limits.executions,
        }
    print(json.dumps(found))


def measures(*, full: bool) -> Iterator[Measure]:
    """Time and memory for each kind of history."""
    executions = 1_000_000 if full else 20_000
    for kind, text in KINDS.items():
        with home_of(kind) as home:
            fill(kind, home, executions)
            command = [sys.executable, "-W", "ignore", __file__, str(home)]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found = json.loads(said.splitlines()[-1])
        name = f"Audit of {found['executions']:,} executions, {text}"
        yield Measure(name, found["seconds"], "s")
        yield Measure(name, found["rss"], "MB")


if __name__ == "__main__":
    measure(Path(sys.argv[1]))
