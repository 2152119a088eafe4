"""Limits until a time, on every store alike.

Nobody acts when a temporary limit ends: which limit is in force is decided by the store's clock in
each read. So the tests move the end into the past, as if the time had gone by.
"""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.fall_backs import FallBacks
from dagster_lifeguard.engine.rules.model import Demand, EntryKind, WaitReason
from dagster_lifeguard.engine.rules.pool_settings import (
    NOTHING_SET,
    FallBack,
    PoolSettings,
    rises_at,
)
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.engine.store.memory.store import MemoryStore
from dagster_lifeguard.engine.store.postgres.store import PostgresStore
from dagster_lifeguard.errors import ConfigError
from places import MemoryPlace, age_temporary_limit, write_limit_as_another_would

HOUR = 3600.0
PATIENT = {"look_again_seconds": HOUR, "lease_seconds": 2 * HOUR, "abandon_seconds": HOUR}
DEADLINE_SECONDS = 60.0


def ask(engine, run_id, demand="api", priority=0):
    return engine.claim(run_id, "step", Demand.parse(demand), priority)


def in_an_hour(engine):
    return engine.store.now() + HOUR


def set_until(engine, limit, pool="api"):
    until = in_an_hour(engine)
    engine.limit_until(pool, limit, until)
    return until


def limits(engine, pool="api"):
    """The limit in force as each read tells it: all settings, and a snapshot."""
    settings = engine.settings().get(pool, NOTHING_SET)
    snapshot = engine.snapshot(pool)
    return settings.limit, snapshot.settings.limit


def limit_entries(engine, pool="api"):
    ledger = reversed(engine.store.ledger(pool=pool))
    return [(entry.limit, entry.detail) for entry in ledger if entry.kind is EntryKind.LIMIT]


def test_a_limit_until_a_time_is_in_force_until_then_and_the_old_one_after(place, engine):
    engine.change_pool("api", limit=2)
    until = set_until(engine, 3)
    assert limits(engine) == (3, 3)
    told = engine.snapshot("api").settings
    assert told.fall_back == FallBack(until, 2)
    assert [ask(engine, run_id).granted for run_id in "abc"] == [True, True, True]
    assert ask(engine, "d").reason is WaitReason.FULL

    age_temporary_limit(place, "api", HOUR)
    assert limits(engine) == (2, 2)
    assert engine.settings()["api"] == PoolSettings(2)
    # No slot is revoked: the pool drains.
    assert len(engine.snapshot("api").holdings) == 3
    engine.release("a", "step")
    assert not ask(engine, "d").granted
    engine.release("b", "step")
    assert ask(engine, "d").granted


def test_another_process_finds_the_end_although_the_one_that_set_it_is_gone(place, new_engine):
    setting = new_engine()
    setting.change_pool("api", limit=1)
    set_until(setting, 0)
    assert ask(setting, "a").reason is WaitReason.PAUSED
    setting.close()

    other = new_engine()
    assert ask(other, "b").reason is WaitReason.PAUSED
    age_temporary_limit(place, "api", HOUR)
    assert ask(other, "b").granted


@pytest.mark.parametrize("default_limit", [None, 1])
def test_a_pool_without_a_limit_of_its_own_has_none_again(place, new_engine, default_limit):
    engine = new_engine(default_limit=default_limit)
    set_until(engine, 2)
    assert engine.settings()["api"].limit == 2
    assert not engine.snapshot("api").from_default
    assert [ask(engine, run_id).granted for run_id in "abc"] == [True, True, False]

    age_temporary_limit(place, "api", HOUR)
    assert engine.settings() == {}
    found = engine.snapshot("api")
    assert (found.settings.limit, found.from_default) == (default_limit, default_limit is not None)
    assert ask(engine, "c").granted == (default_limit is None)


def test_a_limit_that_lasts_ends_a_temporary_one(engine):
    engine.change_pool("api", limit=2)
    set_until(engine, 5)
    engine.change_pool("api", limit=3)
    assert engine.settings()["api"] == PoolSettings(3)
    set_until(engine, 5)
    engine.change_pool("api", limit=None)
    assert engine.settings() == {}
    engine.change_pool("api", limit=2)
    set_until(engine, 5)
    engine.set_pools({"api": None})
    assert engine.settings() == {}


