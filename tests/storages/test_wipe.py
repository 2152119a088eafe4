"""Runs that are wiped or deleted, by Dagster's own commands: what becomes of their slots."""

from __future__ import annotations

import pytest
import sqlalchemy as db
from dagster._core.storage.dagster_run import DagsterRun
from homes import eventually, holders, limit

from dagster_lifeguard.client import LifeguardClient
from dagster_lifeguard.engine.rules.model import is_script
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.storage import switch

SETTINGS = {
    "api": PoolSettings(5, fair_by="team"),
    "mail": PoolSettings(rate=Rate.parse("5/day")),
    "orders": PoolSettings(1),
}


def ledger(instance):
    return instance.event_log_storage.lifeguard.engine.store.ledger()


def test_a_wipe_ends_what_runs_have_and_keeps_what_is_set(make_home, kind):
    home = make_home(kind, concurrency={"pools": {"default_limit": 4}})
    with home.instance() as instance, home.instance() as other:
        log, engine = instance.event_log_storage, instance.event_log_storage.lifeguard.engine
        log.set_pools(SETTINGS)
        holder, waiter = (instance.add_run(DagsterRun(job_name="job")).run_id for _ in range(2))
        elsewhere = other.event_log_storage
        assert elsewhere.claim_concurrency_slot("orders", holder, "step").is_claimed
        assert elsewhere.claim_concurrency_slot("by_default", holder, "other").is_claimed
        assert not log.claim_concurrency_slot("orders", waiter, "step").is_claimed
        fence = engine.ticket(holder, "step").fence
        with LifeguardClient(instance).slots("api"):
            instance.wipe()
            assert [is_script(run_id) for run_id in log.get_concurrency_run_ids()] == [True]
            assert len(holders(instance, "api")) == 1
            assert ledger(instance) == ()
        assert log.get_concurrency_run_ids() == set()
        assert {pool.name: pool.limit for pool in log.get_pool_limits()} == {"orders": 1, "api": 5}
        assert engine.settings() == SETTINGS
        assert switch.status(instance).unmatched == ()
        run = instance.add_run(DagsterRun(job_name="job")).run_id
        assert log.claim_concurrency_slot("orders", run, "step").is_claimed
        assert engine.ticket(run, "step").fence > fence


def test_limits_are_not_gone_for_a_moment(make_home, kind):
    """A step that claims in that moment would take its pool for an unlimited one."""
    statements = []

    def note(connection, cursor, statement, *_):
        statements.append(statement)

    with make_home(kind).instance() as instance:
        instance.event_log_storage.set_concurrency_slots("orders", 1)
        db.event.listen(db.Engine, "before_cursor_execute", note)
        try:
            instance.wipe()
        finally:
            db.event.remove(db.Engine, "before_cursor_execute", note)
    deleted = [text.split()[2] for text in statements if text.startswith("DELETE FROM")]
    assert {"event_logs", "asset_keys", "concurrency_slots"} <= set(deleted)
    assert "concurrency_limits" not in deleted


def test_what_a_wipe_deletes_is_what_dagster_deletes_but_the_limits(make_home, kind):
    import dagster as dg

    def filled(home):
        with home.instance() as instance:
            assert dg.materialize([asset_of], instance=instance).success
            instance.add_dynamic_partitions("letters", ["a"])
            instance.event_log_storage.set_concurrency_slots("orders", 1)
            instance.wipe()
            with instance.event_log_storage.index_connection() as connection:
                names = db.inspect(connection).get_table_names()
                return {
                    name
                    for name in names
                    if not name.startswith("lifeguard")
                    and connection.execute(db.text(f'SELECT count(*) FROM "{name}"')).scalar()
                }

    @dg.asset
    def asset_of():
        return dg.MaterializeResult(tags={"team": "x"}, check_results=[])

    ours, theirs = filled(make_home(kind)), filled(make_home(kind, stock=True))
    assert ours == theirs | {"concurrency_limits", "concurrency_slots"}


def test_a_wipe_of_nothing(make_home, kind):
    with make_home(kind).instance() as instance:
        instance.wipe()
        assert instance.event_log_storage.get_pool_limits() == []
        instance.wipe()


def test_a_step_that_executes_when_all_is_wiped_is_ended(make_home, kind):
    home = make_home(kind, lease_seconds=3.0)
    limit(home)
    first = home.materialize("held")
    home.started()
    home.run("dagster", "run", "wipe", "--force")
    first.wait()  # Not for its step's end: nobody lets it go.
    second = home.materialize("held")
    home.started(2)
    home.go()
    assert second.wait() == 0, second.output()


@pytest.mark.parametrize("by", ["command", "storage"])
def test_a_run_that_is_deleted_gives_back_and_stays_in_the_ledger(make_home, kind, by):
    home = make_home(kind)
    with home.instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots("orders", 1)
        holder, waiter, kept = (
            instance.add_run(DagsterRun(job_name="job")).run_id for _ in range(3)
        )
        assert log.claim_concurrency_slot("orders", holder, "step").is_claimed
        assert not log.claim_concurrency_slot("orders", waiter, "step").is_claimed
        assert not log.claim_concurrency_slot("orders", kept, "step").is_claimed
        for run_id in (holder, waiter):
            if by == "command":
                home.run("dagster", "run", "delete", "--force", run_id)
            else:
                instance.delete_run(run_id)
        assert log.get_concurrency_run_ids() == {kept}
        eventually(lambda: log.claim_concurrency_slot("orders", kept, "step").is_claimed)
        told = [(e.kind.value, e.run_id) for e in ledger(instance) if e.run_id]
        assert told[::-1] == [("granted", holder), ("released", holder), ("granted", kept)]


def test_an_asset_that_is_wiped_leaves_slots_alone(make_home, kind):
    import dagster as dg

    with make_home(kind).instance() as instance:
        log = instance.event_log_storage
        log.set_concurrency_slots("orders", 1)
        run = instance.add_run(DagsterRun(job_name="job")).run_id
        assert log.claim_concurrency_slot("orders", run, "orders").is_claimed
        instance.report_runless_asset_event(dg.AssetMaterialization("orders"))
        instance.wipe_assets([dg.AssetKey("orders")])
        assert log.get_concurrency_run_ids() == {run}
