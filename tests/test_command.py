"""The command itself: what it loads, what it lists, and how it completes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from dagster_lifeguard.cli import COMMANDS, main
from dagster_lifeguard.cli.group import CommandGroup, Deferred

NAMES = [name for names in COMMANDS.values() for name in names]
COMPLETION = {"_LIFEGUARD_COMPLETE": "bash_complete", "COMP_CWORD": "1"}


def imported(*arguments: str, **environment: str) -> tuple[str, set[str]]:
    """What a command prints in a process of its own, and the modules it imported."""
    script = (
        "import sys\n"
        "from dagster_lifeguard.cli import main\n"
        "try:\n    main(prog_name='lifeguard')\n"
        "finally:\n    print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout, set(done.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["no-such-command"]])
def test_help_and_mistakes_need_no_dagster(arguments: list[str]) -> None:
    _, modules = imported(*arguments)
    assert "dagster_lifeguard.cli" in modules
    assert not modules & {"dagster", "pydantic", "rich", "httpx"}


def test_completion_of_a_command_needs_no_dagster() -> None:
    printed, modules = imported(COMP_WORDS="lifeguard ", **COMPLETION)
    assert [line.removeprefix("plain,") for line in printed.split()] == sorted(NAMES)
    assert "dagster" not in modules


@pytest.mark.parametrize("name", NAMES)
def test_an_option_is_completed(name: str) -> None:
    assert isinstance(main, CommandGroup)
    command = main.loaded()[name]
    printed, _ = imported(
        _LIFEGUARD_COMPLETE="bash_complete", COMP_WORDS=f"lifeguard {name} --", COMP_CWORD="2"
    )
    expected = {option for p in command.params for option in p.opts if option.startswith("--")}
    assert {line.removeprefix("plain,") for line in printed.split()} == {*expected, "--help"}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_listed_is_what_the_command_says(name: str) -> None:
    assert isinstance(main, CommandGroup)
    listed, command = main.commands[name], main.loaded()[name]
    assert isinstance(listed, Deferred)
    assert command.name == name
    assert listed.short_help == (command.help or "").strip().split("\n\n")[0].replace("\n", " ")


def test_each_command_is_listed_under_its_heading() -> None:
    shown = CliRunner().invoke(main, ["--help"]).stdout
    for heading, names in COMMANDS.items():
        _, _, section = shown.partition(f"\n{heading}:\n")
        listed = section.partition("\n\n")[0].splitlines()
        firsts = [line for line in listed if not line.startswith("   ")]  # the others are wrapped
        assert [line.split()[0] for line in firsts] == list(names)


def test_the_public_names_are_there_when_asked_for() -> None:
    script = (
        "import sys, dagster_lifeguard as lifeguard\n"
        "assert 'dagster' not in sys.modules\n"
        "assert set(lifeguard.__all__) <= set(dir(lifeguard))\n"
        "for name in lifeguard.__all__:\n    getattr(lifeguard, name)\n"
        "assert not hasattr(lifeguard, 'Polic')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def offered(words: str) -> tuple[list[str], set[str]]:
    count = str(len(words.split(" ")) - 1)
    printed, modules = imported(
        _LIFEGUARD_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=count
    )
    return [line.removeprefix("plain,") for line in printed.split()], modules


class TestNames:
    @pytest.fixture
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A home with a pool and an asset, and a lifeguard.yaml with another pool."""
        import dagster as dg

        (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            instance.event_log_storage.set_concurrency_slots("sales_live", 1)
            dg.materialize([dg.asset(lambda: 1, key=["sales", "orders"])], instance=instance)
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        (tmp_path / "lifeguard.yaml").write_text("pools: {sales_declared: 2, other: 1}\n")
        return tmp_path

    @pytest.mark.parametrize(
        ("words", "names"),
        [
            ("lifeguard status sa", ["sales_declared", "sales_live"]),
            ("lifeguard plan sa", ["sales_declared", "sales_live"]),
            ("lifeguard free o", ["other"]),
            ("lifeguard audit --pool sales_l", ["sales_live"]),
            ("lifeguard explain sa", ["sales/orders"]),
            ("lifeguard timeline sa", ["sales/orders", "sales_declared", "sales_live"]),
        ],
    )
    def test_names_are_completed(self, home: Path, words: str, names: list[str]) -> None:
        found, modules = offered(words)
        assert found == names
        assert not modules & {"dagster", "pydantic", "sqlalchemy"}

    def test_a_home_that_begins_with_a_tilde(self, home: Path, monkeypatch) -> None:
        monkeypatch.setenv("HOME", str(home.parent))
        monkeypatch.setenv("DAGSTER_HOME", f"~/{home.name}")
        assert offered("lifeguard status sales_l")[0] == ["sales_live"]

    @pytest.mark.parametrize(
        "storage",
        [
            "sqlite: {base_dir: {env: ELSEWHERE}}",
            "custom: {module: m, class: C, config: {base_dir: {env: ELSEWHERE}}}",
        ],
    )
    def test_a_storage_elsewhere_is_found(self, home, tmp_path, storage, monkeypatch) -> None:
        monkeypatch.setenv("ELSEWHERE", str(home))
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "away"))
        (tmp_path / "away").mkdir()
        (tmp_path / "away" / "dagster.yaml").write_text(f"storage: {{{storage}}}\n")
        assert offered("lifeguard status sales_l")[0] == ["sales_live"]

    @pytest.mark.parametrize("yaml", ["storage: [", "storage: {postgres: {postgres_url: x}}"])
    def test_what_cannot_be_read_is_no_name_and_no_noise(self, tmp_path, yaml, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
        (tmp_path / "dagster.yaml").write_text(yaml)
        (tmp_path / "lifeguard.yaml").write_text("pools: [")
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from dagster_lifeguard.cli import main; main(prog_name='lifeguard')",
            ],
            env=os.environ
            | {
                "_LIFEGUARD_COMPLETE": "bash_complete",
                "COMP_WORDS": "lifeguard status a",
                "COMP_CWORD": "2",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.stdout.strip(), done.stderr) == ("", "")