def test_the_lasting_limit_changes_under_a_temporary_one(place, engine):
    engine.change_pool("api", limit=2)
    until = set_until(engine, 5)
    before = engine.settings()["api"]
    engine.set_pools({"api": before.with_lasting_limit(4)})
    assert engine.settings()["api"] == PoolSettings(5, fall_back=FallBack(until, 4))

    age_temporary_limit(place, "api", HOUR)
    assert engine.settings()["api"] == PoolSettings(4)
    # Settings that were read before the end are written after it.
    engine.set_pools({"api": PoolSettings(5, fall_back=FallBack(until - HOUR, 3))})
    assert engine.settings()["api"] == PoolSettings(3)


def test_other_settings_change_under_a_temporary_limit(place, engine):
    engine.change_pool("api", limit=2)
    until = set_until(engine, 5)
    rate = Rate(7, 60)
    engine.change_pool("api", rate=rate)
    assert engine.settings()["api"] == PoolSettings(5, rate, fall_back=FallBack(until, 2))
    age_temporary_limit(place, "api", HOUR)
    assert engine.settings()["api"] == PoolSettings(2, rate)


def test_a_second_temporary_limit_falls_back_to_the_lasting_one(place, engine):
    engine.change_pool("api", limit=2)
    set_until(engine, 5)
    until = set_until(engine, 7)
    assert engine.settings()["api"] == PoolSettings(7, fall_back=FallBack(until, 2))
    age_temporary_limit(place, "api", HOUR)
    assert limits(engine) == (2, 2)


def test_dagsters_own_table_keeps_the_lasting_limit(place, engine):
    if isinstance(place, MemoryPlace):
        return  # There is no table of Dagster's.
    engine.change_pool("api", limit=2)
    until = set_until(engine, 5)
    assert place.sql('SELECT "limit" FROM concurrency_limits') == [(2,)]
    assert ask(engine, "a").granted
    age_temporary_limit(place, "api", HOUR)
    assert ask(engine, "b").granted
    # Neither the beginning nor the end is taken for a change by another program.
    assert limit_entries(engine) == [(2, None), (5, f"until {until!r}, then 2")]


def test_another_program_that_writes_dagsters_table_changes_the_lasting_limit(place, engine):
    engine.change_pool("api", limit=2)
    until = set_until(engine, 5)
    write_limit_as_another_would(place, "api", 3)
    assert ask(engine, "a").granted
    assert engine.settings()["api"] == PoolSettings(5, fall_back=FallBack(until, 3))
    assert limit_entries(engine) == [
        (2, None),
        (5, f"until {until!r}, then 2"),
        (5, f"until {until!r}, then 3"),
    ]


@pytest.mark.parametrize("limit", [-1, 10**9])
def test_a_limit_out_of_bounds_is_refused(engine, limit):
    with pytest.raises(ConfigError, match="out of bounds"):
        set_until(engine, limit)


def test_an_end_that_is_over_is_refused(engine):
    engine.change_pool("api", limit=2)
    with pytest.raises(ConfigError, match="ago") as caught:
        engine.limit_until("api", 5, engine.store.now() - 60.0)
    assert "future" in (caught.value.remedy or "")
    assert engine.settings()["api"] == PoolSettings(2)


