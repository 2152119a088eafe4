"""SQLite files on a file system that is read-only: an error that says so, nothing is granted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from homes import DEFINITIONS
from private_mounts import read_only, under

from dagster_lifeguard.cli import main
from dagster_lifeguard.errors import StoreUnavailableError

if TYPE_CHECKING:
    from homes import Home


def claim(home: Home) -> StoreUnavailableError | bool:
    with home.instance() as instance:
        try:
            return instance.event_log_storage.claim_concurrency_slot("orders", "a", "s").is_claimed
        except StoreUnavailableError as error:
            return error


def materialize(home: Home) -> tuple[int, str]:
    process = home.materialize("held")
    try:
        return process.wait(), process.output()
    finally:
        home.close()


def told(home: Home, *arguments: str) -> str:
    """What the command says to a user who has set DAGSTER_HOME."""
    done = CliRunner(env={"DAGSTER_HOME": str(home.path)}).invoke(main, arguments)
    assert done.exit_code != 0
    return done.output


@pytest.fixture
def home(make_home) -> Home:
    made = make_home("sqlite")
    with made.instance() as instance:
        instance.event_log_storage.set_concurrency_slots("orders", 1)
    return made


@pytest.fixture(params=["file", "directory"])
def mount(request: pytest.FixtureRequest, home) -> str:
    """The index alone, whose log can be written beside it, or all files of the event logs."""
    with home.instance() as instance:
        index = Path(instance.event_log_storage.path_for_shard("index"))
    return read_only(index if request.param == "file" else index.parent)


def test_a_claim_fails_and_is_not_granted(home, mount):
    told = under(mount, claim, home)

    assert isinstance(told, StoreUnavailableError), told
    assert "index.db: " in told.message
    assert "is writable" in told.remedy
    with home.instance() as instance:
        log = instance.event_log_storage
        assert log.get_concurrency_info("orders").pending_steps == []
        assert log.lifeguard.engine.ticket("a", "s") is None
        assert log.claim_concurrency_slot("orders", "a", "s").is_claimed


def test_a_run_fails_and_executes_no_step(home, mount):
    code, output = under(mount, materialize, home)

    # Dagster itself writes the begin of each run into the same file, so the error is its own.
    assert code != 0
    assert "readonly" in output or "unable to open" in output
    assert list(home.control.glob("held.*")) == []
    home.go()
    home.run("dagster", "asset", "materialize", "-f", str(DEFINITIONS), "--select", "held")


@pytest.mark.parametrize(
    "command", [("status",), ("doctor",), ("check", "-m", "dagster_lifeguard")]
)
def test_commands_say_which_directory_cannot_be_written(make_home, command) -> None:
    """And not that dagster.yaml is to be corrected, in which nothing is wrong."""
    home = make_home("sqlite", stock=True, unopened=True)
    output = " ".join(under(read_only(home.path), told, home, *command).split())
    assert "Read-only file system" in output
    assert f"Dagster has to write {home.path}" in output
    assert "orrect" not in output


def test_a_file_in_a_directory_that_cannot_be_written(make_home) -> None:
    home = make_home("sqlite", stock=True)
    output = under(read_only(home.path), told, home, "engine", "enable", "--yes")
    assert f"{home.path}/dagster.yaml cannot be written: Read-only file system." in output
    assert f"Run this as a user who may write in {home.path}. Nothing was written." in output
