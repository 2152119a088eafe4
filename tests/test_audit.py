"""What an audit says of hand-made histories and ledgers, and of any, by an oracle."""

from __future__ import annotations

import dataclasses
import itertools
import time

import pytest
from dagster import AssetKey
from hypothesis import given
from hypothesis import strategies as st

from dagster_lifeguard.compat.events import EventRow
from dagster_lifeguard.deployment.history import Outcome, RunExecution, StepExecution, read_ledger
from dagster_lifeguard.deployment.history import ledger as ledger_module
from dagster_lifeguard.deployment.history.ledger import LedgerSpan, read_span
from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.rules.model import Demand, Entry, EntryKind, Holding, TicketKey
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.engine.store.memory.store import MemoryStore
from dagster_lifeguard.inspections.audit import spool as spool_module
from dagster_lifeguard.inspections.audit.audit_result import Caveat, LongWait, Occupant
from dagster_lifeguard.inspections.audit.deployment_audit import AuditReport
from dagster_lifeguard.inspections.audit.executions import Limits, audit_executions
from dagster_lifeguard.inspections.audit.ledger_audit import audit_ledger
from dagster_lifeguard.inspections.audit.spool import Spool
from dagster_lifeguard.inspections.audit.verdict import verdict_text
from dagster_lifeguard.inspections.audit.waits import LONGEST_MAX, LongWaits
from places import MemoryPlace, write_limit_as_another_would

FOREVER = 1000.0


def step(run_id, started, ended, *, pool="orders", key="s", assets=(), partitions=(), waiting=None):
    outcome = Outcome.UNFINISHED if ended is None else Outcome.SUCCESS
    keys = tuple(AssetKey(asset) for asset in assets)
    return StepExecution(
        run_id, key, keys, 1, started, ended, outcome, None, pool, tuple(partitions), waiting
    )


def run(run_id, *steps, ended=None, started=None, pools=("orders",), queued=(None, None)):
    return RunExecution(run_id, "job", "SUCCESS", *queued, started, ended, steps, pools)


def one_step(run_id, started, ended, **more):
    return run(run_id, step(run_id, started, ended, **more))


def audited(*runs, limit=1, since=0.0, until=FOREVER, default=None, **more):
    limits = {} if limit is None else {"orders": limit}
    granularity = {"per_run": more.pop("per_run", False), "expressions": more.pop("engine", False)}
    return audit_executions(
        runs, Limits(limits, default, **granularity), since=since, until=until, **more
    )


def told(found):
    return [
        (e.lane.name, e.held, e.started, e.ended, [o.run_id for o in e.occupants])
        for e in found.excesses
    ]


# ---- by executions -------------------------------------------------------------------------------


def test_two_at_once_in_a_pool_of_one_exceed_it():
    found = audited(one_step("a", 1.0, 4.0), one_step("b", 3.0, 9.0))
    assert told(found) == [("orders", 2, 3.0, 4.0, ["a", "b"])]
    assert (found.executions, found.pools, found.excess_count) == (2, 1, 1)


def test_taking_turns_keeps_the_limit_also_at_the_very_moment():
    found = audited(one_step("a", 1.0, 3.0), one_step("b", 3.0, 5.0), one_step("c", 5.0, 6.0))
    assert (told(found), found.executions) == ([], 3)


def test_a_limit_of_two_is_exceeded_by_the_third():
    found = audited(
        *(one_step(r, at, 9.0) for r, at in (("a", 1.0), ("b", 2.0), ("c", 3.0))), limit=2
    )
    assert told(found) == [("orders", 3, 3.0, 9.0, ["a", "b", "c"])]


def test_an_excess_is_over_when_enough_have_left():
    found = audited(one_step("a", 1.0, 4.0), one_step("b", 2.0, 9.0), one_step("c", 5.0, 6.0))
    assert [(started, ended) for _, _, started, ended, _ in told(found)] == [(2.0, 4.0), (5.0, 6.0)]


def test_of_a_paused_pool_every_start_is_one_too_many():
    assert told(audited(one_step("a", 1.0, 4.0), limit=0)) == [("orders", 1, 1.0, 4.0, ["a"])]


def test_what_took_no_time_is_beside_nobody():
    assert told(audited(one_step("a", 1.0, 4.0), one_step("b", 2.0, 2.0))) == []


def test_executions_of_one_run_count_one_by_one():
    both = run("a", step("a", 1.0, 4.0, key="s"), step("a", 2.0, 3.0, key="t"))
    assert told(audited(both)) == [("orders", 2, 2.0, 3.0, ["a", "a"])]


def test_at_granularity_run_a_run_counts_once_and_for_all_of_its_time():
    both = run("a", step("a", 1.0, 4.0), step("a", 2.0, 3.0, key="t"), started=0.5, ended=5.0)
    assert told(audited(both, per_run=True)) == []
    other = run("b", started=4.5, ended=6.0)
    found = audited(both, other, per_run=True)
    assert told(found) == [("orders", 2, 4.5, 5.0, ["a", "b"])]
    assert found.executions == 2


def test_the_default_limit_holds_for_pools_without_one_of_their_own():
    runs = one_step("a", 1.0, 4.0), one_step("b", 3.0, 9.0)
    assert told(audited(*runs, limit=None, default=1)) == [("orders", 2, 3.0, 4.0, ["a", "b"])]
    assert told(audited(*runs, limit=2, default=1)) == []


