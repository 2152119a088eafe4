"""What a person comes to the page for, in a real browser: each in at most four clicks."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from dagster import AssetKey
from playwright.sync_api import expect
from told import Told, pool, run
from web_server import serving

from dagster_lifeguard.compat.health import RunQueue
from dagster_lifeguard.deployment.contract import HoldingStep, PlannedStep, WaitingStep
from dagster_lifeguard.deployment.history import Outcome, RunExecution, StepExecution
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Locator, Page

CLICKS_MAX = 4
ASSETS = ("sales/orders", "sales/refunds", "marts/revenue")
BACKFILL = "nightly-reload"
TOOK = "took0910-aaaa"


class Changeable(Told):
    """One whose limits can be set."""

    def set_pools(self, settings):
        for name, found in settings.items():
            kept = [state for state in self.states if state.pool != name]
            (old,) = (state for state in self.states if state.pool == name)
            self.states = [*kept, replace(old, settings=found or PoolSettings(None))]
            yield name

    def set_limit(self, name, limit):
        for _ in self.set_pools({name: PoolSettings(limit)}):
            pass


@dataclass
class Person:
    """Somebody with a mouse, whose clicks are written down. A drag counts as one; typing does not."""

    page: Page
    clicks: list[str] = field(default_factory=list)

    def click(self, it: Locator) -> None:
        name = it.evaluate("it => it.getAttribute('aria-label') || it.innerText || it.id")
        self.clicks.append(name.strip())
        it.click()

    def drag(self, it: Locator, begin: float, end: float) -> None:
        """Drag across a chart, from one share of its width to another."""
        self.clicks.append(f"drag {begin:.2f} to {end:.2f}")
        it.scroll_into_view_if_needed()
        box = it.bounding_box()
        middle = box["y"] + box["height"] / 2
        self.page.mouse.move(box["x"] + box["width"] * begin, middle)
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + box["width"] * end, middle, steps=3)
        self.page.mouse.up()

    def sees(self, it: Locator) -> None:
        """What is asked for stands on the screen, where scrolling is no click."""
        expect(it).to_be_visible()
        it.scroll_into_view_if_needed()
        expect(it).to_be_in_viewport()


def executed(run_id: str, asset: str, began: float, seconds: float) -> RunExecution:
    key = AssetKey(asset.split("/"))
    step = StepExecution(
        run_id, key.path[-1], (key,), 1, began, began + seconds, Outcome.SUCCESS, pool="warehouse"
    )
    return RunExecution(
        run_id, "__ASSET_JOB", "SUCCESS", began, began, began, began + seconds, (step,), ("warehouse",)
    )  # fmt: skip


def morning(now: float, at: float) -> Changeable:
    """A warehouse of two slots: one execution took it at a moment, many others before and after."""
    others = [
        executed(f"other{n:03}-bbbb", ASSETS[n % 2], at + 1200 + 200 * n, 90.0) for n in range(50)
    ] + [executed(f"early{n:03}-bbbb", ASSETS[n % 2], at - 1200 - 200 * n, 90.0) for n in range(20)]
    first = [executed("orders1-cccc", "sales/orders", at - 8000 - 700 * n, 60.0) for n in range(4)]
    tags = {"dagster/backfill": BACKFILL, "dagster/partition": "2026-11-07"}
    told = Changeable(
        states=[
            pool(
                "warehouse", 2,
                [HoldingStep("reload-1", "revenue", since=now - 900), HoldingStep("reload-2", "revenue", since=now - 840)],
                [WaitingStep("latest-run", "orders", since=now - 700)],
            ),
            *(pool(f"team{n:02}", 2) for n in range(70)),
        ],
        all_runs=[
            run("reload-1", tags=tags, assets=("marts/revenue",), started=now - 900),
            run("reload-2", tags=tags, assets=("marts/revenue",), started=now - 840),
            run("latest-run", assets=("sales/orders",), started=now - 720),
            *(
                run(f"reload-{n}", "QUEUED", tags=tags, assets=("marts/revenue",), pools=frozenset({"warehouse"}))
                for n in range(3, 9)
            ),
        ],
        plans={
            "latest-run": [PlannedStep("orders", "warehouse", ("sales/orders",))],
            "reload-1": [PlannedStep("revenue", "warehouse", ("marts/revenue",))],
            "reload-2": [PlannedStep("revenue", "warehouse", ("marts/revenue",))],
        },
        asset_pools=dict.fromkeys(ASSETS, ("warehouse",)),
        past=[*first, *others, executed(TOOK, "sales/refunds", at - 240, 600.0)],
        told_queue=RunQueue(-1, (), heeds_pools=True, buffer=0),
    )  # fmt: skip
    told.past.sort(key=lambda one: one.enqueued)
    return told


@pytest.fixture
def at() -> float:
    """The moment that is asked about: four hours ago."""
    return time.time() - 4 * 3600


@pytest.fixture
def person(browser, at) -> Iterator[Person]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    with serving(morning(time.time(), at), allow_changes=True) as url:
        page.goto(url)
        expect(page.locator("#live")).to_have_text("live")
        found = Person(page)
        yield found
        context.close()
    assert len(found.clicks) <= CLICKS_MAX, found.clicks


def test_why_is_orders_late(person):
    page = person.page
    person.click(page.get_by_label("Search"))
    page.keyboard.type("orders")
    person.click(page.get_by_role("link", name="sales/orders", exact=True))
    step = page.locator("article.step.waiting")
    person.sees(step.get_by_text("the pool is full"))
    for holder in ("reload-1", "reload-2"):
        person.sees(step.get_by_role("link", name=holder).first)
    assert person.clicks == ["search", "sales/orders"]


def test_let_the_backfill_wait_until_tonight(person):
    page = person.page
    person.click(page.get_by_role("link", name="warehouse", exact=True))
    person.sees(page.get_by_text(BACKFILL).first)
    person.click(page.get_by_role("button", name="Pause"))
    person.sees(page.get_by_text("No step starts while the limit is 0"))
    person.click(page.get_by_role("button", name="Pause the pool"))
    page.wait_for_url("**/pools/warehouse")
    person.sees(page.get_by_text("Paused: no step starts until the limit is raised."))
    queued = page.locator("section", has=page.locator("#run-queue"))
    person.sees(queued.get_by_text("is paused").first)
    assert person.clicks == ["warehouse", "Pause", "Pause the pool"]


def test_who_took_the_warehouse_at_a_moment(person, at):
    page = person.page
    person.click(page.get_by_role("link", name="warehouse", exact=True))
    person.click(page.get_by_role("link", name="6 h", exact=True))
    page.wait_for_url("**period=6h*")
    plots = page.locator(".plots")
    begin, end = (float(plots.get_attribute(f"data-{name}")) for name in ("since", "until"))
    place = (at - begin) / (end - begin)
    person.drag(page.locator(".plot-ground svg").first, place - 0.025, place + 0.025)
    page.wait_for_url("**from=*")
    shown = page.locator(".bars .who")
    expect(shown).to_have_count(1)
    person.sees(shown.get_by_role("link", name=TOOK[:8]))
    person.sees(shown.get_by_text("sales/refunds"))
    page.locator("a.bar").hover()  # No click: a bar tells of itself.
    person.sees(page.locator(".tip").get_by_text("10m"))
    assert re.match(r"warehouse, 6 h, drag", ", ".join(person.clicks))
