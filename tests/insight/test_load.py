"""The load of a window: what the charts of pages draw."""

from __future__ import annotations

from dataclasses import replace

import pytest
from told import BY_RUN, NOW, SETTINGS, Told, executed, pool, run, waits

from dagster_lifeguard.insight.load import read_load
from dagster_lifeguard.insight.waits import NOBODY, HeldBack

START = NOW - 1000.0
"""When the runs of ``executed`` start."""


def load_of(told, *, since, until, count, now=NOW, settings=SETTINGS, held_back=NOBODY, only=None):
    return read_load(
        told,
        settings,
        told.states,
        held_back,
        since=since,
        until=until,
        now=now,
        count=count,
        only=only,
    )


def test_slots_held_are_the_mean_of_each_part_and_saturation_is_of_the_pools_in_use():
    told = Told(
        states=[pool("db", 2), pool("idle", 100)],
        past=[executed("a", {"s": "db"}, 30.0), executed("b", {"s": "db"}, 15.0)],
    )
    load = load_of(told, since=START, until=START + 40, count=4)
    assert load.held == {"db": (2.0, 1.5, 1.0, 0.0)}
    assert load.saturation == (1.0, 0.75, 0.5, 0.0)


def test_nothing_has_a_share_of_no_limit():
    told = Told(states=[pool("db", None)], past=[executed("a", {"s": "db"}, 30.0)])
    assert load_of(told, since=START, until=START + 40, count=2).saturation == (None, None)


def test_the_newest_part_is_the_mean_of_the_time_that_has_passed():
    told = Told(states=[pool("db", 1)], past=[executed("a", {"s": "db"}, 1.0, ended=False)])
    load = load_of(told, since=START, until=START + 40, count=2, now=START + 25)
    assert load.held["db"] == pytest.approx((1.0, 1.0))


def test_backlog_is_who_waited_and_who_waits_each_once():
    told = Told(
        states=[
            pool("db", 1, [], [waits("c", waited=10.0)]),
            pool("other", 1, [], [waits("c", waited=10.0)]),
        ],
        past=[executed("a", {"s": "db"}, 5.0, waited=20.0)],
    )
    held_back = HeldBack({"db": (run("q", "QUEUED", created=NOW - 20.0),)})
    load = load_of(told, since=START, until=NOW, count=100, held_back=held_back)
    assert load.backlog[:3] == (1.0, 1.0, 0.0)
    assert load.backlog[-3:] == (0.0, 1.0, 2.0)
    only = load_of(told, since=START, until=NOW, count=100, held_back=held_back, only="other")
    assert (sum(only.backlog), only.held) == (1.0, {})


def test_waits_are_told_where_their_step_started():
    told = Told(
        states=[pool("db", 1)],
        past=[
            executed("a", {"s": "db"}, 5.0, waited=20.0),
            executed("b", {"s": "db"}, 5.0, waited=2.0),
            executed("c", {"s": "db"}, 5.0, waited=3.0, queued=9.0),
        ],
    )
    load = load_of(told, since=START, until=START + 30, count=3)
    assert load.wait_p95 == (12.0, None, 20.0)
    assert (load.starts, load.throttled) == ((2, 0, 1), (1, 0, 1))


def test_under_granularity_run_a_run_holds_and_waits_in_the_queue():
    told = Told(
        states=[pool("db", 1)], past=[executed("a", {"s": "db"}, 10.0, waited=10.0, queued=10.0)]
    )
    load = load_of(told, since=START, until=START + 30, count=3, settings=BY_RUN)
    assert load.held == {"db": (0.0, 1.0, 0.0)}
    assert load.backlog == (1.0, 0.0, 0.0)
    assert load.throttled == (0, 1, 0)


def test_an_expression_is_of_each_of_its_pools():
    told = Told(
        states=[pool("x", 2), pool("y", 2)], past=[executed("a", {"s": "{hold:step}x+y*2"}, 10.0)]
    )
    settings = replace(SETTINGS, engine=True)
    load = load_of(told, since=START, until=START + 10, count=1, settings=settings)
    assert load.held == {"x": (1.0,), "y": (2.0,)}
    assert load.saturation == (0.75,)
