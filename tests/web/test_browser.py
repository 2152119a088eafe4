"""Pages in a real browser: they follow, they are readable by anybody, and names are only names."""

from __future__ import annotations

import time
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from axe import violations
from dagster import AssetKey
from playwright.sync_api import expect
from told import Told, pool, run
from web_server import serving

from dagster_lifeguard.compat.health import RunQueue
from dagster_lifeguard.deployment.contract import HoldingStep, PlannedStep, WaitingStep
from dagster_lifeguard.deployment.history import Outcome, RunExecution, StepExecution
from dagster_lifeguard.engine.rules.duplicates import DUPLICATE_TAG
from dagster_lifeguard.errors import DeploymentError

HOSTILE = "<script>document.title='owned'</script>\"' onload=x \u202e" + "x" * 120
PAGES = {
    "overview": "/",
    "no match": "/?search=nothing",
    "assets found": "/?search=sales",
    "pool": "/pools/orders",
    "paused": "/pools/paused",
    "draining": "/pools/draining",
    "hostile": f"/pools?{urlencode({'name': HOSTILE})}",
    "asset": "/assets/sales/orders",
    "run": "/runs/r1",
    "nothing to play": "/simulate",
    "audit": "/audit",
    "doctor": "/doctor",
    "limit": "/change/limit",
    "several": "/change/several?do=pause&pool=orders&pool=paused",
    "grouped": "/?group=prefix&period=24h",
    "unknown": "/pools/unknown",
}


SECTIONS = {
    "pool": ("upstream", "trend", "limit-now"),
    "asset": ("dropped", "past"),
    "assets found": ("pools",),
}
"""What has to be on a page for it to be looked at in full."""


class Reachable(Told):
    is_gone = False

    def pools(self, names=None):
        if self.is_gone:
            raise DeploymentError("told is out of reach.", remedy="Wait.")
        return super().pools(names)


def busy() -> Reachable:
    now = time.time()

    def held(run_id: str, step: str = "orders") -> HoldingStep:
        return HoldingStep(run_id, step, since=now - 60)

    def waiting(run_id: str, step: str = "orders") -> WaitingStep:
        return WaitingStep(run_id, step, since=now - 30)

    return Reachable(
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


def full() -> Reachable:
    """With every section that a page may have."""
    told, now = busy(), time.time()
    both = frozenset({"paused", "orders"})
    told.past = [executed_by_orders(now), executed_by_orders(now - 3600)]
    told.told_queue = RunQueue(-1, (("team", "sales", False, 0),), heeds_pools=True, buffer=0)
    told.all_runs += [
        run("queued", "QUEUED", pools=both, first_pools={"paused": 1}, tags={"team": "sales"}),
        run("dropped", "CANCELED", assets=("sales/orders",), ended=now, tags={DUPLICATE_TAG: "r1"}),
    ]
    return told


@pytest.mark.parametrize("width", [1440, 390])
def test_every_page_is_readable_by_anybody(browser, width):
    with serving(full(), allow_changes=True, dagster_url="http://localhost:3000") as url:
        # The checker is put into the page, which the page's own policy would refuse.
        context = browser.new_context(viewport={"width": width, "height": 900}, bypass_csp=True)
        page = context.new_page()
        found = {}
        for name, address in PAGES.items():
            page.goto(url + address)
            for summary in page.locator("main details:not(.custom) > summary").all():
                summary.click()
            for section in SECTIONS.get(name, ()):
                expect(page.locator(f"#{section}")).to_have_count(1)
            told = violations(page)
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                told.append(("overflow", address))
            if told:
                found[name] = told
        context.close()
        assert found == {}


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
        told.is_gone = True
        expect(page.get_by_role("alert")).to_contain_text("told is out of reach.")
        told.is_gone = False
        expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator("#live")).to_have_text("reconnecting")
    told.states = [*told.states, pool("second_newcomer", 4)]
    with serving(told, port=port):
        expect(page.get_by_role("link", name="second_newcomer")).to_be_visible()
    context.close()


