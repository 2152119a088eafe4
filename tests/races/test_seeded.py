"""The whole engine by seed: nothing breaks, and what breaks is found, shortened and played again."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from unittest.mock import patch

import pytest
from seeded import BrokenPromiseError, broken, play, shortest, steps_of

from dagster_lifeguard.engine import bookkeeping, lease, session_member
from dagster_lifeguard.engine.rules.model import EntryKind
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.engine.session_member import Member
from dagster_lifeguard.engine.store.memory.store import MemoryStore
from dagster_lifeguard.engine.store.memory.tables import MemoryTables
from dagster_lifeguard.engine.transactions import Transactions

SCALE = int(os.environ.get("LIFEGUARD_TORTURE", "1"))
SEEDS = range(12 * SCALE)
STEPS = 6_000
BREAK_SEEDS = range(20)


@pytest.fixture(autouse=True)
def _quiet():
    """Thousands of lost leases are logged here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_promise_is_broken(seed):
    steps = steps_of(seed, STEPS)
    if broken(steps, seed) is not None:
        fewest, found = shortest(steps, seed)
        pytest.fail(f"seed {seed} breaks: {found}\nplay({fewest}, seed={seed})")


def test_much_happens_in_a_seed():
    world = play(steps_of(1, STEPS), seed=1)
    kinds = {kind for kind, *_ in world.oracle.told}
    assert {"granted", "released", "expired", "limit"} <= kinds
    assert world.claims > STEPS / 10
    assert world.granted > STEPS / 20


def test_the_same_seed_ends_in_the_same_way():
    first, second = (play(steps_of(5, 3_000), seed=5).oracle.told for _ in range(2))
    assert len(first) > 300
    assert first == second
    assert play(steps_of(6, 3_000), seed=6).oracle.told != first


# ---- breaks on purpose ---------------------------------------------------------------------------


def a_lock_is_skipped():
    """A transaction decides on what was true before it."""
    seen = {}
    view = MemoryStore._view

    def stale(self, scope):
        fresh = view(self, scope)
        before = seen.get((id(self), scope.pools), fresh)
        seen[id(self), scope.pools] = fresh
        return replace(fresh, pools=before.pools)

    return patch.object(MemoryStore, "_view", stale)


def a_lease_is_trusted_too_long():
    return patch.object(lease, "_MARGIN", -0.5)


def wake_ups_are_lost():
    return patch.object(MemoryStore, "_wake_up", lambda self, waiters: None)


def heartbeats_extend_nothing():
    def heartbeat(self, session, lease_seconds):
        return bool(self.rows.lease_until.get(session))

    return patch.object(MemoryStore, "heartbeat", heartbeat)


def a_lost_lease_is_told_nobody():
    return patch.object(Member, "tell_lost", lambda self, held, *, by_clock: None)


def dead_holders_are_left():
    return patch.object(Transactions, "_reap_some", lambda self, pools: None)


def written(change):
    """The tables, with something done to each change, or after it."""
    apply = MemoryTables.apply

    def changed(self, changes, now):
        before = dict(self.fences)
        apply(self, change(self, changes) or changes, now)
        if change is a_fence_again:
            self.fences.update({pool: before[pool] for pool in before})

    return patch.object(MemoryTables, "apply", changed)


def a_fence_again(tables, changes):
    """The number of the last grant is not kept."""


def no_end_in_the_ledger(tables, changes):
    kept = tuple(entry for entry in changes.ledger if entry.kind is not EntryKind.EXPIRED)
    return replace(changes, ledger=kept)


def a_slot_stays(tables, changes):
    for holding in changes.drop_holdings:
        for numbers in holding.slots.values():
            if len(numbers) > 1:
                kept = {pool: numbers[:1] for pool, numbers in holding.slots.items()}
                dropped = replace(holding, slots=kept)
                others = (h for h in changes.drop_holdings if h is not holding)
                return replace(changes, drop_holdings=(dropped, *others))
    return None


def a_fence_is_used_again():
    return written(a_fence_again)


def an_end_is_not_written_down():
    return written(no_end_in_the_ledger)


def a_release_leaves_a_slot():
    return written(a_slot_stays)


def one_slot_too_many():
    in_force = bookkeeping.with_limits_in_force

    def one_more(view, default_limit):
        view = in_force(view, default_limit)
        pools = {
            name: replace(pool, settings=replace(pool.settings, limit=pool.settings.limit + 1))
            if pool.settings.limit
            else pool
            for name, pool in view.pools.items()
        }
        return replace(view, pools=pools)

    return patch.object(bookkeeping, "with_limits_in_force", one_more)


def patience_is_endless():
    claimed = bookkeeping.claimed

    def endless(view, ticket, groups, session, patience_seconds):
        return claimed(view, ticket, groups, session, 1e9)

    return patch.object(bookkeeping, "claimed", endless)


def a_rate_is_forgotten():
    return patch.object(Rate, "due_after_start", lambda self, due_ns, now_ns: due_ns)


def nobody_looks_at_the_end():
    return patch.object(session_member, "rises_at", lambda settings, ahead: None)


BREAKS = {
    a_lock_is_skipped: "slot",
    a_lease_is_trusted_too_long: "L4",
    wake_ups_are_lost: "L1",
    heartbeats_extend_nothing: "L4",
    a_lost_lease_is_told_nobody: "L4",
    dead_holders_are_left: "L3",
    a_fence_is_used_again: "S2",
    an_end_is_not_written_down: "S3",
    a_release_leaves_a_slot: "S1",
    one_slot_too_many: "S1",
    patience_is_endless: "L2",
    a_rate_is_forgotten: "R1",
}


def first_found():
    """The first seed that breaks, and what."""
    for seed in BREAK_SEEDS:
        found = broken(steps_of(seed, STEPS), seed)
        if found is not None:
            return seed, found
    pytest.fail("not found")


@pytest.mark.parametrize("made", BREAKS, ids=lambda made: made.__name__)
def test_a_break_on_purpose_is_found(made):
    with made():
        _, found = first_found()
    assert BREAKS[made] in str(found)


def calm(seed):
    """A seed without troubles, after which a waiter may be late by one look."""
    kinds = {"time", "ask", "release", "limit"}
    return [step for step in steps_of(seed, STEPS) if step[0] in kinds]


def test_waiters_that_look_too_late_for_the_end_of_a_temporary_limit_are_found():
    assert [broken(calm(seed), seed=1) for seed in range(4)] == [None] * 4
    with nobody_looks_at_the_end():
        found = [broken(calm(seed), seed=1) for seed in BREAK_SEEDS]
    assert any("L1" in str(why) for why in found if why is not None)


def test_what_breaks_is_shortened_and_played_again():
    with a_fence_is_used_again():
        seed, found = first_found()
        fewest, why = shortest(steps_of(seed, STEPS), seed)
        assert len(fewest) <= 5 < found.place
        assert "S2" in str(why)
        with pytest.raises(BrokenPromiseError, match="S2"):
            play(fewest, seed=seed)
    play(fewest, seed=seed)
