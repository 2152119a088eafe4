"""The stock storage's tables of pools say what Dagster's own verbs did, on both databases."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as db
from dagster._core.storage.event_log.schema import (
    ConcurrencyLimitsTable,
    ConcurrencySlotsTable,
    PendingStepsTable,
)
from dagster_graphql.schema.instance import GrapheneInstance

from dagster_lifeguard.compat import stock_pools as pools

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["sqlite", "postgres"])
def log(request, make_home) -> Iterator[Any]:
    """The event log of an instance on Dagster's own storage."""
    with make_home(request.param, stock=True).instance() as instance:
        yield instance.event_log_storage


def change(log: Any, statement: Any) -> None:
    with log.index_transaction() as connection:
        connection.execute(statement)


def queue(log: Any, pool: str, *run_ids: str) -> None:
    """Let runs wait, each some seconds longer than the next: SQLite keeps whole ones."""
    table = PendingStepsTable
    for place, run_id in enumerate(run_ids):
        assert not log.claim_concurrency_slot(pool, run_id, "step").is_claimed
        since = datetime.now(timezone.utc) - timedelta(seconds=100 - 10 * place)
        own = table.c.run_id == run_id
        change(log, table.update().where(own).values(create_timestamp=since.replace(tzinfo=None)))


def slots(log: Any, pool: str) -> list[bool]:
    """Of each slot of a pool, whether it is to go when it is freed."""
    table = ConcurrencySlotsTable.c
    wanted = db.select(table.deleted).where(table.concurrency_key == pool)
    with log.index_connection() as connection:
        return sorted(bool(deleted) for (deleted,) in connection.execute(wanted).fetchall())


class TestSlots:
    def test_a_claim_holds_a_slot_and_free_lets_it_go(self, log) -> None:
        log.set_concurrency_slots("orders", 2)
        log.set_concurrency_slots("other", 1)
        for run_id, pool in (("one", "orders"), ("two", "orders"), ("three", "other")):
            assert log.claim_concurrency_slot(pool, run_id, "step").is_claimed
        held = {("orders", "one", "step"), ("orders", "two", "step"), ("other", "three", "step")}
        assert set(pools.held_slots(log)) == held
        assert set(pools.held_slots(log, ["other", "new"])) == {("other", "three", "step")}
        log.free_concurrency_slots_for_run("one")
        assert set(pools.held_slots(log, {"orders"})) == {("orders", "two", "step")}

    def test_one_whose_pool_was_made_smaller_is_held_until_it_is_freed(self, log) -> None:
        log.set_concurrency_slots("orders", 2)
        for run_id in ("one", "two"):
            assert log.claim_concurrency_slot("orders", run_id, "step").is_claimed
        log.set_concurrency_slots("orders", 0)
        assert slots(log, "orders") == [True, True]
        assert len(pools.held_slots(log)) == 2
        log.free_concurrency_slots_for_run("one")
        assert [slot.run_id for slot in pools.held_slots(log)] == ["two"]

    def test_of_more_pools_than_a_statement_takes_the_others_are_left_out(self, log) -> None:
        for pool in ("orders", "other"):
            log.set_concurrency_slots(pool, 1)
            assert log.claim_concurrency_slot(pool, "one", "step").is_claimed
        many = {f"pool{number}" for number in range(pools._NAMED_MAX)} | {"orders"}
        assert [slot.pool for slot in pools.held_slots(log, many)] == ["orders"]
        assert [step.pool for step in pools.pending_steps(log, many)] == ["orders"]


