"""The documentation as a site in a real browser, opened as files: it fetches nothing, and it works."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from axe import violations
from pages import ROOT
from playwright.sync_api import expect

pytest.importorskip("zensical", reason="needs the extra site, and Python 3.11")

sys.path.append(str(ROOT))
from website import build, versions

SHOWN = ("index.html", "reference/api.html", "how-to/serve-a-page.html", "reference/cli.html")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Two versions side by side: this working copy, and a release that has fewer pages."""
    into = tmp_path_factory.mktemp("site")
    built = build.build("dev", into, tmp_path_factory.mktemp("scratch"))
    shutil.copytree(built, into / "0.1.0")
    for page in into.joinpath("0.1.0").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        mark = 'name="lifeguard-version" content="{}"'
        page.write_text(text.replace(mark.format("dev"), mark.format("0.1.0")), encoding="utf-8")
    into.joinpath("0.1.0", "reference", "api.html").unlink()
    versions.list_versions(into)
    return into


@pytest.fixture
def asked(browser):
    """Open pages with nothing in reach but files; what else was asked for, and what failed."""
    made = []

    def open_page(address: str, *, width: int = 1440):
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
        page = context.new_page()
        outside: list[str] = []
        made.append((context, outside))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(("file:", "data:", "blob:"))
                else outside.append(request.url)
            ),
        )
        page.on("requestfailed", lambda request: outside.append(f"failed: {request.url}"))
        page.on("pageerror", lambda error: outside.append(str(error)))
        page.goto(address)
        return page

    yield open_page
    for context, outside in made:
        context.close()
        assert outside == []


@pytest.mark.parametrize("width", [1440, 390])
def test_pages_are_readable_by_anybody_and_ask_for_nothing_outside(site, asked, width):
    for name in SHOWN:
        page = asked((site / "dev" / name).as_uri(), width=width)
        expect(page.locator(".lg-versions")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        # The checker would fetch the style sheets again, which a page opened as a file may not.
        assert violations(page, preload=False) == [], name


def test_the_landing_page_tells_the_story_in_one_screen(site, asked):
    page = asked((site / "dev" / "index.html").as_uri())
    for text in ("As Dagster ships", "apply_per_asset_concurrency(defs)", "With the one line"):
        box = page.locator(".story").get_by_text(text).first.bounding_box()
        assert box is not None
    story = page.locator(".story").bounding_box()
    assert story["y"] + story["height"] <= 900


def test_search_finds_a_page(site, asked):
    page = asked((site / "dev" / "index.html").as_uri())
    page.keyboard.press("/")
    page.keyboard.type("granularity")
    found = page.locator('dialog a[href*="pools-and-granularity"]').first
    expect(found).to_be_visible()
    found.click()
    page.wait_for_url("**/concepts/pools-and-granularity.html*")


def test_the_selector_leads_to_the_same_page_of_another_version(site, asked):
    page = asked((site / "dev" / "tutorial.html").as_uri())
    expect(page.locator(".lg-versions option")).to_have_text(["0.1.0", "dev"])
    expect(page.locator(".lg-outdated")).to_contain_text("This is not released yet.")
    page.locator(".lg-versions").select_option("0.1.0")
    page.wait_for_url("**/0.1.0/tutorial.html")
    expect(page.locator(".lg-versions")).to_have_value("0.1.0")
    expect(page.locator(".lg-outdated")).to_have_count(0)


def test_the_selector_leads_to_the_first_page_where_there_is_no_such_page(site, asked):
    page = asked((site / "dev" / "reference" / "api.html").as_uri())
    page.locator(".lg-versions").select_option("0.1.0")
    page.wait_for_url("**/0.1.0/index.html")


def test_the_recording_can_be_played_again(site, asked):
    page = asked((site / "dev" / "index.html").as_uri())
    picture = page.locator(".recording img")
    expect(picture).to_have_attribute("src", re.compile(r"terminal\.svg#end$"))
    page.get_by_role("button", name="Play").click()
    expect(picture).to_have_attribute("src", re.compile(r"terminal\.svg\?1$"))
    page.get_by_role("button", name="Show the end").click()
    expect(picture).to_have_attribute("src", re.compile(r"terminal\.svg\?2#end$"))
