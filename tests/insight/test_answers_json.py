"""The page that documents the JSON names each field and value there is, and no other."""

from __future__ import annotations

import dataclasses
import re
from enum import Enum
from pathlib import Path

from dagster_lifeguard.engine.rules import pool_settings
from dagster_lifeguard.insight import durations as past
from dagster_lifeguard.insight import estimate, explanation, freeing, overview, pools, run_queue
from dagster_lifeguard.insight.simulation import track_record

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "answers-json.md"
MODULES = (
    pool_settings,
    past,
    estimate,
    overview,
    pools,
    run_queue,
    explanation,
    freeing,
    track_record,
)
ROOTS = ("Overview", "Pool", "Queued", "Explanation", "Freeable", "TrackRecord")


def documented() -> dict[str, list[str]]:
    """For each heading the first cells of its table."""
    _, *sections = re.split(r"^## `(\w+)`$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {
        name: re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE)
        for name, text in zip(sections[::2], sections[1::2], strict=True)
    }


def reachable() -> dict[str, list[str]]:
    """Every dataclass and enumeration that the printed objects consist of."""
    known = {name: value for module in MODULES for name, value in vars(module).items()}
    found: dict[str, list[str]] = {}
    left = list(ROOTS)
    while left:
        name = left.pop()
        kind = known.get(name)
        if name in found or not isinstance(kind, type):
            continue
        if issubclass(kind, Enum):
            found[name] = [member.value for member in kind]
        elif dataclasses.is_dataclass(kind):
            fields = dataclasses.fields(kind)
            found[name] = [field.name for field in fields]
            left += [word for field in fields for word in re.findall(r"\w+", str(field.type))]
    return found


def test_every_field_and_value_is_documented_in_its_order():
    assert documented() == reachable()
