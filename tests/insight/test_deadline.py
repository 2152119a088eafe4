"""When a run is ended for its age, as explain tells it."""

from __future__ import annotations

from dataclasses import asdict

import dagster as dg
import pytest
from click.testing import CliRunner
from homes import limit
from told import NOW, Told, run

from dagster_lifeguard.cli import main
from dagster_lifeguard.insight.deadline import Deadline, deadline_of, deadline_text

TAG = {"dagster/max_runtime": "600"}


def test_the_deadline_is_counted_from_the_start_of_the_run():
    started = run("a", tags=TAG)
    found = deadline_of(Told(), started)
    assert found == Deadline("dagster/max_runtime", 600.0, NOW - 90.0 + 600.0, None)
    assert "where run monitoring is enabled, Dagster ends this run at" in deadline_text(found)
    queued = deadline_of(Told(), run("a", "QUEUED", tags=TAG))
    assert queued is not None
    assert queued.at is None
    assert "once it has run for that long" in deadline_text(queued)


def test_a_run_without_one_that_is_over_or_whose_tag_is_no_number_has_none():
    for other in (run("a"), run("a", "SUCCESS", tags=TAG), run("a", tags={**TAG, **NO_NUMBER})):
        assert deadline_of(Told(), other) is None
    assert deadline_of(Told(), None) is None


NO_NUMBER = {"dagster/max_runtime": "soon"}


@pytest.mark.parametrize("enabled", [True, False])
def test_explain_says_it(make_home, monkeypatch, enabled):
    monitoring = {"enabled": enabled, "max_runtime_seconds": 60}
    home = make_home("sqlite", run_monitoring=monitoring)
    limit(home)

    @dg.asset(pool="orders")
    def orders() -> None: ...

    defs = dg.Definitions([orders], jobs=[dg.define_asset_job("some_job", [orders])])
    job = defs.get_repository_def().get_job("some_job")
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    with home.instance() as instance:
        ids = [instance.create_run_for_job(job, tags=tags).run_id for tags in (TAG, {})]
    texts = [
        " ".join(CliRunner().invoke(main, ["explain", run_id]).output.split()) for run_id in ids
    ]
    settings = ["dagster/max_runtime is 10m", "run_monitoring.max_runtime_seconds is 1m"]
    for text, setting in zip(texts, settings, strict=True):
        if enabled:
            assert "Deadline: Dagster ends this run once it has run for that long" in text
            assert f"{setting}, and counts the time that its steps wait for pools." in text
        else:
            assert f"No deadline: {setting}, but run monitoring is off" in text
    assert asdict(Deadline("x", 1.0, None, None)).keys() == {
        "setting", "seconds", "at", "is_enforced",
    }  # fmt: skip