def test_a_pool_that_is_paused_elsewhere_can_be_resumed_on_an_open_page(browser):
    told = Reachable(states=[pool("orders", 2)])
    context = browser.new_context()
    page = context.new_page()
    with serving(told, allow_changes=True) as url:
        page.goto(f"{url}/pools/orders")
        expect(page.get_by_role("button", name="Pause")).to_be_visible()
        expect(page.locator("#live")).to_have_text("live")
        told.states = [pool("orders", 0)]
        expect(page.get_by_role("button", name="Resume")).to_be_visible()
        expect(page.get_by_role("button", name="Pause")).to_have_count(0)
        page.get_by_role("button", name="Resume").click()
        page.wait_for_url("**/change/resume?pool=orders")
    context.close()


def test_the_field_of_the_limit_follows_until_it_is_touched(browser):
    told = Reachable(states=[pool("orders", 2)])
    context = browser.new_context()
    page = context.new_page()
    with serving(told, allow_changes=True) as url:
        page.goto(f"{url}/pools/orders")
        expect(page.locator("#live")).to_have_text("live")
        field, meanwhile = page.get_by_label("Limit", exact=True), page.locator("#limit-now")
        told.states = [pool("orders", 3)]
        expect(field).to_have_value("3")
        expect(meanwhile).to_be_hidden()
        field.fill("7")
        told.states = [pool("orders", 5)]
        expect(meanwhile).to_have_text("changed to 5 meanwhile")
        expect(field).to_have_value("7")
        told.states = [pool("orders", None)]
        expect(meanwhile).to_have_text("changed to no limit meanwhile")
        field.fill("3")  # As it was: untouched again.
        expect(field).to_have_value("")
        expect(meanwhile).to_be_hidden()
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
        assert refused == []  # Before the server ends, of which the page complains rightly.
    context.close()


def test_pools_are_searched_while_one_types_and_the_address_says_so(browser):
    context = browser.new_context()
    page = context.new_page()
    told = busy()
    with serving(told) as url:
        page.goto(url)
        page.get_by_label("Search").fill("drain")
        expect(page.get_by_role("link", name="orders")).to_have_count(0)
        page.wait_for_url("**/*search=drain*")
        told.states = [*told.states, pool("drained"), pool("elsewhere")]
        expect(page.get_by_role("link", name="drained")).to_be_visible()
        expect(page.get_by_role("link", name="elsewhere")).to_have_count(0)
    context.close()


def test_charts_tell_of_one_moment_together_and_a_drag_zooms(browser):
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    with serving(busy()) as url:
        page.goto(f"{url}/?search=o")
        grounds = page.locator(".plot-ground svg")
        box = grounds.nth(0).bounding_box()
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] / 2, middle)
        times = {text.split()[0] for text in page.locator(".readout").all_inner_texts()}
        assert len(times) == 1
        assert ":" in times.pop()
        lines = [line.get_attribute("x1") for line in page.locator(".cross").all()]
        assert len(set(lines)) == 1
        page.mouse.move(box["x"] + box["width"] * 0.25, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.75, middle)
        page.mouse.up()
        page.wait_for_url("**from=*")
        assert "search=o" in page.url
        found = parse_qs(urlsplit(page.url).query)
        assert 1800 <= float(found["to"][0]) - float(found["from"][0]) <= 1900
        page.get_by_role("link", name="orders", exact=True).click()
        page.wait_for_url("**/pools/orders?from=*")
        page.get_by_role("link", name="6 h").click()
        page.wait_for_url("**period=6h*")
        page.get_by_role("link", name="Pools", exact=True).first.click()
        page.wait_for_url("**/?period=6h")
    context.close()


