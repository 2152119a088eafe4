"""``lifeguard init``: what it writes, what it keeps, and that it asks first."""

from __future__ import annotations

import stat
from pathlib import Path
from textwrap import dedent
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from dagster_lifeguard import Policy
from dagster_lifeguard.cli import main
from dagster_lifeguard.cli.init import SCHEMA_LINE
from dagster_lifeguard.cli.schema import schema_text
from dagster_lifeguard.compat.instance import InstancePoolSettings, instance_pool_settings
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.limits.dagster_yaml import STANZA, with_pool_settings
from dagster_lifeguard.limits.old_settings import with_new_settings

ADDED = """\
concurrency:
  pools:
    default_limit: 1  # of every pool that is given no limit of its own
run_monitoring:
  enabled: true  # ends runs whose process died, where the launcher can tell
  free_slots_after_run_end_seconds: 60  # else their slots stay taken
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "project"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


def init(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["init", *arguments])


def kept_and_added(old: str, new: str) -> list[str]:
    """Assert that every line stayed, in order, and return the lines that came."""
    lines = iter(new.splitlines(keepends=True))
    added = []
    for line in old.splitlines(keepends=True):
        for candidate in lines:
            if candidate.rstrip("\r\n") == line.rstrip("\r\n"):
                break
            added.append(candidate.strip())
        else:
            raise AssertionError(f"lost: {line!r}")
    return added + [line.strip() for line in lines]


class TestInstanceYaml:
    def test_into_an_empty_file(self) -> None:
        assert with_pool_settings("", "f") == (ADDED, ())

    @pytest.mark.parametrize(
        "old",
        [
            "# only a comment\n",
            "telemetry:\n    enabled: false # no\n",
            "telemetry: {enabled: false}",
            "# first\nconcurrency:\n  # about runs\n  runs:\n    tag_concurrency_limits:\n      - key: a   # team\n        limit: 2\n\n# last\n",
            "concurrency:\n      runs:\n            max_concurrent_runs: 3\n",
            "concurrency:\n",
            "concurrency: # later\ntelemetry:\n  enabled: false\n",
            "concurrency:\n  pools:\n    granularity: run\n",
            "concurrency:\n  # about runs\n  runs:\n    max_concurrent_runs: 3\n",
            "run_monitoring:\n  enabled: true\n",
            "storage:\n  sqlite:\n    base_dir:\n      env: SOME_DIR\n",
            "telemetry:\r\n  enabled: false\r\n",
            "---\ntelemetry:\n  enabled: false\n",
            "python_logs: &logs\n  python_log_level: INFO\n",
        ],
    )
    def test_every_line_stays_and_only_settings_come(self, old: str) -> None:
        new, kept = with_pool_settings(old, "f")
        assert kept == ()
        names = {name for path, _, _ in STANZA for name in path.split(".")}
        assert {line.split(":")[0] for line in kept_and_added(old, new)} <= names
        assert ("\r\n" in old) == ("\r\n" in new)
        found = YAML(typ="safe").load(new)
        assert found["concurrency"]["pools"]["default_limit"] == 1
        assert found["run_monitoring"] == {
            "enabled": True,
            "free_slots_after_run_end_seconds": 60,
        }

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("concurrency: {pools: {granularity: run}} # x\n", "concurrency: {pools: {granularity: run, default_limit: 1}} # x\n"),
            ("concurrency: {} # x\n", "concurrency: {pools: {default_limit: 1}} # x\n"),
            ("concurrency: ~ # x\n", "concurrency: # x\n  pools:\n    default_limit: 1  # of every pool that is given no limit of its own\n"),
            ("run_monitoring: {enabled: yes}\r\n", "run_monitoring: {enabled: yes, free_slots_after_run_end_seconds: 60}\r\n"),
            ("{telemetry: {enabled: false}}", "{telemetry: {enabled: false}, concurrency: {pools: {default_limit: 1}}, run_monitoring: {free_slots_after_run_end_seconds: 60, enabled: true}}"),
        ],
    )  # fmt: skip
    def test_on_one_line_too_it_only_adds(self, old: str, new: str) -> None:
        found, kept = with_pool_settings(old, "f")
        assert found.startswith(new)
        assert kept == ()

    def test_anchors_and_aliases_stay(self) -> None:
        old = (
            "sensors: &s\n  use_threads: true\nschedules:\n  <<: *s\n"
            "run_monitoring: {max_resume_run_attempts: 2}\n"
        )
        new, _ = with_pool_settings(old, "f")
        assert new.startswith("sensors: &s\n  use_threads: true\nschedules:\n  <<: *s\n")

    @pytest.mark.parametrize("old", ["---\ntelemetry: {enabled: false}\n...\n"])
    def test_where_there_is_no_place_it_says_what_to_add(self, old: str) -> None:
        with pytest.raises(ConfigError, match="Add by hand: concurrency"):
            with_pool_settings(old, "f")

    def test_what_it_says_already_is_kept(self) -> None:
        old = dedent("""\
            concurrency:
              pools:
                default_limit: 5
            run_monitoring:
              enabled: false
              free_slots_after_run_end_seconds: 300
            """)
        assert with_pool_settings(old, "f") == (
            old,
            (
                "concurrency.pools.default_limit: 5",
                "run_monitoring.free_slots_after_run_end_seconds: 300",
                "run_monitoring.enabled: false",
            ),
        )

    @pytest.mark.parametrize(
        ("old", "message"),
        [
            ("- a\n", "expected settings"),
            ("a: [1\n", "f:2:1: not valid YAML"),
            ("a: 1\n---\nb: 2\n", "not valid YAML"),
            ("concurrency: 3\n", "concurrency is not a mapping"),
            ("concurrency:\n  default_op_concurrency_limit: 2\n", "Dagster would say"),
            ("run_queue:\n  max_concurrent_runs: 3\n", "Dagster would say"),
            ("nonsense: true\n", "Dagster refuses it as it is"),
        ],
    )
    def test_what_cannot_be_added_to(self, old: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            with_pool_settings(old, "f")

    @given(
        st.lists(
            st.sampled_from(["# c", "", "telemetry:", "concurrency:", "run_monitoring:"]),
            unique=True,
        ),
        st.integers(1, 8),
    )
    def test_twice_is_once_whatever_the_file(self, parts: list[str], indent: int) -> None:
        children = {
            "telemetry:": "enabled: false",
            "concurrency:": "runs: {}",
            "run_monitoring:": "enabled: true",
        }
        lines = []
        for part in parts:
            lines.append(part)
            if part in children:
                lines.append(" " * indent + children[part])
        once, _ = with_pool_settings("\n".join(lines), "f")
        assert with_pool_settings(once, "f")[0] == once
        kept_and_added("\n".join(lines), once)


class TestCommand:
    def test_it_writes_both_files(self, here: Path, home: Path) -> None:
        result = init("--yes")
        assert result.exit_code == 0, result.output
        assert Policy.from_yaml(here / "lifeguard.yaml") == Policy()
        assert home.joinpath("dagster.yaml").read_text() == "telemetry:\n  enabled: false\n" + ADDED
        assert instance_pool_settings(str(home)) == InstancePoolSettings(1, "op")
        with dg.DagsterInstance.get() as instance:
            assert instance.run_monitoring_enabled

    def test_the_first_line_leads_editors_to_the_schema(self, here: Path, home: Path) -> None:
        here.joinpath("sub").mkdir()
        for folder, config in ((here, "lifeguard.yaml"), (here / "sub", "sub/pools.yaml")):
            assert init("--config", config, "--dry-run").exit_code == 0
            assert list(folder.glob("*.json")) == []
            init("--config", config, "--yes")
            first, *_ = here.joinpath(config).read_text().splitlines()
            named = first.removeprefix("# yaml-language-server: $schema=")
            assert (here / config).parent.joinpath(named).read_text() == schema_text()

    def test_a_lifeguard_yaml_that_is_kept_gets_the_schema_that_it_names(
        self, here: Path, home: Path
    ) -> None:
        config, schema = here / "lifeguard.yaml", here / "lifeguard.schema.json"
        config.write_text("naming: path\n")
        result = init("--yes")
        assert f"\n    {SCHEMA_LINE}\n" in result.output
        assert not schema.exists()
        kept = f"{SCHEMA_LINE}\nnaming: path\n"
        for was in (None, "{}"):
            config.write_text(kept)
            if was is not None:
                schema.write_text(was)
            assert init("--dry-run").exit_code == 0
            assert (schema.read_text() if schema.exists() else None) == was
            result = init("--yes")
            assert f"Wrote {schema.name}." in result.output
            assert SCHEMA_LINE not in result.output
            assert (config.read_text(), schema.read_text()) == (kept, schema_text())
        assert "Nothing to change." in init("--yes").output

    def test_a_schema_that_is_not_ours_is_left_alone(self, here: Path, home: Path) -> None:
        config, schema = here / "lifeguard.yaml", here / "own.json"
        schema.write_text("{}")
        elsewhere = ("../lifeguard.schema.json", "https://example.com/lifeguard.schema.json")
        for named in ("own.json", *elsewhere):
            config.write_text(f"# yaml-language-server: $schema={named}\nnaming: path\n")
            assert init("--yes").exit_code == 0
            assert [f.name for f in here.glob("*.json")] == ["own.json"]
            assert schema.read_text() == "{}"
            assert not (here.parent / "lifeguard.schema.json").exists()

    def test_the_second_time_there_is_nothing_to_change(self, here: Path, home: Path) -> None:
        init("--yes")
        before = {f: f.read_bytes() for f in (here / "lifeguard.yaml", home / "dagster.yaml")}
        result = init("--yes")
        assert (result.exit_code, "Nothing to change." in result.output) == (0, True)
        assert {f: f.read_bytes() for f in before} == before

    def test_without_consent_nothing_is_written(self, here: Path, home: Path) -> None:
        before = home.joinpath("dagster.yaml").read_text()
        for arguments in ((), ("--dry-run",)):
            result = init(*arguments)
            assert "+    default_limit: 1" in result.stdout
            assert result.exit_code == (0 if arguments else 2)
            assert not here.joinpath("lifeguard.yaml").exists()
            assert home.joinpath("dagster.yaml").read_text() == before

    @pytest.mark.parametrize(("answer", "written"), [("y\n", True), ("n\n", False)])
    def test_on_a_terminal_it_asks(
        self,
        here: Path,
        home: Path,
        monkeypatch: pytest.MonkeyPatch,
        answer: str,
        written: bool,
    ) -> None:
        monkeypatch.setattr("dagster_lifeguard.cli.file_changes.can_ask", lambda: True)
        result = CliRunner().invoke(main, ["init"], input=answer)
        assert here.joinpath("lifeguard.yaml").exists() is written
        assert ("default_limit" in home.joinpath("dagster.yaml").read_text()) is written
        assert result.exit_code == 0
        assert ("Nothing was written." in result.stdout) is not written

    def test_without_a_home_it_says_what_it_cannot_do(self, here: Path) -> None:
        for arguments in (("--dry-run",), ("--yes",), ("--yes",)):
            result = init(*arguments)
            assert result.exit_code == 0
            assert result.stderr.startswith("Pools get no default limit and stay unlimited: ")
            assert "DAGSTER_HOME is not set, and there is no ./dagster.yaml" in result.stderr
            assert "Nothing to change." not in result.stdout
        assert here.joinpath("lifeguard.yaml").exists()

    def test_a_file_here_that_no_home_names(self, here: Path, home: Path, monkeypatch) -> None:
        here.joinpath("dagster.yaml").write_text("telemetry: {enabled: false}\n")
        monkeypatch.delenv("DAGSTER_HOME")
        for _ in range(2):
            result = init("--yes")
            assert "so only Dagster commands started here read dagster.yaml" in result.stderr
            assert result.stderr.endswith(f"export DAGSTER_HOME={here}\n")
        monkeypatch.setenv("DAGSTER_HOME", str(here))
        result = init("--yes")
        assert (result.stderr, "Nothing to change." in result.stdout) == ("", True)

    @pytest.mark.parametrize(
        ("name", "what"), [("/no/such/home", "is not a directory"), ("home", "a relative path")]
    )
    def test_a_mistyped_home_stops_everything(
        self, here: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str
    ) -> None:
        here.joinpath("home").mkdir()
        monkeypatch.setenv("DAGSTER_HOME", name)
        result = init("--yes")
        assert result.exit_code == 2
        assert f"DAGSTER_HOME is {name}, " in result.stderr
        assert what in result.stderr
        assert [p.name for p in here.rglob("*")] == ["home"]

    def test_a_home_that_begins_with_a_tilde(
        self, here: Path, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(home.parent))
        monkeypatch.setenv("DAGSTER_HOME", f"~/{home.name}")
        assert init("--yes").exit_code == 0
        assert "default_limit: 1" in home.joinpath("dagster.yaml").read_text()

    def test_what_comes_next_can_be_pasted(self, here: Path, home: Path) -> None:
        code = "import dagster as dg\n@dg.asset\ndef orders(): ...\n"
        file = here / "definitions.py"
        file.write_text(f"{code}defs = dg.Definitions(assets=[orders])\n")
        lines = init("--yes").stdout.splitlines()
        begin = next(n for n, line in enumerate(lines) if line.startswith("Next, end the file"))
        pasted = [line.strip() for line in lines[begin + 1 : -1]]
        assert lines[-1] == "then: lifeguard check"
        with file.open("a") as text:
            text.write("\n".join(pasted))
        result = CliRunner().invoke(main, ["check", "-f", file.name])
        assert result.exit_code == 0, result.output
        home.joinpath("dagster.yaml").unlink()
        assert init("--yes").stdout.endswith("\nNext: lifeguard check\n")  # The file was there.

    def test_an_instance_without_a_file_gets_one(self, here: Path, tmp_path: Path) -> None:
        file = tmp_path / "other.yaml"
        assert init("--yes", "--dagster-yaml", str(file)).exit_code == 0
        assert file.read_text() == ADDED

    def test_a_wrong_dagster_yaml_stops_everything(self, here: Path, home: Path) -> None:
        home.joinpath("dagster.yaml").write_text("a: [1\n")
        result = init("--yes")
        assert result.exit_code == 2
        assert "not valid YAML" in result.stderr
        assert not here.joinpath("lifeguard.yaml").exists()

    def test_a_wrong_lifeguard_yaml_is_told_and_kept(self, here: Path, home: Path) -> None:
        here.joinpath("lifeguard.yaml").write_text("naming: x\n")
        assert init("--yes").exit_code == 2
        assert here.joinpath("lifeguard.yaml").read_text() == "naming: x\n"

    def test_nothing_is_written_when_one_file_cannot_be(self, here: Path, home: Path) -> None:
        link = home / "dagster.yaml"
        link.unlink()
        link.symlink_to(home / "no" / "such" / "file")
        result = init("--yes")
        assert result.exit_code == 2
        assert "cannot be written" in result.stderr
        assert not here.joinpath("lifeguard.yaml").exists()

    def test_a_read_only_file_is_refused(self, here: Path, home: Path) -> None:
        home.joinpath("dagster.yaml").chmod(0o444)
        result = init("--yes")
        assert (result.exit_code, "it is read-only" in result.stderr) == (2, True)
        assert not here.joinpath("lifeguard.yaml").exists()

    def test_one_file_cannot_be_both(self, here: Path, home: Path) -> None:
        assert init("--yes", "--config", "x.yaml", "--dagster-yaml", "x.yaml").exit_code == 2
        assert not here.joinpath("x.yaml").exists()

    def test_permissions_and_links_stay(self, here: Path, home: Path, tmp_path: Path) -> None:
        real = tmp_path / "real.yaml"
        real.write_text("telemetry:\n  enabled: false\n")
        real.chmod(0o600)
        link = home / "dagster.yaml"
        link.unlink()
        link.symlink_to(real)
        assert init("--yes").exit_code == 0
        assert link.is_symlink()
        assert "default_limit" in real.read_text()
        assert stat.S_IMODE(real.stat().st_mode) == 0o600

    @pytest.mark.parametrize("arguments", [("--dagster-yaml", "no/such/f"), ("--config", "no/f")])
    def test_a_directory_that_is_not_there(
        self, here: Path, home: Path, arguments: tuple[str, ...]
    ) -> None:
        result = init("--yes", *arguments)
        assert result.exit_code == 2
        assert "is not a directory" in result.stderr


QUEUE = """\
# our instance
run_queue:  # how many at once
  max_concurrent_runs: 25  # the licence
  # one per team
  tag_concurrency_limits:
    - key: team   # since 2021
      value:
        applyLimitPerUniqueValue: true
      limit: 1

