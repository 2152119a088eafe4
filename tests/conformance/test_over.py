"""What reads say of holders and waiters whose lease is over, before any claim has reaped them."""

from __future__ import annotations

import os
import socket

from dagster_lifeguard.engine.rules.model import Demand, Holding, TicketKey
from dagster_lifeguard.engine.store.contract import Changes, Scope
from places import age_session, revoke_session

ORDERS = Demand.of({"orders": 1})
A, B, C = (TicketKey(run_id, "step") for run_id in "abc")


def keys(found):
    return [item.key for item in found]


def test_a_dead_holder_is_gone_from_what_is_decided_by(place, new_engine):
    dead, reader = new_engine(), new_engine()
    reader.change_pool("orders", limit=1)
    dead.claim(*A, Demand.of({"orders": 1, "items": 1}))
    reader.change_pool("items", limit=1)
    dead.claim(*B, Demand.of({"items": 1}))
    before = reader.snapshot("orders"), reader.ticket(*A)
    assert (keys(before[0].holdings), before[0].over) == ([A], ())
    assert not before[1].is_over
    ledger = reader.store.ledger()

    age_session(place, dead.session)

    found = reader.snapshot("orders")
    assert (found.holdings, found.waiting, keys(found.over)) == ((), (), [A])
    (over,) = found.granted
    assert (over.is_over, over.slots, over.fence) == (True, {"orders": (1,)}, before[1].fence)
    assert over.owners == {dead.session}
    assert reader.ticket(*A).is_over
    assert reader.run_ids() == frozenset()
    assert reader.busy_pools() == ()
    assert reader.busy_pools(with_over=True) == ("items", "orders")
    # These were reads: it is the next claim that takes the slots back.
    assert reader.store.ledger() == ledger
    assert reader.store.expired_sessions(10) == (dead.session,)
    assert reader.claim(*C, ORDERS).granted
    assert reader.snapshot("orders").over == ()


def test_a_dead_waiter_is_gone_from_what_is_decided_by(place, new_engine):
    holder, dead, live = new_engine(), new_engine(), new_engine()
    holder.change_pool("orders", limit=1)
    holder.claim(*A, ORDERS)
    dead.claim(*B, Demand.of({"orders": 1, "items": 1}))
    live.claim(*C, ORDERS)
    assert keys(live.snapshot("orders").waiting) == [B, C]
    assert not live.ticket(*B).is_over

    age_session(place, dead.session)

    found = live.snapshot("orders")
    assert (keys(found.holdings), keys(found.waiting)) == ([A], [C])
    assert [(ticket.key, ticket.is_over) for ticket in found.over] == [(B, True)]
    assert keys(found.tickets) == [C, B]
    assert found.granted == found.holdings
    assert live.ticket(*B).is_over
    assert live.run_ids() == {"a", "c"}
    assert live.busy_pools() == ("orders",)
    assert live.busy_pools(with_over=True) == ("items", "orders")


def test_who_comes_back_before_a_claim_holds_and_waits_as_before(place, new_engine):
    late, reader = new_engine(), new_engine()
    reader.change_pool("orders", limit=1)
    late.claim(*A, ORDERS)
    late.claim(*B, ORDERS)
    age_session(place, late.session)
    assert len(reader.snapshot("orders").over) == 2

    assert late.heartbeat()

    found = reader.snapshot("orders")
    assert (keys(found.holdings), keys(found.waiting), found.over) == ([A], [B], ())
    assert reader.run_ids() == {"a", "b"}


def test_a_revoked_session_is_over_like_one_that_died(place, new_engine):
    revoked, reader = new_engine(), new_engine()
    reader.change_pool("orders", limit=1)
    revoked.claim(*A, ORDERS)
    revoked.claim(*B, ORDERS)

    revoke_session(place, revoked.session)

    assert keys(reader.snapshot("orders").over) == [A, B]
    assert reader.run_ids() == frozenset()


