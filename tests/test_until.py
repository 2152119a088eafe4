"""The end of a temporary limit as people write it."""

from __future__ import annotations

import time

import pytest

from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.limits.until import read_until
from dagster_lifeguard.texts import temporary_text, until_text


@pytest.fixture(autouse=True)
def _berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def moment(text: str) -> float:
    return time.mktime(time.strptime(text, "%Y-%m-%d %H:%M:%S"))


@pytest.mark.parametrize(
    ("now", "text", "until"),
    [
        ("2026-11-30 23:30:00", "06:00", "2026-12-01 06:00:00"),
        ("2026-11-30 05:59:59", "06:00", "2026-11-30 06:00:00"),
        ("2026-11-30 06:00:00", "6:00", "2026-12-01 06:00:00"),
        ("2026-11-30 05:00:00", " 06:00:30 ", "2026-11-30 06:00:30"),
        ("2026-11-30 05:00:00", "2026-12-01 06:00", "2026-12-01 06:00:00"),
        ("2026-11-30 05:00:00", "2026-12-01T06:00:05", "2026-12-01 06:00:05"),
        ("2026-11-30 05:00:00", "45m", "2026-11-30 05:45:00"),
        ("2026-11-30 05:00:00", "1.5 H", "2026-11-30 06:30:00"),
        ("2026-11-30 05:00:00", "2d", "2026-12-02 05:00:00"),
        ("2026-12-31 23:00:00", "06:00", "2027-01-01 06:00:00"),
        # The night in which clocks are set back has 25 hours.
        ("2026-10-24 22:00:00", "06:00", "2026-10-25 06:00:00"),
    ],
)
def test_a_time_of_the_day_a_date_and_a_duration_are_read(now, text, until):
    assert read_until(text, moment(now)) == moment(until)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "6",
        "25:00",
        "06:60",
        "06:00:60",
        "2026-13-01 06:00",
        "0x6",
        "-5m",
        "5s",
        "m",
    ],
)
def test_what_is_no_time_is_refused_with_what_is_one(text):
    with pytest.raises(ConfigError, match="is no end of a limit") as caught:
        read_until(text, moment("2026-11-30 05:00:00"))
    assert "06:00, 2026-12-01 06:00, 45m or 2h" in (caught.value.remedy or "")


@pytest.mark.parametrize("text", ["2026-11-30 04:59", "2001-01-01 06:00", "0m"])
def test_an_end_that_is_over_is_refused(text):
    with pytest.raises(ConfigError, match="is over already"):
        read_until(text, moment("2026-11-30 05:00:00"))


def test_an_end_is_told_as_short_as_may_be():
    now = moment("2026-11-30 05:00:00")
    assert until_text(moment("2026-11-30 06:00:00"), now) == "06:00"
    assert until_text(moment("2026-11-30 06:00:07"), now) == "06:00:07"
    assert until_text(moment("2026-12-01 06:00:00"), now) == "2026-12-01 06:00"
    told = temporary_text(12, moment("2026-11-30 06:00:00"), None, now)
    assert told == "12 until 06:00, then unlimited"
