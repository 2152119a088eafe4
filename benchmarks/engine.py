"""Measure the engine beside Dagster's stock storage and beside the floor.

The floor is two transactions of one row each through the same driver, on the same database file
or server, with the same durability: what no claim and release can beat without giving one up.
Figures are for ratios on one machine.
"""

from __future__ import annotations

import os
import random
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]
import sqlalchemy as db
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster_postgres.event_log import PostgresEventLogStorage

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.model import Demand
from dagster_lifeguard.engine.store.postgres.connection import connector
from dagster_lifeguard.engine.store.postgres.store import PostgresStore
from dagster_lifeguard.engine.store.sqlite.store import SqliteStore
from dagster_lifeguard.insight.durations import quantile
from instances import postgres_server, processes
from measures import Measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

STEP = "step"
PROCESSES = 4
WARM_UP = 20
SLICES = 5
LOST_SECONDS = 1800.0
"""A process that says nothing for so long has failed, however busy the machine is."""
FLOOR_PERCENT = {"SQLite": 75.0, "PostgreSQL": 60.0}
FLOOR_STATEMENTS = {"SQLite": 6, "PostgreSQL": 4}
"""PostgreSQL's driver begins a transaction with its first statement, in one message."""
SCALING = {"SQLite": None, "PostgreSQL": 2.5}
HANDOFF_MS = 10.0
HOLD_SECONDS = (0.1, 0.2)
"""By chance, or a waiter that looks at intervals is met at the same point of each."""
WAITER_PERCENT = 2.0
WAITER_REASON = {
    "SQLite": "who is next looks at the file every 6 ms, for SQLite tells nobody of a commit",
    "PostgreSQL": "",
}
FLAT = 2.0
"""A claim at any depth takes at most so many times what it takes in an empty pool."""


@dataclass(frozen=True)
class Place:
    """A database, as a value that a spawned process can open."""

    kind: str
    address: str

    def engine(self) -> Engine:
        store: SqliteStore | PostgresStore = (
            SqliteStore(self.address)
            if self.kind == "SQLite"
            else PostgresStore(connector(self.address))
        )
        store.migrate()
        return Engine(store, EngineOptions(look_again_seconds=5.0))

    def stock(self) -> Any:
        if self.kind == "SQLite":
            return SqliteEventLogStorage(str(Path(self.address).parent))
        return PostgresEventLogStorage(self.address)

    def another(self, name: str) -> Place:
        """A new database on the same disk or server."""
        if self.kind == "SQLite":
            folder = Path(self.address).parent / name
            folder.mkdir()
            return Place(self.kind, str(folder / "index.db"))
        with closing(connector(self.address)()) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute(f"CREATE DATABASE {name}")
        url = db.make_url(self.address).set(database=name)
        return Place(self.kind, url.render_as_string(hide_password=False))

    def execute(self, *statements: str) -> None:
        if self.kind == "SQLite":
            with closing(sqlite3.connect(self.address, timeout=30)) as connection:
                for statement in statements:
                    connection.execute(statement)
                connection.commit()
            return
        with closing(connector(self.address)()) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            connection.commit()


@contextmanager
def places() -> Iterator[list[Place]]:
    """A new SQLite file and a new PostgreSQL server, with Dagster's tables."""
    with postgres_server() as server, tempfile.TemporaryDirectory() as folder:
        found = [
            Place("SQLite", str(Path(folder) / "index.db")),
            Place("PostgreSQL", server.render_as_string(hide_password=False)),
        ]
        for place in found:
            place.stock().dispose()
            place.engine().close()
        yield found


# ---- cycles ------------------------------------------------------------------------------------


@dataclass
class Cycles:
    """Seconds of each claim and each release, one after the other; in all, also of processor."""

    claims: list[float]
    releases: list[float]
    processor: float = 0.0

    @property
    def processor_ms(self) -> float:
        """Milliseconds of this process's processor for one cycle."""
        return 1000 * self.processor / len(self.claims)

    @property
    def per_second(self) -> float:
        """By medians, for a shared machine has pauses that say nothing about the code."""
        return 1 / (statistics.median(self.claims) + statistics.median(self.releases))

    @property
    def in_all_per_second(self) -> float:
        """By the time that all of them took: what several processes add up to."""
        return len(self.claims) / (sum(self.claims) + sum(self.releases))

    def add(self, other: Cycles) -> None:
        self.claims += other.claims
        self.releases += other.releases
        self.processor += other.processor


