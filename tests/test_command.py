"""The command itself: what it loads, what it lists, and how it completes."""

from __future__ import annotations

import os
import subprocess
import sys

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
