"""A rate that many processes wait for, judged by the times in the ledger and nothing else."""

from __future__ import annotations

import time
from fractions import Fraction
from itertools import combinations

import pytest
from fleet import POOL

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.model import EntryKind
from dagster_lifeguard.engine.rules.rate import Rate


def wait_for_starts(engine, count):
    """Wait until so many were let in: when each of them was, to the microsecond as written."""
    deadline = time.monotonic() + 240
    while True:
        ledger = engine.store.ledger(pool=POOL, count_max=10_000)
        granted = [e.at for e in reversed(ledger) if e.kind is EntryKind.GRANTED]
        found = [Fraction(round(at * 10**6), 10**6) for at in granted]
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, f"{len(found)} starts"
        time.sleep(0.1)


@pytest.mark.parametrize("rate", [Rate(50, 1), Rate(40, 1, burst=8)], ids=str)
def test_in_no_span_of_time_do_more_start_than_burst_and_rate(fleet, shared_place, rate):
    shared_place.store().migrate()
    engine = Engine(shared_place.store(), EngineOptions(lease_seconds=600.0))
    engine.change_pool(POOL, limit=100)
    engine.change_pool(POOL, rate=rate)
    fleet.begin("go_on", 4, shared_place)
    try:
        wait_for_starts(engine, 40)
    finally:
        answers = fleet.answers(4)
    starts = wait_for_starts(engine, 40)
    engine.close()
    assert len(starts) == sum(len(answer["told"]) for answer in answers)

    for (first, begin), (last, end) in combinations(enumerate(starts), 2):
        assert last - first + 1 <= rate.burst + (end - begin) * rate.starts / rate.seconds
