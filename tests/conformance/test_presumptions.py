"""A claim of pools whose limits are known presumes that they are idle: what if they are not?

Each test makes one thing otherwise than presumed. The claim is answered as if it had looked.
"""

from __future__ import annotations

import pytest

from dagster_lifeguard.engine.rules.model import Demand, Granted, Waiting, WaitReason
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.engine.store.postgres.store import PostgresStore
from places import age_session, revoke_session, write_limit_as_another_would

ORDERS = Demand.of({"orders": 1})


@pytest.fixture
def knowing(new_engine):
    """An engine that has seen the limits, as Dagster shows them to it before each claim."""
    engine = new_engine()
    engine.change_pool("orders", limit=1)
    engine.change_pool("elsewhere", limit=1)
    assert engine.claim("warm", "step", ORDERS).granted
    assert engine.release("warm", "step")
    engine.settings()
    return engine


@pytest.fixture
def other(new_engine):
    return new_engine()


def test_idle_pools_are_granted_and_written_down(knowing):
    verdict = knowing.claim("a", "step", ORDERS)

    assert verdict == Granted({"orders": (1,)}, fence=2)
    (holding,) = knowing.snapshot("orders").holdings
    assert (holding.key, holding.fence, holding.owners) == (("a", "step"), 2, {knowing.session})
    (granted, *_) = knowing.store.ledger(pool="orders")
    assert (granted.kind.value, granted.run_id, granted.slots, granted.fence, granted.seconds) == (
        "granted", "a", 1, 2, 0.0,
    )  # fmt: skip
    assert holding.since == granted.at > 0
    assert knowing.claim("a", "step", ORDERS) == verdict
    assert knowing.release("a", "step")


def test_idle_pools_are_granted_in_one_message(place, knowing):
    if not isinstance(knowing.store, PostgresStore):
        return  # There are no messages.
    before = knowing.store.connection.round_trips
    assert knowing.claim("a", "step", ORDERS).granted
    assert knowing.store.connection.round_trips == before + 1


def test_the_first_claim_of_pools_is_granted_in_one_message_with_their_limits(new_engine):
    """As of a partition that nobody asked for before, which has the default limit."""
    engine = new_engine(default_limit=2)
    assert engine.claim("warm", "step", ORDERS).granted
    engine.change_pool("set", limit=3)
    engine.settings()
    connection = engine.store.connection if isinstance(engine.store, PostgresStore) else None
    before = connection and connection.round_trips

    verdict = engine.claim("a", "step", Demand.parse("orders[1]+set"))

    if connection is not None:
        assert connection.round_trips == before + 1
    assert verdict == Granted({"orders[1]": (1,), "set": (1,)}, fence=1)
    told = [(e.kind.value, e.limit) for e in engine.store.ledger(pool="orders[1]")]
    assert told == [("granted", None), ("limit", 2)]
    assert engine.release("a", "step")
    assert engine.claim("b", "step", Demand.parse("orders[1]")).fence == 2
    assert len(engine.store.ledger(pool="orders[1]")) == 4


def test_several_pools_are_granted_with_a_fence_above_those_of_all(knowing, other):
    for number in range(3):
        other.claim(f"before{number}", "step", Demand.of({"elsewhere": 1}))
        other.release(f"before{number}", "step")

    verdict = knowing.claim("a", "step", Demand.parse("orders+elsewhere"))

    assert verdict == Granted({"elsewhere": (1,), "orders": (1,)}, fence=4)
    assert other.claim("b", "step", ORDERS) == Waiting("orders", WaitReason.FULL, 0, ("orders",))
    assert knowing.release("a", "step")
    assert other.claim("b", "step", ORDERS) == Granted({"orders": (1,)}, fence=5)


def test_somebody_holds(knowing, other):
    assert other.claim("holds", "step", ORDERS).granted

    assert knowing.claim("a", "step", ORDERS) == Waiting("orders", WaitReason.FULL, 0, ("orders",))