def cycles(claim: Callable[[str], object], release: Callable[[str], object], count: int) -> Cycles:
    found = Cycles([], [])
    began = 0.0
    for number in range(-WARM_UP, count):
        if number == 0:
            began = time.process_time()
        run = f"{os.getpid()}-{number}"  # Several processes must not share tickets.
        begun = time.perf_counter()
        claim(run)
        between = time.perf_counter()
        release(run)
        ended = time.perf_counter()
        if number >= 0:
            found.claims.append(between - begun)
            found.releases.append(ended - between)
    found.processor = time.process_time() - began
    return found


def floor_cycles(place: Place, count: int) -> Cycles:
    insert, delete = "INSERT INTO floor VALUES (1, 1)", "DELETE FROM floor WHERE id = 1"
    place.execute(
        "DROP TABLE IF EXISTS floor", "CREATE TABLE floor (id INTEGER PRIMARY KEY, v INTEGER)"
    )
    if place.kind == "SQLite":
        with closing(sqlite3.connect(place.address, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = FULL")

            def write(statement: str) -> None:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(statement)
                connection.execute("COMMIT")

            return cycles(lambda _: write(insert), lambda _: write(delete), count)
    with closing(connector(place.address)()) as connection, connection.cursor() as cursor:

        def write(statement: str) -> None:
            cursor.execute(statement)
            connection.commit()

        return cycles(lambda _: write(insert), lambda _: write(delete), count)


def engine_cycles(
    place: Place, count: int, pool: str = "cycle", *, guesses: bool = True
) -> tuple[Cycles, int, int]:
    """The cycles, and the statements and round trips (SQLite: transactions) of one."""
    engine = place.engine()
    if not guesses:
        engine.store.grant_unseen = None  # type: ignore[misc]
    engine.change_pool(pool, limit=1)
    demand = Demand.of({pool: 1})
    connection: Any = engine.store.connection if place.kind == "PostgreSQL" else None  # type: ignore[attr-defined]
    statements: list[str] = []
    if place.kind == "SQLite":
        engine.claim("count", STEP, demand)
        raw = engine.store.connection.acquire()  # type: ignore[attr-defined]
        engine.release("count", STEP)
        raw.set_trace_callback(statements.append)
        engine.claim("count", STEP, demand)
        engine.release("count", STEP)
        raw.set_trace_callback(None)
        engine.store.connection.leave()  # type: ignore[attr-defined]
        sent, trips = len(statements), sum(text.startswith("BEGIN") for text in statements)
    found = cycles(
        lambda run: engine.claim(run, STEP, demand), lambda run: engine.release(run, STEP), count
    )
    if connection is not None:
        before = connection.statements, connection.round_trips
        cycles(
            lambda run: engine.claim(run, STEP, demand),
            lambda run: engine.release(run, STEP),
            count,
        )
        total = count + WARM_UP
        sent = round((connection.statements - before[0]) / total)
        trips = round((connection.round_trips - before[1]) / total)
    engine.close()
    return found, sent, trips


def stock_cycles(place: Place, count: int, pool: str = "stock") -> Cycles:
    storage = place.stock()
    storage.set_concurrency_slots(pool, 1)
    found = cycles(
        lambda run: storage.claim_concurrency_slot(pool, run, STEP),
        lambda run: storage.free_concurrency_slot_for_step(run, STEP),
        count,
    )
    storage.dispose()
    return found


def _one_of_several(place: Place, kind: str, index: int, count: int, start: Any, out: Any) -> None:
    pool = f"{kind}-{index}"
    start.wait()
    used = time.process_time()
    if kind == "stock":
        found = stock_cycles(place, count, pool)
    else:
        found, _, _ = engine_cycles(place, count, pool)
    used = time.process_time() - used
    out.put((found.in_all_per_second, used / cycles_made(place, count)))


def cycles_made(place: Place, count: int) -> int:
    """How many ``engine_cycles`` makes: those on PostgreSQL once more, to count messages."""
    return (2 if place.kind == "PostgreSQL" else 1) * (count + WARM_UP)


def several(place: Place, kind: str, count: int, number: int) -> tuple[float, float]:
    """Cycles per second of so many processes in all, each with a pool of its own.

    With it the processor seconds that a cycle takes in its process, of the engine's.
    """
    context = processes()
    start, out = context.Barrier(number), context.Queue()
    made = [
        context.Process(target=_one_of_several, args=(place, kind, index, count, start, out))
        for index in range(number)
    ]
    for process in made:
        process.start()
    told = [out.get(timeout=LOST_SECONDS) for _ in made]
    for process in made:
        process.join()
    return sum(rate for rate, _ in told), statistics.median(used for _, used in told)


def server_processor(place: Place) -> float:
    """The processor seconds of the PostgreSQL server so far, of the processes that ended too."""
    if place.kind == "SQLite":
        return 0.0
    with closing(connector(place.address)()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_read_file('postmaster.pid')")
        server = psutil.Process(int(cursor.fetchone()[0].split()[0]))
    ended = server.cpu_times()
    seconds = float(ended.children_user + ended.children_system)
    for process in (server, *server.children()):
        with suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            seconds += used.user + used.system
    return seconds


# ---- handoff and waiting -----------------------------------------------------------------------


def _wait_for_slots(place: Place, kind: str, count: int, pipe: Any) -> None:
    engine = place.engine() if kind == "lifeguard" else None
    storage: Any = None if engine else place.stock()
    demand = Demand.of({"handoff": 1})
    cpu = 0.0
    for number in range(count):
        run = f"waiter{number}"
        pipe.recv()

        def claim(run: str = run) -> bool:
            if engine is not None:
                return engine.claim(run, STEP, demand).granted
            return bool(storage.claim_concurrency_slot("handoff", run, STEP).is_claimed)

        assert not claim()
        pipe.send("waiting")
        begun = time.process_time()
        while True:
            if engine is not None:
                engine.wait(run, STEP, 5.0)
            else:
                time.sleep(1.0)  # The first of stock's intervals; they grow to 15 seconds.
            if claim():
                break
        granted = time.monotonic()
        cpu += time.process_time() - begun
        if engine is not None:
            engine.release(run, STEP)
        else:
            storage.free_concurrency_slot_for_step(run, STEP)
        pipe.send(granted)
    pipe.send(cpu)
    if engine is not None:
        engine.close()


def handoffs(place: Place, kind: str, count: int) -> tuple[list[float], float]:
    """Seconds from each release to the grant, and the waiter's CPU seconds per second waited."""
    context = processes()
    ours, theirs = context.Pipe()
    process = context.Process(target=_wait_for_slots, args=(place, kind, count, theirs))
    process.start()
    engine, storage = place.engine(), place.stock()
    if kind == "lifeguard":
        engine.change_pool("handoff", limit=1)
    else:
        storage.set_concurrency_slots("handoff", 1)
    found = []
    waited = 0.0
    for number in range(count):
        run = f"holder{number}"
        if kind == "lifeguard":
            assert engine.claim(run, STEP, Demand.of({"handoff": 1})).granted
        else:
            assert storage.claim_concurrency_slot("handoff", run, STEP).is_claimed
        ours.send("go")
        ours.recv()
        begun = time.monotonic()
        time.sleep(random.uniform(*HOLD_SECONDS))
        released = time.monotonic()
        if kind == "lifeguard":
            engine.release(run, STEP)
        else:
            storage.free_concurrency_slot_for_step(run, STEP)
        granted = ours.recv()
        found.append(granted - released)
        waited += granted - begun
    cpu = ours.recv() / waited
    process.join()
    engine.close()
    storage.dispose()
    return found, cpu


# ---- depth -------------------------------------------------------------------------------------


def fill(place: Place, waiting: int, pools: int) -> None:
    """Put tickets and pools into the tables, as if their processes lived."""
    now = time.time()
    series = (
        "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {}) "
        "SELECT n FROM s) AS series"
    )
    queued = "1" if place.kind == "SQLite" else "TRUE"
    off = "0" if place.kind == "SQLite" else "FALSE"
    place.execute(
        "DELETE FROM lifeguard_tickets",
        "DELETE FROM lifeguard_queue",
        "DELETE FROM lifeguard_sessions",
        f"INSERT INTO lifeguard_sessions VALUES ('bench', 'bench', {now}, {now + 1e6}, '', 1)",
        "INSERT INTO lifeguard_tickets "
        "(number, run_id, step_key, priority, demand, session, since) "
        f"SELECT n - 1000000, 'waiting' || n, 'step', 0, '{{{{\"deep\": 1}}}}', 'bench', {now} "
        f"FROM {series}".format(waiting),
        "INSERT INTO lifeguard_queue (pool, number, priority, slots, queued) "
        f"SELECT 'deep', n - 1000000, 0, 1, {queued} FROM {series}".format(waiting),
        'INSERT INTO concurrency_limits (concurrency_key, "limit", using_default_limit) '
        f"SELECT 'many' || n, 1, {off} FROM {series} WHERE TRUE "
        "ON CONFLICT (concurrency_key) DO NOTHING".format(pools),
        "INSERT INTO lifeguard_pools (pool) "
        f"SELECT 'many' || n FROM {series} WHERE TRUE ON CONFLICT (pool) DO NOTHING".format(pools),
    )


def claim_latencies(
    place: Place, depths: list[tuple[int, int]], count: int
) -> list[tuple[list[float], list[float]]]:
    """Seconds of new claims behind so many waiters, and of claims that are granted elsewhere.

    Each depth, of tickets waiting and of pools, has a database of its own, and they take turns.
    """
    places_ = [place.another(f"depth{number}") for number in range(len(depths))]
    engines = []
    for each, (waiting, pools) in zip(places_, depths, strict=True):
        each.stock().dispose()
        engine = each.engine()
        engine.change_pool("deep", limit=0)
        fill(each, waiting, pools)
        engines.append(engine)
    found: list[tuple[list[float], list[float]]] = [([], []) for _ in depths]
    for number in range(-WARM_UP, count):
        for engine, (_, pools), (behind, granted) in zip(engines, depths, found, strict=True):
            begun = time.perf_counter()
            engine.claim(f"behind{number}", STEP, Demand.of({"deep": 1}))
            between = time.perf_counter()
            engine.claim(f"in{number}", STEP, Demand.of({f"many{number % pools + 1}": 1}))
            ended = time.perf_counter()
            engine.release(f"in{number}", STEP)
            engine.release(f"behind{number}", STEP)  # Or the depth would grow.
            if number >= 0:
                behind.append(between - begun)
                granted.append(ended - between)
    for engine in engines:
        engine.close()
    return found


# ---- the measures ------------------------------------------------------------------------------


def p50(values: Sequence[float]) -> float:
    return quantile(sorted(values), 0.5)


def p95(values: Sequence[float]) -> float:
    return quantile(sorted(values), 0.95)


def measures(*, full: bool) -> Iterator[Measure]:
    """Cycles, processes, handoffs and depth, on each database."""
    count = 1000 if full else 100
    with places() as found:
        for place in found:
            yield from of_cycles(place, count)
        for place in found:
            yield from of_processes(place, count)
        for place in found:
            yield from of_handoffs(place, 60 if full else 15, 6 if full else 3)
        for place in found:
            yield from of_depths(place, 100_000 if full else 10_000, 100 if full else 30)


def of_cycles(place: Place, count: int) -> Iterator[Measure]:
    """Claim and release of one process, one pool of limit 1."""
    floor, ours = Cycles([], []), Cycles([], [])
    for _ in range(SLICES):  # In turn, so that both meet the same machine.
        floor.add(floor_cycles(place, count // SLICES))
        slice_, statements, trips = engine_cycles(place, count // SLICES)
        ours.add(slice_)
    stock = stock_cycles(place, max(count // 10, 20))
    name = f"{place.kind}: claim + release"
    yield Measure(name, ours.per_second, "/s", stock.per_second, better="higher")
    yield Measure(
        f"{name}, of the floor", 100 * ours.per_second / floor.per_second, "%",
        100 * stock.per_second / floor.per_second, FLOOR_PERCENT[place.kind], "higher",
        f"{statements} statements take {ours.processor_ms:.2f} ms of this process, the floor's "
        f"{FLOOR_STATEMENTS[place.kind]} take {floor.processor_ms:.2f} ms",
    )  # fmt: skip
    for verb, seconds, of_stock in (
        ("claim", ours.claims, stock.claims), ("release", ours.releases, stock.releases),
    ):  # fmt: skip
        for text, of in (("p50", p50), ("p95", p95)):
            yield Measure(
                f"{place.kind}: {verb}, {text}", 1000 * of(seconds), "ms", 1000 * of(of_stock)
            )
    if place.kind != "SQLite":
        looked, _, _ = engine_cycles(place, count, guesses=False)
        yield Measure(
            f"{place.kind}: claim that looks before it grants, p50", 1000 * p50(looked.claims), "ms"
        )
    yield Measure(f"{name}, statements", statements, "")
    trip = "transactions" if place.kind == "SQLite" else "round trips"
    yield Measure(f"{name}, {trip}", trips, "")


def of_processes(place: Place, count: int) -> Iterator[Measure]:
    """Several processes with a pool each."""
    sizes = (("stock", max(count // 10, 20)), ("lifeguard", count))
    one = {kind: several(place, kind, cycles_, 1)[0] for kind, cycles_ in sizes}
    of_stock, _ = several(place, "stock", sizes[0][1], PROCESSES)
    server = server_processor(place)
    ours, client_seconds = several(place, "lifeguard", count, PROCESSES)
    name = f"{place.kind}: {PROCESSES} processes with a pool each"
    reason = ""
    if place.kind != "SQLite":
        made = PROCESSES * cycles_made(place, count)
        server_seconds = (server_processor(place) - server) / made
        yield Measure(f"{name}, processor of a cycle, client", 1000 * client_seconds, "ms")
        yield Measure(f"{name}, processor of a cycle, server", 1000 * server_seconds, "ms")
        cores = os.cpu_count() or 1
        most = cores / (client_seconds + server_seconds)
        reason = f"{cores} cores allow {most:,.0f} cycles/s to client and server"
    yield Measure(f"{name}, in all", ours, "/s", of_stock, better="higher")
    yield Measure(
        f"{name}, of one's", ours / one["lifeguard"], "x",
        of_stock / one["stock"], SCALING[place.kind], "higher", reason,
    )  # fmt: skip


def of_handoffs(place: Place, count: int, stock_count: int) -> Iterator[Measure]:
    """From a release in one process to the grant in another."""
    times, cpu = handoffs(place, "lifeguard", count)
    of_stock, stock_cpu = handoffs(place, "stock", stock_count)
    for text, of, goal in (("p50", p50, None), ("p95", p95, HANDOFF_MS)):
        yield Measure(
            f"{place.kind}: release to grant, {text}", 1000 * of(times), "ms",
            1000 * of(of_stock), goal,
        )  # fmt: skip
    yield Measure(
        f"{place.kind}: waiter's share of a core", 100 * cpu, "%", 100 * stock_cpu, WAITER_PERCENT,
        reason=WAITER_REASON[place.kind],
    )  # fmt: skip


def of_depths(place: Place, deep: int, count: int) -> Iterator[Measure]:
    """Claims among many tickets and pools, as multiples of those among ten."""
    depths = [(10, 10), (1000, 10), (deep, 10), (10, 10_000)]
    latencies = claim_latencies(place, depths, count)
    first = [p50(seconds) for seconds in latencies[0]]
    for (waiting, pools), pair in zip(depths[1:], latencies[1:], strict=True):
        among = f"{waiting:,} waiting and {pools:,} pools, of 10 and 10"
        for text, seconds, least in zip(
            ("a claim that waits", "a grant elsewhere"), pair, first, strict=True
        ):
            yield Measure(f"{place.kind}: {text}, {among}", p50(seconds) / least, "x", goal=FLAT)
