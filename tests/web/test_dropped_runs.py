"""An asset's page tells the duplicate runs that were dropped, and which runs do their work."""

from __future__ import annotations

import csv
import io
import time

import httpx
from told import Told, pool, run
from web_server import serving

from dagster_lifeguard.deployment.contract import PlannedStep
from dagster_lifeguard.engine.rules.duplicates import DUPLICATE_TAG, NO_DUPLICATE


def dropped(run_id: str, ago: float, kept: str = "kept-run", **more):
    now = time.time()
    tags = {DUPLICATE_TAG: kept, "dagster/partition": "2026-11-07"}
    return run(run_id, "CANCELED", tags=tags, created=now - ago, ended=now - ago, **more)


def test_the_dropped_runs_of_an_asset_are_counted_and_the_last_are_told():
    told = Told(
        states=[pool("db")],
        asset_pools={"sales/orders": ("db",), "notes": ()},
        all_runs=[
            dropped("old", 9000.0, assets=("sales/orders",)),
            *(dropped(f"run{n:02}", 500.0 + n, assets=("sales/orders",)) for n in range(11)),
            dropped("planned", 450.0),
            dropped("other", 400.0, assets=("notes",)),
            dropped("restarted", 300.0, NO_DUPLICATE, assets=("sales/orders",)),
        ],
        plans={"planned": [PlannedStep("orders", "db", ("sales/orders",))]},
    )
    with serving(told, dagster_url="http://localhost:3000") as url:
        found = httpx.get(f"{url}/assets/sales/orders.json").json()["dropped"]
        assert found["count"] == 12
        assert [one["run_id"] for one in found["last"]] == [
            "planned",
            *(f"run{n:02}" for n in range(9)),
        ]
        assert found["last"][1]["kept"] == "kept-run"
        text = httpx.get(f"{url}/assets/sales/orders").text
        section = text[text.index('id="dropped"') :].partition("</section>")[0]
        for said in (
            'href="/runs/planned"',
            'href="/runs/kept-run"',
            "http://localhost:3000/runs/planned",
            "2026-11-07",
            "And 2 more",
        ):
            assert said in section, said
        rows = httpx.get(f"{url}/assets/sales/orders.csv?table=dropped").text
        assert len(list(csv.DictReader(io.StringIO(rows)))) == 12
        assert httpx.get(f"{url}/assets/notes.json").json()["dropped"]["count"] == 1
