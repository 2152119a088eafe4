"""A generated week: executions that ask for pools, and runs that pass through the run queue."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from dagster_lifeguard.compat.health import RunQueue
from dagster_lifeguard.engine.rules.model import Demand, TicketKey
from dagster_lifeguard.engine.rules.pool_settings import BACKFILL_TAG, PoolSettings
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.insight.simulation.arrivals import Arrival, Submission
from dagster_lifeguard.insight.simulation.run_queue import QueuePlay

if TYPE_CHECKING:
    from collections.abc import Mapping

SECONDS = 7 * 86400.0
POOLS = 100
TEAMS = 10

PLAIN: dict[str, tuple[bool, PoolSettings | None, float]] = {
    # Whether each of 100 assets has a pool of its own, of 1; the pool that all share; its load.
    "own pools": (True, None, 0.0),
    "shared, load 0.9": (False, PoolSettings(7), 0.9),
    "own and shared, 0.7": (True, PoolSettings(10), 0.7),
    "own and shared, 0.9": (True, PoolSettings(8), 0.9),
    "fair, load 0.9": (False, PoolSettings(7, fair_by="team"), 0.9),
    "rate, load 0.9": (False, PoolSettings(20, Rate(11, 60)), 0.9),
}
"""Kinds of weeks whose executions ask at random times, without runs."""

RUN_QUEUE = "run queue"
"""A week of runs of 1 to 4 steps; half of the runs are those of 40 backfills."""

FAIR_RUN_QUEUE = "run queue, fair"
"""The same, if the pool that nearly all share is shared fairly among backfills."""

KINDS = (*PLAIN, RUN_QUEUE, FAIR_RUN_QUEUE)


class Week(NamedTuple):
    """What is played: see ``world.play``."""

    arrivals: tuple[Arrival, ...]
    settings: Mapping[str, PoolSettings]
    queue: QueuePlay | None = None


def week(kind: str, executions: int) -> Week:
    """The same week for the same arguments."""
    if kind in PLAIN:
        return _plain(kind, executions)
    return _of_runs(executions, fair=kind == FAIR_RUN_QUEUE)


def _plain(kind: str, executions: int) -> Week:
    has_own, shared, load = PLAIN[kind]
    draws = random.Random(1)
    mean = 40.0 * 100_000 / executions
    if shared is not None and shared.rate is None:
        assert shared.limit is not None
        mean = load * shared.limit * SECONDS / executions
    demands = [
        Demand.of({**({f"own{n}": 1} if has_own else {}), **({"shared": 1} if shared else {})})
        for n in range(POOLS)
    ]
    teams = [{"team": f"team{n}"} for n in range(TEAMS)]
    arrivals = sorted(
        (
            Arrival(
                TicketKey(f"run{n}", "step"),
                draws.random() * SECONDS,
                draws.choice(demands),
                draws.expovariate(1 / mean),
                tags=draws.choice(teams),
            )
            for n in range(executions)
        ),
        key=lambda arrival: arrival.at,
    )
    settings = {f"own{n}": PoolSettings(1) for n in range(POOLS)}
    if shared is not None:
        settings["shared"] = shared
    return Week(tuple(arrivals), settings)


BACKFILLS = 40
RUNS_MAX = 25
SHARED_LIMIT = 16


def _of_runs(executions: int, *, fair: bool) -> Week:
    """Runs whose first steps ask for a pool of their own asset, and all for a shared one."""
    draws = random.Random(1)
    count = executions * 2 // 5
    times = [draws.random() * SECONDS for _ in range(count // 2)]
    backfills: list[str | None] = [None] * len(times)
    while len(times) < count:
        begin, name = draws.random() * SECONDS, f"backfill{len(times)}"
        some = min(count // (2 * BACKFILLS), count - len(times))
        times += [begin + n * 0.01 for n in range(some)]
        backfills += [name] * some
    # So long that the shared pool is held for 0.8 of the time.
    mean = 0.8 * SHARED_LIMIT * SECONDS / executions
    submissions, steps = [], []
    for run, (at, backfill) in enumerate(sorted(zip(times, backfills, strict=True), key=_moment)):
        asset = draws.randrange(POOLS)
        tags = {"team": f"team{draws.randrange(TEAMS)}"}
        if backfill is not None:
            tags[BACKFILL_TAG] = backfill
        priority = 0 if backfill is not None else draws.choice((0, 0, 1))
        pools = {f"own{asset}": 1, "shared": 1}
        starts = 2.0 + draws.random()
        submissions.append(
            Submission(
                *(f"{run:08d}-0000-4000-8000-000000000000", at, starts, 1.0, priority, tags),
                frozenset(pools),
                pools,
            )
        )
        first = None
        for number in range(draws.randint(1, 4)):
            key = TicketKey(submissions[-1].run_id, f"asset{asset}_{number}")
            asks = Demand.of(pools if number == 0 else {"shared": 1})
            delay = starts if first is None else 0.5
            seconds = draws.expovariate(1 / mean)
            steps.append(Arrival(key, delay, asks, seconds, priority, tags, first, run))
            if first is None:
                first = len(steps) - 1
    settings = {f"own{n}": PoolSettings(2) for n in range(POOLS)}
    settings["shared"] = PoolSettings(SHARED_LIMIT, fair_by=BACKFILL_TAG if fair else None)
    rules = RunQueue(RUNS_MAX, (("team", None, True, 6),), heeds_pools=True, buffer=0)
    return Week(tuple(steps), settings, QueuePlay(tuple(submissions), rules))


def _moment(submitted: tuple[float, str | None]) -> float:
    return submitted[0]