def test_charts_tell_of_the_moment_under_the_mouse_and_rest_when_it_leaves(browser):
    context = browser.new_context(viewport={"width": 1440, "height": 2400})
    page = context.new_page()
    told = busy()
    told.past = [executed_by_orders(time.time())]
    with serving(told) as url:
        page.goto(f"{url}/pools/orders")
        expect(page.locator("#live")).to_have_text("live")
        plots = page.locator(".plots")
        times = plots.get_attribute("data-times").split("|")
        ground = page.locator(".plot-ground svg").first.bounding_box()
        bar = page.locator(".bar svg").first.bounding_box()
        # A bar has the axis of time of the charts above it.
        for box in (ground, bar):
            page.mouse.move(box["x"] + box["width"] * 0.755, box["y"] + box["height"] / 2)
            for readout in page.locator(".readout").all():
                expect(readout).to_contain_text(times[45])
        crosses = page.locator(".cross")
        place = {cross.get_attribute("x1") for cross in crosses.all()}
        assert len(place) == 1
        # News do not take the moment away.
        told.states = [pool("orders", 7), *told.states[1:]]
        expect(page.locator(".stats dd").first).to_contain_text("of 7")
        for readout in page.locator(".readout").all():
            expect(readout).to_contain_text(times[45])
        assert {cross.get_attribute("x1") for cross in crosses.all()} == place
        page.mouse.move(5, 5)
        for plot in page.locator(".plot").all():
            expect(plot.locator(".readout")).to_have_text(plot.get_attribute("data-rest"))
    context.close()


def test_only_a_drag_with_the_first_button_zooms_and_escape_ends_it(browser):
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    with serving(busy()) as url:
        page.goto(f"{url}/?search=o&page=2")
        before = page.url
        box = page.locator(".plot-ground svg").first.bounding_box()
        brush = page.locator(".brush").first

        def to(share: float) -> None:
            page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] / 2)

        to(0.5)
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        to(0.2)
        page.mouse.down(button="right")
        to(0.8)
        page.mouse.up(button="right")
        to(0.2)
        page.mouse.down()
        to(0.8)
        expect(brush).not_to_have_attribute("width", "0")
        width = page.evaluate("document.querySelector('.plot-ground svg').viewBox.baseVal.width")
        assert float(brush.get_attribute("width")) == pytest.approx(0.6 * width, rel=0.02)
        page.keyboard.press("Escape")
        expect(brush).to_have_attribute("width", "0")
        page.mouse.up()
        page.evaluate("new Promise(requestAnimationFrame)")
        assert page.url == before
        to(0.8)
        page.mouse.down()
        to(0.2)  # From right to left is the same.
        page.mouse.up()
        page.wait_for_url("**from=*")
        query = parse_qs(urlsplit(page.url).query)
        assert set(query) == {"search", "from", "to"}
        assert 2160 <= float(query["to"][0]) - float(query["from"][0]) <= 2260
    context.close()


def executed_by_orders(now: float) -> RunExecution:
    began = now - 600
    step = StepExecution(
        "r1", "orders", (AssetKey(["sales", "orders"]),), 1, began + 30, began + 75,
        Outcome.FAILURE, pool="orders", partitions=("2026-11-07",), waiting=began + 10,
    )  # fmt: skip
    return RunExecution(
        "r1", "__ASSET_JOB", "FAILURE", began, began + 5, began + 10, began + 80, (step,), ("orders",)
    )  # fmt: skip


def test_a_bar_tells_of_itself_on_focus_and_leads_to_its_run_in_dagster(browser):
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    told = busy()
    told.past = [executed_by_orders(time.time())]
    with serving(told, dagster_url="http://localhost:3000") as url:
        page.goto(f"{url}/pools/orders")
        bar = page.locator("a.bar").first
        tip = page.locator(".tip").first
        expect(tip).to_be_hidden()
        bar.hover()
        expect(tip).to_be_visible()
        page.mouse.move(5, 5)
        expect(tip).to_be_hidden()
        page.keyboard.press("ArrowDown")  # So that the focus is one of the keyboard.
        bar.focus()
        expect(tip).to_be_visible()
        for text in ("sales/orders", "2026-11-07", "5.0s", "20s", "45s", "r1", "failure"):
            expect(tip).to_contain_text(text)
        assert bar.get_attribute("href") == "http://localhost:3000/runs/r1"
        chart = page.locator(".plot-ground svg").first.bounding_box()
        bars = page.locator(".bar svg").first.bounding_box()
        assert (chart["x"], chart["width"]) == (bars["x"], bars["width"])
    context.close()


