"""Waits and holds of a period beside those of the period before."""

from __future__ import annotations

from dataclasses import replace

from told import NOW, SETTINGS, Told, executed

from dagster_lifeguard.insight.durations import Spread
from dagster_lifeguard.insight.trend import read_trend

START = NOW - 1000.0
"""When the runs of ``executed`` start."""


def later(found, seconds: float):
    """The same run, so many seconds later."""
    moved = {
        name: getattr(found, name) + seconds
        for name in ("enqueued", "dequeued", "started", "ended")
    }
    steps = tuple(
        replace(
            step,
            started=step.started + seconds,
            ended=step.ended + seconds,
            waiting=None if step.waiting is None else step.waiting + seconds,
        )
        for step in found.steps
    )
    return replace(found, steps=steps, **moved)


def trend_of(told, known_since: float = 0.0):
    return read_trend(
        told, SETTINGS, "db", since=START + 100, until=START + 200, known_since=known_since
    )


def test_each_wait_counts_where_it_ends_and_each_hold_where_it_ends():
    told = Told(
        past=[
            executed("a", {"s": "db"}, 10.0, waited=20.0),
            executed("b", {"s": "other"}, 10.0, waited=99.0),
            later(executed("c", {"s": "db"}, 30.0, waited=5.0), 90.0),
            later(executed("d", {"s": "db"}, 40.0, waited=60.0), 110.0),
            later(executed("e", {"s": "db"}, 1.0), 230.0),
        ]
    )
    found = trend_of(told)
    assert (found.now.since, found.now.until) == (START + 100, START + 200)
    assert (found.before.since, found.before.until) == (START, START + 100)
    assert (found.before.waits, found.before.holds) == (
        Spread(2, 5.0, 20.0),
        Spread(1, 10.0, 10.0),
    )
    assert found.now.waits == Spread(1, 60.0, 60.0)
    assert found.now.holds == Spread(1, 30.0, 30.0)


def test_without_a_memory_of_the_period_before_there_is_only_the_period():
    read = []

    class Counted(Told):
        def history(self, since, until=None, **more):
            read.append(since)
            return super().history(since, until, **more)

    told = Counted(past=[later(executed("c", {"s": "db"}, 30.0, waited=5.0), 100.0)])
    assert trend_of(told, START + 1).before is None
    assert trend_of(told, START).before.waits is None
    assert trend_of(told, START + 150).now.waits == Spread(1, 5.0, 5.0)
    assert read == [START + 100, START, START + 150]
