"""Engines that break a promise on purpose: a test of the tests."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from unittest.mock import patch

from dagster_lifeguard.engine import bookkeeping, lease, session_member
from dagster_lifeguard.engine.rules.model import EntryKind, PoolView
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.engine.session_member import Member
from dagster_lifeguard.engine.store.memory.locks import Locks
from dagster_lifeguard.engine.store.memory.store import MemoryStore
from dagster_lifeguard.engine.store.memory.tables import MemoryTables
from dagster_lifeguard.engine.transactions import Transactions

# ---- only an interleaving shows them --------------------------------------------------------------


def no_pool_is_locked():
    return patch.object(Locks, "_is_free", lambda self, scope: True)


def only_the_first_pool_is_locked():
    def is_free(self, scope):
        return scope.session not in self._ending and self._pools.isdisjoint(scope.pools[:1])

    return patch.object(Locks, "_is_free", is_free)


def a_session_is_ended_while_it_asks():
    return patch.object(Locks, "is_locked", lambda self, session: session in self._ending)


def a_ticket_that_moved_is_not_looked_for():
    return patch.object(bookkeeping, "is_covered", lambda view: True)


# ---- what one process does after the other shows them ---------------------------------------------


def a_view_is_out_of_date():
    seen = {}
    view = MemoryStore._view

    def stale(self, scope, sessions):
        fresh = view(self, scope, sessions)
        before = seen.get((id(self), scope.pools), fresh)
        seen[id(self), scope.pools] = fresh
        return replace(fresh, pools=before.pools)

    return patch.object(MemoryStore, "_view", stale)


def a_lost_answer_is_not_found_again():
    claimed = bookkeeping.claimed

    def anew(view, *details):
        return claimed(replace(view, holdings=()), *details)

    return patch.object(bookkeeping, "claimed", anew)


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
    """The tables, with something done to each change."""
    apply = MemoryTables.apply

    def changed(self, changes, now):
        apply(self, change(changes) or changes, now)

    return patch.object(MemoryTables, "apply", changed)


def a_fence_is_used_again():
    apply = MemoryTables.apply

    def changed(self, changes, now):
        before = dict(self.fences)
        apply(self, changes, now)
        self.fences.update(before)

    return patch.object(MemoryTables, "apply", changed)


def an_end_is_not_written_down():
    def unwritten(changes):
        kept = tuple(entry for entry in changes.ledger if entry.kind is not EntryKind.EXPIRED)
        return replace(changes, ledger=kept)

    return written(unwritten)


def a_release_leaves_a_slot():
    def kept(changes):
        for holding in changes.drop_holdings:
            for numbers in holding.slots.values():
                if len(numbers) > 1:
                    first = {pool: numbers[:1] for pool, numbers in holding.slots.items()}
                    dropped = replace(holding, slots=first)
                    others = (h for h in changes.drop_holdings if h is not holding)
                    return replace(changes, drop_holdings=(dropped, *others))
        return None

    return written(kept)


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


def nobody_looks_at_the_end_of_a_temporary_limit():
    return patch.object(session_member, "rises_at", lambda settings, ahead: None)


# ---- only the order of a fair pool shows them -----------------------------------------------------


def what_a_group_holds_does_not_count():
    def held(self):
        return None if self.settings.fair_by is None else Counter()

    return patch.object(PoolView, "held", property(held))


def the_turn_of_a_pool_stands_still():
    turns_after = bookkeeping.turns_after

    def still(group, priority, slots, pool):
        return turns_after(group, priority, slots, pool)[0], pool.turn

    return patch.object(bookkeeping, "turns_after", still)


def a_slot_is_kept_for_a_group_that_may_come():
    decide = bookkeeping.decide

    def keeping(view, ticket, now, *, patience_seconds):
        pools = {
            name: replace(pool, settings=replace(pool.settings, limit=pool.settings.limit - 1))
            if pool.settings.fair_by and (pool.settings.limit or 0) > 1 and len(pool.taken) == 1
            else pool
            for name, pool in view.pools.items()
        }
        view = replace(view, pools=pools)
        return decide(view, ticket, now, patience_seconds=patience_seconds)

    return patch.object(bookkeeping, "decide", keeping)


BREAKS = {
    no_pool_is_locked: ("held", 0),
    only_the_first_pool_is_locked: ("held", 0),
    a_session_is_ended_while_it_asks: ("S3", 52),
    a_ticket_that_moved_is_not_looked_for: ("KeyError", 24),
    a_view_is_out_of_date: ("L1", 0),
    a_lost_answer_is_not_found_again: ("holds already", 0),
    a_lease_is_trusted_too_long: ("L4", 3),
    wake_ups_are_lost: ("L1", 3),
    heartbeats_extend_nothing: ("L4", 0),
    a_lost_lease_is_told_nobody: ("L4", 0),
    dead_holders_are_left: ("L3", 0),
    a_fence_is_used_again: ("S2", 0),
    an_end_is_not_written_down: ("S3", 0),
    a_release_leaves_a_slot: ("S1", 0),
    one_slot_too_many: ("S1", 0),
    patience_is_endless: ("L2", 2),
    a_rate_is_forgotten: ("R1", 2),
    nobody_looks_at_the_end_of_a_temporary_limit: ("L1", 14),
    what_a_group_holds_does_not_count: ("F1", 19),
    the_turn_of_a_pool_stands_still: ("F2", 39),
    a_slot_is_kept_for_a_group_that_may_come: ("F2", 0),
}
"""Each break, a word of what is found, and the first of the seeds that are played to find it.

Seeds from 0 on find each of them, too, within 20 s of CPU.
"""

ONLY_AT_ONCE = (
    no_pool_is_locked,
    only_the_first_pool_is_locked,
    a_session_is_ended_while_it_asks,
    a_ticket_that_moved_is_not_looked_for,
)
"""The breaks that steps one after the other do not show."""
