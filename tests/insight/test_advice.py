"""Limits that meet a target, found on hand-made pasts, and the advice beside them."""

from __future__ import annotations

import pytest

from dagster_lifeguard.engine.rules.model import Demand, TicketKey
from dagster_lifeguard.engine.rules.pool_settings import BACKFILL_TAG, PoolSettings
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.insight.simulation.advice import Blocked, Target
from dagster_lifeguard.insight.simulation.advising import advise
from dagster_lifeguard.insight.simulation.arrivals import PARTITION_TAG
from dagster_lifeguard.insight.simulation.recording import Recorded, Recording, in_order

END = 10_000.0
MINUTE = Target(0.95, 60.0)


def execution(name, demand, asked, seconds, tags=()):
    """As it was in a past in which nobody waited: only the demands are of interest."""
    key = TicketKey(name, "step")
    return Recorded(key, Demand.of(demand), asked, asked, asked + seconds, 0, dict(tags))


def past(executions, settings):
    ordered = in_order(executions)
    return Recording("ledger", 0.0, END, ordered.arrivals, ordered.waited, settings)


def at_once(pool, count=20, seconds=60.0, others=(), tags=()):
    demand = {pool: 1, **dict.fromkeys(others, 1)}
    return [execution(f"{pool}{n}", demand, 0.0, seconds, tags) for n in range(count)]


def of_pool(advice, pool="w"):
    (found,) = (found for found in advice.pools if found.pool == pool)
    return found


def test_a_limit_is_raised_to_the_smallest_that_is_enough():
    advice = advise(past(at_once("w"), {"w": PoolSettings(2)}), MINUTE)
    found = of_pool(advice)
    # Twenty steps of a minute: with 10 slots nobody waits longer than a minute, with 9 two do.
    assert (found.verdict, found.settings.limit, found.limit) == ("raised", 2, 10)
    assert (found.wait, found.advised, found.one_less) == (540.0, 60.0, 120.0)
    assert (found.late, found.executions) == (16, 20)
    assert advice.limits == {"w": 10}


def test_every_smaller_limit_misses_the_target():
    for limit in range(2, 10):
        budget = {"w": limit}
        found = of_pool(advise(past(at_once("w"), {"w": PoolSettings(2)}), MINUTE, budgets=budget))
        assert found.verdict == "unmet"
        assert found.blocked == (Blocked("w", "budget"),)


def test_a_budget_is_used_as_far_as_it_helps():
    advice = advise(past(at_once("w"), {"w": PoolSettings(2)}), MINUTE, budgets={"w": 7})
    assert (of_pool(advice).limit, of_pool(advice).advised) == (7, 120.0)


def test_what_is_met_stays():
    advice = advise(past(at_once("w", count=2), {"w": PoolSettings(2)}), MINUTE)
    assert of_pool(advice).verdict == "met"
    assert advice.limits == {}


def test_a_lock_is_never_raised():
    advice = advise(past(at_once("orders"), {"orders": PoolSettings(1)}), MINUTE)
    found = of_pool(advice, "orders")
    assert (found.verdict, found.limit) == ("unmet", 1)
    assert found.blocked == (Blocked("orders", "lock"),)


def test_a_lock_that_a_budget_names_may_be_raised():
    found = of_pool(advise(past(at_once("w"), {"w": PoolSettings(1)}), MINUTE, budgets={"w": 16}))
    assert (found.verdict, found.limit) == ("raised", 10)


def test_the_pool_where_the_late_stood_is_raised_and_not_the_one_they_asked_for_too():
    executions = [execution(f"{n}", {f"own{n}": 1, "warehouse": 1}, 0.0, 60.0) for n in range(8)]
    own = {f"own{n}": PoolSettings(1) for n in range(8)}
    advice = advise(past(executions, {**own, "warehouse": PoolSettings(2)}), MINUTE)
    assert advice.limits == {"warehouse": 4}
    assert {found.verdict for found in advice.pools} == {"met", "raised"}


