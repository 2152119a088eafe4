"""What holds up the runs that use a pool before they come to it."""

from __future__ import annotations

from told import NOW, SETTINGS, Told, holds, pool, run, waits

from dagster_lifeguard.compat.health import RunQueue
from dagster_lifeguard.insight.queue_look import Obstacle
from dagster_lifeguard.insight.upstream import FIRST_MAX, upstream_of
from dagster_lifeguard.insight.waits import read_held_back


def found(told: Told, name: str):
    held_back = read_held_back(told, SETTINGS, told.states, NOW)
    (state,) = told.pools([name])
    return upstream_of(state, told.states, held_back, told.all_runs)


def queued(run_id: str, *pools: str, first: str, **more):
    return run(run_id, "QUEUED", pools=frozenset(pools), first_pools={first: 1}, **more)


def test_another_pool_keeps_runs_in_the_queue_and_steps_of_runs_in_progress():
    told = Told(
        states=[
            pool("api", 1, [holds("h")], [waits("mid", "fetch"), waits("stranger", "fetch")]),
            pool("warehouse", 2),
        ],
        all_runs=[
            run("h", pools=frozenset({"api"})),
            run("mid", pools=frozenset({"api", "warehouse"})),
            run("stranger", pools=frozenset({"api"})),
            *(queued(f"q{n}", "api", "warehouse", first="api") for n in range(9)),
            queued("elsewhere", "api", first="api"),
        ],
        told_queue=RunQueue(-1, (), heeds_pools=True, buffer=0),
    )
    (it,) = found(told, "warehouse")
    assert (it.obstacle, it.name, it.limit, it.taken) == (Obstacle.POOL, "api", 1, 1)
    assert (it.queued, it.steps) == (9, 1)
    assert (it.first[0], len(it.first)) == ("mid", FIRST_MAX)
    assert found(told, "api") == ()


def test_a_tag_limit_and_the_number_of_runs_keep_runs_in_the_queue():
    told = Told(
        states=[pool("warehouse", 2)],
        all_runs=[
            run("a", tags={"team": "sales"}),
            queued("b", "warehouse", first="warehouse", tags={"team": "sales"}),
            queued("c", "other", first="other", tags={"team": "sales"}),
        ],
        told_queue=RunQueue(-1, (("team", "sales", False, 1),), heeds_pools=True, buffer=0),
    )
    (it,) = found(told, "warehouse")
    assert (it.obstacle, it.name, it.limit, it.taken) == (Obstacle.TAG, "team=sales", 1, 1)
    assert (it.queued, it.steps, it.first) == (1, 0, ("b",))
    told.told_queue = RunQueue(1, (), heeds_pools=True, buffer=0)
    (it,) = found(told, "warehouse")
    assert (it.obstacle, it.name, it.limit, it.queued) == (Obstacle.RUNS_MAX, "", 1, 1)


def test_a_step_that_waits_for_two_pools_is_held_up_by_the_other():
    both = waits("b", "load")
    told = Told(
        states=[pool("api", 0, [], [both]), pool("warehouse", 2, [], [both])],
        all_runs=[run("b", pools=frozenset({"api", "warehouse"}))],
    )
    (it,) = found(told, "warehouse")
    assert (it.name, it.limit, it.steps, it.first) == ("api", 0, 1, ("b",))


def test_who_holds_the_pool_is_not_held_up_before_it():
    told = Told(
        states=[pool("api", 1, [], [waits("a", "fetch")]), pool("warehouse", 2, [holds("a", "load")])],
        all_runs=[run("a", pools=frozenset({"api", "warehouse"}))],
    )  # fmt: skip
    assert found(told, "warehouse") == ()
