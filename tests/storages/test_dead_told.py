"""What ``explain``, ``status`` and ``doctor`` say of a process that was killed."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from homes import eventually, holders, limit, waiters

from dagster_lifeguard.cli import main

LEASE_SECONDS = 3


@pytest.fixture
def home(make_home, kind, monkeypatch):
    made = make_home(kind, lease_seconds=LEASE_SECONDS)
    monkeypatch.setenv("DAGSTER_HOME", str(made.path))
    limit(made)
    return made


def lifeguard(*arguments: str):
    return CliRunner().invoke(main, list(arguments))


def findings(code: str) -> list[dict]:
    found = json.loads(lifeguard("doctor", "--json").stdout)["findings"]
    return [finding for finding in found if finding["code"] == code]


def test_a_killed_holder_and_a_killed_waiter_are_told_as_over(home):
    holder = home.materialize("held")
    ((held_by, _),) = home.started().items()
    with home.instance() as instance:
        waiter = home.materialize("second")
        ((waited_by, _),) = eventually(lambda: waiters(instance))
        assert findings("lease-over") == []
        waiter.end()
        holder.end()
        instance.report_run_failed(instance.get_run_by_id(waited_by))
        eventually(lambda: not (holders(instance) or waiters(instance)))

        (finding,) = findings("lease-over")
        assert finding["severity"] == "note"
        assert finding["names"] == ["orders", held_by, waited_by]
        shown = json.loads(lifeguard("status", "orders", "--json").stdout)
        assert (shown["summary"]["held"], shown["summary"]["waiting"]) == (0, 0)
        text = " ".join(lifeguard("explain", waited_by).output.split())
        assert "its run is failure since" in text
        assert "orders is not blocked: the next claim takes back" in text
        assert "any moment" not in text

        fixes = json.loads(lifeguard("doctor", "--fix", "--yes", "--json").stdout)["fixes"]
        assert [fix["outcome"] for fix in fixes if fix["code"] == "lease-over"] == ["done", "done"]
        assert instance.event_log_storage.lifeguard.engine.busy_pools(with_over=True) == ()
        assert findings("lease-over") == []
