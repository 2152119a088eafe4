"""The doctor: each check is provoked for real, seen to be found, mended, and seen to be gone."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
import pytest
import sqlalchemy as db
import yaml
from click.testing import CliRunner
from homes import Home, eventually, free_port, limit, serve
from preloaded import ANEW
from told import SETTINGS, Told, executed, run

from dagster_lifeguard import Policy, Rule
from dagster_lifeguard.cli import main
from dagster_lifeguard.compat.instance import DEFAULT_LIMIT_COMES_LATE
from dagster_lifeguard.deployment.instance import InstanceDeployment
from dagster_lifeguard.engine.rules.pool_expressions import parse_expression
from dagster_lifeguard.inspections.doctor import daemon, fixes, slots
from dagster_lifeguard.inspections.doctor.examination import CHECKS, Examination, examine
from dagster_lifeguard.inspections.doctor.examined import Examined, Machine, examine_instance
from dagster_lifeguard.inspections.doctor.tag_limits import RUNS_MIN
from dagster_lifeguard.storage import switch
from dagster_lifeguard.web.pages.doctor import doctor_page

if TYPE_CHECKING:
    from collections.abc import Collection

    from dagster_lifeguard.inspections.finding import Finding

MAKE = Any

WELL: dict[str, Any] = {
    "concurrency": {"pools": {"default_limit": 1}},
    "run_monitoring": {"enabled": True, "free_slots_after_run_end_seconds": 60},
}
"""What ``lifeguard init`` writes."""


def look(
    home: Home | Path | str | None, here: Path | None = None, ignored: Collection[str] = ()
) -> Examination:
    path = str(home.path) if isinstance(home, Home) else home and str(home)
    with examine_instance(Machine(path, here or Path("/"))) as subject:
        return examine(subject, ignored)


def found(home: Home | Path | str | None, code: str, here: Path | None = None) -> list[Finding]:
    """What the check of this code says, which has to have an answer; no other check is asked."""
    ignored = CHECKS.keys() - {code}
    (answer,) = [a for a in look(home, here, ignored).answers if a.check.code == code]
    assert answer.outcome in ("clear", "found"), answer.reason
    assert all(finding.code == code for finding in answer.findings)
    return list(answer.findings)


def the(home: Home | Path | str | None, code: str, here: Path | None = None) -> Finding:
    (finding,) = found(home, code, here)
    return finding


def doctor(home: Home, *arguments: str) -> Any:
    """Run the command as a user does who has set DAGSTER_HOME."""
    return CliRunner(env={"DAGSTER_HOME": str(home.path)}).invoke(main, ["doctor", *arguments])


def add_run(home: Home, run_id: str, status: str = "STARTED", **tags: str) -> None:
    with home.instance() as instance:
        instance.add_run(
            dg.DagsterRun(
                job_name="some_job",
                run_id=run_id,
                status=dg.DagsterRunStatus(status),
                tags=tags,
            )
        )


def claim(home: Home, run_id: str, step: str = "step", pool: str = "orders") -> bool:
    """Ask for a slot as the step of a run does."""
    with home.instance() as instance:
        return instance.event_log_storage.claim_concurrency_slot(pool, run_id, step).is_claimed


def execute(home: Home, *assets: dg.AssetsDefinition) -> None:
    """Materialize assets in this process, on the instance."""
    with home.instance() as instance:
        assert dg.materialize(list(assets), instance=instance).success


def asset_of(name: str, **settings: Any) -> dg.AssetsDefinition:
    @dg.asset(name=name, **settings)
    def made() -> None: ...

    return made


def rewrite(home: Home, **settings: Any) -> None:
    """Edit dagster.yaml as a user does."""
    home.settings = {**home.settings, **settings}
    home.write(stock=True)


class TestEnvironment:
    def test_home_is_unset(self, tmp_path: Path) -> None:
        (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        finding = the(None, "home-unset", here=tmp_path)
        assert finding.commands == (f"export DAGSTER_HOME={tmp_path}",)
        assert found(finding.commands[0].partition("=")[2], "home-unset") == []

    def test_a_home_that_begins_with_a_tilde(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        assert the("~/none", "home-missing").commands == (f"mkdir -p {tmp_path}/none",)
        (tmp_path / "none").mkdir()
        assert found("~/none", "home-missing") == found("~/none", "home-relative") == []
        assert the("~/none", "yaml-absent").names == (f"{tmp_path}/none/dagster.yaml",)

    def test_the_page_finds_the_file_of_a_home_that_begins_with_a_tilde(
        self, make_home: MAKE, monkeypatch
    ) -> None:
        home = make_home("sqlite", stock=True)
        monkeypatch.setenv("HOME", str(home.path.parent))
        monkeypatch.setenv("DAGSTER_HOME", f"~/{home.path.name}")
        with home.instance() as instance:
            page = doctor_page(InstanceDeployment(instance, "this"), time.time())
        told = [finding.code for findings in page.groups.values() for finding in findings]
        assert "monitoring-off" in told
        assert "yaml-absent" not in told

    def test_home_is_relative(self, tmp_path: Path) -> None:
        (tmp_path / "home").mkdir()
        finding = the("home", "home-relative", here=tmp_path)
        assert finding.commands == (f"export DAGSTER_HOME={tmp_path}/home",)
        assert found(tmp_path / "home", "home-relative") == []

    def test_home_is_missing(self, tmp_path: Path) -> None:
        assert the(tmp_path / "none", "home-missing").names == (f"{tmp_path}/none",)
        (tmp_path / "none").mkdir()
        assert found(tmp_path / "none", "home-missing") == []

    def test_without_a_home_the_other_checks_are_unanswered(self) -> None:
        examination = look(None)
        (codes,) = examination.unanswered().values()
        assert set(codes) == {c for c in CHECKS if CHECKS[c].source != "machine"}
        assert not examination.is_well


class TestSettings:
    def test_the_file_is_absent(self, tmp_path: Path) -> None:
        assert the(tmp_path, "yaml-absent").commands == ("lifeguard init",)
        (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        assert found(tmp_path, "yaml-absent") == []

    @pytest.mark.parametrize("name", ["dagster.yml", "Dagster.yaml", "dagster.yaml.txt"])
    def test_the_file_has_another_name(self, name: str, tmp_path: Path) -> None:
        (tmp_path / name).write_text("telemetry: {enabled: false}\n")
        finding = the(tmp_path, "yaml-misplaced")
        assert finding.commands == (f"cp {tmp_path}/{name} {tmp_path}/dagster.yaml",)
        (tmp_path / "dagster.yaml").write_bytes((tmp_path / name).read_bytes())
        assert found(tmp_path, "yaml-misplaced") == []

    def test_the_file_is_in_the_working_directory(self, tmp_path: Path) -> None:
        home, here = tmp_path / "home", tmp_path / "here"
        home.mkdir()
        here.mkdir()
        (here / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        assert the(home, "yaml-misplaced", here=here).names == (f"{here}/dagster.yaml",)

    @pytest.mark.parametrize(
        ("text", "old"),
        [
            ("run_queue: {max_concurrent_runs: 5}\nconcurrency: {pools: {}}\n",
             "run_queue.max_concurrent_runs"),
            ("concurrency: {default_op_concurrency_limit: 1, pools: {default_limit: 1}}\n",
             "concurrency.default_op_concurrency_limit"),
            ("{run_queue: {}, run_coordinator: {module: no.matter, class: QueuedRunCoordinator}}\n",
             "run_coordinator"),
        ],
    )  # fmt: skip
    def test_settings_conflict(self, text: str, old: str, tmp_path: Path) -> None:
        file = tmp_path / "dagster.yaml"
        file.write_text(text)
        assert the(tmp_path, "settings-conflict").names == (old,)
        assert found(tmp_path, "settings-refused") == []  # said once
        file.write_text("telemetry: {enabled: false}\n")
        assert found(tmp_path, "settings-conflict") == []

    @pytest.mark.parametrize("text", ["concurency: {}\n", "a: [\n", "- a\n"])
    def test_dagster_refuses_the_file(self, text: str, tmp_path: Path) -> None:
        file = tmp_path / "dagster.yaml"
        file.write_text(text)
        assert the(tmp_path, "settings-refused").names == (str(file),)
        file.write_text("telemetry: {enabled: false}\n")
        assert found(tmp_path, "settings-refused") == []

    def test_a_key_stands_twice(self, tmp_path: Path) -> None:
        file = tmp_path / "dagster.yaml"
        monitoring = "run_monitoring: {enabled: true}\n"
        file.write_text(f"{monitoring}telemetry: {{enabled: false}}\n{monitoring}")
        finding = the(tmp_path, "keys-doubled")
        assert (finding.severity, finding.names) == ("note", ("run_monitoring",))
        assert finding.evidence == ("run_monitoring: lines 1, 3; the last one counts",)
        # Those that read the file go by the last one.
        file.write_text(
            "run_monitoring: {enabled: true}\ntelemetry: {enabled: false}\n"
            "run_monitoring: {free_slots_after_run_end_seconds: 60}\n"
        )
        names = ("run_monitoring.free_slots_after_run_end_seconds",)
        assert the(tmp_path, "setting-without-effect").names == names
        file.write_text(monitoring)
        assert found(tmp_path, "keys-doubled") == []

    def test_the_instance_cannot_be_opened(self, tmp_path: Path) -> None:
        file = tmp_path / "dagster.yaml"
        file.write_text("storage: {custom: {module: no_such_module, class: Storage, config: {}}}\n")
        finding = the(tmp_path, "instance-unopenable")
        assert "no_such_module" in finding.evidence[0]
        file.write_text("telemetry: {enabled: false}\n")
        assert found(tmp_path, "instance-unopenable") == []

    def test_a_setting_has_no_effect(self, make_home: MAKE) -> None:
        home = make_home(
            "sqlite",
            stock=True,
            run_monitoring={"free_slots_after_run_end_seconds": 60},
            concurrency={"runs": {"max_concurrent_runs": 5}},
            run_coordinator={
                "module": "dagster._core.run_coordinator",
                "class": "DefaultRunCoordinator",
            },
        )
        names = [finding.names for finding in found(home, "setting-without-effect")]
        assert names == [
            ("concurrency.runs",),
            ("run_monitoring.free_slots_after_run_end_seconds",),
        ]
        del home.settings["run_coordinator"]
        rewrite(home, run_monitoring=WELL["run_monitoring"])
        assert found(home, "setting-without-effect") == []

    def test_monitoring_is_off_and_a_fix_adds_it(self, make_home: MAKE) -> None:
        home = make_home("sqlite", stock=True)
        file = home.path / "dagster.yaml"
        before = file.read_text()
        assert the(home, "monitoring-off").severity == "warning"
        offered = doctor(home, "--fix")
        assert offered.exit_code == 2
        assert "+  free_slots_after_run_end_seconds: 60" in offered.output
        assert file.read_text() == before
        done = doctor(home, "--fix", "--yes")
        assert f"done: wrote {file}" in done.output.replace("\n", " ")
        assert yaml.safe_load(file.read_text())["run_monitoring"] == WELL["run_monitoring"]
        assert found(home, "monitoring-off") == []
        after = file.read_text()
        assert "There is nothing that --fix can do." in doctor(home, "--fix", "--yes").output
        assert file.read_text() == after

    def test_a_fix_does_not_overrule_the_file(self, make_home: MAKE) -> None:
        home = make_home("sqlite", stock=True, run_monitoring={"enabled": False})
        file = home.path / "dagster.yaml"
        before = file.read_text()
        done = doctor(home, "--fix", "--yes")
        assert "run_monitoring.enabled: false is kept" in done.output
        assert (done.exit_code, file.read_text()) == (1, before)


class TestDaemon:
    def test_from_its_first_start_to_its_end(self, make_home: MAKE, monkeypatch) -> None:
        home = make_home("sqlite", stock=True, **WELL)
        other = make_home("sqlite", stock=True, **WELL)
        finding = the(home, "daemon-absent")
        assert finding.names == ("QUEUED_RUN_COORDINATOR", "MONITORING")
        assert finding.commands == (f"DAGSTER_HOME={home.path} dagster-daemon run",)

        (home.path / "workspace.yaml").write_text("load_from: []\n")
        workspace = str(home.path / "workspace.yaml")
        process = home.start("dagster-daemon", "run", "-w", workspace, **ANEW)
        eventually(lambda: not found(home, "daemon-absent"))
        assert found(home, "daemon-silent") == []
        assert found(home, "home-differs") == []
        # Other tests may run daemons of their own, none of which uses the other home.
        differs = the(other, "home-differs")
        assert str(home.path) in differs.names
        assert any(f"process {process.popen.pid}:" in line for line in differs.evidence)
        assert differs.commands == ()  # That daemon may be another project's.

        # With it, nothing is wrong at all; the storage's known weakness is a note.
        done = doctor(home, "--json")
        assert done.exit_code == 0, done.output
        assert [f["code"] for f in json.loads(done.stdout)["findings"]] == ["engine-off"]
        with home.instance() as instance:
            switch_on(home, instance)
        done = doctor(home, "--json")
        assert (done.exit_code, json.loads(done.stdout)["findings"]) == (0, []), done.output

        process.end()
        monkeypatch.setattr(daemon, "SILENT_SECONDS", 0.0)
        finding = the(home, "daemon-silent")
        assert finding.names == ("QUEUED_RUN_COORDINATOR", "MONITORING")
        assert found(home, "daemon-absent") == []

    def test_it_reports_errors(self, make_home: MAKE) -> None:
        from dagster._daemon.types import DaemonHeartbeat
        from dagster._utils.error import SerializableErrorInfo

        home = make_home("sqlite", stock=True)
        for errors, told in (
            ([SerializableErrorInfo("no code server\n", [], None)], ["no code server"]),
            ([], []),
            ([SerializableErrorInfo("", [], None)], ["no message"]),
        ):
            with home.instance() as instance:
                instance.add_daemon_heartbeat(
                    DaemonHeartbeat(time.time(), "QUEUED_RUN_COORDINATOR", "id", errors)
                )
            reported = found(home, "daemon-failing")
            assert [f.evidence[0].partition(": ")[2] for f in reported] == told


def switch_on(home: Home, instance: dg.DagsterInstance) -> None:
    """Switch the engine on, as the command does."""
    del instance
    home.write()
    with home.instance() as ours:
        switch.take_over(ours)


class TestStorage:
    def test_a_storage_that_forwards_too_little(self, make_home: MAKE) -> None:
        home = make_home("sqlite", stock=True)
        stock = home.stock
        home.stock = {
            "custom": {
                "module": "forwarding",
                "class": "ForwardingStorage",
                "config": {"base_dir": str(home.path)},
            }
        }
        home.write(stock=True)
        assert the(home, "pools-unsupported").names == ("ForwardingEventLog",)
        home.stock = stock
        home.write(stock=True)
        assert found(home, "pools-unsupported") == []

    def test_tables_of_an_older_dagster(self, make_home: MAKE, kind: str) -> None:
        home = make_home(kind, stock=True)
        limit(home)
        with home.instance() as instance, instance.event_log_storage.index_connection() as sql:
            sql.execute(db.text("ALTER TABLE concurrency_limits DROP COLUMN using_default_limit"))
            sql.execute(db.text("UPDATE alembic_version SET version_num = '6b7fb194ff9c'"))
        finding = the(home, "migration-needed")
        assert "6b7fb194ff9c" in finding.evidence[0]
        assert "default limits" in finding.message
        assert finding.commands == ("dagster instance migrate",)
        with home.instance() as instance:
            instance.upgrade()  # What the command does.
        assert found(home, "migration-needed") == []

    def test_slots_that_do_not_match_the_limit(self, make_home: MAKE, kind: str) -> None:
        home = make_home(kind, stock=True)
        limit(home, 2)
        with home.instance() as instance, instance.event_log_storage.index_connection() as sql:
            sql.execute(db.text("INSERT INTO concurrency_slots (concurrency_key, deleted) "
                                "VALUES ('orders', false)"))  # fmt: skip
        finding = the(home, "slots-unmatched")
        assert finding.names == ("orders",)
        command = finding.commands[0].split()[1:]
        done = CliRunner(env={"DAGSTER_HOME": str(home.path)}).invoke(main, command)
        assert done.exit_code == 0, done.output
        assert found(home, "slots-unmatched") == []

    def test_a_fleet_of_which_a_part_uses_the_engine(self, make_home: MAKE, kind: str) -> None:
        home = make_home(kind, stock=True)
        limit(home)
        add_run(home, "run-stock")
        assert claim(home, "run-stock")
        assert found(home, "fleet-mixed") == []
        home.write()
        finding = the(home, "fleet-mixed")
        assert finding.names == ("run-stock",)
        with home.instance() as instance:
            # As the daemon does once a run is over: it looks, and frees.
            assert instance.event_log_storage.get_concurrency_run_ids() == {"run-stock"}
            instance.event_log_storage.free_concurrency_slots_for_run("run-stock")
        assert found(home, "fleet-mixed") == []
        # The other way round: a process of the engine, after the file names the stock storage.
        with home.instance() as ours:
            assert ours.event_log_storage.claim_concurrency_slot("orders", "r", "s").is_claimed
            home.write(stock=True)
            finding = the(home, "fleet-mixed")
            assert str(os.getpid()) in finding.names[0]
            engine = ours.event_log_storage.lifeguard.engine
            engine.close()
            assert found(home, "fleet-mixed") == []
            # A process that dies: nobody keeps its session alive.
            engine.store.open_session("dead", "host:7", 600.0)
            assert the(home, "fleet-mixed").names == ("host:7",)
            engine.store.heartbeat("dead", -1.0)
            assert found(home, "fleet-mixed") == []

    def test_a_fleet_with_two_versions_of_the_package(self, make_home: MAKE, kind: str) -> None:
        home = make_home(kind)
        limit(home)
        with home.instance() as instance:
            log = instance.event_log_storage
            log.get_pool_limits()  # Makes the tables.
            log.lifeguard.engine.store.open_session("old", "host:7", 600.0)
            log.lifeguard.engine.store.open_session("new", "host:8", 600.0)
            assert found(home, "fleet-versions") == []
            with log.index_connection() as sql:
                newer = "UPDATE lifeguard_sessions SET package = '999.0' WHERE session = 'new'"
                sql.execute(db.text(newer))
            finding = the(home, "fleet-versions")
            assert (finding.severity, finding.names) == ("note", ("host:7", "host:8"))
            assert finding.evidence[1] == "host:8: dagster-lifeguard 999.0"
            log.lifeguard.engine.store.heartbeat("old", -1.0)  # As if its lease had run out.
            assert found(home, "fleet-versions") == []

    def test_a_process_with_several_sessions(self, make_home: MAKE, kind: str) -> None:
        home = make_home(kind)
        limit(home)
        with home.instance() as instance:
            assert claim(home, "none") is not None  # Makes the tables.
            store = instance.event_log_storage.lifeguard.engine.store
            for session, label in (("1", "host:7"), ("2", "other:7")):
                store.open_session(session, label, 600.0)
            assert found(home, "sessions-of-one-process") == []
            store.open_session("3", "host:7", 600.0)
            finding = the(home, "sessions-of-one-process")
            assert (finding.names, finding.evidence) == (("host:7",), ("host:7: 2 sessions",))
            store.heartbeat("3", -1.0)  # As if its lease had run out.
            assert found(home, "sessions-of-one-process") == []

    @pytest.mark.parametrize("version", [0, 1000])
    def test_engine_tables_of_another_version(self, version: int, make_home: MAKE) -> None:
        home = make_home("sqlite")
        with home.instance() as instance:
            switch_on(home, instance)
        with home.instance() as instance, instance.event_log_storage.index_connection() as sql:
            instance.event_log_storage.get_pool_limits()
            if not instance.event_log_storage.has_table("lifeguard_schema"):
                pytest.fail("switching on makes no tables")
            (right,) = sql.execute(db.text("SELECT version FROM lifeguard_schema")).fetchone()
        assert found(home, "engine-tables") == []
        _set_version(home, version)
        assert str(version) in the(home, "engine-tables").evidence[0]
        _set_version(home, right)
        assert found(home, "engine-tables") == []

    def test_the_stock_storage_is_noted(self, make_home: MAKE) -> None:
        home = make_home("sqlite", stock=True)
        assert the(home, "engine-off").severity == "note"
        home.write()
        assert found(home, "engine-off") == []


def _set_version(home: Home, version: int) -> None:
    path = next(home.path.rglob("index.db"))
    database = db.create_engine(f"sqlite:///{path}")
    with database.begin() as sql:
        sql.execute(
            db.text(f"UPDATE lifeguard_schema SET version = {version}, usable_from = {version}")
        )
    database.dispose()


class TestLimits:
    def test_an_expression_names_each_of_its_pools(self, make_home: MAKE) -> None:
        home = make_home("sqlite")
        rules = (
            Rule(assets="key:a", pools=("orders", "warehouse*2")),
            Rule(assets="key:b", pools=("{asset}[x]",)),
        )
        defs = dg.Definitions(assets=[asset_of("a"), asset_of("b")])
        defs = Policy(rules=rules, engine="lifeguard").apply(defs)
        execute(home, *(defs.assets or ()))
        assert the(home, "pool-unlimited").names == ("b[x]", "orders", "warehouse")
        with home.instance() as instance:
            for pool, slots in (("orders", 1), ("warehouse", 8), ("b[x]", 1), ("spare", 1)):
                instance.event_log_storage.set_concurrency_slots(pool, slots)
        assert found(home, "pool-unlimited") == []
        assert the(home, "limit-unused").names == ("spare",)
        with home.instance() as instance:
            instance.event_log_storage.set_concurrency_slots("warehouse", 0)
        assert the(home, "limit-zero").names == ("warehouse",)

    def test_a_template_stands_for_any_value(self) -> None:
        subject = Examined("told", machine=Machine(None, Path("/")))
        terms = parse_expression("days[{partition}]+{group}.x")
        known = {"_of_assets": {"a": terms}, "unfinished": (), "pools": ()}
        vars(subject).update(known)
        assert subject.used_pools == frozenset()
        assert subject.may_be_used("days[2024]")
        assert subject.may_be_used("sales.x")
        assert not subject.may_be_used("days[]")
        assert not subject.may_be_used("salesyx")

    def test_a_used_pool_without_any_limit(self, make_home: MAKE) -> None:
        home = make_home("sqlite", stock=True)
        execute(home, asset_of("a", pool="orders"))
        finding = the(home, "pool-unlimited")
        assert finding.names == ("orders",)
        assert finding.commands[1] == "dagster instance concurrency set orders 1"
        limit(home)
        assert found(home, "pool-unlimited") == []
        with home.instance() as instance:
            instance.event_log_storage.delete_concurrency_limit("orders")
        assert the(home, "pool-unlimited").evidence == ("orders: a",)
        rewrite(home, **WELL)
        assert found(home, "pool-unlimited") == []

    def test_a_limit_of_a_pool_that_nothing_uses(self, make_home: MAKE) -> None:
        home = make_home("sqlite", stock=True)
        limit(home, pool="order")
        assert found(home, "limit-unused") == []  # Nothing is known of any asset.
        execute(home, asset_of("a", pool="orders"))
        assert the(home, "limit-unused").names == ("order",)
        with home.instance() as instance:
            instance.event_log_storage.delete_concurrency_limit("order")
        assert found(home, "limit-unused") == []

    def test_a_paused_pool(self, make_home: MAKE) -> None:
        home = make_home("sqlite", stock=True)
        limit(home, 0)
        assert found(home, "limit-zero") == []  # Nobody asks for it.
        add_run(home, "run-a")
        assert not claim(home, "run-a")
        assert the(home, "limit-zero").names == ("orders",)
        limit(home, 1)
        assert found(home, "limit-zero") == []

    def test_a_default_limit_that_comes_late(self, make_home: MAKE) -> None:
        pools = {"default_limit": 1, "granularity": "run"}
        home = make_home("sqlite", stock=True, concurrency={"pools": pools})
        execute(home, asset_of("a", pool="orders"))
        late = found(home, "default-limit-late")
        assert [f.names for f in late] == [("orders",)] * DEFAULT_LIMIT_COMES_LATE
        limit(home)
        assert found(home, "default-limit-late") == []

    def test_what_granularity_means(self, make_home: MAKE) -> None:
        @dg.op(pool="orders")
        def first() -> int:
            return 1

        @dg.op(pool="orders")
        def then(value: int) -> int:
            return value

        @dg.graph_asset
        def both() -> int:
            return then(first())

        home = make_home("sqlite", stock=True)
        assert found(home, "granularity-run") == []
        execute(home, both)
        assert the(home, "steps-take-turns").names == ("both",)
        assert found(home, "granularity-run") == []
        rewrite(home, concurrency={"pools": {"granularity": "run"}})
        assert the(home, "granularity-run").severity == "note"
        assert found(home, "steps-take-turns") == []

    @pytest.mark.parametrize("hold", ["step", "asset"])
    def test_steps_of_a_graph_whose_pools_an_expression_names(
        self, make_home: MAKE, hold: Literal["step", "asset"]
    ) -> None:
        """Two ops of a graph, of which one asks for a pool more than the other."""

        @dg.op(pool="{hold:" + hold + "}orders+api")
        def first() -> int:
            return 1

        @dg.op(pool="{hold:" + hold + "}orders")
        def then(value: int) -> int:
            return value

        @dg.graph_asset
        def both() -> int:
            return then(first())

        home = make_home("sqlite")
        execute(home, both)
        told = [finding.names for finding in found(home, "steps-take-turns")]
        assert told == ([("both",)] if hold == "step" else [])


class TestSlots:
    def test_a_killed_worker(self, make_home: MAKE, kind: str, monkeypatch) -> None:
        home = make_home(kind, stock=True, **WELL)
        limit(home)
        worker = home.materialize("held")
        ((run_id, pid),) = home.started().items()
        assert pid == worker.popen.pid
        os.kill(pid, signal.SIGKILL)
        worker.wait()
        add_run(home, "run-next")
        assert not claim(home, "run-next")

        # Nobody knows that it is dead: the run may be alive.
        assert found(home, "slots-leaked") == []
        doctor(home, "--fix", "--yes")
        assert not claim(home, "run-next")

        # Somebody ends the run by force, as the UI's Terminate does.
        with home.instance() as instance:
            instance.report_run_canceled(instance.get_run_by_id(run_id))
        finding = the(home, "slots-leaked")
        assert finding.names == ("orders", run_id)
        assert "CANCELED" in finding.evidence[0]

        # A process of it might still be going down.
        done = doctor(home, "--fix", "--yes", "--json")
        assert done.exit_code == 1
        (fix,) = json.loads(done.stdout)["fixes"]
        assert (fix["code"], fix["outcome"]) == ("slots-leaked", "refused")
        assert not claim(home, "run-next")

        monkeypatch.setattr(fixes, "GRACE_SECONDS", 0.0)
        assert doctor(home, "--fix").exit_code == 2  # Nobody can be asked here.
        assert not claim(home, "run-next")
        done = doctor(home, "--fix", "--yes", "--json")
        (fix,) = json.loads(done.stdout)["fixes"]
        assert (fix["code"], fix["outcome"]) == ("slots-leaked", "done")
        assert found(home, "slots-leaked") == []
        assert found(home, "waiter-stuck") == []
        assert claim(home, "run-next")
        again = json.loads(doctor(home, "--fix", "--yes", "--json").stdout)
        assert again["fixes"] == []

    def test_waiters_of_a_run_that_is_over(self, make_home: MAKE, kind: str) -> None:
        home = make_home(kind, stock=True, **WELL)
        limit(home)
        for run_id, status in (("run-a", "STARTED"), ("run-b", "FAILURE"), ("run-c", "STARTED")):
            add_run(home, run_id, status)
            claim(home, run_id)
        finding = the(home, "waiters-leaked")
        assert finding.names == ("orders", "run-b")
        fixed = json.loads(doctor(home, "--fix", "--yes", "--json").stdout)["fixes"]
        assert [(f["code"], f["outcome"]) for f in fixed] == [("waiters-leaked", "done")]
        assert found(home, "waiters-leaked") == []
        with home.instance() as instance:
            info = instance.event_log_storage.get_concurrency_info("orders")
            assert {s.run_id for s in info.claimed_slots} == {"run-a"}
            assert {s.run_id for s in info.pending_steps} == {"run-a", "run-c"}

    def test_a_run_that_was_deleted(self, make_home: MAKE) -> None:
        home = make_home("sqlite", stock=True, **WELL)
        limit(home)
        assert claim(home, "run-gone")
        finding = the(home, "slots-leaked")
        assert "deleted" in finding.evidence[0]
        assert "may still live" in finding.remedy
        assert json.loads(doctor(home, "--fix", "--yes", "--json").stdout)["fixes"] == []
        with home.instance() as instance:
            instance.event_log_storage.free_concurrency_slots_for_run("run-gone")  # As the UI does.
        assert found(home, "slots-leaked") == []

    def test_a_lost_wake_up(self, make_home: MAKE, kind: str) -> None:
        home = make_home(kind, stock=True, **WELL)
        limit(home)
        add_run(home, "run-a")
        add_run(home, "run-b")
        assert claim(home, "run-a")
        with home.instance() as instance:
            storage: Any = instance.event_log_storage
            is_free = storage.has_unassigned_slots("orders")  # run-b: first half of its claim
            storage.free_concurrency_slot_for_step("run-a", "step")
            storage.add_pending_step("orders", "run-b", "step", 0, should_assign=is_free)
        assert not claim(home, "run-b")  # So for ever.
        finding = the(home, "waiter-stuck")
        assert finding.names == ("orders", "run-b")
        fixed = json.loads(doctor(home, "--fix", "--yes", "--json").stdout)["fixes"]
        assert [(f["code"], f["outcome"]) for f in fixed] == [("waiter-stuck", "done")]
        assert found(home, "waiter-stuck") == []
        assert claim(home, "run-b")
        # A fix agreed to late promises nothing twice.
        add_run(home, "run-c")
        assert not claim(home, "run-c")
        assert json.loads(doctor(home, "--fix", "--yes", "--json").stdout)["fixes"] == []

    def test_a_waiter_on_its_way_is_not_stuck(self, make_home: MAKE, monkeypatch) -> None:
        home = make_home("sqlite", stock=True)
        limit(home)
        add_run(home, "run-b")
        with home.instance() as instance:
            storage: Any = instance.event_log_storage
            storage.add_pending_step("orders", "run-b", "step", 0, should_assign=False)

            def meanwhile(_: float) -> None:
                storage.assign_pending_steps(["orders"])

            monkeypatch.setattr(slots.time, "sleep", meanwhile)
            assert found(home, "waiter-stuck") == []

    def test_a_fix_asks_again_whether_the_run_is_over(self, make_home: MAKE) -> None:
        home = make_home("sqlite", stock=True, **WELL)
        limit(home)
        add_run(home, "run-late", "FAILURE")
        assert claim(home, "run-late")
        with examine_instance(Machine(str(home.path), home.path)) as subject:
            (fix,) = fixes.fixes(subject, {"slots-leaked"})
            for status in (None, "STARTED"):  # It is deleted; it is resumed.
                subject.instance.run_storage.delete_run("run-late")
                if status is not None:
                    add_run(home, "run-late", status)
                outcome, text = fix.apply()
                assert (outcome, "may be alive" in text) == ("refused", True)
        assert claim(home, "run-late")  # It still holds.

    def test_a_run_that_holds_for_very_long(self, make_home: MAKE, monkeypatch) -> None:
        home = make_home("sqlite", stock=True)
        limit(home)
        for run_id in ("run-a", "run-b"):
            add_run(home, run_id)
            claim(home, run_id)
        assert found(home, "holder-silent") == []
        monkeypatch.setattr(slots, "SILENT_SECONDS", -1.0)
        assert the(home, "holder-silent").names == ("orders", "run-a")
        with home.instance() as instance:
            instance.event_log_storage.free_concurrency_slots_for_run("run-b")
        assert found(home, "holder-silent") == []  # Nobody waits.

    def test_the_engine_is_examined_too(self, make_home: MAKE, kind: str) -> None:
        home = make_home(kind)
        limit(home)
        add_run(home, "run-a", "FAILURE")
        add_run(home, "run-b")
        with home.instance() as instance:
            storage = instance.event_log_storage
            assert storage.claim_concurrency_slot("orders", "run-a", "step").is_claimed
            assert not storage.claim_concurrency_slot("orders", "run-b", "step").is_claimed
            assert the(home, "slots-leaked").names == ("orders", "run-a")
            assert found(home, "monitoring-off") == []
            # The run was marked as over, and this process, which holds for it, lives.
            (fix,) = json.loads(doctor(home, "--fix", "--yes", "--json").stdout)["fixes"]
            assert (fix["outcome"], "of its lease left" in fix["text"]) == ("refused", True)
            engine = storage.lifeguard.engine
            engine._own._session.lose(engine.session, by_clock=True)  # As in a process that died.
            with storage.index_transaction() as connection:
                connection.execute(db.text("UPDATE lifeguard_sessions SET lease_until = 1"))
            # It is silent now: nobody counts what it has, a slot for run-a and a place for run-b.
            assert found(home, "slots-leaked") == found(home, "waiters-leaked") == []
            assert the(home, "lease-over").names == ("orders", "run-a", "run-b")
            fixed = json.loads(doctor(home, "--fix", "--yes", "--json").stdout)["fixes"]
            assert [f["outcome"] for f in fixed] == ["done", "not needed"]
            assert found(home, "lease-over") == []
            assert storage.lifeguard.engine.store.expired_sessions(10) == ()


class TestNames:
    def test_names_that_differ_by_case(self, make_home: MAKE) -> None:
        home = make_home("sqlite", stock=True)
        limit(home, pool="Orders")
        assert found(home, "names-differ-by-case") == []
        execute(home, asset_of("a", pool="orders"))
        finding = the(home, "names-differ-by-case")
        assert finding.names == ("Orders", "orders")
        assert finding.commands == ("lifeguard apply --prune Orders",)
        (home.path / "lifeguard.yaml").write_text("pools: {}\n")
        home.run(*shlex.split(finding.commands[0]), "--yes")
        assert found(home, "names-differ-by-case") == []

    def test_names_of_another_naming(self, make_home: MAKE) -> None:
        home = make_home("sqlite", stock=True)
        limit(home, pool="finance/revenue")
        execute(home, asset_of("a", pool="finance_revenue"))
        finding = the(home, "names-old-naming")
        assert finding.commands == ("lifeguard apply --prune finance/revenue",)
        assert "unlimited, used by a" in finding.evidence[1]

    def test_a_limit_that_the_engine_would_not_find(self, make_home: MAKE) -> None:
        home = make_home("sqlite", stock=True)
        limit(home, pool="{hold:step}a+b")
        limit(home, pool="a+b")
        assert found(home, "name-reserved") == []
        home.write()
        finding = the(home, "name-reserved")
        assert finding.names == ("{hold:step}a+b",)
        assert finding.commands == ("lifeguard apply --prune '{hold:step}a+b'",)
        add_run(home, "run-a")
        assert claim(home, "run-a", pool="finance/revenue")
        assert found(home, "names-old-naming") == []  # Both are used: they are two assets'.

    def test_the_old_tag(self, make_home: MAKE) -> None:
        home = make_home("sqlite", stock=True)
        execute(home, asset_of("new", pool="orders"))
        assert found(home, "key-tag") == []
        tags = {"dagster/concurrency_key": "orders"}
        execute(home, asset_of("old", op_tags=tags))
        finding = the(home, "key-tag")
        assert finding.names == ("old",)
        assert "taken for its pool" in finding.evidence[0]


class TestRunQueue:
    @pytest.mark.parametrize(
        "place",
        [
            lambda limits: {"run_queue": {"tag_concurrency_limits": limits}},
            lambda limits: {"concurrency": {"runs": {"tag_concurrency_limits": limits}}},
            lambda limits: {
                "run_coordinator": {
                    "module": "dagster.core.run_coordinator",
                    "class": "QueuedRunCoordinator",
                    "config": {"tag_concurrency_limits": limits},
                }
            },
        ],
        ids=["run_queue", "concurrency", "run_coordinator"],
    )
    def test_limits_by_a_tag_that_no_run_has(self, make_home: MAKE, place: Any) -> None:
        per_value = {"applyLimitPerUniqueValue": True}
        limits = [
            {"key": "dagster/concurrency_key", "value": "api", "limit": 3},
            {"key": "team", "value": "sales", "limit": 2},
            {"key": "owner", "value": per_value, "limit": 1},
            {"key": "tier", "limit": 4},
            {"key": "dagster/backfill", "value": per_value, "limit": 1},
        ]
        home = make_home("sqlite", stock=True, **place(limits))
        finding = the(home, "tag-limit-of-pools")
        assert finding.message == (
            "The limit of 3 for the tag dagster/concurrency_key: api limits nothing: the run queue "
            "counts tags of runs, and this tag names pools of ops."
        )
        policy = Policy(**yaml.safe_load("\n".join(finding.snippet)))
        tagged = asset_of("tagged", tags={"dagster/concurrency_key": "api"})
        (new,) = policy.apply(dg.Definitions(assets=[tagged])).assets
        assert (new.op.pool, policy.limit_of("api")) == ("api", 3)
        assert found(home, "tag-limit-idle") == []  # Nothing ran so far.
        for number in range(RUNS_MIN):
            add_run(home, f"run-{number}", "SUCCESS", team="ops", tier="1")
        team, owner = found(home, "tag-limit-idle")
        assert team.message == (
            "The limit of 2 for the tag team: sales limits nothing: none of the last 10 runs has it."
        )
        assert team.evidence[1] == "Values that runs have: ops"
        assert [yaml.safe_load("\n".join(f.snippet))["pools"] for f in (team, owner)] == [
            {"team_sales": 2},
            {"owner_VALUE": 1},
        ]
        tags = {"dagster/concurrency_key": "api", "team": "sales", "owner": "me"}
        add_run(home, "run", "SUCCESS", **tags)
        assert found(home, "tag-limit-of-pools") == found(home, "tag-limit-idle") == []

    def test_runs_are_not_queued(self, make_home: MAKE) -> None:
        coordinator = {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"}
        home = make_home("sqlite", stock=True, run_coordinator=coordinator)
        assert "wait for their pools" in the(home, "queue-absent").message
        rewrite(home, concurrency={"pools": {"granularity": "run"}})
        assert "no limit has an effect" in the(home, "queue-absent").message
        del home.settings["run_coordinator"]
        rewrite(home)
        assert found(home, "queue-absent") == []

    def test_the_queue_does_not_heed_pools(self, make_home: MAKE) -> None:
        block = {"block_op_concurrency_limited_runs": {"enabled": False}}
        home = make_home("sqlite", stock=True, run_queue=block)
        assert the(home, "queue-ignores-pools").severity == "error"
        rewrite(home, run_queue={})
        assert found(home, "queue-ignores-pools") == []

    def test_a_buffer_at_granularity_run(self, make_home: MAKE) -> None:
        pools = {"granularity": "run", "op_granularity_run_buffer": 1}
        home = make_home("sqlite", stock=True, concurrency={"pools": pools})
        assert "lets 2 runs in" in the(home, "buffer-over-limit").message
        rewrite(home, concurrency={"pools": {**pools, "granularity": "op"}})
        assert found(home, "buffer-over-limit") == []

    @pytest.mark.parametrize(
        "runs",
        [
            {"max_concurrent_runs": 3},
            {"tag_concurrency_limits": [{"key": "team", "limit": 3}]},
            {"tag_concurrency_limits": [{"key": "team", "value": "red", "limit": 3}]},
            {"tag_concurrency_limits": [
                {"key": "team", "value": {"applyLimitPerUniqueValue": True}, "limit": 3}]},
        ],
    )  # fmt: skip
    def test_it_is_full_of_runs_that_wait(self, runs: dict[str, Any], make_home: MAKE) -> None:
        home = make_home("sqlite", stock=True, concurrency={"runs": runs})
        limit(home)
        for run_id in ("run-a", "run-b", "run-c"):
            assert found(home, "queue-full-of-waiters") == []
            add_run(home, run_id, team="red")
            claim(home, run_id)
        assert the(home, "queue-full-of-waiters").names == ("run-b", "run-c")
        limit(home, 2)
        assert claim(home, "run-b")
        assert found(home, "queue-full-of-waiters") == []


class TestRuntime:
    def told(self, home: Home, *runs: Any, granularity: str = "op") -> list[Finding]:
        past = [executed(f"r{n}", {"s": "orders"}, 20.0, waited=100.0) for n in range(20)]
        settings = replace(SETTINGS, granularity=granularity)
        deployment: Any = Told(all_runs=list(runs), past=past, told_settings=settings)
        with home.instance() as instance:
            subject = Examined("here", instance=instance, deployment=deployment)
            return list(CHECKS["max-runtime-short"].find(subject))

    def test_runs_are_given_less_time_than_they_usually_wait_and_work(
        self, make_home: MAKE
    ) -> None:
        short = {"enabled": True, "max_runtime_seconds": 110}
        home = make_home("sqlite", run_monitoring=short)
        (finding,) = self.told(home)
        assert finding.names == ("orders",)
        assert "waited up to 2 min and executed up to 20 s" in finding.evidence[0]
        # A run waits before it starts.
        assert self.told(home, granularity="run") == []
        rewrite(home, run_monitoring={**short, "enabled": False})
        assert self.told(home) == []
        rewrite(home, run_monitoring={**short, "max_runtime_seconds": 121})
        assert self.told(home) == []
        tagged = run("a", pools=frozenset({"orders"}), tags={"dagster/max_runtime": "60"})
        (finding,) = self.told(home, tagged)
        assert finding.message.startswith("dagster/max_runtime ends a run after 60 s")
        other = replace(tagged, pools=frozenset({"other"}))
        assert self.told(home, other) == []


class TestExecutors:
    def test_steps_go_one_by_one(self, make_home: MAKE) -> None:
        home = make_home("sqlite", stock=True)
        limit(home, 1)
        execute(home, asset_of("a", pool="orders"), asset_of("b", pool="orders"))
        assert found(home, "steps-one-by-one") == []  # The pool would do the same.
        limit(home, 2)
        finding = the(home, "steps-one-by-one")
        assert "in_process" in finding.evidence[0]
        limit(home, 1)
        assert found(home, "steps-one-by-one") == []

    def test_steps_whose_expressions_name_one_pool(self, make_home: MAKE) -> None:
        """Their texts differ, and each names the pool of both beside one of its own."""
        home = make_home("sqlite")
        limit(home, 2)
        rules = [Rule(assets="*", pools=["orders", "{asset}"])]
        defs = dg.Definitions(assets=[asset_of("a"), asset_of("b")])
        defs = Policy(rules=rules, engine="lifeguard").apply(defs)
        execute(home, *(defs.assets or ()))
        finding = the(home, "steps-one-by-one")
        assert finding.names[1:] == ("orders",)
        assert finding.evidence[1:] == ("orders: limit 2, 2 steps of the job",)
        limit(home, 1)
        assert found(home, "steps-one-by-one") == []

    def test_an_executor_that_claims_no_slots(self, make_home: MAKE) -> None:
        """By what dagster-dask lets a user configure, for it is not installed here."""
        home = make_home("sqlite", stock=True)
        cluster = dg.Field(dg.Permissive({}), is_required=False, default_value={"local": {}})

        @dg.executor(name="dask", config_schema={"cluster": cluster})
        def dask_executor(_context: object) -> None:
            raise NotImplementedError

        def planned(name: str, pool: str | None, executor: dg.ExecutorDefinition) -> None:
            @dg.op(name=f"op_of_{name}", pool=pool)
            def op() -> None: ...

            @dg.job(name=name, executor_def=executor)
            def job() -> None:
                op()

            with home.instance() as instance:
                instance.create_run_for_job(job)

        planned("free", None, dask_executor)
        planned("multiprocess", "orders", dg.multiprocess_executor)
        assert found(home, "executor-without-pools") == []
        planned("dask", "orders", dask_executor)
        assert the(home, "executor-without-pools").names == ("dask",)


class TestAddress:
    def test_what_is_seen_and_mended_from_afar(self, make_home: MAKE, monkeypatch) -> None:
        queue = {"tag_concurrency_limits": [{"key": "team", "limit": 2}]}
        home = make_home("sqlite", stock=True, run_queue=queue, run_monitoring={"enabled": True})
        limit(home)
        limit(home, pool="Orders")
        for run_id, status in (("run-a", "FAILURE"), ("run-b", "STARTED"), ("run-c", "STARTED")):
            add_run(home, run_id, status, team="red")
            claim(home, run_id)
        port = free_port()
        serve(home, port)
        url = f"http://127.0.0.1:{port}"
        monkeypatch.setattr(fixes, "GRACE_SECONDS", 0.0)

        def ask(*arguments: str) -> tuple[int, dict[str, Any]]:
            done = CliRunner().invoke(main, ["doctor", "--url", url, "--json", *arguments])
            return done.exit_code, json.loads(done.stdout)

        code, report = ask()
        assert code == 1
        assert {f["code"] for f in report["findings"]} == {
            "daemon-absent", "limit-unused", "slots-leaked", "names-differ-by-case", "queue-full-of-waiters",
        }  # fmt: skip
        # What cannot be seen from here is said, and nothing else.
        reasons = {c["code"]: c["reason"] for c in report["checks"] if c["outcome"] == "unanswered"}
        hidden = {code for code, check in CHECKS.items() if check.source != "deployment"}
        assert set(reasons) == hidden | {"engine-off", "waiter-stuck"}
        assert all("not visible from here" in reason for reason in reasons.values())
        assert reasons["home-unset"].endswith("ask on its machine")

        _, report = ask("--fix", "--yes")
        assert [(f["code"], f["outcome"]) for f in report["fixes"]] == [("slots-leaked", "done")]
        assert found(home, "slots-leaked") == []
        _, report = ask("--fix", "--yes")
        assert report["fixes"] == []

    def test_an_address_that_does_not_answer(self) -> None:
        url = f"http://127.0.0.1:{free_port()}"
        done = CliRunner().invoke(main, ["doctor", "--url", url])
        assert done.exit_code == 2
        assert "cannot be reached" in done.stderr


class TestCommand:
    def test_the_json_is_as_documented(self, make_home: MAKE) -> None:
        home = make_home("sqlite", stock=True)
        limit(home)
        add_run(home, "run-over", "FAILURE")
        assert claim(home, "run-over")
        report = json.loads(doctor(home, "--fix", "--yes", "--json").stdout)
        page = Path(__file__).parents[2] / "docs" / "reference" / "doctor.md"
        tables = page.read_text().partition("## The JSON")[2].split("\n\n| Field |")[1:]
        documented = [set(re.findall(r"^\| `(\w+)` \|", t, re.MULTILINE)) for t in tables]
        of_any_finding = {"code", "message", "remedy", "names", "evidence", "commands", "snippet"}
        assert documented == [
            set(report),
            set(report["findings"][0]) - of_any_finding,
            set(report["checks"][0]),
            set(report["fixes"][0]),
        ]

    def test_ignored_checks_do_not_count(self, make_home: MAKE) -> None:
        home = make_home("sqlite", stock=True)
        report = json.loads(doctor(home, "--json").stdout)
        worse = {f["code"] for f in report["findings"] if f["severity"] != "note"}
        # Other tests' daemons may be seen.
        assert worse - {"home-differs"} == {"daemon-absent", "monitoring-off"}
        codes = [word for code in sorted(worse | {"home-differs"}) for word in ("--ignore", code)]
        done = doctor(home, "--json", *codes)
        assert done.exit_code == 0
        outcomes = {c["code"]: c["outcome"] for c in json.loads(done.stdout)["checks"]}
        assert outcomes["daemon-absent"] == "ignored"
        assert set(outcomes) == set(CHECKS)

    def test_the_text_has_every_finding_and_command(self, make_home: MAKE) -> None:
        home = make_home("sqlite", stock=True)
        execute(home, asset_of("a", pool="orders"))
        done = doctor(home)
        assert done.exit_code == 1
        for finding in look(home).findings:
            assert f"{finding.severity} {finding.code}: " in done.output
            for command in finding.commands:
                assert f"\n    {command}\n" in done.output

    def test_the_worst_comes_first(self, make_home: MAKE) -> None:
        home = make_home("sqlite", stock=True)
        heads = [line.split()[0] for line in doctor(home).output.splitlines()
                 if line.startswith(("error ", "warning ", "note "))]  # fmt: skip
        assert heads == sorted(heads, key=["error", "warning", "note"].index)

    @pytest.mark.parametrize(
        "arguments", [("--yes",), ("--fix", "--json"), ("--ignore", "no-such")]
    )
    def test_mistakes(self, arguments: tuple[str, ...], make_home: MAKE) -> None:
        assert doctor(make_home("sqlite", stock=True), *arguments).exit_code == 2
