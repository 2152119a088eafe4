"""The phases of a bar are told apart by lightness alone, in both themes."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from dagster_lifeguard import web

PHASES = ("queued", "starting", "waiting", "executing", "failed")


def colours(theme: int) -> dict[str, str]:
    css = Path(web.__path__[0], "static", "lifeguard.css").read_text()
    found = re.findall(r"--bar-(\w+): light-dark\((#\w{6}), (#\w{6})\)", css)
    return {name: pair[theme] for name, *pair in found}


def luminance(colour: str) -> float:
    """The relative luminance of WCAG."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: float, two: float) -> float:
    low, high = sorted((one, two))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_each_phase_is_seen_against_its_track_and_beside_the_others(theme):
    found = {name: luminance(colour) for name, colour in colours(theme).items()}
    track = found.pop("track")
    assert set(found) == set(PHASES)
    assert {name: contrast(light, track) >= 3 for name, light in found.items()} == dict.fromkeys(
        found, True
    )
    assert all(contrast(*pair) >= 1.15 for pair in pairwise(sorted(found.values())))
