"""Which runs the coordinator drops, and which it never does. Nobody takes them off the queue.

It reads and writes runs through Dagster alone. So one test of each kind of read and write is on both
databases, and the others are on SQLite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pytest
from contests import ASSET_JOB, Site, create, site

from dagster_lifeguard.engine.rules.duplicates import NO_DUPLICATE

if TYPE_CHECKING:
    from collections.abc import Iterator


ON_BOTH = pytest.mark.parametrize("shared", ["sqlite", "postgres"], indirect=True)


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest, tmp_path_factory) -> Iterator[Site]:
    path = tmp_path_factory.mktemp("site")
    postgres = lambda: request.getfixturevalue("postgres_url")  # noqa: E731
    with site(getattr(request, "param", "sqlite"), path, postgres, stock=True) as found:
        yield found


@pytest.fixture
def at(shared: Site) -> Site:
    """The site, with no run ahead of those of the test."""
    for run in shared.unfinished():
        shared.instance.report_run_canceled(run)
    return shared


class TestSkipNew:
    @ON_BOTH
    def test_a_duplicate_of_a_queued_run_is_dropped_and_says_why(self, at: Site):
        kept, dropped = at.launch("once"), at.launch("once")
        assert (kept.status, dropped.status) == ("QUEUED", "CANCELED")
        assert at.duplicate_of(dropped.run_id) == kept.run_id
        why = f"Not queued: run {kept.run_id} is queued and does all that this run asks for."
        assert at.said(dropped.run_id) == [
            f"{why} The rules of its assets say so: on_conflict.",
            why,
        ]
        (event, _) = (
            entry.dagster_event
            for entry in at.instance.all_logs(dropped.run_id)
            if entry.dagster_event and "Not queued" in (entry.dagster_event.message or "")
        )
        link = event.event_specific_data.metadata["run"]
        assert link == dg.MetadataValue.dagster_run(kept.run_id)
        assert at.status(kept.run_id) == "QUEUED"
        assert at.duplicate_of(kept.run_id) is None

    def test_so_is_one_that_asks_for_less(self, at: Site):
        kept = at.launch("once", "then", "left", "right")
        for assets in (["once"], ["then"], ["once", "then"], ["left"], ["right", "once"]):
            dropped = at.launch(*assets)
            assert at.duplicate_of(dropped.run_id) == kept.run_id, assets

    def test_one_that_asks_for_more_is_queued(self, at: Site):
        at.launch("once")
        at.launch("left")
        for assets in (["then"], ["once", "then"], ["right"], ["left", "right"], ["left", "once"]):
            assert at.launch(*assets).status == "QUEUED", assets

    @pytest.mark.parametrize("kept", ["with", "without"])
    def test_a_check_is_asked_for_like_an_asset(self, at: Site, kept: str):
        check = [("once", "looks_good")]
        launch = {
            "with": lambda: at.launch("once", checks=check),
            "without": lambda: at.launch("once", checks=[]),
        }
        first = launch.pop(kept)()
        (other,) = launch.values()
        assert other().status == ("CANCELED" if kept == "with" else "QUEUED")
        assert first.status == "QUEUED"

    def test_one_rule_that_says_queue_queues_the_run(self, at: Site):
        at.launch("once", "free")
        assert at.launch("once", "free").status == "QUEUED"
        assert at.launch("free").status == "QUEUED"
        assert at.launch("once").status == "CANCELED"

    def test_a_graph_asset_is_one_asset(self, at: Site):
        assert [at.launch("drawn").status for _ in range(2)] == ["QUEUED", "CANCELED"]

    @pytest.mark.parametrize(
        "other",
        [
            {"tags": {"team": "sales"}},
            {"tags": {"dagster/max_runtime": "10"}},
            {"tags": {"dagster/priority": "1"}},
            {"tags": {"dagster/run_key": "file"}},
            {"tags": {"dagster/backfill": "abc"}},
            {"config": {"ops": {"configured": {"config": {"n": 2}}}}},
            {"job": "once_job"},
        ],
        ids=lambda other: "-".join(map(str, other.items())),
    )
    def test_what_differs_in_more_than_its_assets_is_queued(self, at: Site, other: dict):
        assets = ["configured"] if "config" in other else ["once"]
        at.launch(*assets)
        assert at.launch(*assets, **other).status == "QUEUED"
        assert at.launch(*assets, **other).status == "CANCELED"

    @ON_BOTH
    def test_what_a_retry_from_the_failure_does_depends_on_its_parent(self, at: Site):
        parent = at.launch("once", "then", checks=[])
        at.pretend(parent.run_id, "PIPELINE_FAILURE")
        retried = [at.reexecute(parent.run_id, checks=[], steps=["then"]) for _ in range(2)]
        assert [run.status for run in retried] == ["QUEUED", "QUEUED"]
        assert at.launch("then").status == "QUEUED"

    def test_who_asked_and_when_makes_no_difference(self, at: Site):
        kept = at.launch("once", tags={"dagster/schedule_name": "s", "dagster/priority": "3"})
        for tags in ({}, {"dagster/sensor_name": "t"}, {"user": "me"}, {"dagster/priority": "-1"}):
            assert at.duplicate_of(at.launch("once", tags=tags).run_id) == kept.run_id

    def test_a_run_with_a_key_stands_in_for_one_without(self, at: Site):
        kept = at.launch("once", tags={"dagster/run_key": "file"})
        assert at.duplicate_of(at.launch("once").run_id) == kept.run_id
        assert at.launch("once", tags={"dagster/run_key": "other"}).status == "QUEUED"

    @ON_BOTH
    def test_partitions(self, at: Site):
        for tags in (
            {"dagster/partition": "a"},
            {"dagster/partition": "b"},
            {
                "dagster/asset_partition_range_start": "a",
                "dagster/asset_partition_range_end": "b",
            },
            {
                "dagster/asset_partition_range_start": "a",
                "dagster/asset_partition_range_end": "c",
            },
        ):
            first, second = (at.launch("lettered", tags=tags) for _ in range(2))
            assert (first.status, second.status) == ("QUEUED", "CANCELED"), tags
            assert at.duplicate_of(second.run_id) == first.run_id

    @ON_BOTH
    def test_a_job_of_assets(self, at: Site):
        kept, dropped = at.launch(job="once_job"), at.launch(job="once_job")
        assert at.duplicate_of(dropped.run_id) == kept.run_id
        assert at.duplicate_of(at.launch("then", job="once_job").run_id) == kept.run_id
        assert at.launch("once", "then").status == "QUEUED", "another job may configure them else"

    @ON_BOTH
    def test_a_run_that_has_ended_stands_in_for_none(self, at: Site):
        first = at.launch("once")
        for end in ("PIPELINE_CANCELING", "PIPELINE_CANCELED"):
            at.pretend(first.run_id, end)
            again = at.launch("once")
            assert again.status == "QUEUED", end
            at.instance.report_run_canceled(at.run_of(again.run_id))


class TestProgress:
    """A run in progress stands in for another as far as it has not come yet."""

    @pytest.fixture
    def kept(self, at: Site) -> str:
        run_id = at.launch("once", "then", checks=[]).run_id
        for event in ("PIPELINE_STARTING", "PIPELINE_START"):
            at.pretend(run_id, event)
        return run_id

    def test_what_is_still_to_come(self, at: Site, kept: str):
        dropped = at.launch("once", checks=[])
        assert at.duplicate_of(dropped.run_id) == kept
        assert f"run {kept} is in progress and does all" in at.said(dropped.run_id)[0]

    def test_what_has_been_made_is_made_anew(self, at: Site, kept: str):
        self.made(at, kept, "once")
        assert at.launch("once", checks=[]).status == "QUEUED"
        assert at.launch("then", checks=[]).status == "CANCELED"

    def test_what_will_never_be_made_is_queued(self, at: Site, kept: str):
        from dagster._core.execution.plan.objects import StepFailureData

        at.pretend(kept, "STEP_FAILURE", "once", StepFailureData(None, None))
        assert at.launch("once", checks=[]).status == "QUEUED"
        assert at.launch("then", checks=[]).status == "QUEUED", "it waits for what failed"

    @ON_BOTH
    def test_a_step_that_ended_well(self, at: Site, kept: str):
        from dagster._core.execution.plan.objects import StepSuccessData

        at.pretend(kept, "STEP_SUCCESS", "once", StepSuccessData(1.0))
        assert at.launch("once", checks=[]).status == "QUEUED"
        assert at.launch("then", checks=[]).status == "CANCELED"

    @staticmethod
    def made(at: Site, run_id: str, asset: str) -> None:
        from dagster._core.events import StepMaterializationData

        data = StepMaterializationData(dg.AssetMaterialization(asset))
        at.pretend(run_id, "ASSET_MATERIALIZATION", asset, data)


class TestReplaceQueued:
    @ON_BOTH
    def test_queued_duplicates_make_room_for_the_new_run(self, at: Site):
        first, second, third = (at.launch("latest") for _ in range(3))
        assert [at.status(run.run_id) for run in (first, second, third)] == [
            "CANCELED",
            "CANCELED",
            "QUEUED",
        ]
        assert at.duplicate_of(first.run_id) == second.run_id
        assert at.duplicate_of(second.run_id) == third.run_id
        assert at.duplicate_of(third.run_id) is None
        why = f"Canceled in favour of run {third.run_id}, which does all that this run asks for."
        assert at.said(second.run_id)[-3:] == [
            f"{why} The rules of its assets say so: on_conflict.", why, why,
        ]  # fmt: skip
        assert at.said(third.run_id) == [
            f"Takes the place of run {second.run_id}. The rules of its assets say so: on_conflict."
        ]

    @ON_BOTH
    def test_a_run_in_progress_goes_on(self, at: Site):
        first = at.launch("latest")
        at.pretend(first.run_id, "PIPELINE_START")
        assert at.launch("latest").status == "QUEUED"
        assert at.status(first.run_id) == "STARTED"

    def test_none_that_asks_for_more_is_dropped(self, at: Site):
        more = at.launch("latest", "free")
        keyed = at.launch("latest", tags={"dagster/run_key": "file"})
        urgent = at.launch("latest", tags={"dagster/priority": "5"})
        new = at.launch("latest")
        assert {at.status(r.run_id) for r in (more, keyed, urgent, new)} == {"QUEUED"}


class TestCancelRunning:
    @ON_BOTH
    def test_queued_and_starting_ones_are_cancelled(self, at: Site):
        starting, queued = at.launch("fresh"), at.launch("free", "fresh")
        at.pretend(starting.run_id, "PIPELINE_STARTING")
        new = at.launch("fresh", tags={"user": "me"})
        assert at.status(starting.run_id) == "CANCELED"
        assert at.status(queued.run_id) == "QUEUED", "it asks for more"
        assert new.status == "QUEUED"

    def test_one_that_cannot_be_terminated_is_told_of(self, at: Site):
        first = at.launch("fresh")
        at.pretend(first.run_id, "PIPELINE_START")  # by nobody whom the launcher could reach
        new = at.launch("fresh")
        assert new.status == "QUEUED"
        failed = f"Run {first.run_id} could not be terminated in favour of run {new.run_id}."
        assert failed in at.said(new.run_id)
        assert failed in at.said(first.run_id)
        assert at.duplicate_of(first.run_id) == NO_DUPLICATE

    def test_with_replace_queued_what_both_allow(self, at: Site):
        queued, running = at.launch("latest"), at.launch("fresh", "latest")
        at.pretend(running.run_id, "PIPELINE_START")
        new = at.launch("fresh", "latest")
        assert at.status(queued.run_id) == "CANCELED"
        assert at.status(running.run_id) == "STARTED"
        assert new.status == "QUEUED"

    def test_with_skip_new_nothing_is_allowed(self, at: Site):
        assert [at.launch("fresh", "once").status for _ in range(2)] == ["QUEUED", "QUEUED"]


class TestReexecutions:
    @ON_BOTH
    def test_a_run_is_never_a_duplicate_of_its_parent(self, at: Site):
        for asset in ("once", "fresh"):
            parent = at.launch(asset)
            retried = at.reexecute(parent.run_id)
            assert (at.status(parent.run_id), retried.status) == ("QUEUED", "QUEUED")

    def test_two_of_one_parent_are_duplicates(self, at: Site):
        parent = at.launch("once")
        at.pretend(parent.run_id, "PIPELINE_FAILURE")
        first, second = (at.reexecute(parent.run_id) for _ in range(2))
        assert at.duplicate_of(second.run_id) == first.run_id

    def test_a_dropped_run_that_is_executed_again_does_not_keep_the_tag(self, at: Site):
        kept, dropped = at.launch("once"), at.launch("once")
        at.instance.report_run_canceled(at.run_of(kept.run_id))
        again = at.reexecute(dropped.run_id)
        assert again.status == "QUEUED"
        assert at.duplicate_of(again.run_id) == "none"


def test_a_run_that_nobody_submitted_stands_in_for_none(at: Site):
    """Such as that of ``dagster asset materialize``."""
    run_id = create(at.instance, "once", submitted=False)
    at.pretend(run_id, "PIPELINE_START")
    new = at.launch("once")
    assert (new.status, at.said(new.run_id)) == ("QUEUED", [])


@ON_BOTH
def test_a_run_is_queued_when_the_look_for_duplicates_fails(at: Site, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError("no such disk")

    at.launch("once")
    monkeypatch.setattr("dagster_lifeguard.compat.submissions.runs_ahead", fail)
    new = at.launch("once")
    assert new.status == "QUEUED"
    assert at.said(new.run_id) == ["Queued without a look for duplicates, which failed."]
    monkeypatch.undo()
    assert at.launch("once").status == "CANCELED", "nobody kept the lock"


def test_a_run_is_submitted_once(at: Site):
    """What daemons do that died between submitting a run and taking note of it."""
    run = at.launch("once")
    before = len(at.instance.all_logs(run.run_id))
    at.instance.submit_run(run.run_id, None)
    assert at.status(run.run_id) == "QUEUED"
    assert len(at.instance.all_logs(run.run_id)) == before


def test_the_job_of_all_assets_is_one(at: Site):
    """On which the rule relies that duplicates are runs of one job."""
    assert at.run_of(at.launch("once").run_id).job_name == ASSET_JOB
    assert at.run_of(at.launch("lettered", tags={"dagster/partition": "a"}).run_id).job_name == (
        ASSET_JOB
    )