class TestPendingSteps:
    def test_they_stand_in_the_order_in_which_dagster_assigns_slots(self, log) -> None:
        """Those that have a slot, then by priority, then by age."""
        log.set_concurrency_slots("orders", 1)
        assert log.claim_concurrency_slot("orders", "holds", "step").is_claimed
        queue(log, "orders", "old", "new")
        log.claim_concurrency_slot("orders", "low", "step", -1)
        log.claim_concurrency_slot("orders", "urgent", "step", 5)
        order = ["holds", "urgent", "old", "new", "low"]
        found = pools.pending_steps(log)
        assert [step.run_id for step in found] == order
        assert [step.priority for step in found] == [0, 5, 0, 0, -1]
        assert [step.assigned is not None for step in found] == [True, *[False] * 4]
        for going, coming in pairwise(order):
            log.free_concurrency_slots_for_run(going)
            assert log.claim_concurrency_slot("orders", coming, "step").is_claimed
            assert [slot.run_id for slot in pools.held_slots(log)] == [coming]

    def test_their_moments_are_seconds_since_the_epoch(self, log) -> None:
        before = time.time()
        log.set_concurrency_slots("orders", 1)
        assert log.claim_concurrency_slot("orders", "one", "step").is_claimed
        (step,) = pools.pending_steps(log)
        for at in (step.assigned, step.created):
            assert before - 2 < at < time.time() + 2  # SQLite keeps whole seconds.

    def test_one_that_has_a_slot_and_did_not_see_it_yet_holds_nothing(self, log) -> None:
        log.set_concurrency_slots("orders", 1)
        assert log.claim_concurrency_slot("orders", "one", "step").is_claimed
        assert not log.claim_concurrency_slot("orders", "two", "step").is_claimed
        log.free_concurrency_slots_for_run("one")
        (step,) = pools.pending_steps(log, ["orders"])
        assert (step.run_id, step.assigned is not None) == ("two", True)
        assert pools.held_slots(log) == ()


class TestLimits:
    def test_those_that_were_set_and_those_that_came_from_the_default(self, make_home) -> None:
        home = make_home("sqlite", stock=True, concurrency={"pools": {"default_limit": 3}})
        with home.instance() as instance:
            log: Any = instance.event_log_storage
            log.set_concurrency_slots("set", 2)
            log.initialize_concurrency_limit_to_default("used")
            found = {(row.name, row.limit, row.from_default) for row in pools.pool_limits(log)}
        assert found == {("set", 2, False), ("used", 3, True)}

    def test_slots_from_before_there_were_limits_fill_the_table(self, log) -> None:
        log.set_concurrency_slots("orders", 2)
        change(log, ConcurrencyLimitsTable.delete())
        (row,) = pools.pool_limits(log)
        assert (row.name, row.limit) == ("orders", 2)

    def test_a_held_slot_of_a_deleted_limit_is_none(self, log) -> None:
        """Dagster 1.13.27 itself fails at this: it inserts no rows into its table of limits."""
        log.set_concurrency_slots("orders", 1)
        assert log.claim_concurrency_slot("orders", "one", "step").is_claimed
        log.delete_concurrency_limit("orders")
        assert slots(log, "orders") == [True]
        assert pools.pool_limits(log) == ()
        pools.set_limits(log, {"orders": 2})
        assert [(row.name, row.limit) for row in pools.pool_limits(log)] == [("orders", 2)]

    def test_without_their_table_the_least_limit_is_1_as_the_webserver_says(
        self, make_home
    ) -> None:
        with make_home("sqlite", stock=True).instance() as instance:
            log: Any = instance.event_log_storage
            served: Any = GrapheneInstance(instance)
            assert pools.has_limits_table(log)
            assert served.resolve_minConcurrencyLimitValue(None) == 0
            change(log, db.text("DROP TABLE concurrency_limits"))
            assert not pools.has_limits_table(log)
            assert served.resolve_minConcurrencyLimitValue(None) == 1


