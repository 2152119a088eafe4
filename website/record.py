"""Make the recordings of the documentation from real runs: ``python -m website.record``.

They are written to ``docs/images``: ``terminal.svg`` from a run of ``lifeguard demo``, and
``page.webm`` with ``page.png`` from a visit to the page of a deployment in which runs execute.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from website.recording.browser import MissingProgramError, filming, write_webm
from website.recording.deployment import busy, served, with_command
from website.recording.drawing import animated
from website.recording.terminal import compressed, run

IMAGES = Path(__file__).parents[1] / "docs" / "images"
LONGEST_PAUSE = 1.2
WARM_UP = 240


def record_terminal() -> None:
    """Record the demo."""
    with tempfile.TemporaryDirectory() as scratch:
        demo = run("lifeguard demo", with_command(os.environ), scratch)
    title = "lifeguard demo: three runs at once, as Dagster ships and then with the one line"
    text = animated(compressed([demo], LONGEST_PAUSE), title)
    IMAGES.joinpath("terminal.svg").write_text(text, encoding="utf-8")


def record_page(warm_up: float) -> None:
    """Record a visit to the page, after runs have executed for ``warm_up`` seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        with busy() as deployment, served(deployment) as address:
            time.sleep(warm_up)
            with filming(f"{address}/?period=15m", Path(scratch)) as film:
                film.hold(5)
                film.type("input[name=search]", "sales")
                film.hold(2.5)
                film.click("a:text-is('sales/orders')")
                film.hold(6)
                film.page.mouse.wheel(0, 420)
                film.hold(4)
        write_webm(film, IMAGES / "page.webm")


def main() -> None:
    """Make both recordings, or one of them."""
    parser = argparse.ArgumentParser(description="Make the recordings of the documentation.")
    parser.add_argument("--only", choices=["terminal", "page"], help="make only this one")
    parser.add_argument(
        "--warm-up",
        type=float,
        default=WARM_UP,
        metavar="SECONDS",
        help=f"let runs execute for so long before the page is filmed; the default is {WARM_UP}",
    )
    options = parser.parse_args()
    try:
        if options.only != "page":
            record_terminal()
        if options.only != "terminal":
            record_page(options.warm_up)
    except MissingProgramError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
