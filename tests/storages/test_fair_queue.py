"""A real daemon beside a real backfill: the daily run is launched next, or next but one."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg
import pytest
from homes import eventually, limit

TORTURE = "LIFEGUARD_TORTURE" in os.environ
COUNT = 60 if TORTURE else 24
"""Runs of the backfill."""
BACKFILLED = Path(__file__).with_name("backfilled.py")

FULL_POOL = {"pools": {"granularity": "op"}}
FULL_POOL_OF_RUNS = {"pools": {"granularity": "run"}}
RUNS_AT_ONCE = {"pools": {"granularity": "op"}, "runs": {"max_concurrent_runs": 1}}
REASONS = [(1, FULL_POOL), (1, FULL_POOL_OF_RUNS), (8, RUNS_AT_ONCE)]
"""What keeps the runs in the queue: the slots of the pool, and the setting.

The daemon knows it before it asks a database for the order, so one of them is enough for PostgreSQL.
"""


def submitted(home, *command):
    """What a user types to put runs into the queue."""
    verb, job, *options = command
    home.run("dagster", "job", verb, "-f", str(BACKFILLED), "-j", job, *options)


def launches(instance):
    """The runs that were launched, in the order of their launches, and when each was."""
    runs = [r for r in instance.get_runs() if r.status is not dg.DagsterRunStatus.QUEUED]
    times = {run.run_id: instance.get_run_stats(run.run_id).launch_time for run in runs}
    known = [run for run in runs if times[run.run_id] is not None]
    return [(run, times[run.run_id]) for run in sorted(known, key=lambda run: times[run.run_id])]


@pytest.mark.parametrize(
    ("kind", "slots", "concurrency"),
    [
        *(("sqlite", *reason) for reason in REASONS),
        *(("postgres", *reason) for reason in (REASONS if TORTURE else REASONS[:1])),
    ],
)
def test_the_daily_run_is_next_or_next_but_one_beside_a_backfill(
    make_home, kind, slots, concurrency, monkeypatch
):
    monkeypatch.setenv("PARTITIONS", str(COUNT))
    home = make_home(
        kind,
        concurrency=concurrency,
        run_coordinator={
            "module": "dagster.core.run_coordinator",
            "class": "QueuedRunCoordinator",
            "config": {"dequeue_interval_seconds": 1},
        },
    )
    limit(home, slots, "warehouse")
    with home.instance() as instance:
        instance.event_log_storage.change_pool("warehouse", fair_by="dagster/backfill")
        submitted(home, "backfill", "history_job", "--all", "all", "--noprompt")
        assert instance.get_runs_count() == COUNT
        daemon = home.start("dagster-daemon", "run", "-f", str(BACKFILLED))

        def daily():
            assert daemon.popen.poll() is None, daemon.output()
            return [(run, at) for run, at in launches(instance) if run.job_name == "daily_job"]

        eventually(lambda: len(launches(instance)) >= 2)
        submitted(home, "launch", "daily_job")
        ((run, launched_at),) = eventually(daily)
        daemon.end()
        asked_at = instance.get_run_stats(run.run_id).enqueued_time
        between = [other for other, at in launches(instance) if asked_at < at < launched_at]
        assert len(between) <= 1, daemon.output()
        queued = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])
        assert instance.get_runs_count(queued) >= COUNT // 2
