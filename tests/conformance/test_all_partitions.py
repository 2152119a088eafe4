"""The pool that stands for all partitions: one asks for all of it, and is alone, whatever is set."""

from __future__ import annotations

import pytest

from dagster_lifeguard.engine.rules.model import SLOTS_MAX, Demand, WaitReason
from places import write_limit_as_another_would

ALL = "{all}daily[*]"
RANGE = Demand.of({ALL: SLOTS_MAX})


def single(partition: str) -> Demand:
    return Demand.of({f"daily[{partition}]": 1, ALL: 1})


@pytest.fixture(params=[1, None])
def engine(new_engine, request):
    return new_engine(default_limit=request.param)


def test_single_partitions_execute_side_by_side(engine):
    assert all(engine.claim(f"run{p}", "step", single(p)).granted for p in "abcd")
    found = engine.snapshot(ALL)
    assert (found.settings.limit, found.from_default, len(found.holdings)) == (SLOTS_MAX, False, 4)


def test_who_asks_for_all_waits_for_each_and_each_for_it(engine):
    for partition in "ab":
        assert engine.claim(partition, "step", single(partition)).granted
    waiting = engine.claim("range", "step", RANGE)
    assert (waiting.granted, waiting.pool, waiting.reason) == (False, ALL, WaitReason.FULL)
    engine.release("a", "step")
    assert not engine.claim("range", "step", RANGE).granted
    engine.release("b", "step")
    assert engine.claim("range", "step", RANGE).granted
    assert not engine.claim("a", "step", single("a")).granted
    engine.release("range", "step")
    assert engine.claim("a", "step", single("a")).granted


@pytest.mark.parametrize("limits", [[5], [0, 5], [1000]])
def test_what_another_writes_of_its_limit_lets_nobody_in_beside(place, engine, limits):
    assert engine.claim("range", "step", RANGE).granted
    for limit in limits:
        write_limit_as_another_would(place, ALL, limit)
        assert not engine.claim("a", "step", single("a")).granted
    engine.release("range", "step")
    assert engine.claim("a", "step", single("a")).granted
    assert not engine.claim("range", "step", RANGE).granted
    engine.release("a", "step")
    assert engine.claim("range", "step", RANGE).granted


def test_a_limit_that_is_deleted_lets_nobody_in_beside(engine):
    assert engine.claim("range", "step", RANGE).granted
    engine.change_pool(ALL, limit=None)
    assert not engine.claim("a", "step", single("a")).granted


def test_nothing_is_left_of_it_when_it_is_idle(engine):
    engine.claim("a", "step", single("a"))
    engine.release("a", "step")
    assert engine.settings() == {}
    assert engine.busy_pools() == ()