def test_of_a_pool_without_a_limit_nothing_can_be_said():
    found = audited(one_step("a", 1.0, 4.0), one_step("b", 3.0, 9.0), limit=None)
    assert (told(found), found.executions, found.pools) == ([], 0, 0)
    assert found.caveats["limits"][Caveat.UNLIMITED] == 2


def test_slots_of_an_expression_count_under_the_engine():
    runs = [
        one_step(r, at, 9.0, pool="{hold:step}orders*2+x") for r, at in (("a", 1.0), ("b", 2.0))
    ]
    found = audited(*runs, limit=3, default=9, engine=True)
    assert told(found) == [("orders", 4, 2.0, 9.0, ["a", "b"])]
    assert (found.executions, found.pools) == (2, 2)
    assert audited(*runs, limit=3, default=1).excesses[0].lane.name == "{hold:step}orders*2+x"


def test_a_graph_that_holds_its_pool_is_one_holder():
    hold = "{hold:asset}orders"

    def graph(run_id, *spans):
        steps = (step(run_id, *span, pool=hold, key=f"g.{n}") for n, span in enumerate(spans))
        return run(run_id, *steps, pools=(hold,))

    both = [graph("a", (0, 4), (1, 3), (5, 6)), graph("b", (6, 8), (7, 9))]
    kept = audited(*both, engine=True)
    assert (kept.excess_count, kept.executions, kept.pools) == (0, 2, 1)
    # Between its steps it holds, too.
    found = audited(both[0], graph("b", (4.5, 4.8)), engine=True)
    assert told(found) == [("orders", 2, 4.5, 4.8, ["a", "b"])]


def test_a_pool_for_each_partition_is_filled_in():
    def made(run_id, partition):
        return one_step(run_id, 1.0, 4.0, pool="{hold:step}o/{partition}", partitions=[partition])

    assert told(audited(made("a", "x y"), made("b", "z"), default=1, engine=True)) == []
    found = audited(made("a", "x y"), made("b", "x y"), default=1, engine=True)
    assert [lane for lane, *_ in told(found)] == ["o/x%20y"]


def test_a_pool_that_is_computed_from_a_partition_is_filled_in():
    def made(run_id, partition):
        pool = "{hold:step}{keys:date=%Y-%m-%d|at}o/{partition.at}/{partition.date:%Y}"
        return one_step(run_id, 1.0, 4.0, pool=pool, partitions=[partition])

    found = audited(made("a", "2024-01-01|x"), made("b", "2024-12-31|x"), default=1, engine=True)
    assert [lane for lane, *_ in told(found)] == ["o/x/2024"]
    found = audited(made("a", "never"), default=1, engine=True)
    assert (found.executions, found.caveats["limits"][Caveat.POOL_UNKNOWN]) == (0, 1)


@pytest.mark.parametrize("pool", ["a++b", "o/{partition}", "o/{tag:x}"])
def test_a_pool_that_cannot_be_told_is_a_caveat(pool):
    found = audited(one_step("a", 1.0, 4.0, pool="{hold:step}" + pool), default=1, engine=True)
    assert (found.executions, found.caveats["limits"][Caveat.POOL_UNKNOWN]) == (0, 1)


def test_a_run_without_a_plan_is_a_caveat():
    found = audited(run("a", step("a", 1.0, 2.0, pool=None), pools=None))
    assert (found.executions, found.caveats["limits"][Caveat.POOL_UNKNOWN]) == (0, 1)


def test_beside_one_that_left_no_end_it_is_doubted_and_not_judged():
    killed = run("a", step("a", 1.0, None), ended=5.0)
    found = audited(killed, one_step("b", 3.0, 9.0))
    assert told(found) == []
    assert (
        found.caveats["limits"][Caveat.UNFINISHED] == found.caveats["limits"][Caveat.DOUBTFUL] == 1
    )
    assert audited(killed, one_step("b", 6.0, 9.0)).caveats["limits"][Caveat.DOUBTFUL] == 0


def test_what_may_have_been_too_many_is_not_called_kept():
    doubted = audited(one_step("a", 0, None), one_step("b", 2, None))
    assert doubted.excess_count == 0
    report = AuditReport(doubted, doubted)
    assert report.verdict == "in-doubt"
    assert "perhaps one by executions without an end" in verdict_text(report)
    before = audited(one_step("a", 0, None), one_step("b", 2, None), since=5.0)
    assert AuditReport(before, before).verdict == "in-doubt", "they began before, and go on still"
    kept = audited(one_step("a", 0, 1), one_step("b", 2, None))
    assert AuditReport(kept, kept).verdict == "kept"


def test_one_that_left_no_end_did_begin_beside_another():
    unfinished = run("b", step("b", 3.0, None))
    assert told(audited(one_step("a", 1.0, 4.0), unfinished)) == [
        ("orders", 2, 3.0, 4.0, ["a", "b"])
    ]


def test_clocks_that_disagree_are_a_caveat():
    found = audited(one_step("a", 5.0, 4.0))
    assert (found.executions, found.caveats["limits"][Caveat.CLOCKS_DISAGREE]) == (0, 1)


def test_what_was_over_before_is_not_judged():
    runs = one_step("a", 1.0, 4.0), one_step("b", 3.0, 9.0), one_step("c", 8.0, 9.0)
    assert [e[2] for e in told(audited(*runs))] == [3.0, 8.0]
    assert [e[2] for e in told(audited(*runs, since=3.5))] == [3.0, 8.0]
    assert [e[2] for e in told(audited(*runs, since=4.0))] == [8.0]
    assert told(audited(*runs, since=10.0)) == []