def test_a_holding_is_over_with_the_last_of_its_owners(place, new_engine):
    parent, step, reader = new_engine(), new_engine(), new_engine()
    reader.change_pool("orders", limit=1)
    parent.claim(*A, ORDERS)
    step.adopt(*A)

    age_session(place, parent.session)
    assert keys(reader.snapshot("orders").holdings) == [A]
    assert reader.run_ids() == {"a"}
    assert reader.busy_pools() == ("orders",)
    assert not reader.ticket(*A).is_over

    age_session(place, step.session)
    assert keys(reader.snapshot("orders").over) == [A]
    assert reader.run_ids() == frozenset()


def test_an_owner_without_a_session_never_ends(place, new_engine):
    """Such as the one that stands for slots of the stock storage."""
    dead, reader = new_engine(), new_engine()
    reader.change_pool("orders", limit=2)
    dead.claim(*A, ORDERS)
    dead.claim(*B, ORDERS)
    with reader.store.begin(Scope(("orders",), *C)) as transaction:
        grant = Holding(C, {"orders": (3,)}, 1 + transaction.view.pools["orders"].fence)
        transaction.commit(Changes(session="stock", grant=grant))
    with reader.store.begin(Scope(("orders",), *B)) as transaction:
        transaction.commit(Changes(session="stock", adopt=B))

    age_session(place, dead.session)

    found = reader.snapshot("orders")
    assert (keys(found.holdings), keys(found.over)) == ([B, C], [A])
    assert reader.run_ids() == {"b", "c"}


def test_a_run_is_busy_while_anything_of_it_lives(place, new_engine):
    dead, live = new_engine(), new_engine()
    live.change_pool("orders", limit=1)
    dead.claim("a", "one", ORDERS)
    live.claim("a", "two", ORDERS)

    age_session(place, dead.session)

    assert live.run_ids() == {"a"}
    assert live.busy_pools() == ("orders",)


def test_a_fair_pool_counts_no_group_that_only_the_dead_are_of(place, new_engine):
    dead, live = new_engine(), new_engine()
    live.change_pool("orders", limit=2, fair_by="team")
    live.claim("r", "step", ORDERS, 0, lambda: {"team": "red"})
    dead.claim("g", "step", ORDERS, 0, lambda: {"team": "green"})
    dead.claim("g2", "step", ORDERS, 0, lambda: {"team": "green"})
    live.claim("r2", "step", ORDERS, 0, lambda: {"team": "red"})
    live.claim("b", "step", ORDERS, 0, lambda: {"team": "green"})
    found = live.snapshot("orders")
    assert [ticket.key.run_id for ticket in found.waiting] == ["r2", "g2", "b"]

    age_session(place, dead.session)

    found = live.snapshot("orders")
    # Green holds nothing under a lease, so it is ahead of red.
    assert [ticket.key.run_id for ticket in found.waiting] == ["b", "r2"]
    assert [(i.key.run_id, i.groups["orders"]) for i in found.over] == [
        ("g", "green"),
        ("g2", "green"),
    ]


def test_sessions_are_ended_only_if_the_leases_of_all_have_run_out(place, new_engine):
    parent, step, reader = new_engine(), new_engine(), new_engine()
    reader.change_pool("orders", limit=1)
    parent.claim(*A, ORDERS)
    step.adopt(*A)
    parent.claim(*B, ORDERS)
    both = {parent.session, step.session}
    age_session(place, parent.session)
    ledger = reader.store.ledger()

    assert not reader.end_expired(both)
    assert (reader.store.ledger(), reader.ticket(*B) is None) == (ledger, False)

    age_session(place, step.session)
    assert reader.end_expired(both)
    assert (reader.ticket(*A), reader.ticket(*B)) == (None, None)
    assert reader.has_expired(*A)
    assert not parent.heartbeat()
    assert not reader.end_expired(both)


