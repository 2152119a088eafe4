"""Every table of a page as CSV, with all its rows."""

from __future__ import annotations

import csv
import io
from types import SimpleNamespace

import httpx
import pytest
from homes import eventually
from told import Told, executed, holds, pool, run, waits
from web_server import serving

from dagster_lifeguard.compat.health import RunQueue
from dagster_lifeguard.deployment.contract import PlannedStep
from dagster_lifeguard.web.changes import PoolChange
from dagster_lifeguard.web.csv_tables import TABLES, csv_of


def rows_of(url: str) -> list[dict[str, str]]:
    answer = httpx.get(url, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(answer.text)))


def test_all_pools_that_were_asked_for_are_told_not_just_a_page_of_them():
    states = [pool(f"pool{n:03}", 2, [holds(f"r{n}")] if n % 2 else []) for n in range(120)]
    with serving(Told(states=[*states, pool("other")])) as url:
        found = rows_of(f"{url}/pools.csv?search=pool&sort=name")
        assert [row["pool"] for row in found] == [state.pool for state in states]
        assert [row["state"] for row in found[:2]] == ["idle", "in use"]
        assert len(rows_of(f"{url}/pools.csv?show=busy&table=pools")) == 60
        assert len(httpx.get(f"{url}/pools.json?rows=all").json()["rows"]) == 121
        assert httpx.get(f"{url}/?rows=all").text.count("<tr id=") == 50


def test_each_table_of_a_pool_names_what_its_runs_are_about():
    def one(run_id, status="STARTED"):
        tags = {"dagster/partition": "2026-11-07", "team": "sales"}
        return run(
            run_id, status, job_name="__ASSET_JOB", assets=("a/b",), tags=tags,
            pools=frozenset({"orders"}),
        )  # fmt: skip

    told = Told(
        states=[pool("orders", 1, [holds("h", "a__b")], [waits(f"w{n}", "a__b") for n in range(70)])],
        all_runs=[one("h"), *(one(f"w{n}") for n in range(70)), *(one(f"q{n}", "QUEUED") for n in range(15))],
        told_queue=RunQueue(-1, (), True, 0),
        past=[executed("h", {"a__b": "orders"}, 5.0)],
    )  # fmt: skip
    with serving(told) as url:
        eventually(lambda: len(rows_of(f"{url}/pools/orders.csv?table=run-queue")) == 15)
        (holder,) = rows_of(f"{url}/pools/orders.csv")
        queue = rows_of(f"{url}/pools/orders.csv?table=queue")
        assert len(queue) == 70
        for row in (holder, queue[69]):
            told_of = (row["job"], row["assets"], row["partition"], row["tags"])
            assert told_of == ("", "a/b", "2026-11-07", "team=sales")
        assert rows_of(f"{url}/pools/orders.csv?table=limits") == []


@pytest.mark.parametrize("template", TABLES)
def test_every_table_has_an_address(template):
    told = Told(
        states=[pool("orders", 1, [holds("r1", "orders")])],
        all_runs=[run("r1")],
        asset_pools={"orders": ("orders",)},
    )
    paths = {
        "overview": "/pools",
        "pool": "/pools/orders",
        "asset": "/assets/orders",
        "run": "/runs/r1",
    }
    with serving(told) as url:
        for table, (columns, _) in TABLES[template].items():
            answer = httpx.get(f"{url}{paths.get(template, f'/{template}')}.csv?table={table}")
            assert answer.text.splitlines()[0] == ",".join(columns)
        answer = httpx.get(f"{url}/pools.csv?table=nothing")
        assert (answer.status_code, answer.json()["error"]["remedy"]) == (
            404,
            "Ask for one of: pools.",
        )


def test_a_name_is_no_formula_to_a_spreadsheet():
    with serving(Told(states=[pool("=1+1"), pool("-x"), pool('a,"b"')])) as url:
        assert {row["pool"] for row in rows_of(f"{url}/pools.csv")} == {"'=1+1", "'-x", 'a,"b"'}


def test_a_pool_whose_name_ends_like_a_table_has_a_page():
    with serving(Told(states=[pool("orders.csv")])) as url:
        found = httpx.get(f"{url}/pools.json").json()["rows"][0]["pool"]["pool"]
        assert found == "orders.csv"
        assert httpx.get(f"{url}/pools?name=orders.csv").status_code == 200


def test_steps_waits_and_changes_have_their_rows():
    told = Told(
        states=[pool("orders", 1, [holds("h", "a__b")], [waits("w", "a__b")])],
        all_runs=[run("h", assets=("a/b",)), run("w", assets=("a/b",))],
        plans={one: [PlannedStep("a__b", "orders", ("a/b",))] for one in ("h", "w")},
        asset_pools={"a/b": ("orders",)},
        past=[executed("e", {"a__b": "orders"}, 5.0, waited=2.0)],
    )
    with serving(told) as url:
        found = rows_of(f"{url}/assets/a/b.csv?table=steps")
        assert {(row["run_id"], row["state"], row["pools"]) for row in found} == {
            ("h", "holding", "orders"),
            ("w", "waiting", "orders"),
        }
        assert rows_of(f"{url}/runs/w.csv?table=steps")[0]["state"] == "waiting"
        assert [row["at_least_seconds"] for row in rows_of(f"{url}/pools/orders.csv?table=waits")][
            :3
        ] == ["0.000", "0.100", "1.000"]
    change = PoolChange(1.0, "somebody", "limit", "orders", 2, 3)
    text = csv_of("pool", SimpleNamespace(changes=[change]), "changes")
    assert text.splitlines()[1] == "1.000,limit,2,3,,,False,somebody"