def test_one_pool_is_judged_alone():
    both = [
        one_step(r, 1.0, 2.0, pool=p, assets=[p]) for r in ("a", "b") for p in ("orders", "other")
    ]
    found = audited(*both, default=1, pool="other")
    assert [lane for lane, *_ in told(found)] == ["other"]
    assert (found.executions, found.pools) == (2, 1)
    assert [e.lane.name for e in found.duplicates] == ["other"]


def duplicates(*runs):
    return [
        (e.lane.name, e.lane.partition, e.started, [o.run_id for o in e.occupants])
        for e in audited(*runs, limit=None).duplicates
    ]


def test_two_runs_in_one_asset_are_duplicate_work():
    a, b = (one_step(r, at, 4.0, assets=["x"]) for r, at in (("a", 1.0), ("b", 2.0)))
    assert duplicates(a, b) == [("x", "", 2.0, ["a", "b"])]
    assert duplicates(a, one_step("b", 2.0, 4.0, assets=["y"])) == []
    assert duplicates(a, one_step("b", 4.0, 5.0, assets=["x"])) == []


def test_partitions_are_made_beside_each_other():
    def made(run_id, *partitions):
        return one_step(run_id, 1.0, 4.0, assets=["x"], partitions=partitions)

    assert duplicates(made("a", "1"), made("b", "2")) == []
    assert duplicates(made("a", "1", "2"), made("b", "2", "3")) == [("x", "2", 1.0, ["a", "b"])]


def test_two_steps_of_one_run_are_no_duplicate_work():
    twice = run("a", step("a", 1.0, 4.0, assets=["x"]), step("a", 2.0, 3.0, key="t", assets=["x"]))
    assert duplicates(twice) == []
    assert duplicates(twice, one_step("b", 3.5, 5.0, assets=["x"])) == [("x", "", 3.5, ["a", "b"])]


def test_long_waits_are_told_longest_first():
    runs = [
        run("a", step("a", 100.0, 101.0, waiting=70.0)),
        run("b", step("b", 200.0, 201.0, waiting=195.0)),
        run("c", queued=(10.0, 60.0)),
        run("d", queued=(10.0, 60.0), pools=()),
    ]
    found = audited(*runs, long_seconds=20.0)
    assert found.wait_count == 2
    assert found.waits == (
        LongWait(50.0, "orders", "c", "", 60.0),
        LongWait(30.0, "orders", "a", "s", 100.0),
    )


def test_of_one_pool_the_waits_of_runs_for_it_are_told():
    runs = [
        run(name, pools=(pool,), queued=(0.0, 900.0))
        for name, pool in (("a", "orders"), ("b", "api"))
    ]
    assert [wait.run_id for wait in audited(*runs, pool="orders").waits] == ["a"]
    assert [wait.run_id for wait in audited(*runs).waits] == ["a", "b"]


def test_no_more_waits_are_kept_than_are_told():
    waits = LongWaits(0.0)
    for seconds in range(100):
        waits.add(LongWait(float(seconds), "p", "r", "s", 0.0))
    assert [w.seconds for w in waits.longest()] == [99.0 - n for n in range(LONGEST_MAX)]
    assert waits.count == 100


clock_steps = st.sampled_from([1.0, 1.0, 1.0, -3.0, 8.0, -100.0, 100.0])
intervals = st.tuples(
    st.integers(0, 12), st.integers(0, 6), st.sampled_from("xy"), st.integers(1, 2)
)


@given(st.lists(intervals, max_size=12), st.integers(0, 4), st.integers(0, 12))
def test_an_oracle_that_looks_at_every_moment_agrees(found, limit, since):
    runs = [
        one_step(f"r{n}", float(start), float(start + length), pool=f"{{hold:step}}{pool}*{slots}")
        for n, (start, length, pool, slots) in enumerate(found)
    ]
    report = audit_executions(
        runs, Limits({}, limit, expressions=True), since=float(since), until=FOREVER
    )
    assert {e.lane.name for e in report.excesses} == {
        pool
        for pool in "xy"
        for moment in range(2 * since, 40)  # halves: between any two integers there is one
        if sum(w for s, n, p, w in found if p == pool and s <= moment / 2 < s + n) > limit
    }


@given(st.lists(intervals, max_size=12))
def test_an_oracle_that_compares_each_pair_agrees_on_duplicates(found):
    runs = [
        one_step(f"r{n}", float(start), float(start + length), assets=[asset], pool=None)
        for n, (start, length, asset, _) in enumerate(found)
    ]
    pairs = [
        sum(
            o != n and other == asset and s + length > start and (s, o) < (start, n) and length
            for o, (s, length, other, _) in enumerate(found)
        )
        for n, (start, own, asset, _) in enumerate(found)
        if own
    ]
    assert audited(*runs).duplicate_count == sum(bool(beside) for beside in pairs)


# ---- by the ledger -------------------------------------------------------------------------------


def grant(at, run_id, fence, *, pool="orders", slots=1, seconds=0.0):
    return Entry(EntryKind.GRANTED, pool, run_id, "s", slots, fence, "", seconds, None, at)


def release(at, run_id, fence, *, pool="orders", slots=1, kind=EntryKind.RELEASED):
    return Entry(kind, pool, run_id, "s", slots, fence, "", 1.0, None, at)


def limit(at, slots, *, pool="orders", fence=0):
    return Entry(EntryKind.LIMIT, pool, limit=slots, fence=fence, at=at)


def rate(at, text, *, pool="orders"):
    return Entry(EntryKind.RATE, pool, detail=text, at=at)


