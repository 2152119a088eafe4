"""What a seed plays: the pools, what is asked for, and the steps of a seed.

A step is a kind, the number of a process, and a number that each kind takes as it needs. ``world``
says what each kind does.
"""

from __future__ import annotations

import random

from dagster_lifeguard.engine.rules.model import Demand
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
from dagster_lifeguard.engine.rules.rate import Rate

PROCESSES = 4
SETTINGS = {
    "one": PoolSettings(1),
    "two": PoolSettings(2),
    "three": PoolSettings(3),
    "rated": PoolSettings(2, Rate(1, 1, 2)),
    "fair": PoolSettings(2, None, "team"),
}
DEMANDS = tuple(
    Demand.of(slots)
    for slots in (
        *({"one": 1}, {"one": 1}, {"two": 1}, {"two": 1}, {"two": 1}, {"two": 2}, {"three": 1}),
        *({"three": 1}, {"three": 1}, {"three": 2}, {"three": 3}, {"one": 1, "three": 2}),
        *({"two": 1, "three": 1}, {"rated": 1}, {"fair": 1}, {"fair": 1}, {"fair": 1}, {"fair": 2}),
    )
)
FAIR_DEMANDS = tuple(demand for demand in DEMANDS if demand.pools == ("fair",))

WEIGHTS = {
    "time": 40,
    "ask": 160,
    "release": 160,
    "together": 25,
    "look": 4,
    "tick": 1,
    "pause": 1,
    "resume": 6,
    "crash": 1,
    "cut": 1,
    "mend": 6,
    "deaf": 2,
    "falter": 2,
    "lose": 2,
    "adopt": 3,
    "leave": 1,
    "limit": 1,
    "clock": 1,
}
"""The kinds of steps, and how often each comes."""

AT_ONCE = frozenset({"ask", "fair", "release", "look", "tick", "crash", "adopt", "leave", "limit"})
"""The kinds that ``together`` may put into the middle of each other."""


CALM = ("time", "ask", "fair", "release", "together", "look", "limit")
"""The kinds of a calm seed: without troubles, after which a waiter may be late by one look."""


def steps_of(seed, count):
    """The steps of a seed.

    Some seeds have no clock steps, no deaf processes, one busy pool, few tickets at once, leases that
    run out while something is under way, or no troubles at all.
    """
    weights = dict(WEIGHTS)
    if seed % 2:
        weights["deaf"] = 0
    if seed % 3:
        weights["clock"] = 0
    if seed % 4 == 3:
        weights["ask"], weights["fair"] = 40, 120
    if seed % 5 == 2:
        weights["together"], weights["tick"] = 150, 60
    if seed % 5 == 4:
        weights = {kind: weights.get(kind, 0) for kind in CALM}
    draw = random.Random(seed).random
    kinds = random.Random(seed + 1).choices(
        list(weights), weights=list(weights.values()), k=count - 1
    )
    return [("crowd", 0, 1 + seed // 2 % 4)] + [
        (kind, int(draw() * PROCESSES), int(draw() * 1_000_000)) for kind in kinds
    ]
