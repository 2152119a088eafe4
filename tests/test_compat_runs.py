"""What a run tells of itself is what Dagster wrote into it, on both databases."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from dagster import DagsterRun
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    InProcessCodeLocationOrigin,
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.dagster_run import RunOpConcurrency
from dagster._core.storage.runs.schema import RunsTable
from dagster._core.storage.tags import BACKFILL_ID_TAG, PARTITION_NAME_TAG
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._serdes import serialize_value
from homes import DEFINITIONS

from dagster_lifeguard.compat import stored_runs
from dagster_lifeguard.compat.plans import all_step_plans, step_plans
from dagster_lifeguard.compat.runs import (
    cursor_value,
    location_of_run,
    plan_of_run,
    pools_of_run,
    run_ids_beginning,
    runs_under_way,
    set_cursor_value,
    statuses_of_runs,
)
from dagster_lifeguard.engine.rules.pool_settings import BACKFILL_TAG
from dagster_lifeguard.insight.simulation.other_ways import PARTITION_TAG

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["sqlite", "postgres"])
def instance(request, make_home) -> Iterator[dg.DagsterInstance]:
    with make_home(request.param, stock=True).instance() as found:
        yield found


def asset(name: str, pool: str | None, *deps: str) -> dg.AssetsDefinition:
    @dg.asset(name=name, pool=pool, deps=deps)
    def made() -> None: ...

    return made


def stored(instance: dg.DagsterInstance, *assets: dg.AssetsDefinition) -> dg.DagsterRun:
    """A run of these assets, as it is read back."""
    job = dg.Definitions(assets=assets).get_repository_def().get_job("__ASSET_JOB")
    run = instance.get_run_by_id(instance.create_run_for_job(job).run_id)
    assert run is not None
    return run


class TestPools:
    def test_they_are_those_of_all_steps_not_of_the_first_ones_only(self, instance) -> None:
        run = stored(instance, asset("a", "orders"), asset("b", "late", "a"), asset("c", None))
        assert pools_of_run(run) == {"orders", "late"}

    def test_a_plan_without_pools_is_told_from_no_plan(self, instance) -> None:
        assert pools_of_run(stored(instance, asset("a", None))) == frozenset()
        instance.add_run(dg.DagsterRun(job_name="job", run_id="no-plan"))
        assert pools_of_run(instance.get_run_by_id("no-plan")) is None

    def test_where_only_the_first_steps_are_told_it_is_theirs(self) -> None:
        """As the runs say that were stored before there were ``all_pools``."""
        from dagster._core.storage.dagster_run import RunOpConcurrency

        asked = RunOpConcurrency(
            root_key_counts={"orders": 2}, has_unconstrained_root_nodes=False, all_pools=None
        )
        run = dg.DagsterRun(job_name="job", run_op_concurrency=asked)
        assert pools_of_run(run) == {"orders"}


class TestPlans:
    def test_runs_of_one_plan_name_the_same_and_others_another(self, instance) -> None:
        one = asset("a", "orders")
        first, again = stored(instance, one), stored(instance, one)
        other = stored(instance, asset("a", "other"))
        assert plan_of_run(first) == plan_of_run(again) != plan_of_run(other)
        (step,) = step_plans(instance, plan_of_run(first)) or ()
        assert (step.step_key, step.pool) == ("a", "orders")
        assert plan_of_run(dg.DagsterRun(job_name="job")) is None


def test_the_location_is_that_of_the_run_that_dagster_launched(make_home) -> None:
    home = make_home("sqlite", stock=True)
    target = ("-f", str(DEFINITIONS), "-j", "held_job")
    home.run("dagster", "job", "launch", *target)  # The run queue keeps it: there is no daemon.
    with home.instance() as instance:
        (run,) = instance.get_runs()
        location = location_of_run(run)
        assert location is not None
        assert location.startswith(DEFINITIONS.name)
        assert location_of_run(stored(instance, asset("a", None))) is None


class TestBeginnings:
    @pytest.fixture
    def runs(self, instance: Any) -> dg.DagsterInstance:
        for run_id in ("abc-1", "abd-2", "abc-3", "a%c-4", "a_c-5"):
            instance.add_run(dg.DagsterRun(job_name="job", run_id=run_id))
        return instance

    @pytest.mark.parametrize(
        ("prefix", "count_max", "expected"),
        [
            ("ab", 9, ["abc-3", "abd-2", "abc-1"]),
            ("abc", 1, ["abc-3"]),
            ("abc-1", 9, ["abc-1"]),
            ("a%", 9, ["a%c-4"]),
            ("a_c", 9, ["a_c-5"]),
            ("zzz", 9, []),
            ("", 2, ["a_c-5", "a%c-4"]),
        ],
    )
    def test_the_newest_come_first_and_letters_are_letters(
        self, runs, prefix, count_max, expected
    ) -> None:
        assert list(run_ids_beginning(runs, prefix, count_max)) == expected


def test_a_run_with_pools_cannot_be_looked_through_which_fails_it_under_dask() -> None:
    """As Dask does with what it sends to a worker. No longer so? Then mend the page on executors."""
    from dagster._core.storage.dagster_run import RunOpConcurrency

    def look_through(value: Any) -> None:
        if isinstance(value, (list, tuple)):
            for part in value:
                look_through(part)

    asked = RunOpConcurrency(root_key_counts={}, has_unconstrained_root_nodes=True, all_pools={"p"})
    look_through(dg.DagsterRun(job_name="job"))
    with pytest.raises(Exception, match="Iteration is not allowed on `@record` RunOpConcurrency"):
        look_through(dg.DagsterRun(job_name="job", run_op_concurrency=asked))


class TestStatuses:
    BEFORE = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.CANCELED)

    def test_the_oldest_come_first_and_others_are_left_out(self, instance) -> None:
        for run_id in ("b", "a", "c"):
            instance.add_run(dg.DagsterRun(job_name="job", run_id=run_id))
        instance.report_run_canceled(instance.get_run_by_id("a"))
        found = [(run_id, status) for run_id, status, _ in statuses_of_runs(instance, self.BEFORE)]
        waiting, canceled = self.BEFORE
        assert found == [("b", waiting), ("a", canceled), ("c", waiting)]
        assert [found[0] for found in statuses_of_runs(instance, [canceled])] == ["a"]

    def test_a_change_of_tags_or_status_shows(self, instance) -> None:
        def seen() -> object:
            ((_, _, changed),) = statuses_of_runs(instance, self.BEFORE)
            return changed

        instance.add_run(dg.DagsterRun(job_name="job", run_id="a"))
        marks = [seen()]
        instance.add_run_tags("a", {"team": "x"})
        marks.append(seen())
        instance.add_run_tags("a", {"team": "y"})
        marks.append(seen())
        instance.report_run_canceled(instance.get_run_by_id("a"))
        marks.append(seen())
        assert len(set(marks)) == 4


def test_a_cursor_is_kept_under_its_key_and_can_be_replaced(instance) -> None:
    assert cursor_value(instance, "key") is None
    set_cursor_value(instance, "key", "one")
    set_cursor_value(instance, "key", "two")
    set_cursor_value(instance, "other", "three")
    assert cursor_value(instance, "key") == "two"


def _origin(location) -> RemoteJobOrigin:
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, "repository"), "job")


@pytest.mark.parametrize(
    "run",
    [
        DagsterRun(job_name="no-plan", tags={"team": "a", "quoted": '"\\u00e9'}),
        DagsterRun(job_name="no-pools", execution_plan_snapshot_id="plan"),
        DagsterRun(
            job_name="first-free",
            run_op_concurrency=RunOpConcurrency(
                root_key_counts={"a": 2}, has_unconstrained_root_nodes=True, all_pools={"a", "b"}
            ),
        ),
        DagsterRun(
            job_name="frozen",
            execution_plan_snapshot_id="plan",
            run_op_concurrency=RunOpConcurrency(
                root_key_counts={"a": 2, "c": 1},
                has_unconstrained_root_nodes=False,
                all_pools=frozenset("abc"),
            ),
            remote_job_origin=_origin(InProcessCodeLocationOrigin(LoadableTargetOrigin())),
        ),
        DagsterRun(
            job_name="of-before-all-pools",
            run_op_concurrency=RunOpConcurrency(
                root_key_counts={"a": 1}, has_unconstrained_root_nodes=False, all_pools=None
            ),
            remote_job_origin=_origin(GrpcServerCodeLocationOrigin(host="h", port=1)),
        ),
        DagsterRun(
            job_name="named",
            asset_selection=frozenset({dg.AssetKey(["b", "c"]), dg.AssetKey("a")}),
            remote_job_origin=_origin(
                ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(), "warehouse")
            ),
        ),
    ],
    ids=lambda run: run.job_name,
)
def test_a_body_tells_what_dagster_reads_in_it(run, monkeypatch) -> None:
    body = serialize_value(run)
    by_dagster = stored_runs._told_by_dagster(body)
    monkeypatch.setattr(stored_runs, "_told_by_dagster", lambda body: None)
    assert stored_runs.told_by(body) == by_dagster


def test_a_body_of_another_shape_is_read_by_dagster(monkeypatch) -> None:
    monkeypatch.setattr(stored_runs, "_told_by_dagster", lambda body: "asked")
    run = DagsterRun(
        job_name="job",
        remote_job_origin=_origin(InProcessCodeLocationOrigin(LoadableTargetOrigin())),
    )
    body = serialize_value(run)
    assert stored_runs.told_by(body.replace('"PipelineRun"', '"RunOfLater"')) == "asked"
    assert stored_runs.told_by(body.replace('"location_name"', '"place_name"')) == "asked"


def test_the_runs_that_changed_last_are_told_first(instance) -> None:
    made = [stored(instance, asset("a", "orders")) for _ in range(3)]
    ids = [run.run_id for run in made]
    status = made[0].status.value
    storage = instance.run_storage
    for number, run_id in enumerate((ids[2], ids[0], ids[1])):
        with storage.connect() as connection:
            connection.execute(
                RunsTable.update()
                .where(RunsTable.c.run_id == run_id)
                .values(update_timestamp=datetime(2040, 1, 1 + number, tzinfo=timezone.utc))
            )

    def latest(count_max, since=0.0, statuses=(status,), created_before=None):
        return stored_runs.latest_run_ids(
            instance, statuses, since, created_before=created_before, count_max=count_max
        )

    assert latest(5) == [ids[1], ids[0], ids[2]]
    assert latest(2) == [ids[1], ids[0]]
    assert latest(5, statuses=("CANCELED",)) == []
    second = datetime(2040, 1, 2, tzinfo=timezone.utc).timestamp()
    assert latest(5, since=second) == [ids[1], ids[0]]
    assert latest(5, created_before=1.0) == []
    assert [run.run_id for run in stored_runs.runs_with_status(instance, [status])] == ids
    assert [run.run_id for run in stored_runs.runs_with_ids(instance, reversed(ids))] == ids


def test_plans_are_read_in_bulk_as_dagster_reads_them(instance) -> None:
    plans = [plan_of_run(stored(instance, asset(name, "orders"))) for name in "ab"]
    found = all_step_plans(instance, [*plans, "unknown"])
    assert found == {plan: step_plans(instance, plan) for plan in plans}


def test_the_tags_by_which_backfills_and_partitions_are_known_are_dagsters():
    assert (BACKFILL_TAG, PARTITION_TAG) == (BACKFILL_ID_TAG, PARTITION_NAME_TAG)


def test_the_runs_under_way_are_those_that_have_not_ended():
    with dg.DagsterInstance.ephemeral() as instance:
        ids = {}
        for status in set(dg.DagsterRunStatus) - {dg.DagsterRunStatus.QUEUED}:  # wants an origin
            run = DagsterRun(job_name="job", run_id=f"run_{status.value}", status=status)
            ids[status] = instance.add_run(run).run_id
        ended = {"SUCCESS", "FAILURE", "CANCELED"}
        under_way = {run_id for status, run_id in ids.items() if status.value not in ended}
        assert runs_under_way(instance, [*ids.values(), "unknown"]) == under_way
        assert runs_under_way(instance, []) == set()
