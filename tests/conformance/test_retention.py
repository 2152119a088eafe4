"""The ledger is trimmed by a chore of the heartbeat: what is old, and not too much at once."""

from __future__ import annotations

import dataclasses

import pytest

from dagster_lifeguard.engine import engine as engine_module
from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.model import Demand, EntryKind
from places import MemoryPlace
from pool_values import limited


@pytest.fixture
def aged(place, new_engine):
    """An engine that keeps an hour, and five rows of which three are two hours old."""
    engine = new_engine(keep_ledger_seconds=3600.0)
    for limit in range(1, 6):
        engine.change_pool("orders", limit=limit)
    if isinstance(place, MemoryPlace):
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


def test_the_ledger_is_read_in_pages_from_its_old_end(aged):
    aged.tidy()
    aged.change_pool("warehouse", limit=7)
    aged.change_pool("orders", limit=6)
    read, last = [], 0
    while page := aged.store.entries(after=last, count_max=2):
        assert len(page) <= 2
        read += [(entry.pool, entry.limit) for entry in page]
        last = page[-1].number
    assert read == [("orders", 4), ("orders", 5), ("warehouse", 7), ("orders", 6)]
    newest_first = [(entry.pool, entry.limit) for entry in aged.store.ledger()]
    assert read == newest_first[::-1]


def test_of_the_ledger_one_pool_or_what_is_young_is_read(aged):
    aged.change_pool("warehouse", limit=7)

    def limits(**which):
        return [entry.limit for entry in aged.store.entries(**which)]

    assert limits(pool="orders") == [1, 2, 3, 4, 5]
    assert limits(pool="orders", count_max=2) == [1, 2]
    assert limits(pool="warehouse") == [7]
    young = aged.store.ledger(pool="orders", count_max=2)[-1].at
    assert limits(since=young) == [4, 5, 7]
    assert limits(pool="orders", since=young) == [4, 5]
    assert limits(since=young + 1e6) == []


def test_rows_go_oldest_first_whatever_the_clock_says(place, aged):
    """Or a release goes, and its grant stays: it would seem to be held for ever."""
    at = aged.store.now()
    set_times(place, [at, at - 7200.0, at - 7200.0, at, at])
    aged.tidy()
    assert limits_kept(aged) == [1, 2, 3, 4, 5]
    set_times(place, [at - 7200.0, at - 7200.0, at, at - 7200.0, at])
    aged.tidy()
    assert limits_kept(aged) == [3, 4, 5]


def set_times(place, moments) -> None:
    """Write the times of all rows of the ledger, oldest first."""
    if isinstance(place, MemoryPlace):
        rows = place.store().rows
        rows.ledger = [
            dataclasses.replace(e, at=at) for e, at in zip(rows.ledger, moments, strict=True)
        ]
        return
    numbers = sorted(entry.number for entry in place.store().entries())
    for number, at in zip(numbers, moments, strict=True):
        place.sql(f"UPDATE lifeguard_ledger SET at = {at!r} WHERE entry = {number}")


def test_what_was_held_at_a_number_is_told_by_fences_whatever_the_clock_says(place, aged):
    demand = Demand.of({"orders": 1, "warehouse": 2})
    aged.set_pools(limited({"orders": 6, "warehouse": 6}))
    for run_id in ("over", "ends", "holds"):
        assert aged.claim(run_id, "step", demand).granted
    aged.release("over", "step")
    number = aged.store.ledger(count_max=1)[0].number + 1
    aged.release("ends", "step")
    for run_id in ("late", "late and over"):
        assert aged.claim(run_id, "step", Demand.of({"orders": 1})).granted
    aged.release("late and over", "step")
    # An hour before, by a clock that was set back.
    if isinstance(place, MemoryPlace):
        rows = place.store().rows
        rows.holdings = {k: dataclasses.replace(h, since=1.0) for k, h in rows.holdings.items()}
        rows.ledger = [
            dataclasses.replace(e, at=e.at - 3600.0) if n >= number else e
            for n, e in enumerate(rows.ledger, start=1)
        ]
    else:
        place.sql("UPDATE lifeguard_holdings SET since = 1")
        place.sql(f"UPDATE lifeguard_ledger SET at = at - 3600 WHERE entry >= {number}")

    def held(**which):
        return [(e.kind, e.pool, e.run_id, e.slots) for e in aged.store.held_at(number, **which)]

    granted = EntryKind.GRANTED
    orders = [(granted, "orders", run_id, 1) for run_id in ("ends", "holds")]
    warehouse = [(granted, "warehouse", run_id, 2) for run_id in ("ends", "holds")]
    assert held() == orders + warehouse
    assert held(pool="orders") == orders
    assert aged.store.held_at(1) == ()


def test_the_heartbeat_does_it(aged):
    options = EngineOptions(lease_seconds=3.0, keep_ledger_seconds=3600.0)
    beating = Engine(aged.store, options)
    beating.claim("run", "step", Demand.of({"orders": 1}))
    while 3 in limits_kept(aged):
        assert beating.session is not None
    assert limits_kept(aged)[:2] == [4, 5]
    beating.close()
