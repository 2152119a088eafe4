"""The ledger is trimmed by a chore of the heartbeat: what is old, and not too much at once."""

from __future__ import annotations

import pytest

from dagster_lifeguard import engine as engine_module
from dagster_lifeguard.engine import Engine
from dagster_lifeguard.model import Demand
from dagster_lifeguard.options import EngineOptions
from places import MemoryPlace


@pytest.fixture
def aged(place, new_engine):
    """An engine that keeps an hour, and five rows of which three are two hours old."""
    engine = new_engine(keep_ledger_seconds=3600.0)
    for limit in range(1, 6):
        engine.set_limit("orders", limit)
    if isinstance(place, MemoryPlace):
        import dataclasses

        ledger = place.store().rows.ledger
        for index in range(3):
            ledger[index] = dataclasses.replace(ledger[index], at=ledger[index].at - 7200.0)
    else:
        place.sql(
            "UPDATE lifeguard_ledger SET at = at - 7200 "
            "WHERE entry IN (SELECT entry FROM lifeguard_ledger ORDER BY entry LIMIT 3)"
        )
    return engine


def limits_kept(engine) -> list[int]:
    return [entry.limit for entry in reversed(engine.store.ledger())]


def test_old_rows_go_and_young_ones_stay(aged):
    assert limits_kept(aged) == [1, 2, 3, 4, 5]

    aged.tidy()
    assert limits_kept(aged) == [4, 5]

    aged.tidy()
    assert limits_kept(aged) == [4, 5]


def test_no_more_than_a_bound_goes_at_once(aged, monkeypatch):
    monkeypatch.setattr(engine_module, "_TRIM_COUNT_MAX", 2)

    aged.tidy()
    assert limits_kept(aged) == [3, 4, 5]

    aged.tidy()
    assert limits_kept(aged) == [4, 5]


def test_the_heartbeat_does_it(aged):
    options = EngineOptions(lease_seconds=0.3, keep_ledger_seconds=3600.0)
    beating = Engine(aged.store, options)
    beating.claim("run", "step", Demand.of({"orders": 1}))
    while 3 in limits_kept(aged):
        assert beating.session is not None
    assert limits_kept(aged)[:2] == [4, 5]
    beating.close()
