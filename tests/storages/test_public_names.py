"""Which names of the storages are ours, on whatever Dagster is installed."""

from __future__ import annotations

import pytest
from dagster._core.storage.event_log.base import EventLogStorage
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.runs.base import RunStorage

from dagster_lifeguard.compat import storages
from dagster_lifeguard.storage import (
    LifeguardPostgresStorage,
    LifeguardSqliteStorage,
    postgres,
    sqlite,
)

OURS = {
    "supports_global_concurrency_limits",
    "claim_concurrency_slot",
    "check_concurrency_claim",
    "free_concurrency_slot_for_step",
    "free_concurrency_slots_for_run",
    "get_concurrency_run_ids",
    "get_pool_config",
    "get_pool_limits",
    "get_concurrency_keys",
    "get_concurrency_info",
    "get_concurrency_infos",
    "set_concurrency_slots",
    "delete_concurrency_limit",
    "initialize_concurrency_limit_to_default",
    "store_event",
    "optimize_for_webserver",
    "dispose",
    "wipe",
}

ADDED = {
    "use_options",
    "wipe_events",
    "make_store",
    "database_name",
    "free_stock_slots",
    "lifeguard",
    "set_pools",
    "change_pool",
    "limit_until",
    "require_same_database",
    "pools_by_default",
    "step_progress",
}

GUARDED = {"index_connection", "run_connection", "has_table", "connect"}
"""On SQLite, what opens Dagster's files: a fork waits until none is open."""

MAKING = {"config_type", "from_config_value"}
"""What makes a storage of what ``dagster.yaml`` says."""

WORDS = ("concurrency", "pool", "slot", "pending_step")

STOCK_INTERNALS = {
    "has_concurrency_limits_table",
    "has_default_pool_limit_col",
    "has_unassigned_slots",
    "can_claim_from_pending",
    "has_pending_step",
    "assign_pending_steps",
    "add_pending_step",
}
"""Public by their name, and called only by pool methods of the stock storage, which are ours."""


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("ours", "stock"),
    [
        (sqlite.LifeguardSqliteEventLogStorage, storages.SqliteEventLogStorage),
        (postgres.LifeguardPostgresEventLogStorage, postgres.PostgresEventLogStorage),
    ],
)
def test_pool_methods_are_ours_and_all_else_is_inherited(ours, stock):
    assert issubclass(ours, stock)
    guarded = GUARDED - {"connect"} if ours is sqlite.LifeguardSqliteEventLogStorage else set()
    changed = {n for n in public(ours) if _definition(ours, n) is not _definition(stock, n)}
    assert changed == (OURS | ADDED | MAKING | guarded)
    assert set(ours.config_type()) - {"lifeguard"} == set(stock.config_type())
    about_pools = {
        n
        for n in public(EventLogStorage) | public(SqlEventLogStorage) | public(stock)
        if any(word in n for word in WORDS)
    }
    assert about_pools - OURS == STOCK_INTERNALS & about_pools


@pytest.mark.parametrize(
    ("ours", "stock"),
    [
        (sqlite.LifeguardSqliteRunStorage, storages.SqliteRunStorage),
        (postgres.LifeguardPostgresRunStorage, postgres.PostgresRunStorage),
    ],
)
def test_of_a_run_storage_only_what_pools_and_their_order_need_is_ours(ours, stock):
    assert public(RunStorage) <= public(ours)
    changed = {n for n in public(ours) if _definition(ours, n) is not _definition(stock, n)}
    guarded = {"connect"} if ours is sqlite.LifeguardSqliteRunStorage else set()
    changed -= {"from_config_value", "register_instance"}
    assert changed == {"add_run", "get_runs", "handle_run_event"} | guarded
    assert set(ours.config_type()) == set(stock.config_type())


@pytest.mark.parametrize(
    ("ours", "stock"),
    [
        (LifeguardSqliteStorage, storages.DagsterSqliteStorage),
        (LifeguardPostgresStorage, postgres.DagsterPostgresStorage),
    ],
)
def test_of_a_storage_only_its_making_is_ours(ours, stock):
    changed = {n for n in public(ours) if _definition(ours, n) is not _definition(stock, n)}
    assert changed - {"from_local"} == MAKING
    assert set(ours.config_type()) - {"lifeguard"} == set(stock.config_type())


def _definition(cls: type, name: str) -> object:
    return next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