# the end
telemetry:
  enabled: false
"""

COORDINATOR = """\
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config:
    max_concurrent_runs: 10  # small
    dequeue_interval_seconds: 5
telemetry: {enabled: false}
"""

HELM = """\
concurrency:
  default_op_concurrency_limit: 3  # by default
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config:
    max_concurrent_runs: 10
run_queue:  # both
  max_concurrent_runs: 12
  dequeue_use_threads: true
"""

ON_ONE_LINE = """\
run_queue: {max_concurrent_runs: 5, block_op_concurrency_limited_runs: {enabled: true, op_concurrency_slot_buffer: 3}}  # x
"""


class TestOlderSettings:
    """Settings beside which Dagster refuses a default limit of pools."""

    @pytest.mark.parametrize(
        ("old", "moved", "expected"),
        [
            (QUEUE, ["run_queue.max_concurrent_runs becomes concurrency.runs.max_concurrent_runs",
                     "run_queue.tag_concurrency_limits becomes concurrency.runs.tag_concurrency_limits"],
             {"concurrency": {"runs": {"max_concurrent_runs": 25, "tag_concurrency_limits": [
                 {"key": "team", "value": {"applyLimitPerUniqueValue": True}, "limit": 1}]}},
              "telemetry": {"enabled": False}}),
            (COORDINATOR, ["run_coordinator.config.max_concurrent_runs becomes concurrency.runs.max_concurrent_runs"],
             {"run_coordinator": {"module": "dagster.core.run_coordinator", "class": "QueuedRunCoordinator",
                                  "config": {"dequeue_interval_seconds": 5}},
              "concurrency": {"runs": {"max_concurrent_runs": 10}}, "telemetry": {"enabled": False}}),
            (HELM, ["run_queue.max_concurrent_runs becomes concurrency.runs.max_concurrent_runs",
                    "run_coordinator.config.max_concurrent_runs: 10 is dropped, since concurrency.runs.max_concurrent_runs says 12",
                    "concurrency.default_op_concurrency_limit becomes concurrency.pools.default_limit",
                    "run_queue.dequeue_use_threads becomes run_coordinator.config.dequeue_use_threads"],
             {"run_coordinator": {"module": "dagster.core.run_coordinator", "class": "QueuedRunCoordinator",
                                  "config": {"dequeue_use_threads": True}},
              "concurrency": {"runs": {"max_concurrent_runs": 12}, "pools": {"default_limit": 3}}}),
            (ON_ONE_LINE, ["run_queue.max_concurrent_runs becomes concurrency.runs.max_concurrent_runs",
                           "run_queue.block_op_concurrency_limited_runs.op_concurrency_slot_buffer becomes concurrency.pools.op_granularity_run_buffer"],
             {"run_queue": {"block_op_concurrency_limited_runs": {"enabled": True}},
              "concurrency": {"runs": {"max_concurrent_runs": 5}, "pools": {"op_granularity_run_buffer": 3}}}),
        ],
        ids=["queue", "coordinator", "in two places", "on one line"],
    )  # fmt: skip
    @pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
    def test_they_move_with_their_comments(
        self, old: str, moved: list[str], expected: dict[str, Any], newline: str
    ) -> None:
        new, moves = with_new_settings(old.replace("\n", newline), "f")
        assert [str(move) for move in moves] == moved
        assert YAML(typ="safe").load(new) == expected
        comments = {line.partition("#")[2].strip() for line in old.splitlines() if "#" in line}
        assert comments == {
            line.partition("#")[2].strip() for line in new.splitlines() if "#" in line
        }
        assert with_new_settings(new, "f") == (new, ())
        first = old.splitlines()[0]
        assert not first.startswith("#") or new.startswith(first)  # It is about the file.
        with_pool_settings(new, "f")  # Dagster accepts it.

    def test_without_older_settings_nothing_moves(self) -> None:
        for text in ("", "# nothing\n", "run_queue:\n  dequeue_use_threads: true\n", ADDED):
            assert with_new_settings(text, "f") == (text, ())

    @pytest.mark.parametrize("old", [QUEUE, COORDINATOR, HELM, ON_ONE_LINE])
    def test_init_shows_the_moves_and_writes_only_with_consent(
        self, here: Path, home: Path, old: str
    ) -> None:
        file = home / "dagster.yaml"
        file.write_text(old)
        refused = init()
        assert refused.exit_code == 2
        assert "Nothing was written: say --yes" in refused.stderr
        assert "becomes concurrency.runs.max_concurrent_runs" in refused.stdout
        assert "\n-run_" in refused.stdout or "\n-    max_con" in refused.stdout
        assert "\n+concurrency:" in refused.stdout or "\n+  pools:" in refused.stdout
        assert file.read_text() == old
        assert not (here / "lifeguard.yaml").exists()
        assert init("--yes").exit_code == 0
        settings = instance_pool_settings(str(home))
        assert settings.default_limit == (3 if old == HELM else 1)
        with dg.DagsterInstance.get() as instance:
            runs = instance.get_concurrency_config().run_queue_config.max_concurrent_runs
        assert runs == {QUEUE: 25, COORDINATOR: 10, HELM: 12, ON_ONE_LINE: 5}[old]
        assert "Nothing to change." in init("--yes").stdout

    def test_the_engine_is_never_on_without_a_word_about_a_missing_default_limit(
        self, here: Path, home: Path
    ) -> None:
        (home / "dagster.yaml").write_text(QUEUE)
        told = CliRunner().invoke(main, ["engine", "enable", "--yes"])
        assert told.exit_code == 0, told.output
        assert (
            "sets no default limit: a pool without a limit of its own is unlimited" in told.stdout
        )
        assert "lifeguard init" in told.stdout
        assert init("--yes").exit_code == 0
        told = CliRunner().invoke(main, ["engine", "enable", "--yes"])
        assert "no default limit" not in told.stdout
