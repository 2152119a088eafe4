"""A pool's page beside the period before, and what holds up the runs before they come to the pool."""

from __future__ import annotations

import csv
import io
import time
from dataclasses import replace

import httpx
from homes import eventually
from told import NOW, Told, executed, holds, pool, run, waits
from web_server import serving

from dagster_lifeguard.compat.health import RunQueue
from dagster_lifeguard.web.pictures import change_text


def ago(run_id: str, seconds: float, waited: float, held: float):
    """A run that used the pool ``db`` and began so many seconds ago."""
    found = executed(run_id, {"step": "db"}, held, waited=waited)
    by = time.time() - seconds - (NOW - 1000.0)
    moved = {
        name: getattr(found, name) + by for name in ("enqueued", "dequeued", "started", "ended")
    }
    (step,) = found.steps
    steps = (
        replace(step, started=step.started + by, ended=step.ended + by, waiting=step.waiting + by),
    )
    return replace(found, steps=steps, **moved)


def test_waits_and_holds_stand_beside_those_of_the_period_before():
    told = Told(
        states=[pool("db", 1)],
        past=[
            *(ago(f"before{n}", 5000.0 + n, 10.0, 100.0) for n in range(4)),
            *(ago(f"now{n}", 1500.0 + n, 30.0, 50.0) for n in range(3)),
        ],
    )
    with serving(told) as url:
        found = eventually(lambda: httpx.get(f"{url}/pools/db.json").json()["trend"])
        assert (found["now"]["waits"], found["now"]["holds"]["p50"]) == (
            {"count": 3, "p50": 30.0, "p95": 30.0},
            50.0,
        )
        assert (found["before"]["waits"]["count"], found["before"]["waits"]["p50"]) == (4, 10.0)
        text = httpx.get(f"{url}/pools/db").text
        for said in ("Compared with the period before", "The last 1h", "The 1h before", "+200 %"):
            assert said in text, said
        rows = list(csv.DictReader(io.StringIO(httpx.get(f"{url}/pools/db.csv?table=trend").text)))
        assert [(row["started"], row["wait_p50_seconds"]) for row in rows] == [
            ("3", "30.000"),
            ("4", "10.000"),
        ]
        assert "does not remember the period before" in httpx.get(f"{url}/pools/db?period=24h").text
    with serving(told, window=0.0) as url:
        assert httpx.get(f"{url}/pools/db.json").json()["trend"] is None


def test_what_holds_up_runs_before_the_pool_is_told_with_its_pool():
    both = frozenset({"api", "db"})
    told = Told(
        states=[pool("api", 1, [holds("h")], [waits("mid", "fetch")]), pool("db", 2)],
        all_runs=[
            run("h", pools=frozenset({"api"})),
            run("mid", pools=both),
            run("q", "QUEUED", pools=both, first_pools={"api": 1}),
        ],
        told_queue=RunQueue(-1, (), heeds_pools=True, buffer=0),
    )
    with serving(told) as url:
        (it,) = eventually(lambda: httpx.get(f"{url}/pools/db.json").json()["upstream"])
        assert (it["obstacle"], it["name"], it["queued"], it["steps"]) == ("pool", "api", 1, 1)
        text = httpx.get(f"{url}/pools/db").text
        section = text[text.index('id="upstream"') :].partition("</section>")[0]
        assert 'href="/pools/api"' in section
        assert "1 of 1 held" in section
        assert 'id="upstream"' not in httpx.get(f"{url}/pools/api").text
        rows = list(
            csv.DictReader(io.StringIO(httpx.get(f"{url}/pools/db.csv?table=upstream").text))
        )
        assert rows == [
            {
                "obstacle": "pool",
                "name": "api",
                "limit": "1",
                "taken": "1",
                "queued_runs": "1",
                "waiting_steps": "1",
            }
        ]


def test_a_change_is_a_share_of_what_was_before():
    assert change_text(30.0, 10.0) == "+200 %"
    assert change_text(5.0, 10.0) == "\N{MINUS SIGN}50 %"
    assert change_text(10.0, 10.0) == "the same"
    assert change_text(10.0, 0.0) == change_text(None, 1.0) == "\N{EN DASH}"