def test_ending_sessions_leaves_what_another_process_owns_too(place, new_engine):
    parent, step, reader = new_engine(), new_engine(), new_engine()
    reader.change_pool("orders", limit=1)
    parent.claim(*A, ORDERS)
    session = parent.session
    age_session(place, session)
    step.adopt(*A)  # Meanwhile: whoever wanted to free it knew of one owner.

    assert reader.end_expired({session})

    assert reader.ticket(*A).owners == {step.session}


def lost(engine):
    return {holding.key: holding.lost for holding in engine.snapshot("orders").holdings}


def test_a_holding_tells_that_the_process_that_executed_its_step_is_dead(place, new_engine):
    worker, step, again, reader = new_engine(), new_engine(), new_engine(), new_engine()
    reader.change_pool("orders", limit=3)
    worker.claim(*A, ORDERS)
    worker.claim(*B, ORDERS)
    step.adopt(*A, executes=True)
    label = f"{socket.gethostname()}:{os.getpid()}"
    assert lost(reader) == {A: "", B: ""}

    age_session(place, step.session)
    assert lost(reader) == {A: label, B: ""}
    assert reader.snapshot("orders").over == ()

    reader.reap()  # As every claim does; what it knew of the process is kept.
    assert lost(reader) == {A: label, B: ""}
    assert reader.ticket(*A).owners == {worker.session}

    again.adopt(*A, executes=True)
    assert lost(reader) == {A: "", B: ""}
    age_session(place, again.session)
    assert lost(reader)[A] == label

    worker.release(*A)
    worker.claim(*A, ORDERS)
    assert lost(reader) == {A: "", B: ""}


def test_an_owner_that_did_not_execute_the_step_is_not_missed(place, new_engine):
    worker, resumed, reader = new_engine(), new_engine(), new_engine()
    reader.change_pool("orders", limit=1)
    worker.claim(*A, ORDERS)
    resumed.claim(*A, ORDERS)
    age_session(place, worker.session)
    assert lost(reader) == {A: ""}
    reader.reap()
    assert lost(reader) == {A: ""}


def test_a_step_whose_process_left_in_peace_is_not_missed(new_engine):
    worker, step, reader = new_engine(), new_engine(), new_engine()
    reader.change_pool("orders", limit=1)
    worker.claim(*A, ORDERS)
    step.adopt(*A, executes=True)
    step.close()
    assert lost(reader) == {A: ""}


def test_a_step_that_is_over_with_its_run_worker_is_over(place, new_engine):
    worker, step, reader = new_engine(), new_engine(), new_engine()
    reader.change_pool("orders", limit=1)
    worker.claim(*A, ORDERS)
    step.adopt(*A, executes=True)
    age_session(place, worker.session)
    age_session(place, step.session)
    found = reader.snapshot("orders")
    assert ([h.key for h in found.over], found.holdings) == ([A], ())


def test_a_wipe_takes_what_is_over_along(place, new_engine):
    dead, live = new_engine(), new_engine()
    live.change_pool("orders", limit=1)
    dead.claim(*A, ORDERS)
    dead.claim(*B, ORDERS)
    age_session(place, dead.session)

    assert live.wipe() == {"a", "b"}

    assert live.busy_pools(with_over=True) == ()
    assert live.store.expired_sessions(10) == ()


def test_a_step_that_was_silent_and_came_back_is_not_missed(place, new_engine):
    gone = []
    worker, step, reader = new_engine(), new_engine(on_lease_lost=gone.extend), new_engine()
    reader.change_pool("orders", limit=1)
    worker.claim(*A, ORDERS)
    step.adopt(*A, executes=True)
    age_session(place, step.session)
    reader.reap()
    assert lost(reader)[A]

    assert not step.heartbeat()  # It is told, and finds its slots kept by its run worker.

    assert (lost(reader), gone) == ({A: ""}, [])
    assert reader.ticket(*A).owners == {worker.session, step.session}
