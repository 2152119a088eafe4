"""A value that takes long to compute is used again for a while."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace

import pytest

from dagster_lifeguard.web import cache
from dagster_lifeguard.web.cache import SHARE, Cache


@pytest.fixture
def clock(monkeypatch):
    """Seconds by the clock of the cache; a test moves them."""
    seconds = [0.0]
    monkeypatch.setattr(cache, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    return seconds


def test_a_value_is_used_while_it_is_fresh(clock):
    values, kept = count(), Cache(10.0, 5)
    assert kept.get("a", values.__next__) == 0
    clock[0] = 10.0
    assert kept.get("a", values.__next__) == 0
    clock[0] = 10.1
    assert kept.get("a", values.__next__, even_old=True) == 0
    assert kept.get("a", values.__next__) == 1


def test_a_value_that_took_long_is_used_for_longer(clock):
    def slowly():
        clock[0] += 3.0
        return "slow"

    kept = Cache(10.0, 5)
    kept.get("a", slowly)
    clock[0] = 3.0 + 3.0 * SHARE
    assert kept.get("a", lambda: "new") == "slow"
    clock[0] += 0.1
    assert kept.get("a", lambda: "new") == "new"


def test_the_values_that_were_used_last_are_kept(clock):
    kept = Cache(10.0, 2)
    for key in ("a", "b", "a", "c"):
        kept.get(key, lambda: "old")
    assert [kept.get(key, lambda: "new") for key in ("a", "c", "b")] == ["old", "old", "new"]
