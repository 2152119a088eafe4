"""The event log read in bulk says what Dagster's own reading of it says."""

from __future__ import annotations

import inspect
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
import sqlalchemy as db
import yaml
from dagster import AssetKey, DagsterEvent
from dagster._core.events import EngineEventData
from dagster._core.storage.event_log import SqliteEventLogStorage

from dagster_lifeguard.compat import events
from dagster_lifeguard.compat.plans import step_plans
from dagster_lifeguard.deployment.history.executions import READ
from dagster_lifeguard.errors import DeploymentError
from places import PostgresPlace

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def instance(request, tmp_path_factory) -> Iterator[dg.DagsterInstance]:
    home = tmp_path_factory.mktemp("home")
    storage = {"sqlite": {"base_dir": str(home)}}
    if request.param == "postgres":
        server = request.getfixturevalue("postgres_url")
        name = f"events_{uuid.uuid4().hex}"
        PostgresPlace(server).sql(f"CREATE DATABASE {name}")
        url = db.make_url(server).set(drivername="postgresql+psycopg2", database=name)
        text = url.render_as_string(hide_password=False)
        storage = {"postgres": {"postgres_url": text}}
    settings = {"telemetry": {"enabled": False}, "storage": storage}
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@pytest.fixture(scope="module")
def run_ids(instance) -> list[str]:
    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["it's", "b"]), pool="orders")
    def part() -> None: ...

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=1))
    def fails() -> None:
        raise RuntimeError("above") from ValueError("the root\nof it")

    @dg.observable_source_asset
    def seen() -> dg.DataVersion:
        return dg.DataVersion("1")

    @dg.op
    def tells(context) -> None:
        context.log.info("nothing of interest")
        context.log_event(dg.AssetMaterialization(["a", "b"], partition="c"))

    @dg.job
    def plain() -> None:
        tells()

    made = [
        dg.materialize([part], instance=instance, partition_key=key).run_id for key in ("it's", "b")
    ]
    made.append(dg.materialize([fails], instance=instance, raise_on_error=False).run_id)
    made.append(plain.execute_in_process(instance=instance).run_id)
    defs = dg.Definitions([seen], jobs=[dg.define_asset_job("look", [seen])])
    job = defs.get_repository_def().get_job("look")
    made.append(job.execute_in_process(instance=instance).run_id)
    for message in ("Step blocked by limit for pool orders", "Launched subprocess"):
        event = DagsterEvent(
            dg.DagsterEventType.ENGINE_EVENT.value,
            "job",
            step_key="part",
            message=message,
            event_specific_data=EngineEventData(),
        )
        instance.report_dagster_event(event, run_id=made[0])
    return made


def test_the_rows_are_dagsters_events(instance, run_ids) -> None:
    rows = events.read_event_rows(instance, run_ids, READ)
    assert list(rows) == run_ids
    for run_id in run_ids:
        decoded = list(events._decoded(instance, run_id, set(READ)))
        assert [r._replace(at=0) for r in rows[run_id]] == [r._replace(at=0) for r in decoded]
        for row, slow in zip(rows[run_id], decoded, strict=True):
            assert row.at == pytest.approx(slow.at, abs=2e-6)


def test_they_are_about_steps_assets_partitions_errors_and_waits(instance, run_ids) -> None:
    rows = [r for found in events.read_event_rows(instance, run_ids, READ).values() for r in found]
    assert {r.partition for r in rows} == {None, "it's", "b", "c"}
    keys = {None, AssetKey("part"), AssetKey("fails"), AssetKey("seen"), AssetKey(["a", "b"])}
    assert {r.asset and events.asset_key_of(r.asset) for r in rows} == keys
    assert {r.error for r in rows} == {None, "ValueError: the root\nof it"}
    told = [r.step_key for r in rows if r.kind == "ENGINE_EVENT"]
    # One that waits, and each run executes its steps in process.
    assert sorted(told, key=str) == [*[None] * len(run_ids), "part"]


def test_a_run_that_nobody_knows_has_no_rows_and_gets_no_file(instance, run_ids) -> None:
    assert events.read_event_rows(instance, ["unknown"], READ) == {"unknown": []}
    storage: Any = instance.event_log_storage
    if isinstance(storage, SqliteEventLogStorage):
        assert not Path(storage.path_for_shard("unknown")).exists()


def test_a_run_whose_file_has_no_tables_yet_has_no_rows(home) -> None:
    with dg.DagsterInstance.get() as instance:
        storage: Any = instance.event_log_storage
        run_id = str(uuid.uuid4())
        path = Path(storage.path_for_shard(run_id))
        path.touch()
        assert events.read_event_rows(instance, [run_id], READ) == {run_id: []}


def test_a_file_of_an_older_dagster_asks_for_a_migration(home) -> None:
    with dg.DagsterInstance.get() as instance:
        storage: Any = instance.event_log_storage
        with closing(sqlite3.connect(storage.path_for_shard("old"))) as file:
            file.execute("CREATE TABLE event_logs (id INTEGER, run_id TEXT, event TEXT)")
        with pytest.raises(DeploymentError, match="dagster instance migrate"):
            events.read_event_rows(instance, ["old"], READ)


def test_how_dagster_says_that_a_step_waits() -> None:
    said = inspect.getsource(DagsterEvent.step_concurrency_blocked)
    assert "Step blocked by" in said
    assert "Step still blocked by" in said
    assert "DagsterEventType.ENGINE_EVENT" in said


def test_a_plan_names_pools_and_assets(instance) -> None:
    @dg.multi_asset(specs=[dg.AssetSpec("b"), dg.AssetSpec("a")], pool="orders")
    def two():
        yield dg.MaterializeResult(asset_key="a")
        yield dg.MaterializeResult(asset_key="b")

    @dg.asset(deps=["a"], op_tags={"dagster/concurrency_key": "old"})
    def tagged() -> None: ...

    result = dg.materialize([two, tagged], instance=instance)
    found = step_plans(instance, result.dagster_run.execution_plan_snapshot_id)
    assert found is not None
    assert set(found) == {
        ("two", "orders", (AssetKey("a"), AssetKey("b")), frozenset(), frozenset()),
        ("tagged", "old", (AssetKey("tagged"),), frozenset({"two"}), frozenset()),
    }
    assert step_plans(instance, None) is None
    assert step_plans(instance, "unknown") is None
