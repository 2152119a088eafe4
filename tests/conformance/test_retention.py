"""The ledger is trimmed by a chore of the heartbeat: what is old, and not too much at once."""

from __future__ import annotations

import pytest

from dagster_lifeguard import engine as engine_module
from dagster_lifeguard.engine import Engine
from dagster_lifeguard.model import Demand, EntryKind
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


def test_the_ledger_is_read_in_pages_from_its_old_end(aged):
    aged.tidy()
    aged.set_limit("warehouse", 7)
    aged.set_limit("orders", 6)
    read, last = [], 0
    while page := aged.store.entries(after=last, count_max=2):
        assert len(page) <= 2
        read += [(entry.pool, entry.limit) for _, entry in page]
        last = page[-1][0]
    assert read == [("orders", 4), ("orders", 5), ("warehouse", 7), ("orders", 6)]
    newest_first = [(entry.pool, entry.limit) for entry in aged.store.ledger()]
    assert read == newest_first[::-1]


def test_of_the_ledger_one_pool_or_what_is_young_is_read(aged):
    aged.set_limit("warehouse", 7)

    def limits(**which):
        return [entry.limit for _, entry in aged.store.entries(**which)]

    assert limits(pool="orders") == [1, 2, 3, 4, 5]
    assert limits(pool="orders", count_max=2) == [1, 2]
    assert limits(pool="warehouse") == [7]
    young = aged.store.ledger(pool="orders", count_max=2)[-1].at
    assert limits(since=young) == [4, 5, 7]
    assert limits(pool="orders", since=young) == [4, 5]
    assert limits(since=young + 1e6) == []
    assert limits(pool="orders", begun_before=young) == [1, 2, 3]


def test_of_the_ledger_the_ends_of_what_was_held_before_are_read(aged):
    demand = Demand.of({"orders": 1})
    aged.claim("early", "step", demand)
    (granted,) = [entry for _, entry in aged.store.entries(kind=EntryKind.GRANTED)]
    aged.release("early", "step")

    def ended(begun_before):
        found = aged.store.entries(kind=EntryKind.RELEASED, begun_before=begun_before)
        return [entry.run_id for _, entry in found]

    assert ended(granted.at + 0.001) == ["early"]
    assert ended(granted.at - 0.001) == []


def test_the_heartbeat_does_it(aged):
    options = EngineOptions(lease_seconds=0.3, keep_ledger_seconds=3600.0)
    beating = Engine(aged.store, options)
    beating.claim("run", "step", Demand.of({"orders": 1}))
    while 3 in limits_kept(aged):
        assert beating.session is not None
    assert limits_kept(aged)[:2] == [4, 5]
    beating.close()
