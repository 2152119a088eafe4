"""What the page remembers of the history, so that it need not be read again."""

from __future__ import annotations

from dataclasses import replace

from told import NOW, Told, executed

from dagster_lifeguard.web.recent import Recent

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


def test_a_look_of_a_moment_ago_is_answered_from_memory():
    """The page shows a look that was taken before the history was read last."""
    later = replace(going_on("b"), enqueued=NOW - 10, dequeued=NOW - 10, started=NOW - 10)
    recent = Recent(HOUR)
    recent.read(Told(past=[going_on("a"), later]), NOW, {})
    assert [run.run_id for run in recent.history(NOW - HOUR / 2, NOW - 1)] == ["a", "b"]
    assert [run.run_id for run in recent.history(NOW - HOUR / 2, NOW - 11)] == ["a"]
    assert recent.history(NOW - 2 * HOUR) is None
