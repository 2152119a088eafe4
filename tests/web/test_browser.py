"""Pages in a real browser: they follow, and names are only names."""

from __future__ import annotations

import time

from playwright.sync_api import expect
from told import Told, pool, run
from web_server import serving

from dagster_lifeguard.deployment.contract import HoldingStep, PlannedStep, WaitingStep

HOSTILE = "<script>document.title='owned'</script>\"' onload=x \u202e" + "x" * 120


def busy() -> Told:
    now = time.time()

    def held(run_id: str, step: str = "orders") -> HoldingStep:
        return HoldingStep(run_id, step, since=now - 60)

    def waiting(run_id: str, step: str = "orders") -> WaitingStep:
        return WaitingStep(run_id, step, since=now - 30)

    return Told(
        states=[
            pool("orders", 1, [held("r1")], [waiting("r2"), waiting("r3")]),
            pool("paused", 0, [], [waiting("r4")]),
            pool("draining", 1, [held("r5"), held("r6")]),
            pool(HOSTILE, 2, [held("r7", HOSTILE)]),
            pool("free", None),
        ],
        all_runs=[run(f"r{i}", job_name=HOSTILE if i == 7 else "job") for i in range(1, 8)],
        plans={"r1": [PlannedStep("orders", "orders", ("sales/orders",))]},
        asset_pools={"sales/orders": ("orders",)},
    )


def test_what_changes_appears_without_a_reload_and_after_a_restart(browser):
    told = busy()
    context = browser.new_context()
    page = context.new_page()
    with serving(told) as url:
        port = int(url.rsplit(":", 1)[1])
        page.goto(url)
        expect(page.locator("#live")).to_have_text("live")
        told.states = [*told.states, pool("newcomer", 4)]
        expect(page.get_by_role("link", name="newcomer")).to_be_visible()
    expect(page.locator("#live")).to_have_text("reconnecting", timeout=60_000)
    told.states = [*told.states, pool("second_newcomer", 4)]
    with serving(told, port=port):
        expect(page.get_by_role("link", name="second_newcomer")).to_be_visible(timeout=60_000)
    context.close()


def test_names_are_shown_and_never_executed(browser):
    context = browser.new_context()
    page = context.new_page()
    refused = []
    page.on("console", lambda message: refused.append(message.text))
    page.on("pageerror", lambda error: refused.append(str(error)))
    with serving(busy()) as url:
        page.goto(url)
        page.get_by_role("link", name="<script>").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("<script>document.title")
        expect(page).not_to_have_title("owned")
        page.get_by_role("link", name="r7", exact=True).first.click()
        expect(page.locator(".crumbs")).to_contain_text("<script>")
    context.close()
    assert refused == []


def test_the_keyboard_reaches_the_content_and_the_theme_stays(browser):
    context = browser.new_context(color_scheme="light")
    page = context.new_page()
    with serving(busy()) as url:
        page.goto(url)
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        page.get_by_role("button", name="Switch between light and dark").click()
        page.reload()
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    context.close()
