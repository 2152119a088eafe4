"""DAGSTER_HOME: whether it is set, and is the one that Dagster's daemon on this machine uses."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from dagster_lifeguard.deployment.home import home_folder, home_problem
from dagster_lifeguard.inspections.doctor.check import Told, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagster_lifeguard.inspections.doctor.examined import Examined


@check(severity="error", source="machine")
def home_unset(subject: Examined) -> Iterator[Told]:
    """DAGSTER_HOME is not set."""
    if subject.machine.home is not None:
        return
    here = subject.machine.here
    has_file = here.joinpath("dagster.yaml").exists()
    yield Told(
        "DAGSTER_HOME is not set"
        + (
            f", so only Dagster commands started in {here} read its dagster.yaml."
            if has_file
            else ", so Dagster makes an instance for each command and throws it away: no limit "
            "lasts."
        ),
        "Set it to one directory for webserver, daemon, code servers and this shell.",
        commands=[f"export DAGSTER_HOME={shlex.quote(str(here))}"]
        if has_file
        else ['mkdir -p "$HOME/dagster_home"', 'export DAGSTER_HOME="$HOME/dagster_home"'],
    )


@check(severity="error", source="machine")
def home_relative(subject: Examined) -> Iterator[Told]:
    """DAGSTER_HOME is a relative path."""
    home = subject.machine.home
    if home is not None and not home_folder(home).is_absolute():
        yield Told(
            f"{home_problem(home)}.",
            "Give the whole path.",
            names=[home],
            commands=[f"export DAGSTER_HOME={shlex.quote(str(subject.machine.here / home))}"],
        )


@check(severity="error", source="machine")
def home_missing(subject: Examined) -> Iterator[Told]:
    """DAGSTER_HOME is no directory."""
    home = subject.machine.home
    problem = home_problem(home)
    if home is not None and problem is not None and home_folder(home).is_absolute():
        yield Told(
            f"{problem}.",
            "Create it, or set DAGSTER_HOME to the one that Dagster's daemon uses.",
            names=[home],
            commands=[f"mkdir -p {shlex.quote(str(home_folder(home)))}"],
        )


@check(severity="warning", source="file")
def home_differs(subject: Examined) -> Iterator[Told]:
    """A daemon on this machine uses another DAGSTER_HOME.

    Looks at the processes in /proc that this user may look into; elsewhere there are none.
    """
    home = subject.file.parent
    homes = dict(daemon_homes())
    if not homes or any(_same(found, home) for found in homes.values()):
        return
    yield Told(
        f"DAGSTER_HOME is {home} here, but no dagster-daemon on this machine uses that.",
        "Start a daemon for this one: run dagster-daemon run in the directory of your project. "
        "The daemons below may be other projects'; if one is meant to be this project's, start it "
        "again with this DAGSTER_HOME.",
        names=[str(home), *sorted(set(homes.values()))],
        evidence=[f"process {n}: DAGSTER_HOME={found}" for n, found in sorted(homes.items())],
    )


def daemon_homes() -> Iterator[tuple[int, str]]:
    """The daemons on this machine and their DAGSTER_HOME, as far as this user may see them."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = process.joinpath("cmdline").read_bytes().split(b"\0")
            if not _is_daemon(words):
                continue
            settings = process.joinpath("environ").read_bytes().split(b"\0")
        except OSError:
            continue  # It has ended, or is another user's.
        for setting in settings:
            name, _, value = setting.partition(b"=")
            if name == b"DAGSTER_HOME" and value:
                yield int(process.name), os.fsdecode(value)


def _is_daemon(words: list[bytes]) -> bool:
    scripts = {word.rpartition(b"/")[2] for word in words[:3]}
    module = b"-m" in words[:3] and any(word.startswith(b"dagster._daemon") for word in words)
    return (b"dagster-daemon" in scripts or module) and b"run" in words


def _same(one: str, other: Path) -> bool:
    return Path(one).resolve() == other.resolve()


CHECKS = (home_unset, home_relative, home_missing, home_differs)