# ---- who waits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_set_first", [True, False])
def test_waiters_look_again_at_the_end_of_a_low_limit(new_engine, is_set_first):
    """Only at the end: nothing wakes them, and no lease is over."""
    engine, waits = new_engine(**PATIENT), new_engine(**PATIENT)
    engine.change_pool("api", limit=3)
    for run_id in "ab":
        assert ask(engine, run_id).granted
    if is_set_first:
        set_until(engine, 1)
    else:
        engine.change_pool("api", limit=1)
    assert [ask(waits, run_id).ahead for run_id in "cde"] == [0, 1, 2]
    if not is_set_first:  # Those that wait are told the end.
        engine.set_pools({"api": PoolSettings(3)})
        set_until(engine, 1)
        for run_id in "cde":
            assert waits.wait(run_id, "step", DEADLINE_SECONDS)
            assert not ask(waits, run_id).granted
    until = engine.store.now() + 0.3
    engine.limit_until("api", 1, until)
    for run_id in "cde":
        assert waits.wait(run_id, "step", DEADLINE_SECONDS), "it was not told of the new end"
        assert not ask(waits, run_id).granted

    deadline = time.monotonic() + DEADLINE_SECONDS
    while not ask(waits, "c").granted:
        assert waits.wait("c", "step", DEADLINE_SECONDS), "nothing ends its wait"
        assert time.monotonic() < deadline
    assert engine.store.now() >= until
    assert not ask(waits, "d").granted


@pytest.mark.parametrize(
    ("limit", "lasting", "ahead", "helps"),
    [
        (2, 12, 0, True),
        (2, 12, 11, True),
        (2, 12, 12, False),  # Those ahead take all that there is.
        (0, None, 500, True),
        (12, 2, 0, False),  # It drains.
        (2, 2, 0, False),
    ],
)
def test_only_waiters_that_can_start_at_the_end_look_then(limit, lasting, ahead, helps):
    settings = PoolSettings(limit, fall_back=FallBack(100.0, lasting))
    assert rises_at(settings, ahead) == (100.0 if helps else None)
    assert rises_at(PoolSettings(limit), ahead) is None


def test_a_step_too_large_for_the_temporary_limit_holds_up_nobody_until_it_ends(place, engine):
    engine.change_pool("api", limit=6)
    set_until(engine, 2)
    assert ask(engine, "large", "api*5").reason is WaitReason.TOO_LARGE
    assert ask(engine, "small").granted
    assert not ask(engine, "middle", "api*2").granted

    age_temporary_limit(place, "api", HOUR)
    assert not ask(engine, "new", "api*2").granted
    assert ask(engine, "large", "api*5").granted


@pytest.mark.parametrize("fair_by", [None, "team"])
def test_waiters_too_large_for_a_limit_that_has_fallen_crowd_out_nobody(place, engine, fair_by):
    """Of the queue a decision sees the first: those that ask for more than the limit are not."""
    engine.set_pools({"api": PoolSettings(2, fair_by=fair_by)})
    set_until(engine, 6)

    def claim(run_id, slots):
        tags = {"team": run_id}  # Each is a group of its own.
        return engine.claim(run_id, "step", Demand.of({"api": slots}), 0, lambda: tags)

    assert claim("holds", 6).granted
    for number in range(40):
        assert not claim(f"large{number}", 5).granted
    age_temporary_limit(place, "api", HOUR)
    engine.release("holds", "step")
    assert claim("small", 1).granted


def test_a_fair_pool_counts_with_the_limit_in_force(place, engine):
    engine.set_pools({"api": PoolSettings(1, fair_by="team")})
    set_until(engine, 2)
    tags = {"a": "x", "b": "x", "c": "y"}
    claims = {
        run_id: engine.claim(run_id, "step", Demand.of({"api": 1}), 0, lambda t=team: {"team": t})
        for run_id, team in tags.items()
    }
    assert [claim.granted for claim in claims.values()] == [True, True, False]
    age_temporary_limit(place, "api", HOUR)
    engine.release("a", "step")
    assert limits(engine) == (1, 1)
    claim = engine.claim("c", "step", Demand.of({"api": 1}), 0, lambda: {"team": "y"})
    assert not claim.granted


def test_no_step_waits_under_the_locks_for_a_time_beyond_the_end():
    """The view shows the limits of before: a grant would be above the limit of its time."""
    now = [1000.0]
    engine = Engine(MemoryStore(clock=lambda: now[0]), EngineOptions())
    engine.change_pool("api", limit=9)
    engine.change_pool("api", rate=Rate(1, 1))
    assert ask(engine, "a").granted
    engine.change_pool("api", limit=0)
    now[0] = 1000.999
    engine.limit_until("api", 9, 1000.9995)
    verdict = ask(engine, "b")  # Its start is due in a millisecond, and the pool is paused then.
    assert (verdict.reason, verdict.ready_at) == (WaitReason.RATE, 1001.0)
    now[0] = 1001.0
    assert ask(engine, "b").reason is WaitReason.PAUSED
    engine.close()