def test_pools_are_found_and_opened_with_the_keyboard_alone(browser):
    context = browser.new_context()
    page = context.new_page()
    with serving(busy()) as url:
        page.goto(url)
        page.keyboard.press("/")
        expect(page.get_by_label("Search")).to_be_focused()
        page.keyboard.type("order")
        expect(page.locator(".pools th[scope=row] a")).to_have_count(1)
        page.keyboard.press("ArrowDown")
        expect(page.get_by_role("link", name="orders", exact=True)).to_be_focused()
        page.keyboard.press("ArrowUp")
        expect(page.get_by_label("Search")).to_be_focused()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.wait_for_url("**/pools/orders")
        page.keyboard.press("ArrowDown")
        expect(page.locator(".flows .run a").first).to_be_focused()
    context.close()


def test_keys_go_from_row_to_row_and_leave_fields_alone(browser):
    context = browser.new_context()
    page = context.new_page()
    told = busy()
    told.past = [executed_by_orders(time.time())]
    with serving(told) as url:
        page.goto(url)
        rows = page.locator(".pools th[scope=row] a")
        page.keyboard.press("Control+/")
        expect(page.get_by_label("Search")).not_to_be_focused()
        page.keyboard.press("ArrowDown")
        expect(rows.nth(0)).to_be_focused()
        page.keyboard.press("ArrowDown")
        expect(rows.nth(1)).to_be_focused()
        page.keyboard.press("Control+ArrowDown")
        expect(rows.nth(1)).to_be_focused()
        page.keyboard.press("ArrowUp")
        expect(rows.nth(0)).to_be_focused()
        sort = page.get_by_label("Sort by")
        sort.focus()
        page.keyboard.press("ArrowDown")
        expect(sort).to_be_focused()
        page.get_by_label("Search").focus()
        page.keyboard.type("a/b")
        expect(page.get_by_label("Search")).to_have_value("a/b")

        page.goto(f"{url}/pools/orders")
        found = page.locator(".flows .run > a:first-child, .bars a.bar")
        for place in range(found.count()):
            page.keyboard.press("ArrowDown")
            expect(found.nth(place)).to_be_focused()
        expect(page.locator("a.bar").last).to_be_focused()
        page.keyboard.press("/")
        page.wait_for_url(f"{url}/")
    context.close()


def test_an_asset_is_found_and_opened_with_the_keyboard_where_no_pool_matches(browser):
    context = browser.new_context()
    page = context.new_page()
    with serving(busy()) as url:
        page.goto(url)
        page.keyboard.press("/")
        page.keyboard.type("sales")
        expect(page.get_by_role("link", name="sales/orders")).to_be_visible()
        page.keyboard.press("ArrowDown")
        expect(page.get_by_role("link", name="sales/orders")).to_be_focused()
        page.keyboard.press("Enter")
        page.wait_for_url("**/assets/sales/orders*")
    context.close()


def test_pools_stay_chosen_while_their_rows_are_sent_anew(browser):
    context = browser.new_context()
    page = context.new_page()
    told = busy()
    with serving(told, allow_changes=True) as url:
        page.goto(url)
        expect(page.locator("#live")).to_have_text("live")
        page.get_by_label("Choose orders").check()
        page.get_by_label("Choose free").check()
        told.states = [*told.states, pool("newcomer", 4)]
        expect(page.get_by_role("link", name="newcomer")).to_be_visible()
        expect(page.get_by_label("Choose orders")).to_be_checked()
        expect(page.get_by_label("Choose newcomer")).not_to_be_checked()
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Pause 2 pools")
    context.close()


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
