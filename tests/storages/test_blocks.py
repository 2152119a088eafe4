"""The older form of dagster.yaml, with a block for each storage, as Dagster's Helm chart writes it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner
from dagster._core.instance.ref import InstanceRef
from dagster._serdes import deserialize_value, serialize_value
from homes import Home, eventually, holders, limit

from dagster_lifeguard.cli import main
from dagster_lifeguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    MakeHome = Callable[..., Home]

NEEDED = ("run_storage", "event_log_storage")
STOCK = {
    "sqlite": {
        "run_storage": ("dagster._core.storage.runs", "SqliteRunStorage"),
        "event_log_storage": ("dagster._core.storage.event_log", "SqliteEventLogStorage"),
        "schedule_storage": ("dagster._core.storage.schedules", "SqliteScheduleStorage"),
    },
    "postgres": {
        "run_storage": ("dagster_postgres.run_storage", "PostgresRunStorage"),
        "event_log_storage": ("dagster_postgres.event_log", "PostgresEventLogStorage"),
        "schedule_storage": ("dagster_postgres.schedule_storage", "PostgresScheduleStorage"),
    },
}
FOLDERS = {
    "run_storage": "history",
    "event_log_storage": "history/runs",
    "schedule_storage": "schedules",
}


def write_blocks(home: Home, ours: Collection[str] = NEEDED, **options: Any) -> None:
    """Write dagster.yaml with a block for each storage, some of them ours."""
    document = yaml.safe_load((home.path / "dagster.yaml").read_text())
    document.pop("storage", None)
    for name, (module, its_class) in STOCK[home.kind].items():
        config = home.stock.get("postgres") or {"base_dir": str(home.path / FOLDERS[name])}
        block = {"module": module, "class": its_class, "config": dict(config)}
        if name in ours:
            block |= {"module": "dagster_lifeguard.storage", "class": f"Lifeguard{its_class}"}
        if name == "event_log_storage" and options:
            block["config"]["lifeguard"] = options
        document[name] = block
    (home.path / "dagster.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def classes(instance: dg.DagsterInstance) -> list[str]:
    return [type(p).__name__ for p in (instance.run_storage, instance.event_log_storage)]


def lifeguard(home: Home, *arguments: str) -> Any:
    return CliRunner(env={"DAGSTER_HOME": str(home.path)}).invoke(main, [*arguments])


@pytest.mark.parametrize("form", ["one class for all", "a block for each"])
def test_an_instance_is_ours_again_wherever_its_reference_arrives(make_home, kind, form):
    home = make_home(kind, lease_seconds=11.0)
    if form == "a block for each":
        write_blocks(home, lease_seconds=11.0)
    expected = [f"Lifeguard{STOCK[kind][name][1]}" for name in NEEDED]
    with home.instance() as instance:
        assert classes(instance) == expected
        ref = instance.get_ref()
    as_text = deserialize_value(serialize_value(ref), InstanceRef)
    as_dict = InstanceRef.from_dict(ref.to_dict())
    for arrived in (as_text, as_dict):
        with dg.DagsterInstance.from_ref(arrived) as again:
            assert classes(again) == expected
            assert again.event_log_storage.lifeguard.engine.options.lease_seconds == 11.0
            log, runs = again.event_log_storage, again.run_storage
            if form == "a block for each":
                for part in (log, runs):
                    assert part.inst_data.class_name == type(part).__name__


def test_slots_are_the_engines_in_a_step_of_its_own_process(make_home, kind):
    home = make_home(kind)
    write_blocks(home)
    limit(home, 1)
    first = home.materialize("held", EXECUTOR="step_delegating")
    (run_id,) = home.started()
    with home.instance() as instance:
        assert holders(instance) == [(run_id, "held")]
        second = home.materialize("second")
        eventually(lambda: "blocked" in second.output() or "waiting" in second.output())
        assert "engine" in lifeguard(home, "engine", "status").output
        home.go("held")
        home.go("second")
        assert (first.wait(), second.wait()) == (0, 0), second.output()
        assert holders(instance) == []


def test_runs_whose_event_log_is_dagsters_are_refused_at_the_start(make_home, kind):
    home = make_home(kind)
    write_blocks(home, ours=["run_storage"])
    with pytest.raises(ConfigError, match="Half of the engine is switched on"):
        dg.DagsterInstance.from_config(str(home.path))
    _told(home)


def test_an_event_log_whose_runs_are_dagsters_is_refused_where_pools_are_asked(make_home, kind):
    home = make_home(kind)
    write_blocks(home, ours=["event_log_storage"])
    with home.instance() as instance:
        settings = inspect.signature(instance.optimize_for_webserver).parameters
        for ask in (
            lambda: instance.optimize_for_webserver(**dict.fromkeys(settings, 1000)),
            instance.event_log_storage.get_concurrency_keys,
            lambda: instance.event_log_storage.claim_concurrency_slot("orders", "run", "step"),
        ):
            with pytest.raises(ConfigError, match="Half of the engine is switched on"):
                ask()
    _told(home)


def _told(home: Home) -> None:
    """Each command tells it in one line, and the doctor as a finding."""
    status = lifeguard(home, "engine", "status")
    assert status.exit_code != 0
    said = status.output + str(status.exception or "")
    assert "Half of the engine is switched on: event_log_storage is " in said
    found = lifeguard(home, "doctor", "--json").output
    assert "instance-unopenable" in found
    assert "Half of the engine is switched on" in found


def test_the_engine_is_switched_on_and_off_in_the_blocks(make_home, kind):
    home = make_home(kind, stock=True)
    write_blocks(home, ours=[])
    before = (home.path / "dagster.yaml").read_text()
    assert "(not the engine)" in lifeguard(home, "engine", "status").output

    on = lifeguard(home, "engine", "enable", "--yes")
    assert on.exit_code == 0, on.output
    assert "EventLogStorage (the engine)" in lifeguard(home, "engine", "status").output
    begun = lifeguard(home, "init", "--yes", "--config", str(home.path / "lifeguard.yaml"))
    assert begun.exit_code == 0, begun.output
    with home.instance() as instance:
        assert classes(instance) == [f"Lifeguard{STOCK[kind][name][1]}" for name in NEEDED]
        assert instance.global_op_concurrency_default_limit == 1

    off = lifeguard(home, "engine", "disable", "--yes")
    assert off.exit_code == 0, off.output
    after = yaml.safe_load((home.path / "dagster.yaml").read_text())
    assert {name: after[name] for name in STOCK[kind]} == {
        name: yaml.safe_load(before)[name] for name in STOCK[kind]
    }
