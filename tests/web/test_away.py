"""A database that is away: every page says so and since when, and none passes for live."""

from __future__ import annotations

import re

import httpx
import pytest
from homes import eventually, limit
from playwright.sync_api import expect
from test_hanging import Hanging
from told import holds, pool
from web_server import serving, start_serving

from servers import own_server

PAGES = ("/", "/pools/orders", "/audit", "/doctor", "/change/limit?pool=orders&limit=3")
AS_OF = re.compile(r"^as of \d\d:\d\d:\d\d$")


def opened(browser, url: str, paths=PAGES):
    context = browser.new_context()
    pages = []
    for path in paths:
        page = context.new_page()
        page.goto(url + path)
        expect(page.locator("#live")).to_have_attribute("data-state", "on")
        pages.append(page)
    return pages


def expect_blind(page) -> None:
    expect(page.get_by_role("alert")).to_contain_text("The deployment does not answer.")
    expect(page.locator("#live")).to_have_text(AS_OF)
    expect(page.locator("#live")).to_have_attribute("data-state", "blind")
    expect(page.locator("html")).to_have_attribute("data-as-of", re.compile(r"\d\d:\d\d:\d\d"))


def expect_seeing(page) -> None:
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator("#live")).to_have_attribute("data-state", "on")
    expect(page.locator("html")).not_to_have_attribute("data-as-of", re.compile(""))


@pytest.mark.parametrize("world", ["engine", "stock"])
def test_a_database_that_is_stopped_is_told_on_every_page_until_it_is_back(
    make_home, browser, world
):
    with own_server() as server:
        home = make_home("postgres", server=server.url, stock=world == "stock")
        limit(home)
        _, url = start_serving(home, "--allow-changes")
        pages = opened(browser, url)
        server.stop()
        for page in pages:
            expect_blind(page)
        assert httpx.get(f"{url}/healthz").status_code == 503
        late = pages[0].context.new_page()
        late.goto(f"{url}/")  # A page that is loaded now is the one that was seen, and says so.
        expect_blind(late)
        server.start()
        for page in (*pages, late):
            expect_seeing(page)
        pages[0].context.close()


def test_a_database_that_is_silent_is_told_too(browser):
    """It accepts what it is asked, and never answers: no error says that it is away."""
    told = Hanging(states=[pool("orders", 1, [holds("r")])])
    with serving(told, allow_changes=True) as url:
        pages = opened(browser, url, ("/", "/pools/orders", "/change/limit"))
        told.may_answer.clear()
        try:
            for page in pages:
                expect_blind(page)
            figure = pages[0].locator("dd").first
            dim = pages[0].evaluate(
                "getComputedStyle(document.documentElement).getPropertyValue('--dim')"
            )
            assert dim
            assert figure.evaluate("e => getComputedStyle(e).fontStyle") == "italic"
            text = httpx.get(f"{url}/metrics", timeout=60).text
            assert "lifeguard_up 0.0" in text
            unknown = httpx.get(f"{url}/audit", timeout=60)
            assert unknown.status_code == 503
            assert "does not answer" in unknown.text
        finally:
            told.may_answer.set()
        for page in pages:
            expect_seeing(page)
        eventually(lambda: httpx.get(f"{url}/healthz").status_code == 200)
        pages[0].context.close()
