"""A person with a browser, `lifeguard serve` as a process, and assets that really execute."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from homes import Home, Process, eventually, free_port, kill, limit, serve, waiters
from playwright.sync_api import expect
from web_server import start_serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Locator, Page


@dataclass
class Person:
    """Somebody with one page open, who changes things on it and never loads it again."""

    page: Page
    url: str

    def section(self, name: str) -> Locator:
        return self.page.locator(f"section[aria-labelledby={name}]")

    @property
    def holds(self) -> Locator:
        return self.section("holders")

    @property
    def waits(self) -> Locator:
        return self.section("queue")

    def does(self, button: str) -> None:
        self.page.get_by_role("button", name=button, exact=True).click()

    def confirms(self, button: str, *effects: str) -> None:
        """Sees what it would do, and agrees."""
        for effect in effects:
            expect(self.section("effect")).to_contain_text(effect)
        self.does(button)
        expect(self.page).to_have_url(f"{self.url}/pools/orders")
        self.marks()

    def marks(self) -> None:
        """Leaves in the page what a reload would take away."""
        expect(self.page.locator("#live")).to_have_text("live")
        self.page.evaluate("window.sameAsBefore = true")

    def loaded_nothing(self) -> bool:
        return self.page.evaluate("window.sameAsBefore === true")


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


def limits(home: Home) -> dict[str, int]:
    with home.instance() as instance:
        found = instance.event_log_storage.get_pool_limits()
    return {pool.name: pool.limit for pool in found if not pool.from_default}


def target(world: str, home: Home) -> tuple[str, ...]:
    """How a server is told the deployment."""
    if world != "endpoint":
        return ()
    port = free_port()
    serve(home, port)
    return ("--url", f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("world", ["engine", "stock", "endpoint"])
def test_a_person_limits_pauses_raises_and_frees_while_assets_execute(
    world: str, make_home, page: Page, tmp_path: Path
):
    home = make_home("sqlite", stock=world == "stock", lease_seconds=3.0)
    log = tmp_path / "changes.jsonl"
    options = ("--allow-changes", "--change-log", str(log))
    _, url = start_serving(home, *options, *target(world, home))
    person = Person(page, url)

    page.goto(url)
    expect(page.locator("main")).to_contain_text("No pools yet")
    page.get_by_role("link", name="Add a limit").click()
    page.get_by_label("Pool").fill("orders")
    page.get_by_role("spinbutton", name="Limit").fill("1")
    person.does("Show what it would do")
    expect(person.section("effect")).to_contain_text("limit unlimited becomes 1")
    assert limits(home) == {}  # nothing is done by looking
    person.confirms("Set the limit to 1")
    assert limits(home) == {"orders": 1}

    first = home.materialize("held")
    (holder,) = home.started()
    expect(person.holds).to_contain_text(holder[:8])
    second = home.materialize("held")
    expect(person.waits).to_contain_text("the pool is full")
    assert person.loaded_nothing()

    # Nobody is let in beside what lives, or may live.
    person.does(f"Free what {holder[:8]} held holds")
    expect(page.locator(".finding")).to_contain_text("It is kept.")
    expect(page.locator(".finding .badge")).to_have_text(
        "alive" if world == "engine" else "perhaps alive"
    )
    page.goto(f"{url}/pools/orders")

    person.does("Pause")
    person.confirms("Pause the pool", "limit 1 becomes 0", "stays held until the steps end")
    assert limits(home) == {"orders": 0}
    expect(person.waits).to_contain_text("paused: the limit is 0")
    person.does("Resume")
    person.confirms("Set the limit to 1", "limit 0 becomes 1")
    expect(person.waits).to_contain_text("the pool is full")

    page.get_by_role("spinbutton", name="Limit").fill("2")
    person.does("Change")
    person.confirms("Set the limit to 2", "limit 1 becomes 2", "1 of 1 waiting step will start")
    (other,) = home.started(2).keys() - {holder}
    expect(person.holds).to_contain_text(other[:8])
    expect(person.waits).to_contain_text("No step waits")
    assert holder in person.holds.text_content() or holder[:8] in person.holds.text_content()
    home.go()
    assert [process.wait() for process in (first, second)] == [0, 0]
    expect(person.holds).to_contain_text("No slot is held")

    # A holder dies. The engine knows that; elsewhere a person has to.
    home.materialize("second")
    ((dead, pid),) = home.started(asset="second").items()
    kill(pid)
    expect(person.holds).to_contain_text(dead[:8])
    assert person.loaded_nothing()
    person.does(f"Free what {dead[:8]} second holds")
    expect(page.locator(".finding")).to_be_visible()
    if world == "engine":
        eventually(lambda: page.reload() and page.get_by_text("It will be freed.").is_visible())
        person.confirms("Free 1 step")
    else:
        page.get_by_label("I know that it does not work any more.").check()
        person.confirms("Free it all the same")
    expect(person.holds).to_contain_text("No slot is held")

    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(t["what"], t["before"], t["after"]) for t in told] == [
        ("limit", None, 1), ("limit", 1, 0), ("limit", 0, 1), ("limit", 1, 2), ("free", None, None)
    ]  # fmt: skip
    assert {t["pool"] for t in told} == {"orders"}
    assert (told[-1]["run_id"], told[-1]["forced"]) == (dead, world != "engine")
    (who,) = {t["who"] for t in told}
    assert re.fullmatch(r"127\.0\.0\.1 \(session \w{6}\)", who)
    shown = page.get_by_role("list", name="Changed on this page").get_by_role("listitem")
    expect(shown).to_have_count(5)
    expect(shown.nth(1)).to_contain_text("limit 1 became 2")
    expect(shown.nth(1)).to_contain_text(who)


def test_an_open_page_outlives_its_server(make_home, page: Page):
    home: Home = make_home("postgres")
    limit(home)
    runs = [home.materialize("held")]
    (holder,) = home.started()
    server, url = start_serving(home, "--allow-changes")
    person = Person(page, url)
    page.goto(f"{url}/pools/orders")
    expect(person.holds).to_contain_text(holder[:8])
    person.marks()

    server.end()
    expect(page.locator("#live")).to_have_text("reconnecting")
    runs.append(home.materialize("held"))
    with home.instance() as instance:
        ((waiter, _),) = eventually(lambda: waiters(instance))
    _restart(home, url)
    expect(page.locator("#live")).to_have_text("live")
    expect(person.waits).to_contain_text(waiter[:8])
    assert person.loaded_nothing()

    page.get_by_role("spinbutton", name="Limit").fill("2")
    person.does("Change")
    person.confirms("Set the limit to 2", "1 of 1 waiting step will start")
    home.started(2)
    expect(person.holds).to_contain_text(waiter[:8])
    home.go()
    assert [process.wait() for process in runs] == [0, 0]
    expect(person.holds).to_contain_text("No slot is held")
    assert person.loaded_nothing()


def _restart(home: Home, url: str) -> Process:
    server, _ = start_serving(home, "--allow-changes", "--port", url.rsplit(":", 1)[1])
    return server