def by_ledger(*entries, limits=None, rates=None, since=0.0, **more):
    begin = entries[0].at if entries else None
    before = tuple(itertools.takewhile(lambda entry: entry.at < since, entries))
    past = LedgerSpan(begin, limits or {}, rates or {}, before, iter(entries[len(before) :]))
    return audit_ledger(past, since=since, until=FOREVER, **more)


def caveats(found):
    """By what is judged."""
    return {subject: dict(counts) for subject, counts in found.caveats.items() if counts}


def early(found):
    return [(e.pool, e.rate, e.seconds, e.occupant.started) for e in found.early]


def test_a_start_before_its_time_is_found_in_the_ledger():
    starts = [grant(at, f"r{at}", n) for n, at in enumerate((10.0, 16.0, 21.0, 22.0, 40.0))]
    found = by_ledger(*starts, rates={"orders": Rate.parse("10/minute")})
    assert early(found) == [
        ("orders", "10/minute", 1.0, 21.0),
        ("orders", "10/minute", 6.0, 22.0),  # It is due after the one that came too early.
    ]
    assert (found.early_count, found.rated_pools) == (2, 1)
    assert [e.occupant.run_id for e in found.early] == ["r21.0", "r22.0"]
    assert by_ledger(*starts, rates={"orders": Rate.parse("10/minute", 2)}).early_count == 0
    assert by_ledger(*starts, rates={"other": Rate.parse("1/day")}).rated_pools == 0
    # Of what was before, the rate that was in force is not known.
    since = by_ledger(*starts, rates={"orders": Rate.parse("10/minute")}, since=21.0)
    assert early(since) == [("orders", "10/minute", 5.0, 22.0)]


def test_a_rate_holds_from_when_it_was_set():
    def starts(*moments):
        return [grant(at, f"r{at}", int(at)) for at in moments]

    found = by_ledger(
        *starts(1.0, 1.1),
        rate(2.0, "10/minute, burst 2"),
        *starts(3.0, 3.1, 3.2),
        rate(4.0, None),
        *starts(4.1, 4.2, 4.3),
    )
    assert [(e[1], e[3]) for e in early(found)] == [("10/minute, burst 2", 3.2)]


def test_a_start_counts_on_when_its_rate_is_changed():
    """By the interval of the new rate; as the engine counts it, see ``rate``."""
    start, quick, slow = grant(1.0, "a", 1), rate(3.0, "60/minute"), rate(3.0, "1/minute")
    assert early(by_ledger(rate(0.0, "20/minute"), start, quick, grant(3.4, "b", 2))) == []
    assert [
        e[1:] for e in early(by_ledger(rate(0.0, "20/minute"), start, slow, grant(22.5, "b", 2)))
    ] == [("1/minute", 0.5, 22.5)]


def test_a_clock_that_was_set_back_makes_no_start_too_early():
    """The engine counts anew from a row of its rate, though nobody changed it."""
    first = rate(0.0, "1/hour"), grant(9000.0, "a", 1)
    then = grant(9600.0, "b", 2)
    assert len(early(by_ledger(*first, then))) == 1
    assert early(by_ledger(*first, rate(6000.0, "1/hour"), then)) == []
    assert len(early(by_ledger(*first, rate(6000.0, "1/hour"), grant(9599.0, "b", 2)))) == 1


@given(
    st.lists(st.integers(0, 40), max_size=25).map(sorted),
    st.integers(1, 4),
    st.sampled_from([20, 60]),
)
def test_what_is_found_early_is_more_than_a_rate_allows_in_some_span(moments, burst, starts):
    """And what is not is within it: of each span of time all that started are counted."""
    rated = Rate(starts, 60, burst)
    entries = [grant(float(at), f"r{n}", n) for n, at in enumerate(moments)]
    found = by_ledger(*entries, rates={"orders": rated})
    kept = all(
        later - earlier + 1 <= burst + (moments[later] - moments[earlier]) * starts / 60
        for earlier in range(len(moments))
        for later in range(earlier, len(moments))
    )
    assert kept == (found.early_count == 0)


def test_a_grant_over_the_limit_is_found_in_the_ledger():
    found = by_ledger(limit(1.0, 1), grant(2.0, "a", 1), grant(3.0, "b", 2), release(4.0, "a", 1))
    assert told(found) == [("orders", 2, 3.0, 4.0, ["a", "b"])]
    assert (found.executions, found.pools) == (2, 1)


def test_the_order_of_the_ledger_counts_and_not_the_clock():
    kept = limit(1.0, 1), grant(2.0, "a", 1), release(3.0, "a", 1), grant(3.0, "b", 2)
    assert told(by_ledger(*kept)) == []
    swapped = limit(1.0, 1), grant(2.0, "a", 1), grant(3.0, "b", 2), release(3.0, "a", 1)
    assert len(told(by_ledger(*swapped))) == 1


def test_a_lowered_limit_drains_and_binds_who_comes_then():
    drains = limit(1.0, 3), *(grant(2.0, r, n) for n, r in enumerate("abc")), limit(3.0, 1)
    assert told(by_ledger(*drains)) == []
    left = (*drains, release(4.0, "a", 0))
    assert told(by_ledger(*left, grant(5.0, "d", 9))) == [("orders", 3, 5.0, None, ["b", "c", "d"])]


