"""A browser for the tests of pages."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect, sync_playwright

from debian import find_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


# Conditions are waited for, and no test asserts a time.
expect.set_options(timeout=60_000)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of chromium, preferably of the one that cannot show windows.

    That one needs a third of the work for a page. It is installed when it is missing and that is
    allowed; otherwise the usual chromium serves as well.
    """
    with suppress(subprocess.CalledProcessError):
        found = find_program("chromium-headless-shell", "chromium-headless-shell")
        if found is not None:
            return found
    found = find_program("chromium", "chromium")
    if found is None:
        pytest.fail("The tests of pages need chromium. Install it: apt-get install chromium")
    return found


# Not for the whole session: while playwright is up, its event loop counts as running in this thread,
# and nothing that calls `asyncio.run`, as Dagster does, would work in the tests after it.
@pytest.fixture(scope="module")
def browser(chromium) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(_FLAGS))
        yield browser
        browser.close()
