"""What a run is about, in the words of people; and the limit of a pool as it was."""

from __future__ import annotations

from told import run

from dagster_lifeguard.insight.limit_history import limits_over_time
from dagster_lifeguard.insight.pool_account import LimitChange
from dagster_lifeguard.insight.run_label import label_of


def test_a_run_is_told_by_its_assets_partition_backfill_and_tags():
    tags = {
        "dagster/partition": "2026-11-07",
        "dagster/backfill": "bkf1",
        ".dagster/repository": "x@y",
        "team": "sales",
    }
    label = label_of(run("r", job_name="__ASSET_JOB", assets=("a/b", "c"), tags=tags))
    assert (label.job, label.assets) == ("", ("a/b", "c"))
    assert (label.partition, label.backfill, label.tags) == (
        "2026-11-07",
        "bkf1",
        {"team": "sales"},
    )
    assert label.assets_of("a__b") == ("a/b",)
    assert label.assets_of("multi") == ("a/b", "c")


def test_a_job_of_ones_own_has_a_name_and_a_range_has_two_ends():
    ends = {
        "dagster/asset_partition_range_start": "a",
        "dagster/asset_partition_range_end": "c",
    }
    label = label_of(run("r", job_name="nightly", tags=ends))
    assert (label.job, label.partition) == ("nightly", "a to c")
    ends["dagster/asset_partition_range_end"] = "a"
    assert label_of(run("r", tags=ends)).partition == "a"
    assert label_of(run("r")).partition == ""


def limits(changes, now, default=None):
    return limits_over_time(
        [LimitChange(*change) for change in changes], now, default, since=0.0, until=40.0, count=4
    )


def test_the_limit_is_as_it_was_at_the_end_of_each_part():
    assert limits([(25.0, 5), (12.0, 2), (-9.0, 1)], 5) == (1, 2, 5, 5)
    assert limits([(25.0, 5), (25.0, 4), (-9.0, 1)], 5) == (1, 1, 5, 5)


def test_a_limit_that_never_changed_was_always_so_and_what_was_before_the_first_change_is_unknown():
    assert limits([], 3) == (3, 3, 3, 3)
    assert limits([(15.0, 3)], 3) == (None, 3, 3, 3)


def test_while_its_own_limit_was_deleted_the_default_was_in_force():
    assert limits([(35.0, 3), (15.0, None), (0.0, 9)], 3, default=1) == (9, 1, 1, 3)
    assert limits([(35.0, 3), (15.0, None), (0.0, 9)], 3) == (9, None, None, 3)