def test_a_raised_limit_lets_more_in_and_ends_what_was_too_much():
    raised = limit(1.0, 1), grant(2.0, "a", 1), limit(3.0, 2), grant(4.0, "b", 2)
    assert told(by_ledger(*raised)) == []
    ended = limit(1.0, 1), grant(2.0, "a", 1), grant(3.0, "b", 2), limit(4.0, 2)
    assert told(by_ledger(*ended)) == [("orders", 2, 3.0, 4.0, ["a", "b"])]


def test_a_deleted_limit_is_none_and_a_paused_pool_lets_nobody_in():
    assert told(by_ledger(limit(1.0, 0), limit(2.0, None), grant(3.0, "a", 1))) == []
    assert len(told(by_ledger(limit(1.0, None), limit(2.0, 0), grant(3.0, "a", 1)))) == 1


def test_below_a_default_limit_a_deleted_limit_is_the_default_one():
    entries = limit(1.0, 3), limit(2.0, None), grant(3.0, "a", 1), grant(4.0, "b", 2)
    found = by_ledger(*entries, default_limit=1)
    assert told(found) == [("orders", 2, 4.0, None, ["a", "b"])]
    assert told(by_ledger(*entries)) == []


def test_what_was_held_before_counts():
    ledger = limit(1.0, 1), grant(2.0, "a", 1), grant(30.0, "b", 2)
    found = by_ledger(*ledger, since=10.0)
    assert told(found) == [("orders", 2, 30.0, None, ["a", "b"])]
    assert (found.executions, found.since) == (1, 10.0)


def test_an_excess_that_was_over_before_is_not_told():
    over = limit(1.0, 1), grant(2.0, "a", 1), grant(3.0, "b", 2), release(4.0, "a", 1)
    assert len(told(by_ledger(*over, since=3.5))) == 1
    assert told(by_ledger(*over, since=4.5)) == []


def test_a_ledger_that_begins_later_says_so_and_what_it_cannot_tell():
    found = by_ledger(release(20.0, "z", 1), grant(21.0, "a", 2), limit(22.0, 1), since=10.0)
    assert found.since == 20.0
    assert caveats(found) == {
        "limits": {Caveat.LEDGER_SHORT: 1, Caveat.BEGAN_BEFORE: 1, Caveat.LIMIT_UNKNOWN: 1}
    }


def test_a_limit_that_never_changed_is_known_from_today():
    ledger = grant(2.0, "a", 1), grant(3.0, "b", 2)
    assert len(told(by_ledger(*ledger, limits={"orders": 1}))) == 1
    assert told(by_ledger(*ledger, limits={"orders": 2})) == []
    assert told(by_ledger(*ledger, limits={"orders": None})) == []


def test_slots_that_went_with_their_lease_are_free_and_a_caveat():
    expired = release(3.0, "a", 1, kind=EntryKind.EXPIRED)
    found = by_ledger(limit(1.0, 1), grant(2.0, "a", 1), expired, grant(4.0, "b", 2))
    assert (told(found), caveats(found)["leases"]) == ([], {Caveat.EXPIRED: 1})


def test_several_pools_of_one_execution_are_one_execution():
    entries = [
        limit(1.0, 2),
        limit(1.0, 2, pool="x"),
        grant(2.0, "a", 1, slots=2),
        grant(2.0, "a", 1, pool="x"),
    ]
    found = by_ledger(*entries)
    assert (found.executions, found.pools, told(found)) == (1, 2, [])


def test_rates_are_not_judged():
    rates = [Entry(EntryKind.RATE, "orders", at=at, detail="1/minute") for at in (2.0, 4.0)]
    found = by_ledger(limit(1.0, 1), rates[0], grant(3.0, "a", 1), rates[1])
    assert (told(found), found.executions) == ([], 1)
    assert caveats(found) == {"limits": {Caveat.LEDGER_SHORT: 1}}


def test_waits_of_the_ledger():
    found = by_ledger(grant(50.0, "a", 1, seconds=40.0), grant(60.0, "b", 2), long_seconds=30.0)
    assert found.waits == (LongWait(40.0, "orders", "a", "s", 50.0),)


def test_an_empty_ledger_is_no_evidence():
    found = by_ledger(since=5.0)
    assert (found.executions, found.since) == (0, 5.0)
    assert caveats(found) == {"limits": {Caveat.LEDGER_SHORT: 1}}


