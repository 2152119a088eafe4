"""Measure what time does to the engine's tables on PostgreSQL, with autovacuum as it comes.

    python benchmarks/long_life.py --cycles 1000000 --rows 5000000

Cycles: one process claims and releases slots of 100 pools by turns; at every tenth grant a second
step waits for the slot and is let in after the first. After each twentieth part the medians of that
part are printed, with the rows that are dead and not vacuumed yet, and the sizes of the tables with
their indexes. The ledger is left out of these: it keeps what happened for 30 days.

Trim: a ledger of so many rows, of which half are too old. One process trims as each heartbeat does,
but without a pause, while another claims and releases; beside it the same claims before it began.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg2
import sqlalchemy as db
from dagster._core.storage.event_log.schema import SqlEventLogStorageMetadata

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.model import Demand
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
from dagster_lifeguard.engine.store.postgres.connection import connector
from dagster_lifeguard.engine.store.postgres.store import PostgresStore
from dagster_lifeguard.insight.durations import quantile
from instances import new_database, postgres_server, processes
from measures import Measure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STEP = "step"
POOLS = 100
PARTS = 20
WAITS_EVERY = 10
TRIMMED_AT_ONCE = 1000
CLAIMS_BEFORE = 500
LEDGER = "lifeguard_ledger"
DRIFT = 1.5
"""A claim at the end takes at most so many times what it took at the beginning."""
BESIDE = 2.0
"""A claim beside the trim takes at most so many times what it takes without."""
SIZE_MB = 20.0


class Tables(NamedTuple):
    """The engine's tables but the ledger.

    Attributes:
        dead: Rows that are dead and not vacuumed yet, in the table that has the most.
        megabytes: Tables and indexes.
        largest: The name of the table that is largest with its indexes, and its megabytes.
    """

    dead: int
    megabytes: float
    largest: str


def _ask(url: str, text: str) -> list[tuple[Any, ...]]:
    plain = db.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with closing(psycopg2.connect(plain)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(text)
        return cursor.fetchall() if cursor.description else []


def tables(url: str) -> Tables:
    found = _ask(
        url,
        "SELECT relname, n_dead_tup, pg_total_relation_size(relid) / 1e6 FROM pg_stat_user_tables "
        f"WHERE relname LIKE 'lifeguard%' AND relname <> '{LEDGER}' ORDER BY 3 DESC",
    )
    name, _, size = found[0]
    megabytes = float(sum(size for *_, size in found))
    return Tables(max(dead for _, dead, _ in found), megabytes, f"{name} {float(size):.1f} MB")


def live(url: str, cycles: int) -> Iterator[tuple[list[float], Tables]]:
    """The seconds of each claim of each part of so many cycles, and the tables after it."""
    engine = Engine(PostgresStore(connector(url)), EngineOptions(look_again_seconds=3600.0))
    engine.set_pools({f"pool{number}": PoolSettings(1) for number in range(POOLS)})
    engine.settings()
    number = 0
    for part in range(PARTS):
        claims = []
        while number < cycles * (part + 1) // PARTS:
            demand = Demand.of({f"pool{number % POOLS}": 1})
            asked = time.perf_counter()
            assert engine.claim(f"run{number}", STEP, demand).granted
            claims.append(time.perf_counter() - asked)
            waits = number % WAITS_EVERY == 0
            if waits:
                assert not engine.claim(f"run{number + 1}", STEP, demand).granted
            engine.release(f"run{number}", STEP)
            if waits:
                assert engine.claim(f"run{number + 1}", STEP, demand).granted
                engine.release(f"run{number + 1}", STEP)
            number += 1 + waits
        yield claims, tables(url)
    engine.close()


def fill_ledger(url: str, rows: int) -> None:
    """So many rows of the last 60 days, as 30 are kept."""
    _ask(
        url,
        f"INSERT INTO {LEDGER} (at, kind, pool, run_id, step_key, slots, fence, session, seconds) "
        "SELECT extract(epoch FROM clock_timestamp()) - 60 * 86400.0 * (1 - n / "
        f"{rows}.0), CASE WHEN n % 2 = 0 THEN 'released' ELSE 'granted' END, "
        f"'pool' || n % {POOLS}, md5((n / 2)::text), 'step', 1, n, md5('session'), 1.0 "
        f"FROM generate_series(1, {rows}) n",
    )


def keep_trimming(url: str, pipe: Any) -> None:
    """Trim to the end; send the rows and the seconds."""
    store = PostgresStore(connector(url))
    keep_seconds = EngineOptions().keep_ledger_seconds
    pipe.recv()
    rows, longest, began = 0, 0.0, time.perf_counter()
    while True:
        asked = time.perf_counter()
        count = store.trim_ledger(keep_seconds, TRIMMED_AT_ONCE)
        longest = max(longest, time.perf_counter() - asked)
        if not count:
            break
        rows += count
    pipe.send((rows, time.perf_counter() - began, longest))
    store.close()


def claims_beside_a_trim(url: str) -> tuple[list[float], list[float], tuple[int, float, float]]:
    """The seconds of each claim before the trim and beside it, and what the trim did."""
    # Its own heartbeats trim nothing.
    engine = Engine(PostgresStore(connector(url)), EngineOptions(keep_ledger_seconds=1e9))
    engine.change_pool("beside", limit=1)
    engine.settings()
    demand = Demand.of({"beside": 1})

    def cycle(number: int) -> float:
        asked = time.perf_counter()
        assert engine.claim(f"run{number}", STEP, demand).granted
        taken = time.perf_counter() - asked
        engine.release(f"run{number}", STEP)
        return taken

    before = [cycle(number) for number in range(CLAIMS_BEFORE)]
    context = processes()
    ours, theirs = context.Pipe()
    process = context.Process(target=keep_trimming, args=(url, theirs), daemon=True)
    process.start()
    ours.send("go")
    beside: list[float] = []
    while not ours.poll():
        beside.append(cycle(CLAIMS_BEFORE + len(beside)))
    done = ours.recv()
    process.join()
    engine.close()
    return before, beside, done


def of_cycles(url: str, cycles: int) -> Iterator[Measure]:
    """Drift, dead rows and sizes."""
    found: list[tuple[list[float], Tables]] = []
    for claims, state in live(url, cycles):
        found.append((claims, state))
        print(
            f"    {len(found)}/{PARTS}: claim p50 {_ms(claims, 0.5):.2f} ms, "
            f"p95 {_ms(claims, 0.95):.2f} ms, dead {state.dead:,}, {state.megabytes:.1f} MB, "
            f"largest {state.largest}",
            file=sys.stderr,
            flush=True,
        )
    name = f"{cycles:,} cycles"
    for text, rank, goal in (("p50", 0.5, DRIFT), ("p95", 0.95, None)):
        first, last = (
            sorted(_ms(claims, rank) for claims, _ in parts)[1]  # The median of three parts.
            for parts in (found[:3], found[-3:])
        )
        yield Measure(
            f"{name}: claim {text} at the end, of the beginning", last / first, "x", goal=goal
        )
    dead, megabytes = max(state.dead for _, state in found), found[-1][1].megabytes
    yield Measure(f"{name}: dead rows of a table, at most", dead, "")
    yield Measure(f"{name}: tables and indexes but the ledger", megabytes, "MB", goal=SIZE_MB)
    ((ledger,),) = _ask(url, f"SELECT pg_total_relation_size('{LEDGER}') / 1e6")
    yield Measure(f"{name}: the ledger", float(ledger), "MB")


def of_trim(url: str, rows: int) -> Iterator[Measure]:
    """Claims beside the trim of a long ledger."""
    fill_ledger(url, rows)
    before, beside, (trimmed, seconds, longest) = claims_beside_a_trim(url)
    name = f"A ledger of {rows:,} rows"
    yield Measure(f"{name}: trimmed", trimmed, "rows")
    yield Measure(f"{name}: trimmed", trimmed / seconds, "rows/s")
    yield Measure(f"{name}: the longest trim of {TRIMMED_AT_ONCE:,} rows", 1000 * longest, "ms")
    for text, rank, goal in (("p50", 0.5, BESIDE), ("p95", 0.95, None), ("worst", 1.0, None)):
        mine, alone = _ms(beside, rank), _ms(before, rank)
        title = f"{name}: claim beside the trim, {text}"
        yield Measure(f"{title}, of one without", mine / alone, "x", goal=goal)
        yield Measure(title, mine, "ms")


def _new_tables(server: db.URL, name: str) -> str:
    """The address of a new database with Dagster's tables and the engine's."""
    url = new_database(server, name)
    database = db.create_engine(url)
    SqlEventLogStorageMetadata.create_all(database)
    database.dispose()
    store = PostgresStore(connector(url))
    store.migrate()
    store.close()
    return url


def _ms(seconds: Sequence[float], rank: float) -> float:
    return 1000 * quantile(sorted(seconds), rank)


def measures(*, full: bool) -> Iterator[Measure]:
    """Many cycles, and the trim of a long ledger."""
    yield from of_sizes(*((1_000_000, 5_000_000) if full else (10_000, 100_000)))


def of_sizes(cycles: int, rows: int) -> Iterator[Measure]:
    """So many cycles, and a ledger of so many rows; none of what is 0."""
    with postgres_server() as server:
        for name, size, of in (("cycles", cycles, of_cycles), ("ledger", rows, of_trim)):
            if size:
                yield from of(_new_tables(server, f"life_{name}"), size)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what time does to the engine's tables.")
    parser.add_argument("--cycles", type=int, default=1_000_000, help="how many; 0: none")
    parser.add_argument("--rows", type=int, default=5_000_000, help="of the ledger; 0: no trim")
    options = parser.parse_args()
    for measure in of_sizes(options.cycles, options.rows):
        print("  ".join(measure.cells), flush=True)
