"""The page with sliders: the past is played again with each limit that somebody moves to."""

from __future__ import annotations

import time
from dataclasses import replace
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from axe import violations
from playwright.sync_api import expect
from told import SETTINGS, Told, pool
from web_server import serving

from dagster_lifeguard.compat.health import RunQueue
from dagster_lifeguard.deployment.history import Outcome, RunExecution, StepExecution

RUNS, SECONDS = 20, 60.0


def in_line(pool_name: str = "orders", count: int = RUNS) -> list[RunExecution]:
    """Runs that all asked two hours ago for a pool of one."""
    begin = time.time() - 7200.0
    found = []
    for n in range(count):
        started = begin + n * SECONDS
        step = StepExecution(
            f"{pool_name}{n}",
            "step",
            (),
            1,
            started,
            started + SECONDS,
            Outcome.SUCCESS,
            pool=pool_name,
            waiting=begin if n else None,
        )
        moments = (begin, begin, begin, started + SECONDS)
        found.append(
            RunExecution(f"{pool_name}{n}", "job", "SUCCESS", *moments, (step,), (pool_name,))
        )
    return found


def told(*names: str) -> Told:
    names = names or ("orders",)
    return Told(
        states=[pool(name, 1) for name in names],
        past=[run for name in names for run in in_line(name)],
    )


def answer(url: str, **query: object) -> dict:
    found = httpx.get(f"{url}/simulate.json", params=query, timeout=60)
    assert found.status_code == 200, found.text
    return found.json()


def test_a_limit_in_the_address_is_played():
    with serving(told()) as url:
        as_it_was = answer(url)
        (slider,) = as_it_was["sliders"]
        assert (slider["field"], slider["value"], slider["present"]) == ("limit.orders", 1, 1)
        assert slider["most"] == RUNS  # All asked at once: no larger limit makes a difference.
        assert not as_it_was["is_moved"]

        found = answer(url, **{"limit.orders": 2})
        (compared,) = found["pools"]
        sides = compared["answer"]
        assert (sides["before"]["settings"]["limit"], sides["after"]["settings"]["limit"]) == (1, 2)
        assert sides["before"]["waits"]["p95"] == pytest.approx(18 * SECONDS)
        assert sides["after"]["waits"]["p95"] == pytest.approx(9 * SECONDS)
        # 20 waits from 0 to 19 minutes, and then two by two from 0 to 9 minutes.
        assert found["change"] == pytest.approx(-(190 - 90) * SECONDS)
        assert "would have waited" in httpx.get(f"{url}/simulate", params={"limit.orders": 2}).text


def test_pools_with_the_longest_waits_have_sliders_and_those_in_the_address_too():
    names = [f"p{n}" for n in range(12)]
    deployment = told(*names)
    deployment.past += in_line("p11", 2 * RUNS)  # It waited most.
    with serving(deployment) as url:
        found = answer(url)
        assert found["sliders"][0]["pool"] == "p11"
        assert (len(found["sliders"]), found["others"]) == (8, 4)
        fields = [slider["field"] for slider in answer(url, **{"limit.p7": 3})["sliders"]]
        assert fields[:2] == ["limit.p7", "limit.p11"]


def test_the_runs_at_once_are_a_limit_too():
    queue = RunQueue(1, (), heeds_pools=False, buffer=0)
    deployment = replace(told(), told_queue=queue, told_settings=SETTINGS)
    with serving(deployment) as url:
        slider = answer(url)["sliders"][0]
        assert (slider["field"], slider["pool"], slider["present"]) == ("runs", "", 1)
        assert answer(url, runs=3)["queue"]["after"]["runs_max"] == 3


@pytest.mark.parametrize("text", ["many", "-1", "1.5", "1001"])
def test_what_is_no_limit_is_refused(text):
    with serving(told()) as url:
        found = httpx.get(f"{url}/simulate?{urlencode({'limit.orders': text})}")
        assert found.status_code == 400
        assert "is no limit" in found.text


def test_without_executions_there_is_nothing_to_play():
    with serving(Told(states=[pool("orders", 1)])) as url:
        assert "Nothing to play" in httpx.get(f"{url}/simulate").text


def test_the_past_is_read_once_for_all_positions_of_a_slider():
    class Counted(Told):
        reads = 0

        def history(self, since, until=None, *, latest=None, queued=True):
            if latest is None and queued and until is not None and until - since > 80_000:
                self.reads += 1
            return super().history(since, until, latest=latest, queued=queued)

    deployment = Counted(states=[pool("orders", 1)], past=in_line())
    with serving(deployment, window=0.0) as url:
        answer(url)
        before = deployment.reads
        assert before
        for limit in (2, 3, 4):
            answer(url, **{"limit.orders": limit})
        assert deployment.reads == before


def test_a_slider_answers_while_it_moves_and_the_address_says_so(browser):
    with serving(told()) as url:
        page = browser.new_page()
        page.goto(f"{url}/simulate")
        expect(page.locator(".answer-title")).to_contain_text("This is how it was")
        slider = page.get_by_role("slider", name="orders")
        slider.focus()
        slider.press("ArrowRight")
        expect(page.locator("output")).to_have_text("2")
        expect(page.locator(".answer-title")).to_contain_text("less")
        assert parse_qs(urlsplit(page.url).query)["limit.orders"] == ["2"]
        expect(slider).to_be_focused()
        page.get_by_role("button", name="Back to what is in force").click()
        expect(page.locator(".answer-title")).to_contain_text("This is how it was")
        page.goto(f"{url}/simulate?limit.orders=0")
        expect(page.locator("#answer")).to_contain_text("20 executions never started")
        page.close()


@pytest.mark.parametrize("width", [1440, 390])
def test_the_page_is_readable_by_anybody(browser, width):
    with serving(told("orders", "sales/customers")) as url:
        context = browser.new_context(viewport={"width": width, "height": 900}, bypass_csp=True)
        page = context.new_page()
        page.goto(f"{url}/simulate?limit.orders=3")
        assert violations(page) == []
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
        context.close()