def after(engine):
    """A moment later than all that the ledger tells, by its clock."""
    last = engine.store.ledger(count_max=1)[0].at
    while (now := time.time()) <= last:  # a clock may stand still
        time.sleep(0.01)
    return now


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), clock_steps), max_size=12),
    st.lists(st.integers(0, 3), max_size=3),
    st.booleans(),
    st.integers(0, 16),
)
def test_from_a_moment_on_the_same_is_found_as_from_the_begin(turns, limits, rising, since):
    """Whatever the clock did meanwhile."""
    store, at, held, fence = MemoryStore(clock=lambda: FOREVER), 5000.0, {}, 0
    since += 5000.0
    # Mixed, the limits would hide who was over one of them while another was in force.
    changes = sorted(limits, reverse=not rising)
    for run_id, changes_limit, clock_step in turns:
        at += clock_step + 1 / 1024  # Else two grants may be at the same time.
        key = TicketKey(run_id, "s")
        if changes_limit and changes:
            store.rows.ledger.append(limit(at, changes.pop(0), fence=fence))
        elif run_id in held:
            own, began = held.pop(run_id)
            del store.rows.holdings[key]
            gone = release(at, run_id, own)
            store.rows.ledger.append(dataclasses.replace(gone, seconds=at - began))
        else:
            fence += 1
            held[run_id] = fence, at
            store.rows.owners[key] = set()
            store.rows.holdings[key] = Holding(key, {"orders": (fence,)}, fence, since=at)
            store.rows.ledger.append(grant(at, run_id, fence))

    def found(past):
        before = {entry.fence for entry in past.before if entry.kind is EntryKind.GRANTED}
        judged = audit_ledger(past, since=since, until=FOREVER)
        late = [e for e in judged.excesses if fence_of[e.occupants[-1]] not in before]
        return late, judged.excess_count > len(late), judged.executions, caveats(judged)

    entries = store.entries()
    grants = [entry for entry in entries if entry.kind is EntryKind.GRANTED]
    fence_of = {Occupant(e.run_id, "s", e.at, 1): e.fence for e in grants}
    first = next((n for n, entry in enumerate(entries) if entry.at >= since), len(entries))
    part = read_span(store, {"orders": 1}, since=since)
    whole = LedgerSpan(part.begin, part.limits, {}, entries[:first], iter(entries[first:]))
    assert found(part) == found(whole)


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), clock_steps), max_size=16),
    st.integers(0, 3),
)
def test_an_oracle_that_counts_in_the_order_of_the_commits_agrees(turns, slots):
    at, held, fence, over, entries = 5000.0, {}, 0, [], [limit(5000.0, slots)]
    for run_id, changes_limit, clock_step in turns:
        at += clock_step
        if changes_limit:
            slots = (slots + 1) % 4
            entries.append(limit(at, slots))
        elif run_id in held:
            entries.append(release(at, run_id, held.pop(run_id)))
        else:
            fence += 1
            held[run_id] = fence
            entries.append(grant(at, run_id, fence))
            if len(held) > slots:
                over.append(run_id)
    found = by_ledger(*entries)
    assert sorted(e.occupants[-1].run_id for e in found.excesses) == sorted(over)
    assert found.executions == fence
    assert all(e.seconds is None or e.seconds >= 0 for e in found.excesses)


def change_ledger(place, column, value, where):
    """Write into the ledger itself, by SQL; in memory by the same condition."""
    if not isinstance(place, MemoryPlace):
        place.sql(f'UPDATE lifeguard_ledger SET "{column}" = {value!r} WHERE {where}')
        return
    name, _, wanted = where.partition(" = ")
    rows = place.store().rows
    rows.ledger = [
        dataclasses.replace(entry, **{column: value})
        if (str(n) if name == "entry" else f"'{entry.kind.value}'") == wanted
        else entry
        for n, entry in enumerate(rows.ledger, start=1)
    ]


