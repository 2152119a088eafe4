"""A release that the database refused is done later, unless somebody needs the slot by then."""

from __future__ import annotations

import pytest

from dagster_lifeguard.engine.rules.model import Demand, Holding, Ticket
from dagster_lifeguard.errors import StoreUnavailableError

ORDERS = Demand.of({"orders": 1})


@pytest.fixture
def refused(engine, monkeypatch):
    """An engine that holds a slot and waits for one, and that could give neither up."""
    engine.change_pool("orders", limit=1)
    assert engine.claim("holds", "step", ORDERS).granted
    assert not engine.claim("waits", "step", ORDERS).granted

    def refuse(*_):
        raise StoreUnavailableError("The disk is full.", remedy="Make room.")

    with monkeypatch.context() as patched:
        patched.setattr(engine.store, "begin", refuse)
        patched.setattr(engine.store, "release", refuse)
        for run_id in ("holds", "waits"):
            with pytest.raises(StoreUnavailableError):
                engine.release(run_id, "step")
    assert isinstance(engine.ticket("holds", "step"), Holding)
    assert isinstance(engine.ticket("waits", "step"), Ticket)
    return engine


def test_the_heartbeats_chores_do_it(refused):
    refused.tidy()

    assert refused.ticket("holds", "step") is refused.ticket("waits", "step") is None
    kinds = [(e.kind.value, e.run_id) for e in refused.store.ledger(pool="orders") if e.run_id]
    assert kinds == [("released", "holds"), ("granted", "holds")]


def test_what_was_claimed_again_is_kept(refused):
    assert refused.claim("holds", "step", ORDERS).granted
    assert not refused.claim("waits", "step", ORDERS).granted

    refused.tidy()

    assert isinstance(refused.ticket("holds", "step"), Holding)
    assert isinstance(refused.ticket("waits", "step"), Ticket)


def test_what_another_process_owns_by_then_is_kept(refused, new_engine):
    other = new_engine()
    assert other.claim("holds", "step", ORDERS).granted
    assert not other.claim("waits", "step", ORDERS).granted

    refused.tidy()

    assert isinstance(refused.ticket("holds", "step"), Holding)
    assert isinstance(refused.ticket("waits", "step"), Ticket)
