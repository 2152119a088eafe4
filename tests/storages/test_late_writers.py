"""The fence of a step, and writers that come back from the dead: what their sinks say."""

from pathlib import Path

import dagster as dg
import duckdb
import pytest
from homes import limit, stopped

from dagster_lifeguard import fence
from dagster_lifeguard.errors import NoFenceError
from object_server import ObjectServer
from places import new_postgres

WRITERS = Path(__file__).with_name("writers.py")


@pytest.fixture
def sink(request, tmp_path):
    """Where a sink of the kind is, and how to read it."""
    kind = request.getfixturevalue("sink_kind")
    if kind == "postgres":
        place = new_postgres(request.getfixturevalue("postgres_url"))
        place.sql("CREATE TABLE sink (text varchar)")
        yield place.url, lambda: place.sql("SELECT text FROM sink")[0][0]
    elif kind == "duckdb":
        path = tmp_path / "sink.duckdb"

        def read() -> str:
            with duckdb.connect(path) as connection:
                return connection.execute("SELECT text FROM sink").fetchone()[0]

        yield str(path), read
    elif kind == "file":
        path = tmp_path / "sink.txt"
        yield str(path), path.read_text
    else:
        with ObjectServer() as server:

            def read() -> str:
                return server.objects["/bucket/sink"].body.decode()

            yield server.url, read


@pytest.mark.parametrize(
    ("sink_kind", "executor"),
    [
        ("postgres", "multiprocess"),
        ("duckdb", "in_process"),
        ("file", "step_delegating"),
        ("object", "multiprocess"),
    ],
)
def test_a_writer_that_was_stopped_beyond_its_lease_is_refused(
    make_home, sink_kind, sink, executor
):
    """On one database of the engine: nothing in it depends on which."""
    place, read = sink
    home = make_home("sqlite", lease_seconds=3, on_lease_lost="warn")
    limit(home)
    environment = {"SINK": sink_kind, "PLACE": place, "EXECUTOR": executor}
    first = home.materialize("early", WRITERS, **environment)
    ((run_id, pid),) = home.started(asset="early").items()
    with home.instance() as instance, stopped(instance, run_id, "early", {first.popen.pid, pid}):
        home.go("late")
        successor = home.materialize("late", WRITERS, **environment)
        assert successor.wait() == 0, successor.output()
        assert read() == "late"
        home.go("early")
    assert first.wait() != 0
    assert "LateWriterError" in first.output()
    assert "this writer comes late with fence 1: nothing was written" in first.output()
    assert read() == "late"


@pytest.mark.parametrize(
    ("kind", "executor"),
    [("sqlite", "in_process"), ("postgres", "multiprocess"), ("sqlite", "step_delegating")],
)
def test_a_step_and_its_io_manager_are_told_the_fence_of_its_grant(make_home, kind, executor):
    home = make_home(kind)
    limit(home)
    run = home.materialize("telling", WRITERS, EXECUTOR=executor)
    assert run.wait() == 0, run.output()
    with home.instance() as instance:
        ledger = instance.event_log_storage.lifeguard.engine.store.ledger(pool="orders")
    granted = [entry.fence for entry in reversed(ledger) if entry.kind.value == "granted"]
    first, again = granted
    assert first < again
    assert home.control.joinpath("fence").read_text() == str(first)
    assert home.control.joinpath("fences").read_text() == f"{again} {again}"


class TestNoFence:
    def test_a_step_that_holds_no_slot(self, make_home):
        with pytest.raises(NoFenceError, match=r"Step unlimited of run .* holds no slot") as error:
            materialize(make_home("sqlite"))
        assert error.value.remedy == "Give its op a pool that has a limit, at granularity op."

    def test_the_engine_is_off(self, make_home):
        with pytest.raises(NoFenceError, match="is on SqliteEventLogStorage, which gives no"):
            materialize(make_home("sqlite", stock=True))

    @pytest.mark.parametrize("context", [dg.build_asset_context(), dg.build_op_context(), None])
    def test_no_step(self, context):
        with pytest.raises(NoFenceError, match="belongs to no step that Dagster executes"):
            fence(context)

    def test_an_output_by_hand(self):
        with pytest.raises(NoFenceError, match="A OutputContext belongs to no step"):
            fence(dg.build_output_context())


@dg.asset(pool="nobody_gave_it_a_limit")
def unlimited(context: dg.AssetExecutionContext) -> None:
    fence(context)


def materialize(home) -> None:
    with home.instance() as instance:
        dg.materialize([unlimited], instance=instance)
