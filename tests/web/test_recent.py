"""What the page remembers of the history, so that it need not be read again."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import ClassVar

from homes import eventually
from told import NOW, Told, executed, pool
from web_server import serving

from dagster_lifeguard.web.expiries import Expiries
from dagster_lifeguard.web.recent_history import Recent

HOUR = 3600.0


def going_on(run_id):
    return executed(run_id, {"s": "db"}, 1.0, ended=False)


def test_a_run_that_is_deleted_while_it_goes_on_is_forgotten():
    told = Told(past=[going_on("a"), going_on("b")])
    recent = Recent(HOUR)
    recent.read(told, NOW, {})
    told.past = [going_on("b")]
    recent.read(told, NOW + 1, {})
    assert [run.run_id for run in recent.history(NOW - HOUR / 2)] == ["b"]


def test_a_run_that_is_over_stays_until_the_window_has_passed():
    told = Told(past=[executed("a", {"s": "db"}, 1.0)])
    recent = Recent(HOUR)
    recent.read(told, NOW, {})
    told.past = []
    recent.read(told, NOW + 1, {})
    assert [run.run_id for run in recent.history(NOW - HOUR / 2)] == ["a"]
    recent.read(told, NOW + HOUR, {})
    assert recent.history(NOW + 1) == ()


def test_runs_in_the_queue_are_not_read_however_many_there_are():
    class Asked(Told):
        asked: ClassVar[list[bool]] = []

        def history(self, since, until=None, *, latest=None, queued=True):
            self.asked.append(queued)
            return super().history(since, until)

    told = Asked(past=[going_on("a")])
    Recent(HOUR).read(told, NOW, {})
    assert told.asked == [False]


def test_a_look_of_a_moment_ago_is_answered_from_memory():
    """The page shows a look that was taken before the history was read last."""
    later = replace(going_on("b"), enqueued=NOW - 10, dequeued=NOW - 10, started=NOW - 10)
    recent = Recent(HOUR)
    recent.read(Told(past=[going_on("a"), later]), NOW, {})
    assert [run.run_id for run in recent.history(NOW - HOUR / 2, NOW - 1)] == ["a", "b"]
    assert [run.run_id for run in recent.history(NOW - HOUR / 2, NOW - 11)] == ["a"]
    assert recent.history(NOW - 2 * HOUR) is None


def test_percentiles_are_of_what_is_remembered_where_that_is_less_than_the_window(monkeypatch):
    class Asked(Told):
        asked: ClassVar[list[float]] = []

        def history(self, since, until=None, *, latest=None, queued=True):
            self.asked.append(since)
            return super().history(since, until)

    monkeypatch.setattr("dagster_lifeguard.web.recent_history.STEPS_MAX", 3)
    begun = time.time() - NOW
    told = Asked(
        states=[pool("db")],
        past=[_later(executed(str(i), {"s": "db"}, float(i)), begun) for i in range(5)],
    )
    # The audit for the metrics looks back for an hour, the record of estimates for a week.
    window = 2 * HOUR
    with serving(told, window=window):
        eventually(lambda: len(told.asked) > 2)
    day = 24 * HOUR
    back = [time.time() - since for since in told.asked]
    assert sum(window - 60 < seconds < day for seconds in back) == 1


def _later(run, seconds):
    def moved(moment):
        return None if moment is None else moment + seconds

    steps = tuple(
        replace(s, started=s.started + seconds, ended=moved(s.ended), waiting=moved(s.waiting))
        for s in run.steps
    )
    names = ("enqueued", "dequeued", "started", "ended")
    return replace(run, steps=steps, **{name: moved(getattr(run, name)) for name in names})


def test_expiries_are_forgotten_with_the_past_but_not_of_a_run_that_goes_on():
    expiries = Expiries()
    expiries.ends = {("old", "s"): 1.0, ("going on", "s"): 1.0, ("new", "s"): 9.0}
    expiries.forget(5.0, {"going on"})
    assert set(expiries.ends) == {("going on", "s"), ("new", "s")}