# ---- a claim by a guess --------------------------------------------------------------------------


def test_a_guess_made_before_the_limit_was_set_is_not_written(new_engine):
    knowing, other = new_engine(), new_engine()
    knowing.change_pool("api", limit=1)
    assert ask(knowing, "warm").granted
    assert knowing.release("warm", "step")
    knowing.settings()
    set_until(other, 0)
    assert ask(knowing, "a").reason is WaitReason.PAUSED
    assert knowing.snapshot("api").holdings == ()


def test_after_the_end_a_claim_costs_one_message_again(place, new_engine):
    engine = new_engine()
    if not isinstance(engine.store, PostgresStore):
        return  # There are no messages.
    engine.change_pool("api", limit=1)
    set_until(engine, 2)
    for run_id in "ab":
        assert ask(engine, run_id).granted
        assert engine.release(run_id, "step")
    age_temporary_limit(place, "api", HOUR)
    assert ask(engine, "c").granted  # This look tells that the limit has fallen.
    assert engine.release("c", "step")
    before = engine.store.connection.round_trips
    assert ask(engine, "d").granted
    assert engine.store.connection.round_trips == before + 1


# ---- what the ledger tells -----------------------------------------------------------------------


def told(entries):
    return [(entry.at, entry.kind.value, entry.limit) for entry in entries]


def test_the_end_stands_between_what_came_before_it_and_after():
    now = [100.0]
    engine = Engine(MemoryStore(clock=lambda: now[0]), EngineOptions())
    engine.change_pool("api", limit=1)
    engine.limit_until("api", 2, 200.0)
    now[0] = 199.0
    assert ask(engine, "a").granted
    now[0] = 200.0
    assert not ask(engine, "b").granted
    now[0] = 210.0
    engine.release("a", "step")
    entries = engine.store.entries()
    ends = FallBacks()
    assert told(ends.among(entries)) == [
        (100.0, "limit", 1),
        (100.0, "limit", 2),
        (199.0, "granted", None),
        (200.0, "limit", 1),
        (210.0, "released", None),
    ]
    assert list(ends.rest(300.0)) == []
    engine.close()


def test_the_end_comes_after_the_last_entry_and_never_before_it_is_due():
    now = [100.0]
    engine = Engine(MemoryStore(clock=lambda: now[0]), EngineOptions())
    engine.limit_until("api", 2, 200.0)
    ends = FallBacks()
    assert told(ends.among(engine.store.entries())) == [(100.0, "limit", 2)]
    assert list(ends.rest(199.0)) == []
    assert told(ends.rest(200.0)) == [(200.0, "limit", None)]
    assert list(ends.rest(201.0)) == []
    engine.close()


def test_a_clock_that_is_set_back_over_the_end_brings_the_temporary_limit_back():
    now = [100.0]
    engine = Engine(MemoryStore(clock=lambda: now[0]), EngineOptions())
    engine.change_pool("api", limit=1)
    engine.limit_until("api", 2, 200.0)
    now[0] = 201.0
    assert ask(engine, "a").granted
    assert not ask(engine, "b").granted
    now[0] = 150.0
    assert ask(engine, "b").granted
    found = [entry[1:] for entry in told(FallBacks().among(engine.store.entries()))][2:]
    assert found == [("limit", 1), ("granted", None), ("limit", 2), ("granted", None)]
    engine.close()


def test_a_fall_back_is_read_as_it_is_written():
    for found in (FallBack(1764568800.123456, 0), FallBack(1e9, None), FallBack(0.1, 12)):
        assert FallBack.read(str(found)) == found
    assert replace(NOTHING_SET, limit=3).at(0.0).limit == 3
