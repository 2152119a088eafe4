"""The plans on PostgreSQL read along an index, though they were made while the tables were empty."""

from __future__ import annotations

import re

import pytest

from dagster_lifeguard.engine.engine import Engine
from dagster_lifeguard.engine.rules.model import Demand
from dagster_lifeguard.engine.store.postgres.connection import Statement, call
from dagster_lifeguard.engine.store.sql import statements
from places import new_postgres


@pytest.fixture
def explain(postgres_url):
    place = new_postgres(postgres_url)
    store = place.store()
    store.migrate()
    engine = Engine(store)
    engine.change_pool("orders", limit=1)
    engine.claim("a", "step", Demand.of({"orders": 1}))
    connection = store.connection

    def plan(name, *arguments):
        connection.acquire()
        try:
            run = call(name, *arguments)
            rows = connection.execute([Statement("EXPLAIN (COSTS OFF) " + run.text, run.arguments)])
            return "\n".join(row[0] for row in rows)
        finally:
            connection.mutex.release()

    yield plan
    engine.close()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("view_of_step", (["orders"], "s", "a", "step")),
        ("view_of_run", (["orders"], "s", "a")),
        ("view_of_nothing", (["orders"], "s")),
        ("snapshots", (["orders", "other"],)),
        ("lock_pools", (["orders"],)),
        ("lock_session", ("s",)),
        ("heartbeat", ("s", 30.0)),
        ("drop_tickets", ([1],)),
        ("expired_sessions", (10,)),
        ("heads", ("orders", "team")),
        ("members", ("orders", ["team"], [2], 1)),
        ("set_due", ("orders", 1)),
    ],
)
def test_hot_statements_neither_scan_nor_gather_a_whole_table(explain, name, arguments):
    plan = explain(name, *arguments)
    for costly in ("Seq Scan", "Bitmap", "Hash Join", "Merge Join"):
        assert costly not in plan
    # Within one ticket's rows sorting is fine; a queue is read in the order of its index.
    if "lifeguard_queue_by_rank" in plan:
        assert "Sort Key: q.priority" not in plan


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_parts_are_no_statements_and_are_filled_in(dialect):
    named = statements(dialect)
    assert "drop_holding" in named
    assert {"settings", "expired"}.isdisjoint(named)
    assert not re.findall(r"[{](?!all})\w+}", " ".join(named.values()))