class TestSetLimits:
    def test_it_does_for_many_what_dagsters_verbs_do_for_one(self, log) -> None:
        wanted = {"more": 3, "less": 1, "same": 2, "new": 2, "paused": 0, "gone": None}
        before = {"more": 1, "less": 3, "same": 2, "gone": 2}
        for name, limit in before.items():
            for by in ("ours", "theirs"):
                log.set_concurrency_slots(f"{by}_{name}", limit)
        pools.set_limits(log, {f"ours_{name}": limit for name, limit in wanted.items()})
        for name, limit in wanted.items():
            if limit is None:
                log.delete_concurrency_limit(f"theirs_{name}")
            else:
                log.set_concurrency_slots(f"theirs_{name}", limit)
        limits = {row.name: (row.limit, row.from_default) for row in pools.pool_limits(log)}
        for name, limit in wanted.items():
            assert limits.get(f"ours_{name}") == limits.get(f"theirs_{name}")
            assert limits.get(f"ours_{name}") == (None if limit is None else (limit, False))
            assert slots(log, f"ours_{name}") == slots(log, f"theirs_{name}")
            assert slots(log, f"ours_{name}").count(False) == (limit or 0)

    def test_slots_that_drain_count_when_the_limit_is_raised_again(self, log) -> None:
        """Dagster's own verb forgets them, and lets as many in beside them."""
        for by, raised in (
            ("ours", lambda pool, limit: pools.set_limits(log, {pool: limit})),
            ("theirs", log.set_concurrency_slots),
        ):
            log.set_concurrency_slots(by, 2)
            for run_id in ("one", "two"):
                assert log.claim_concurrency_slot(by, run_id, "step").is_claimed
            queue(log, by, "three")
            for limit in (1, 0, 2):
                raised(by, limit)
            let_in = log.claim_concurrency_slot(by, "three", "step").is_claimed
            assert let_in == (by == "theirs")
            assert len(pools.held_slots(log, [by])) == (3 if let_in else 2)

    def test_slots_that_drain_go_as_far_as_the_new_limit_is_lower(self, log) -> None:
        log.set_concurrency_slots("orders", 3)
        for run_id in ("one", "two", "three"):
            assert log.claim_concurrency_slot("orders", run_id, "step").is_claimed
        for limit in (None, 2):
            pools.set_limits(log, {"orders": limit})
        assert slots(log, "orders") == [False, False, True]
        for run_id in ("one", "two", "three"):
            log.free_concurrency_slots_for_run(run_id)
        assert slots(log, "orders") == [False, False]

    def test_a_new_slot_goes_to_the_first_in_line(self, log) -> None:
        log.set_concurrency_slots("orders", 1)
        assert log.claim_concurrency_slot("orders", "one", "step").is_claimed
        queue(log, "orders", "two", "three")
        pools.set_limits(log, {"orders": 2})
        assigned = {step.run_id for step in pools.pending_steps(log) if step.assigned}
        assert assigned == {"one", "two"}

    def test_once_they_are_set_nothing_fails(self, log, monkeypatch, caplog) -> None:
        def away(pools):
            raise db.exc.OperationalError("", None, Exception("database is locked"))

        monkeypatch.setattr(log, "assign_pending_steps", away)
        pools.set_limits(log, {"orders": 2})
        assert [(row.name, row.limit) for row in pools.pool_limits(log)] == [("orders", 2)]
        assert "The limits are set, but who waits was not told" in caplog.text

    def test_all_or_nothing(self, log) -> None:
        log.set_concurrency_slots("first", 1)
        with pytest.raises(db.exc.SQLAlchemyError):
            pools.set_limits(log, {"first": 5, "second": object()})
        assert [(row.name, row.limit) for row in pools.pool_limits(log)] == [("first", 1)]
        assert slots(log, "first") == [False]

    def test_a_default_becomes_a_limit_of_its_own(self, make_home) -> None:
        home = make_home("sqlite", stock=True, concurrency={"pools": {"default_limit": 3}})
        with home.instance() as instance:
            log: Any = instance.event_log_storage
            log.initialize_concurrency_limit_to_default("used")
            pools.set_limits(log, {"used": 3})
            (row,) = pools.pool_limits(log)
        assert (row.name, row.limit, row.from_default) == ("used", 3, False)
