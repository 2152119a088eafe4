"""Runs that a real daemon keeps in the queue for a pool: everything that tells of waits tells them."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from homes import eventually, limit
from playwright.sync_api import expect
from prometheus_client.parser import text_string_to_metric_families
from web_server import start_serving

BACKFILLED = Path(__file__).parents[1] / "storages" / "backfilled.py"
QUEUE = {
    "module": "dagster.core.run_coordinator",
    "class": "QueuedRunCoordinator",
    "config": {"dequeue_interval_seconds": 1},
}


def metrics(url: str) -> dict[str, float]:
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
        for sample in family.samples
        if sample.labels.get("pool") == "warehouse"
    }


@pytest.mark.parametrize("granularity", ["op", "run"])
@pytest.mark.parametrize("world", ["engine", "stock"])
def test_runs_queued_for_a_paused_pool_wait_wherever_waits_are_told(
    make_home, browser, world, granularity
):
    home = make_home(
        "sqlite",
        stock=world == "stock",
        concurrency={"pools": {"granularity": granularity}},
        run_coordinator=QUEUE,
    )
    limit(home, 0, "warehouse")
    limit(home, 5, "busier_by_name")
    target = ("-f", str(BACKFILLED), "-j", "daily_job")
    for _ in range(2):
        home.run("dagster", "job", "launch", *target)
    daemon = home.start("dagster-daemon", "run", "-f", str(BACKFILLED))
    with home.instance() as instance:
        eventually(lambda: "QUEUED_RUN_COORDINATOR" in instance.get_daemon_heartbeats())
    assert daemon.popen.poll() is None, daemon.output()
    _, url = start_serving(home)

    def told(*command: str) -> dict:
        return json.loads(home.run("lifeguard", *command, "--json"))

    found = told("status", "--window", "0")
    assert found["waiting"] == 2
    assert found["oldest_wait"] > 0
    first = found["pools"][0]
    assert (first["pool"], first["waiting"]) == ("warehouse", 2)
    assert first["oldest_wait"] == found["oldest_wait"]
    assert "2 runs wait" in home.run("lifeguard", "status", "--window", "0")

    (one,) = (p for p in told("explain", "report", "--window", "0")["pools"])
    assert one["waiting"] == 2
    assert told("status", "warehouse", "--window", "0")["summary"]["waiting"] == 2

    seen = eventually(
        lambda: metrics(url).get("lifeguard_pool_oldest_wait_seconds") and metrics(url)
    )
    runs, steps = (0, 2) if granularity == "run" else (2, 0)
    assert seen["lifeguard_pool_waiting_steps"] == steps
    assert seen["lifeguard_pool_queued_runs"] == runs
    assert seen["lifeguard_pool_oldest_wait_seconds"] > 0
    assert (seen["lifeguard_pool_oldest_queued_seconds"] > 0) == (granularity == "op")

    context = browser.new_context()
    page = context.new_page()
    page.goto(url)
    waiting = page.locator(".stats > div").filter(has_text="waiting")
    expect(waiting.locator("dd")).to_contain_text("2")
    longest = page.locator(".stats > div").filter(has_text="longest wait")
    expect(longest.locator("dd")).to_contain_text("s")
    context.close()