class TestReadingTheLedger:
    @pytest.fixture
    def engine(self, place):
        place.store().migrate()
        engine = Engine(place.store())
        yield engine
        engine.close()

    def test_it_is_read_in_pages(self, engine, monkeypatch):
        monkeypatch.setattr(ledger_module, "PAGE", 2)
        for slots in range(1, 6):
            engine.change_pool("orders", limit=slots)
        assert [e.limit for e in read_ledger(engine.store)] == [1, 2, 3, 4, 5]
        assert list(read_ledger(engine.store, pool="other")) == []

    def test_what_is_written_meanwhile_is_left_out(self, engine, monkeypatch):
        monkeypatch.setattr(ledger_module, "PAGE", 1)
        engine.change_pool("orders", limit=1)
        entries = read_ledger(engine.store)
        read = [next(entries).limit]
        before = engine.store.ledger(count_max=1)[0].at
        engine.change_pool("orders", limit=2)
        while engine.store.ledger(count_max=1)[0].at <= before:  # a clock may stand still
            time.sleep(0.01)
            engine.change_pool("orders", limit=3)
        assert read + [entry.limit for entry in entries if entry.at > before] == [1]

    def test_limits_that_changed_are_not_known_from_today(self, engine, place):
        for pool in ("still", "changed"):
            write_limit_as_another_would(place, pool, 1)
        engine.change_pool("changed", limit=2)
        past = read_span(engine.store, {"still": 1, "changed": 2}, since=0.0)
        assert past.limits == {"still": 1}

    def test_from_a_moment_on_it_tells_who_held_then_and_what_was_in_force(self, engine):
        demand = Demand.parse("orders+other*2")
        for pool in ("orders", "other"):
            engine.change_pool(pool, limit=6)
        held = {run_id: engine.claim(run_id, "s", demand) for run_id in ("over", "ends", "holds")}
        assert all(claim.granted for claim in held.values())
        engine.release("over", "s")
        begin, since = engine.store.ledger()[-1].at, after(engine)
        engine.release("ends", "s")
        assert engine.claim("late", "s", demand).granted
        past = read_span(engine.store, {}, since=since)
        told = [(e.kind.value, e.pool, e.run_id, e.slots, e.limit) for e in past.before]
        assert sorted(told, key=str) == [
            ("granted", "orders", "ends", 1, None),
            ("granted", "orders", "holds", 1, None),
            ("granted", "other", "ends", 2, None),
            ("granted", "other", "holds", 2, None),
            ("limit", "orders", "", 0, 6),
            ("limit", "other", "", 0, 6),
        ]
        assert past.begin == begin
        assert {e.run_id for e in past.since} == {"ends", "late"}
        whole = list(read_span(engine.store, {}, since=0.0).since)
        for pool in (None, "orders"):
            part = read_span(engine.store, {}, since=since, pool=pool)
            whole_of_pool = [e for e in whole if pool in (None, e.pool)]
            found = audit_ledger(part, since=since, until=FOREVER)
            expected = by_ledger(*whole_of_pool, since=since)
            assert (found.executions, found.excesses) == (expected.executions, expected.excesses)
            assert found.caveats["limits"][Caveat.BEGAN_BEFORE] == 0

    def test_nothing_is_dropped_when_the_clock_steps_back(self, engine, place):
        """The case of a clock that stepped back by 2 s, in which a real excess was "kept"."""
        engine.change_pool("orders", limit=2)
        for run_id in "ab":
            assert engine.claim(run_id, "s", Demand.parse("orders")).granted
        # Both in a pool of 1, and from then on by a clock that is 2 s behind.
        first, second = engine.store.entries(kind=EntryKind.GRANTED)
        change_ledger(place, "limit", 1, "kind = 'limit'")
        change_ledger(place, "at", second.at - 2.0, f"entry = {second.number}")
        assert [e.run_id for e in read_ledger(engine.store)] == ["", "a", "b"]
        for since in (0.0, first.at, first.at - 1.0):
            past = read_span(engine.store, {}, since=since)
            found = audit_ledger(past, since=since, until=FOREVER)
            assert [[o.run_id for o in e.occupants] for e in found.excesses] == [["a", "b"]]
            assert found.caveats["limits"][Caveat.CLOCK_STEPPED] == 1
            assert found.caveats["waits"][Caveat.CLOCK_STEPPED] == 1
            assert not found.caveats["rates"]

    def test_an_engine_at_work_keeps_rates(self, engine):
        engine.change_pool("orders", limit=1000)
        engine.change_pool("orders", rate=Rate.parse("100/second", 3))
        demand, began, number = Demand.parse("orders"), time.monotonic(), 0
        while number < 20:
            assert time.monotonic() < began + 60
            if engine.claim(f"r{number}", "s", demand).granted:
                number += 1
        engine.change_pool("orders", rate=Rate.parse("1/hour"))
        entries = list(read_ledger(engine.store))
        found = by_ledger(*entries)
        assert (found.executions, found.rated_pools, early(found)) == (20, 1, [])
        hurried = [e for e in entries if e.kind is EntryKind.GRANTED]
        assert by_ledger(*hurried, rates={"orders": Rate.parse("1/hour")}).early_count == 19

    def test_a_rate_that_changed_is_known_from_its_change_on(self, engine):
        for text in ("9/hour", "1/hour"):
            engine.change_pool("changed", rate=Rate.parse(text))
        engine.change_pool("gone", rate=Rate.parse("1/hour"))
        engine.change_pool("gone", rate=None)
        today = {"still": Rate.parse("2/hour"), "changed": Rate.parse("1/hour")}
        past = read_span(engine.store, {}, today, since=after(engine))
        assert past.rates == today
        assert past.before == ()
        assert read_span(engine.store, {}, today, since=0.0).rates == {"still": today["still"]}

    def test_rates_are_in_the_order_of_their_commits_whatever_the_clocks_say(self):
        store = MemoryStore(clock=lambda: FOREVER)
        store.rows.ledger += [rate(50.0, "1/hour"), rate(40.0, "100/second")]
        past = read_span(store, {}, {"orders": Rate.parse("100/second")}, since=60.0)
        assert past.rates == {"orders": Rate.parse("100/second")}

    def test_an_engine_at_work_is_clean(self, engine):
        engine.change_pool("orders", limit=1)
        engine.claim("a", "s", Demand.parse("orders"))
        engine.claim("b", "s", Demand.parse("orders"))
        engine.release("a", "s")
        assert engine.claim("b", "s", Demand.parse("orders")).granted
        engine.change_pool("orders", limit=0)
        found = by_ledger(*read_ledger(engine.store))
        assert (told(found), found.executions, found.pools) == ([], 2, 1)
        assert caveats(found) == {"limits": {Caveat.LEDGER_SHORT: 1}}


# ---- fences and leases ---------------------------------------------------------------------------


def test_a_fence_that_is_given_twice_is_found_though_no_limit_was_exceeded():
    found = by_ledger(
        limit(1.0, 1),
        grant(2.0, "a", 7),
        release(3.0, "a", 7),
        grant(4.0, "b", 7),
        grant(4.0, "c", 7, pool="other"),
    )
    assert [
        (s.pool, s.fence, s.largest, s.first.run_id, s.occupant.run_id) for s in found.stale
    ] == [("orders", 7, 7, "a", "b")]
    report = AuditReport(found, found)
    assert (found.excess_count, found.stale_count, report.verdict) == (0, 1, "unsafe")
    assert verdict_text(report).endswith("no limit exceeded, but a fence did not grow once.")


def test_a_fence_smaller_than_one_before_is_found_and_growing_ones_are_not():
    grown = limit(1.0, 9), *(grant(2.0, r, n) for n, r in enumerate("abc"))
    assert by_ledger(*grown).stale_count == 0
    (stale,) = by_ledger(*grown, grant(3.0, "d", 1)).stale
    assert (stale.fence, stale.largest, stale.first.run_id) == (1, 2, "c")


def test_a_fence_that_who_holds_still_was_given_twice_is_found():
    twice = limit(1.0, 9), grant(2.0, "a", 7), grant(2.0, "b", 7), release(9.0, "a", 7)
    assert by_ledger(*twice, since=5.0).stale_count == 1


