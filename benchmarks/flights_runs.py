"""Runs of the flights demo: its definitions, its jobs and its dagster.yaml.

Each run writes a DuckDB file of its own. With one file for all of them, a limit of 2 would let two
processes write it at once, and DuckDB refuses the second: the limit of 1 is what the demo is about.
"""

from __future__ import annotations

import importlib
import random
import sys
from typing import TYPE_CHECKING

from ruamel.yaml import YAML

from dagster_lifeguard.cli.flights.acts import EXPECTED_ROWS, JOB, find_example, require_data
from queued_runs import Deployed, Request

if TYPE_CHECKING:
    from pathlib import Path

MODULE = "flights.protected"
POOLS = tuple(EXPECTED_ROWS)
MEAN_PAUSE_SECONDS = 2.0
"""Between two runs; shorter than a run, so that they wait."""


def deployed(limit: int) -> Deployed:
    """The demo, each of whose pools has this limit."""
    require_data()
    example = find_example()
    if str(example) not in sys.path:
        sys.path.append(str(example))
    defs = importlib.import_module(MODULE).defs
    settings = YAML(typ="safe").load(example / "dagster.yaml")
    return Deployed(defs, MODULE, example, settings, {pool: {"limit": limit} for pool in POOLS})


def refreshes(runs: int, folder: Path) -> list[Request]:
    """Runs of the demo's job at drawn times; each writes its file into the folder."""
    draws, at, found = random.Random(1), 0.0, []
    for number in range(runs):
        file = str(folder / f"flights-{number}.duckdb")
        config = {"resources": {"warehouse": {"config": {"path": file}}}}
        found.append(Request(at, JOB, config=config))
        at += draws.uniform(0.2, 1.8) * MEAN_PAUSE_SECONDS
    return found