def test_somebody_is_in_line(knowing, other):
    assert other.claim("holds", "step", ORDERS).granted
    assert not other.claim("first", "step", ORDERS).granted
    other.release("holds", "step")

    assert knowing.claim("a", "step", ORDERS) == Waiting(
        "orders", WaitReason.BEHIND, 1, ("orders",)
    )


def test_the_limit_was_lowered(knowing, other):
    other.change_pool("orders", limit=0)

    assert knowing.claim("a", "step", ORDERS) == Waiting(
        "orders", WaitReason.PAUSED, 0, ("orders",)
    )


def test_the_limit_was_deleted(knowing, other):
    other.change_pool("orders", limit=None)

    assert knowing.claim("a", "step", ORDERS) == Granted({})


def test_the_limit_of_one_of_two_pools_was_lowered(knowing, other):
    other.change_pool("elsewhere", limit=0)

    verdict = knowing.claim("a", "step", Demand.parse("orders+elsewhere"))

    assert verdict == Waiting("elsewhere", WaitReason.PAUSED, 0, ("elsewhere",))


def test_another_lowered_the_limit_unseen(place, knowing):
    write_limit_as_another_would(place, "orders", 0)

    assert knowing.claim("a", "step", ORDERS) == Waiting(
        "orders", WaitReason.PAUSED, 0, ("orders",)
    )


def test_another_wrote_the_limit(place, knowing):
    write_limit_as_another_would(place, "orders", 2)
    knowing.settings()

    assert knowing.claim("a", "step", ORDERS).granted
    kinds = [(e.kind.value, e.limit) for e in knowing.store.ledger(pool="orders", count_max=2)]
    assert kinds == [("granted", None), ("limit", 2)]


def test_the_pool_got_a_rate(knowing, other):
    other.change_pool("orders", rate=Rate(1, 3600))
    assert other.claim("before", "step", ORDERS).granted
    other.release("before", "step")

    verdict = knowing.claim("a", "step", ORDERS)

    assert isinstance(verdict, Waiting)
    assert verdict.reason is WaitReason.RATE


@pytest.mark.parametrize("end", [revoke_session, age_session])
def test_the_session_is_no_more(place, knowing, other, end):
    assert other.claim("lives", "step", Demand.of({"elsewhere": 1})).granted
    before = knowing.session
    end(place, before)
    assert other.reap() == 1

    assert knowing.claim("a", "step", ORDERS).granted
    (holding,) = knowing.snapshot("orders").holdings
    assert holding.owners == {knowing.session} != {before}


def test_a_lease_has_run_out(place, knowing, other):
    assert other.claim("dead", "step", Demand.of({"elsewhere": 1})).granted
    age_session(place, other.session)

    assert knowing.claim("a", "step", ORDERS).granted
    assert knowing.run_ids() == {"a"}


def test_the_ticket_waits_elsewhere(knowing, other):
    assert other.claim("holds", "step", Demand.of({"elsewhere": 1})).granted
    assert not other.claim("a", "step", Demand.of({"elsewhere": 1})).granted

    assert knowing.claim("a", "step", ORDERS).granted
    assert knowing.snapshot("elsewhere").waiting == ()


def test_the_ticket_holds_elsewhere(knowing, other):
    held = other.claim("a", "step", Demand.of({"elsewhere": 1}))

    assert knowing.claim("a", "step", ORDERS) == held
    assert knowing.snapshot("orders").holdings == ()


def test_a_limit_by_default(new_engine):
    knowing, other = (new_engine(default_limit=1) for _ in range(2))
    for run_id in ("warm", "a"):
        assert knowing.claim(run_id, "step", ORDERS).granted
        assert not other.claim("b", "step", ORDERS).granted
        assert knowing.release(run_id, "step")
        assert other.release("b", "step")
    other.change_pool("orders", limit=2)

    assert knowing.claim("both", "step", Demand.of({"orders": 2})).granted
