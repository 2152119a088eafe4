"""The page of ``lifeguard serve`` in a real browser: visits as a WebM, and pictures of pages."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

WIDTH, HEIGHT = 1120, 700
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
_POINTER = """\
if (!document.getElementById('pointer')) {
  const dot = document.createElement('div');
  dot.id = 'pointer';
  dot.style.cssText = 'position:fixed;width:18px;height:18px;border-radius:50%;' +
    'background:#e5484dcc;margin:-9px 0 0 -9px;z-index:9999;pointer-events:none;left:-99px';
  document.body.append(dot);
  addEventListener('mousemove', event => {
    dot.style.left = event.clientX + 'px';
    dot.style.top = event.clientY + 'px';
  });
}
"""
"""Shows where the mouse is, which a picture of a page does not."""


class MissingProgramError(Exception):
    """A program that records is not installed."""


@dataclass
class Film:
    """Pictures of a page, each with the seconds for which it is shown.

    Attributes:
        page: What is filmed.
        scratch: Where the pictures are kept.
    """

    page: Page
    scratch: Path
    shots: list[tuple[Path, float]] = field(default_factory=list)

    def hold(self, seconds: float, each: float = 0.25) -> None:
        """Film what the page does by itself, in pictures that are shown ``each`` seconds."""
        ends = time.monotonic() + seconds
        shown = 0.0
        while shown < seconds:
            self._shoot(each)
            shown += each
            left = ends - time.monotonic() - (seconds - shown)
            if left > 0:
                self.page.wait_for_timeout(1000 * left)

    def click(self, selector: str) -> None:
        """Move the mouse to an element, click it, and film both."""
        self._move(selector)
        self.page.locator(selector).first.click()
        self.page.wait_for_load_state("load")
        self.page.evaluate(_POINTER)
        self.page.mouse.move(*self._place)

    def type(self, selector: str, text: str) -> None:
        """Click a field, and film how text is typed into it."""
        self._move(selector)
        self.page.locator(selector).first.click()
        for key in text:
            self.page.keyboard.type(key)
            self._shoot(0.12)

    def _move(self, selector: str) -> None:
        element = self.page.locator(selector).first
        element.scroll_into_view_if_needed()
        box = element.bounding_box()
        assert box is not None, selector
        goal = (box["x"] + min(box["width"] / 2, 60), box["y"] + box["height"] / 2)
        begin = self._place
        for step in range(1, 9):
            share = (step / 8) ** 0.6
            self._place = tuple(a + (b - a) * share for a, b in zip(begin, goal, strict=True))
            self.page.mouse.move(*self._place)
            self._shoot(0.06)

    _place: tuple[float, ...] = (WIDTH / 2, HEIGHT / 2)

    def _shoot(self, seconds: float) -> None:
        self.page.evaluate(_POINTER)
        file = self.scratch / f"{len(self.shots):05}.png"
        self.page.screenshot(path=file)
        self.shots.append((file, seconds))


@contextmanager
def opened(address: str, height: int = HEIGHT) -> Iterator[Page]:
    """A page in chromium, in light colours.

    Raises:
        MissingProgramError: There is no ``chromium``.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_program("chromium"), args=list(FLAGS))
        context = browser.new_context(
            viewport={"width": WIDTH, "height": height}, bypass_csp=True, color_scheme="light"
        )
        page = context.new_page()
        page.goto(address)
        yield page
        browser.close()


@contextmanager
def filming(address: str, scratch: Path) -> Iterator[Film]:
    """Open a page to be filmed.

    Raises:
        MissingProgramError: There is no ``chromium`` or no ``ffmpeg``.
    """
    _program("ffmpeg")
    with opened(address) as page:
        yield Film(page, scratch)


def photograph(address: str, file: Path, height: int) -> None:
    """Take a picture of the top of a page, so many pixels, once it follows the deployment.

    Raises:
        MissingProgramError: There is no ``chromium``.
    """
    with opened(address, height) as page:
        page.locator(".dot").wait_for()
        page.wait_for_timeout(2000)
        page.screenshot(path=file)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise MissingProgramError(f"Install {name}: apt-get install {name}")
    return found


def write_webm(film: Film, file: Path) -> None:
    """Encode the pictures of a film, small and sharp, and its first picture beside it as PNG."""
    lines = "".join(f"file '{shot}'\nduration {seconds}\n" for shot, seconds in film.shots)
    concat = film.scratch / "shots.txt"
    concat.write_text(f"{lines}file '{film.shots[-1][0]}'\n", encoding="utf-8")
    subprocess.run(
        (
            *("ffmpeg", "-y", "-loglevel", "error", "-f", "concat", "-safe", "0"),
            *("-i", str(concat), "-vf", "fps=15,format=yuv420p", "-c:v", "libvpx-vp9"),
            *("-crf", "38", "-b:v", "0", "-row-mt", "1", "-an", str(file)),
        ),
        check=True,
    )
    shutil.copyfile(film.shots[0][0], file.with_suffix(".png"))
