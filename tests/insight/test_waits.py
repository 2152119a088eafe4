"""Who waits for a pool: at it, and in the run queue because of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from told import BY_RUN, NOW, SETTINGS, Told, executed, holds, pool, run, waits

from dagster_lifeguard.compat.health import RunQueue
from dagster_lifeguard.insight.durations import read_durations, uses
from dagster_lifeguard.insight.waits import NOBODY, read_held_back

FULL = pool("db", 1, [holds("holder")])


def queued(name: str, *pools: str, age: float = 100.0, **more):
    return run(name, "QUEUED", pools=frozenset(pools), created=NOW - age, **more)


def held_back(states, *runs, queue=None, settings=SETTINGS):
    queue = queue or RunQueue(-1, (), heeds_pools=True, buffer=0)
    told = Told(states=list(states), all_runs=[run("holder"), *runs], told_queue=queue)
    return read_held_back(told, settings, told.pools(), NOW)


def names(found):
    return {pool: [run.run_id for run in runs] for pool, runs in found.by_pool.items()}


@pytest.mark.parametrize("state", [FULL, pool("db", 0), pool("db", 1, [], [waits("first")])])
def test_runs_are_held_back_by_a_pool_that_is_full_paused_or_waited_for(state):
    found = held_back([state], queued("a", "db", age=3600.0), queued("b", "db", age=60.0))
    assert names(found) == {"db": ["a", "b"]}
    assert found.in_queue == 2
    here = found.waits_for(state)
    assert here.count == 2 + len(state.waiting)
    assert (here.oldest(NOW), here.oldest_queued(NOW)) == (3600.0, 3600.0)
    assert here.oldest_at_pool(NOW) == (5.0 if state.waiting else None)


def test_the_oldest_may_wait_at_the_pool():
    state = pool("db", 1, [holds("holder")], [waits("first", waited=900.0, slots=2)])
    here = held_back([state], queued("a", "db", age=60.0)).waits_for(state)
    assert (here.oldest(NOW), here.oldest_queued(NOW), here.slots) == (900.0, 60.0, 3)


def test_a_run_that_something_else_keeps_does_not_wait_for_the_pool():
    free = pool("db", 5)
    at_most_one = RunQueue(1, (), heeds_pools=True, buffer=0)
    assert names(held_back([free], queued("a", "db"), queue=at_most_one)) == {}
    heedless = RunQueue(-1, (), heeds_pools=False, buffer=0)
    assert names(held_back([FULL], queued("a", "db"), queue=heedless)) == {}


def test_a_run_that_the_daemon_launches_next_does_not_wait_and_counts_for_those_behind():
    found = held_back([pool("db", 1)], queued("a", "db"), queued("b", "db"))
    assert names(found) == {"db": ["b"]}


def test_a_run_of_two_full_pools_waits_for_both_and_is_one_run():
    states = [FULL, pool("api", 0)]
    found = held_back(states, queued("a", "db", "api"))
    assert names(found) == {"db": ["a"], "api": ["a"]}
    assert found.wait_for_any(states) == (1, 1)


def test_a_run_with_a_first_step_that_may_go_in_does_not_wait():
    assert names(held_back([FULL, pool("api", 1)], queued("a", "db", "api"))) == {}


def test_a_pool_that_only_the_queue_knows_is_told():
    class ByDefault(Told):
        def pools(self, names=None):
            if names is None:
                return ()
            return tuple(pool(name, 0, default=True) for name in names)

    told = ByDefault(all_runs=[queued("a", "new")])
    found = read_held_back(told, SETTINGS, told.pools(), NOW)
    assert [state.pool for state in found.unlisted] == ["new"]


def test_under_granularity_run_runs_wait_at_their_pools():
    state = pool("db", 0, [], [waits("a", "")])
    found = held_back([state], queued("a", "db"), settings=BY_RUN)
    assert found == NOBODY
    assert found.waits_for(state).count == 1


class TestPast:
    """A run that was in the queue for 60 s, whose steps then waited at the pool."""

    RUN = replace(
        executed("r", {"first": "db", "second": "db"}, 10.0, waited=4.0),
        enqueued=NOW - 1062.0,
        dequeued=NOW - 1002.0,
        started=NOW - 1001.0,
    )

    def test_the_first_steps_of_a_run_waited_in_the_queue_too(self):
        told = [(use.name, use.waited, use.queued) for use in uses(self.RUN, SETTINGS)]
        assert told == [("first", 64.0, 60.0), ("second", 64.0, 60.0)]

    def test_a_step_that_came_after_another_waited_at_its_pool_alone(self):
        first, second = self.RUN.steps
        later = replace(second, waiting=first.ended + 1, started=first.ended + 3)
        told = uses(replace(self.RUN, steps=(first, later)), SETTINGS)
        assert [(use.waited, use.queued) for use in told] == [(64.0, 60.0), (2.0, 0.0)]

    def test_what_counts_for_the_age_of_the_run_is_told_apart(self):
        found = read_durations(Told(past=[self.RUN]), SETTINGS, NOW - 86400, NOW)
        assert found.waits["db"].seconds == (64.0, 64.0)
        assert found.queue_waits["db"].seconds == (60.0, 60.0)
        assert found.pool_waits["db"].seconds == (4.0, 4.0)

    def test_a_run_that_was_not_queued(self):
        told = uses(replace(self.RUN, enqueued=None, dequeued=None), SETTINGS)
        assert [(use.waited, use.queued) for use in told] == [(4.0, 0.0), (4.0, 0.0)]

    def test_under_granularity_run_the_whole_wait_is_in_the_queue(self):
        (use,) = uses(self.RUN, BY_RUN)
        assert (use.waited, use.queued) == (60.0, 60.0)