def test_a_target_of_its_own_holds_for_one_pool():
    executions = at_once("a") + at_once("b")
    settings = {"a": PoolSettings(2), "b": PoolSettings(2)}
    advice = advise(past(executions, settings), MINUTE, targets={"b": Target(0.95, 600.0)})
    assert advice.limits == {"a": 10}


def test_a_rate_is_named_where_more_slots_do_not_help():
    settings = {"api": PoolSettings(3, Rate(1, 60))}
    found = of_pool(advise(past(at_once("api", seconds=1.0), settings), MINUTE), "api")
    assert (found.verdict, found.limit) == ("unmet", 3)
    assert found.blocked == (Blocked("api", "rate"),)


def test_a_paused_pool_is_not_opened():
    found = of_pool(advise(past(at_once("w"), {"w": PoolSettings(0)}), MINUTE))
    assert (found.limit, found.blocked) == (0, (Blocked("w", "paused"),))


def test_limits_are_lowered_only_when_that_is_asked_for():
    settings = {"w": PoolSettings(30)}
    kept = advise(past(at_once("w"), settings), MINUTE)
    assert (kept.limits, kept.never_full) == ({}, (("w", 30, 20),))
    lowered = of_pool(advise(past(at_once("w"), settings), MINUTE, lower=True))
    assert (lowered.verdict, lowered.limit, lowered.one_less) == ("lowered", 10, 120.0)


def test_a_limit_that_no_execution_needs_is_told():
    recording = past(at_once("w"), {"w": PoolSettings(2), "old": PoolSettings(3)})
    assert advise(recording, MINUTE, own_limits={"w": 2, "old": 3}).unused == ("old",)


def test_the_settings_at_the_end_are_the_ones_of_today():
    from dagster_lifeguard.insight.simulation.arrivals import Change

    executions = at_once("w")
    recording = past(executions, {"w": PoolSettings(1)})
    arrivals, waited = recording.arrivals, recording.waited
    changed = Recording(
        *("ledger", 0.0, END, arrivals, waited, recording.settings),
        changes=(Change(9_000.0, "w", PoolSettings(10)),),
    )
    found = of_pool(advise(changed, MINUTE))
    assert (found.verdict, found.settings.limit) == ("met", 10)


def test_a_fair_order_is_named_where_a_backfill_makes_the_others_wait():
    backfill = at_once("w", count=100, tags={BACKFILL_TAG: "b1"})
    daily = [execution(f"daily{n}", {"w": 1}, 100.0 + n, 60.0) for n in range(3)]
    advice = advise(past(backfill + daily, {"w": PoolSettings(2)}), MINUTE, budgets={"w": 3})
    (way,) = advice.other_ways
    assert (way.kind, way.pool, way.executions) == ("fair-order", "w", 3)
    assert way.after < way.wait / 2


@pytest.mark.parametrize("backfill", [None, "b1"])
def test_partition_pools_are_named_where_partitions_take_turns(backfill):
    tags = {BACKFILL_TAG: backfill} if backfill else {}
    runs = [
        execution(f"r{n}", {"orders": 1}, 0.0, 60.0, {PARTITION_TAG: f"p{n}", **tags})
        for n in range(20)
    ]
    advice = advise(past(runs, {"orders": PoolSettings(1)}), MINUTE)
    (way,) = advice.other_ways
    assert (way.kind, way.after, way.wait) == ("partition-pools", 0.0, 1080.0)
    assert (way.backfill, way.runs) == ((backfill, 20) if backfill else (None, 0))
    assert way.span == (1140.0 if backfill else 0.0)


def test_one_partition_has_no_use_for_pools_of_its_own():
    runs = at_once("orders", tags={PARTITION_TAG: "p1"})
    assert advise(past(runs, {"orders": PoolSettings(1)}), MINUTE).other_ways == ()


def test_partition_pools_that_gain_little_are_not_named():
    runs = [
        execution(f"r{n}", {"orders": 1}, 0.0, 60.0, {PARTITION_TAG: f"p{n == 0}"})
        for n in range(20)
    ]
    assert advise(past(runs, {"orders": PoolSettings(1)}), MINUTE).other_ways == ()
