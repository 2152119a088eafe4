"""The run queue of a simulation: beside the look that ``explain`` takes, and by hand."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from told import BY_RUN, SETTINGS, Told
from told import run as told_run

from dagster_lifeguard.compat.health import RunQueue
from dagster_lifeguard.deployment.contract import PoolState, Run, WaitingStep
from dagster_lifeguard.deployment.history import RunExecution
from dagster_lifeguard.engine.rules.launch_order import LaunchOrder, QueueRules
from dagster_lifeguard.engine.rules.model import Demand, TicketKey
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
from dagster_lifeguard.insight.queue_look import QueueLook, in_line
from dagster_lifeguard.insight.simulation import run_queue
from dagster_lifeguard.insight.simulation.advice import Target
from dagster_lifeguard.insight.simulation.advising import advise
from dagster_lifeguard.insight.simulation.answer import simulate
from dagster_lifeguard.insight.simulation.arrivals import Arrival, Change, Submission
from dagster_lifeguard.insight.simulation.history import read_recording
from dagster_lifeguard.insight.simulation.outcome import RUN_QUEUE
from dagster_lifeguard.insight.simulation.past_runs import PastQueue
from dagster_lifeguard.insight.simulation.run_past import from_runs
from dagster_lifeguard.insight.simulation.run_queue import QueuePlay
from dagster_lifeguard.insight.simulation.world import play

WINDOW = (0.0, 10_000.0)
POOLS = ("x", "y")


def rules(runs_max=-1, *tag_limits, pools=True, buffer=0):
    return RunQueue(runs_max, tag_limits, heeds_pools=pools, buffer=buffer)


def submitted(name, at, asks=None, *, starts=1.0, rest=0.0, **more):
    asks = {"x": 1} if asks is None else asks
    return Submission(
        str(name), at, starts, rest, pools=frozenset(asks), first_pools=asks or None, **more
    )


def step(run, at, slots, seconds, after=None):
    return Arrival(
        TicketKey(str(run), f"s{at}"), at, Demand.of(slots), seconds, after=after, run=run
    )


def played(submissions, arrivals, queue, limits=None, changes=(), *, by_run=False):
    of_pools = {"x": PoolSettings(1)} if limits is None else limits
    queue = QueuePlay(tuple(submissions), queue, by_run)
    return play(tuple(arrivals), of_pools, changes, window=WINDOW, queue=queue)


# ---- beside ``QueueLook`` --------------------------------------------------------------------------


class Checked(run_queue.WorldQueue):
    """Compares each look with ``QueueLook`` on the same runs and pools."""

    looks = 0

    def look(self, now):
        expected = self._expected(now)
        before = set(self._in_progress)
        super().look(now)
        assert [run for run in self._in_progress if run not in before] == expected
        Checked.looks += len(expected)

    def _expected(self, now):
        unfinished = [
            *(self._run(run, "STARTED", now) for run in self._in_progress),
            *(self._run(run, "QUEUED", now) for run in sorted(self._entered)),
        ]
        if self._admission.fair_by:
            order = LaunchOrder(
                QueueRules(
                    self._admission.fair_by,
                    self._admission.limit_of,
                    self._by_run,
                    self._rules.tag_limits,
                ),
                self._turns,
                [run for run in unfinished if run.status != "QUEUED"],
            )
            queued = order.of([run for run in unfinished if run.status == "QUEUED"])
            unfinished = [run for run in unfinished if run.status != "QUEUED"] + queued
        states = [
            PoolState(
                name,
                PoolSettings(self._admission.limit_of(name)),
                False,
                tuple(WaitingStep("held", "") for _ in range(pool.present)),
                tuple(WaitingStep("waits", "") for _ in range(pool.waiting)),
            )
            for name in POOLS
            for pool in (self._admission.pool(name),)
        ]
        granularity = BY_RUN if self._by_run else SETTINGS
        look = QueueLook(unfinished, states, self._rules, granularity, now)
        found = []
        for run in in_line(unfinished):
            if not tuple(look.keeps(run)):
                look.launch(run)
                found.append(int(run.run_id))
        return found

    def _run(self, run, status, now):
        one = self._submissions[run]
        started = None
        if status == "STARTED":
            started = self._play.launched[run] + one.starts
            status = "STARTING" if started > now else "STARTED"
        return Run(
            str(run), "job", status, one.at, started, None, one.pools, one.first_pools,
            one.priority, one.tags,
        )  # fmt: skip


@st.composite
def queues(draw):
    count = draw(st.integers(1, 12))
    times = sorted(draw(st.lists(st.integers(0, 40), min_size=count, max_size=count)))
    submissions, arrivals = [], []
    for number, at in enumerate(times):
        asks = draw(st.dictionaries(st.sampled_from(POOLS), st.integers(1, 2), max_size=2))
        one = submitted(
            number,
            float(at),
            asks,
            starts=float(draw(st.integers(0, 7))),
            rest=float(draw(st.integers(0, 9))),
            priority=draw(st.integers(0, 1)),
            tags={"team": draw(st.sampled_from("ab")), "other": "c"},
        )
        submissions.append(one._replace(is_queued=draw(st.integers(0, 5)) > 0))
        for place, (pool, slots) in enumerate(asks.items()):
            seconds = float(draw(st.integers(1, 20)))
            delay = one.starts + draw(st.integers(0, 8)) + place / 2
            arrivals.append(step(number, delay, {pool: min(slots, 2)}, seconds))
    limit = st.one_of(st.integers(0, 3), st.none())
    of_pool = st.builds(PoolSettings, limit, st.none(), st.sampled_from((None, None, "team")))
    limits = {pool: draw(of_pool) for pool in POOLS}
    tag_limit = st.sampled_from((("team", "a", False, 1), ("team", None, True, 2)))
    queue = RunQueue(
        draw(st.sampled_from((-1, 1, 3))),
        tuple(draw(st.lists(tag_limit, max_size=1))),
        draw(st.sampled_from((True, True, False))),
        draw(st.integers(0, 1)),
        float(draw(st.sampled_from((1, 5)))),
    )
    return submissions, arrivals, queue, limits, draw(st.booleans())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(queues())
def test_each_look_launches_what_the_look_of_explain_would(found):
    *world, by_run = found
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dagster_lifeguard.insight.simulation.world.WorldQueue", Checked)
        played(*world, by_run=by_run)


def test_looks_that_launch_runs_were_compared():
    Checked.looks = 0
    test_each_look_launches_what_the_look_of_explain_would()
    assert Checked.looks > 200


@settings(max_examples=100, deadline=None, derandomize=True)
@given(queues())
def test_what_a_run_waits_in_the_queue_is_told_of_something(found):
    submissions, arrivals, queue, limits, by_run = found
    outcome = played(submissions, arrivals, queue, limits, by_run=by_run)
    for place, arrival in enumerate(arrivals):
        launched = outcome.launched[arrival.run]
        if launched is not None:
            assert outcome.queued[place] == launched - submissions[arrival.run].at
            assert outcome.asked[place] == launched + arrival.at
        waited, stood = outcome.waited(place), outcome.stood.get(place, {})
        assert all(seconds > 0 or name in POOLS for name, seconds in stood.items())
        if waited is not None:
            assert sum(stood.values()) >= waited - 1e-6


# ---- by hand -------------------------------------------------------------------------------------


def test_runs_over_the_limit_wait_for_a_look_after_an_end():
    runs = [submitted(n, 1.0, {}, rest=12.0) for n in range(3)]
    outcome = played(runs, (), rules(1))
    # The daemon looks at 5; the first run ends at 17.
    assert outcome.launched == [5.0, 20.0, 35.0]
    assert outcome.runs_most == 1


def test_runs_are_in_progress_until_their_last_step_has_ended_and_so_long_after():
    runs = [submitted(n, 0.0, rest=2.0) for n in range(2)]
    steps = [step(0, 3.0, {"x": 1}, 4.0), step(0, 1.0, {"x": 1}, 5.0, after=0)]
    outcome = played(runs, [*steps, step(1, 3.0, {"x": 1}, 1.0)], rules(1), {"x": PoolSettings(5)})
    # Launched at 5, its steps hold from 8 to 12 and from 13 to 18; it ends at 20.
    assert (outcome.granted[0], outcome.granted[1]) == (8.0, 13.0)
    assert outcome.launched == [5.0, 20.0]


def test_a_run_whose_pool_is_full_is_held_back_and_its_steps_wait_there():
    runs = [submitted(n, 0.0) for n in range(2)]
    steps = [step(n, 2.0, {"x": 1}, 30.0) for n in range(2)]
    outcome = played(runs, steps, rules())
    assert outcome.launched == [5.0, 40.0]
    assert outcome.waited(1) == 40.0
    assert outcome.stood[1] == {"x": 35.0, RUN_QUEUE: 5.0}
    heedless = played(runs, steps, rules(pools=False))
    assert (heedless.launched, heedless.waited(1)) == ([5.0, 5.0], 35.0)


def test_a_change_of_a_limit_is_seen_by_the_queue():
    runs = [submitted(n, 0.0) for n in range(2)]
    steps = [step(n, 2.0, {"x": 1}, 300.0) for n in range(2)]
    raised = Change(101.0, "x", PoolSettings(2))
    assert played(runs, steps, rules(), changes=[raised]).launched == [5.0, 105.0]


def test_a_pause_keeps_runs_in_the_queue_until_the_end_of_the_window():
    outcome = played(
        [submitted(0, 0.0)], [step(0, 2.0, {"x": 1}, 1.0)], rules(), {"x": PoolSettings(0)}
    )
    assert (outcome.launched, outcome.waited(0)) == ([None], None)
    assert outcome.stood[0] == {"x": WINDOW[1] - 5.0, RUN_QUEUE: 5.0}


def test_a_run_stands_in_the_queue_from_its_submission_on():
    runs = [submitted(n, at) for n, at in enumerate((0.0, 0.0, 7.0))]
    outcome = played(runs, [step(n, 2.0, {"x": 1}, 30.0) for n in range(3)], rules())
    assert outcome.stood[2] == {"x": outcome.launched[2] - 7.0}


def test_groups_of_a_fair_pool_take_turns_at_launches():
    teams = [*"aaaa", *"bb"]
    runs = [submitted(n, 0.0, rest=3.0, tags={"team": team}) for n, team in enumerate(teams)]
    steps = [step(n, 0.0, {"x": 1}, 1.0) for n in range(len(runs))]
    fair = {"x": PoolSettings(5, fair_by="team")}
    outcome = played(runs, steps, rules(1), fair)
    assert (
        "".join(teams[run] for run in sorted(range(6), key=outcome.launched.__getitem__))
        == "ababaa"
    )


# ---- the past ------------------------------------------------------------------------------------


def executed(run_id, enqueued, dequeued, started, ended):
    return RunExecution(run_id, "job", "SUCCESS", enqueued, dequeued, started, ended, ())


def past(run_id, created, started, ended, **more):
    status = "QUEUED" if started is None else "STARTED" if ended is None else "SUCCESS"
    return told_run(run_id, status, created=created, started=started, ended=ended, **more)


def test_when_runs_were_launched_is_told_by_their_events_or_by_those_of_others():
    moments = {
        "a": executed("a", 101.0, 110.0, 113.0, 120.0),
        "around": executed("around", None, 200.0, 203.0, 210.0),
    }
    runs = (
        past("before", 50.0, 60.0, 150.0),
        past("waited", 90.0, 133.0, 140.0),
        past("a", 100.0, 113.0, 120.0),
        past("b", 105.0, 130.0, None),
        past("around", 200.0, 203.0, 210.0),
        past("still", 300.0, None, None),
    )
    found = PastQueue(rules(1), runs=runs, moments=moments).past_runs(100.0, 1000.0)
    assert [
        (p.run.run_id, p.submitted, p.launched, p.started, p.ended, p.is_queued) for p in found
    ] == [
        ("before", 57.0, 57.0, 60.0, 150.0, False),
        ("waited", 100.0, 130.0, 133.0, 140.0, True),
        ("a", 101.0, 110.0, 113.0, 120.0, True),
        ("b", 105.0, 127.0, 130.0, 1000.0, True),
        ("around", 200.0, 200.0, 203.0, 210.0, False),
    ]


def test_a_run_whose_events_were_not_read_is_like_the_latest_of_its_job():
    def told(run_id, job_name, *, in_process):
        found = executed(run_id, 1.0, 2.0, 3.0, 4.0)
        return replace(found, job_name=job_name, in_process=in_process)

    moments = {
        "old": told("old", "job", in_process=False),
        "new": told("new", "job", in_process=True),
        "other": told("other", "pods", in_process=False),
    }
    runs = (
        past("r", 100.0, 113.0, 120.0),
        past("old", 100.0, 113.0, 120.0),
        past("pod", 100.0, 113.0, 120.0, job_name="pods"),
        past("of no job that is known", 100.0, 113.0, 120.0, job_name="x"),
    )
    assert PastQueue(runs=runs, moments=moments).in_process == {"new", "r"}


def in_turn(count=20, seconds=50.0):
    """Runs that were all submitted at 100 and executed one after another."""
    ends = [103.0 + (n + 1) * seconds for n in range(count)]
    return [
        past(f"r{n}", 100.0, end - seconds + 2.0, end, pools={"x"}) for n, end in enumerate(ends)
    ]


def test_under_granularity_run_the_pools_hold_back_runs():
    queue = PastQueue(rules(), by_run=True, runs=tuple(in_turn()))
    recording = from_runs(queue, {"x": PoolSettings(1)}, None, (0.0, 2000.0))
    answer = simulate(recording, {"x": {"limit": 2}})
    (pool,) = answer.pools
    assert pool.calibration.trust == "good"
    assert pool.before.waits.p95 > 900.0
    assert pool.after.waits.p95 == pytest.approx(pool.before.waits.p95 / 2, rel=0.1)
    assert (pool.before.most, pool.after.most) == (1, 2)
    (gain,) = answer.gaining
    assert (gain.step_key, gain.pools) == ("job", ("x",))


def test_more_runs_at_once_shorten_the_queue():
    queue = PastQueue(rules(1), by_run=True, runs=tuple(in_turn()))
    recording = from_runs(queue, {}, None, (0.0, 2000.0))
    answer = simulate(recording, {}, runs_max=4)
    assert answer.queue.calibration.trust == "good"
    assert (answer.queue.before.runs_max, answer.queue.after.runs_max) == (1, 4)
    assert (answer.queue.before.most, answer.queue.after.most) == (1, 4)
    assert answer.queue.after.waits.p95 < answer.queue.before.waits.p95 / 3
    assert answer.gaining


def test_advice_names_the_run_queue_where_that_keeps_runs():
    queue = PastQueue(rules(1), by_run=True, runs=tuple(in_turn()))
    recording = from_runs(queue, {"x": PoolSettings(3)}, None, (0.0, 2000.0))
    (pool,) = advise(recording, Target(0.95, 60.0)).pools
    assert (pool.verdict, pool.limit) == ("unmet", 3)
    assert [(blocked.pool, blocked.why) for blocked in pool.blocked] == [(RUN_QUEUE, "run-queue")]
    roomy = recording.with_runs_max(-1)
    assert [pool.verdict for pool in advise(roomy, Target(0.95, 400.0)).pools] == ["met"]


def test_without_a_run_queue_runs_start_when_they_did():
    told = Told(told_settings=replace(SETTINGS, granularity="op"))
    recording = read_recording(told, since=0.0, until=10.0)
    assert recording.queue is None
    assert "arrivals-as-recorded" in {doubt.code for doubt in recording.doubts}
    queued = Told(told_queue=rules(1), all_runs=[past("q", 5.0, None, None)])
    recording = read_recording(queued, since=0.0, until=10.0)
    assert {"queue-as-today", "queued-now"} <= {doubt.code for doubt in recording.doubts}
    assert recording.queue.submissions == ()
