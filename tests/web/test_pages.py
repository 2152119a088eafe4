"""Pages and their JSON over a real instance, as the command serves them."""

from __future__ import annotations

import time
from dataclasses import replace

import httpx
import pytest
from dagster import AssetKey
from homes import DEFINITIONS, Home, free_port, limit
from told import NOW, SETTINGS, Told, executed, holds, pool, run, waits
from web_server import serving, start_serving

from dagster_lifeguard.deployment.history import Outcome, RunExecution, StepExecution
from dagster_lifeguard.engine.rules.rate import Rate, nanoseconds
from dagster_lifeguard.insight.timeline import bar_of_step
from dagster_lifeguard.web.recent_history import ended_by


@pytest.fixture(params=["stock", "engine"])
def home(request, make_home) -> Home:
    home = make_home("sqlite", stock=request.param == "stock")
    limit(home)
    return home


def test_the_overview_and_its_json_tell_the_same(home):
    _, url = start_serving(home)
    page = httpx.get(f"{url}/")
    assert page.status_code == 200
    assert "orders" in page.text
    told = httpx.get(f"{url}/pools.json").json()
    assert [row["pool"]["pool"] for row in told["rows"]] == ["orders"]
    assert told["overview"]["engine"] == ("Lifeguard" in (home.path / "dagster.yaml").read_text())


def test_a_port_in_use_is_one_clear_line(home):
    port = free_port()
    start_serving(home, "--port", str(port))
    process = home.start("lifeguard", "serve", "--port", str(port))
    assert process.wait() == 2
    assert f"Cannot listen on 127.0.0.1:{port}" in process.output()


def test_a_page_stays_small_however_many_pools_there_are():
    def bytes_of(count: int) -> int:
        states = [pool(f"pool{n:05}", 2, [holds(f"r{n}")], [waits("w")]) for n in range(count)]
        with serving(Told(states=states)) as url:
            page = httpx.get(url, timeout=60)
            assert page.text.count("<tr id=") == 50
            return len(page.content)

    assert bytes_of(5000) < 1.1 * bytes_of(50)


def test_an_asset_says_how_it_went_and_how_long_it_waited(home):
    for _ in range(2):
        home.run("dagster", "asset", "materialize", "-f", str(DEFINITIONS), "--select", "quick")
    _, url = start_serving(home)
    told = httpx.get(f"{url}/assets/quick.json").json()
    assert (told["executions"]["count"], told["failed"], told["waits"]["count"]) == (2, 0, 2)
    lasted = [
        bar["spans"][-1]["ended"] - bar["spans"][-1]["started"] for bar in told["timeline"]["bars"]
    ]
    assert told["executions"]["p95"] == max(lasted)
    assert "typically takes" in httpx.get(f"{url}/assets/quick").text


def test_a_pool_says_what_the_engine_added():
    rate = Rate(6, 60, burst=2)
    inside = replace(waits("w", "load[slots:1]"), slots=3, priority=7, group="team <b>")
    state = pool(
        "api", 4, [replace(holds("h"), group="team <b>")], [inside], rate=rate, fair_by="team"
    )
    told = Told(
        states=[replace(state, due_ns=nanoseconds(time.time() + 3600))],
        told_settings=replace(SETTINGS, engine=True, patience_seconds=300.0),
    )
    with serving(told) as url:
        page, overview = httpx.get(f"{url}/pools/api").text, httpx.get(url).text
        found = httpx.get(f"{url}/pools/api.json").json()
    for text in (page, overview):
        assert "6/minute, burst 2" in text
        assert "fair(tag:team)" in text
    assert "a slot is free; the rate delays its start" in page
    assert "No step passes a step of its priority" in page
    assert "5m" in page
    assert "slots inside" in page
    assert page.count("team &lt;b&gt;") == 2
    (waiter,) = found["pool"]["queue"]
    assert (waiter["reason"], waiter["slots"], waiter["group"]) == ("rate", 3, "team <b>")
    assert (found["pool"]["summary"]["settings"]["rate"], found["patience_seconds"]) == (
        str(rate),
        300.0,
    )


def test_one_that_was_killed_holds_until_its_slots_were_taken_back():
    going_on = executed("r", {"step": "orders"}, 60.0, ended=False)
    begun = going_on.steps[0].started
    ended = ended_by({("r", "step"): begun + 30.0, ("r", "other"): begun}, going_on)
    assert [step.ended for step in ended.steps] == [begun + 30.0]
    assert bar_of_step(ended, ended.steps[0], begun + 600.0).spans[-1].ended == begun + 30.0
    assert bar_of_step(ended, ended.steps[0], begun + 600.0).result == "unfinished"
    # An attempt after that is another.
    assert ended_by({("r", "step"): begun - 1.0}, going_on) is going_on


def test_an_asset_names_what_it_competes_with_and_draws_its_waits():
    now = time.time()
    step = StepExecution(
        "r", "a", (AssetKey("a"),), 1, now - 600, now - 300, Outcome.SUCCESS, pool="db", waiting=now - 660
    )  # fmt: skip
    past = RunExecution(
        "r", "__ASSET_JOB", "SUCCESS", now - 700, now - 690, now - 680, now - 290, (step,), ("db",)
    )
    assets = {"a": ("db",), "b": ("other",), **{f"c{n:02}": ("db",) for n in range(25)}}
    with serving(Told(states=[pool("db", 1)], past=[past], asset_pools=assets)) as url:
        found = httpx.get(f"{url}/assets/a.json").json()
        page = httpx.get(f"{url}/assets/a").text
    assert found["rivals"] == {"db": [f"c{n:02}" for n in range(20)]}
    assert (found["rival_counts"], "and 5 more" in page) == ({"db": 25}, True)
    plots = {plot["key"]: plot for plot in found["plots"]}
    assert max(filter(None, plots["wait"]["values"])) == pytest.approx(10 + 60)
    assert max(filter(None, plots["took"]["values"])) == pytest.approx(300)
    assert max(plots["executing"]["values"]) == pytest.approx(1)


def test_a_run_tells_how_long_it_waited_counting_each_moment_once():
    def step(key, waiting, started):
        return StepExecution(
            "r", key, (), 1, NOW + started, NOW + 90, Outcome.SUCCESS, pool="db", waiting=NOW + waiting
        )  # fmt: skip

    steps = (step("one", 12, 20), step("two", 15, 30), step("three", 40, 45))
    past = RunExecution(
        "r", "__ASSET_JOB", "SUCCESS", NOW, NOW + 8, NOW + 10, NOW + 95, steps, ("db",)
    )
    runs = [run("r", "SUCCESS", job_name="__ASSET_JOB", assets=("sales/orders",), ended=NOW + 95)]
    with serving(Told(states=[pool("db", 1)], past=[past], all_runs=runs)) as url:
        found = httpx.get(f"{url}/runs/r.json").json()
        page = httpx.get(f"{url}/runs/r").text
    assert (found["queued"], found["waited"]) == (8.0, 8.0 + 18.0 + 5.0)
    assert "sales/orders</a>" in page
    assert "__ASSET_JOB" not in page
