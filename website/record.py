"""Make the pictures of the documentation from real runs: ``python -m website.record``.

They are written to ``docs/images``: ``terminal.svg`` from a run of ``lifeguard demo``, and from a
visit to the page of a deployment in which runs execute ``page.webm`` with ``page.png``, and the
screenshots ``page-overview.png``, ``page-pool.png`` and ``page-what-if.png``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from website.recording.browser import MissingProgramError, filming, photograph, write_webm
from website.recording.deployment import busy, served, with_command
from website.recording.drawing import animated
from website.recording.terminal import compressed, run

IMAGES = Path(__file__).parents[1] / "docs" / "images"
LONGEST_PAUSE = 1.2
WARM_UP = 240
SCREENSHOTS = {
    "overview": ("/?period=15m", 900),
    "pool": ("/pools/warehouse?period=15m", 1400),
    "what-if": ("/simulate?period=15m&limit.warehouse=6", 1160),
}
"""By the name of the picture, the page and how much of it is shown, in pixels from its top."""


def record_terminal() -> None:
    """Record the demo."""
    with tempfile.TemporaryDirectory() as scratch:
        demo = run("lifeguard demo", with_command(os.environ), scratch)
    title = "lifeguard demo: three runs at once, as Dagster ships and then with the one line"
    text = animated(compressed([demo], LONGEST_PAUSE), title)
    IMAGES.joinpath("terminal.svg").write_text(text, encoding="utf-8")


def record_page(address: str) -> None:
    """Record a visit to the page."""
    with tempfile.TemporaryDirectory() as scratch:
        with filming(f"{address}/?period=15m", Path(scratch)) as film:
            film.hold(5)
            film.type("input[name=search]", "sales")
            film.hold(2.5)
            film.click("a:text-is('sales/orders')")
            film.hold(6)
            film.page.mouse.wheel(0, 420)
            film.hold(4)
        write_webm(film, IMAGES / "page.webm")


def take_screenshots(address: str) -> None:
    """Take pictures of pages."""
    for name, (path, height) in SCREENSHOTS.items():
        photograph(f"{address}{path}", IMAGES / f"page-{name}.png", height)


def main() -> None:
    """Make both recordings, or one of them."""
    parser = argparse.ArgumentParser(description="Make the pictures of the documentation.")
    kinds = ("terminal", "page", "screenshots")
    parser.add_argument("--only", choices=kinds, help="make only these")
    parser.add_argument(
        "--warm-up",
        type=float,
        default=WARM_UP,
        metavar="SECONDS",
        help=f"let runs execute for so long before the page is filmed; the default is {WARM_UP}",
    )
    options = parser.parse_args()
    try:
        wanted = {options.only} if options.only else set(kinds)
        if "terminal" in wanted:
            record_terminal()
        if wanted - {"terminal"}:
            with busy() as deployment, served(deployment) as address:
                time.sleep(options.warm_up)  # Runs that are over fill the charts.
                if "page" in wanted:
                    record_page(address)
                if "screenshots" in wanted:
                    take_screenshots(address)
    except MissingProgramError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