def expired(*events, at=40.0, seconds=30.0, also=(), key="s"):
    """What is found of a step that held from 10 to 40, of these events of it."""
    ended = Entry(EntryKind.EXPIRED, "orders", "a", "s", 1, 1, "", seconds, None, at)
    rows = [EventRow(kind, moment, key) for kind, moment in events]
    return by_ledger(
        limit(1.0, 1), grant(at - seconds, "a", 1), ended, *also, events_of=lambda ids: {"a": rows}
    )


@pytest.mark.parametrize("kind", ["STEP_SUCCESS", "STEP_OUTPUT", "ASSET_MATERIALIZATION"])
def test_a_step_that_wrote_after_its_lease_is_found(kind):
    found = expired(("STEP_START", 11.0), (kind, 42.0))
    (late,) = found.outlived
    assert (late.run_id, late.step_key, late.pools, late.event) == ("a", "s", ("orders",), kind)
    assert (late.granted, late.expired, late.wrote, late.seconds) == (10.0, 40.0, 42.0, 1.0)
    assert (found.outlived_count, caveats(found)["limits"]) == (1, {Caveat.LEDGER_SHORT: 1})
    assert "leases" not in caveats(found)
    report = AuditReport(found, found)
    assert report.verdict == "unsafe"
    assert "1 step went on after the lease" in verdict_text(report)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [("STEP_START", 11.0), ("STEP_SUCCESS", 39.0)],
        [("STEP_START", 11.0), ("STEP_FAILURE", 50.0)],  # The run worker may have said so.
        [("STEP_START", 20.0), ("STEP_SUCCESS", 42.0)],  # By a clock that is perhaps ahead.
        [("STEP_START", 9.0), ("STEP_SUCCESS", 42.0)],  # Of an attempt before, by the clocks.
        [("STEP_START", 41.0), ("STEP_SUCCESS", 99.0)],  # Of the next.
        [("STEP_START", 11.0), ("STEP_START", 41.0), ("STEP_SUCCESS", 99.0)],
    ],
)
def test_what_does_not_prove_that_a_step_went_on_is_a_caveat(events):
    found = expired(*events)
    assert (found.outlived, caveats(found)["leases"]) == ((), {Caveat.EXPIRED: 1})


def test_by_a_clock_that_stepped_back_nothing_is_proved():
    found = expired(("STEP_START", 11.0), ("STEP_SUCCESS", 42.0), also=[grant(38.0, "b", 2)])
    assert (found.outlived, caveats(found)["leases"]) == ((), {Caveat.EXPIRED: 1})


def test_a_step_inside_a_graph_that_held_its_pool_is_found_and_no_other():
    events = ("STEP_START", 11.0), ("STEP_SUCCESS", 42.0)
    assert [late.step_key for late in expired(*events, key="s.load").outlived] == ["s.load"]
    assert expired(*events, key="sales").outlived == ()


def test_a_step_of_several_pools_went_on_once():
    other = Entry(EntryKind.EXPIRED, "other", "a", "s", 1, 1, "", 30.0, None, 40.0)
    (late,) = expired(("STEP_START", 11.0), ("STEP_SUCCESS", 42.0), also=[other]).outlived
    assert late.pools == ("orders", "other")


def test_a_wait_that_seems_to_end_before_it_began_is_a_caveat():
    found = by_ledger(grant(50.0, "a", 1, seconds=-3.0), long_seconds=0.0)
    assert (found.waits, caveats(found)["waits"]) == ((), {Caveat.CLOCK_STEPPED: 1})


def test_caveats_stand_by_what_they_are_about():
    runs = [
        run("a", step("a", 1.0, None, pool=None, assets=["x"]), ended=5.0, pools=None),
        one_step("b", 2.0, 3.0, pool="other", assets=["y"]),
        one_step("c", 9.0, 8.0),
        run("d", queued=(9.0, 8.0)),
    ]
    assert caveats(audited(*runs)) == {
        "limits": {
            Caveat.LIMITS_OF_TODAY: 1,
            Caveat.CLOCKS: 1,
            Caveat.CLOCKS_DISAGREE: 1,
            Caveat.UNLIMITED: 1,
            Caveat.POOL_UNKNOWN: 1,
        },
        "duplicates": {Caveat.CLOCKS: 1, Caveat.UNFINISHED: 1},
        "waits": {Caveat.CLOCKS_DISAGREE: 1},
    }
    # Where the ledger judges the pools, nothing is said of how they could not be judged.
    beside = audited(*runs, assets_only=True)
    assert caveats(beside)["limits"] == {Caveat.LIMITS_OF_TODAY: 1, Caveat.CLOCKS: 1}
    assert caveats(beside)["duplicates"] == {Caveat.CLOCKS: 1, Caveat.UNFINISHED: 1}
    assert (beside.executions, beside.pools) == (0, 0)


def test_two_in_an_asset_of_which_no_end_is_known_cast_no_doubt_on_limits():
    both = [one_step(r, at, None, pool=None, assets=["x"]) for r, at in (("a", 1.0), ("b", 2.0))]
    found = audited(*both, one_step("c", 1.0, 2.0))
    assert caveats(found)["duplicates"][Caveat.DOUBTFUL] == 1
    assert AuditReport(found, found).verdict == "kept"


# ---- the spool -----------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 20), st.text(max_size=2))), st.integers(1, 5))
def test_a_spool_puts_in_order_whatever_its_size(items, part):
    with pytest.MonkeyPatch.context() as patch, Spool() as spool:
        patch.setattr(spool_module, "PART", part)
        patch.setattr(spool_module, "_BLOCK", 2)
        for item in items:
            spool.add(item)
        assert list(spool.in_order()) == sorted(items)
