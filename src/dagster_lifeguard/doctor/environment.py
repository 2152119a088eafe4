"""DAGSTER_HOME: whether it is set, and is the one that Dagster's daemon on this machine uses."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from dagster_lifeguard.doctor.check import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagster_lifeguard.doctor.subject import Subject
    from dagster_lifeguard.findings import Finding


class HomeUnset(Check):
    code = "home-unset"
    title = "DAGSTER_HOME is not set"
    severity = "error"
    source = "machine"

    def find(self, subject: Subject) -> Iterator[Finding]:
        if subject.machine.home is not None:
            return
        here = subject.machine.here
        has_file = here.joinpath("dagster.yaml").exists()
        directory = shlex.quote(str(here)) if has_file else "$HOME/dagster_home"
        yield self.finding(
            "DAGSTER_HOME is not set, so each Dagster command here uses an instance of its own, "
            "and none has your limits.",
            "Set it to one directory for webserver, daemon, code servers and this shell.",
            evidence=[f"{here / 'dagster.yaml'} is not read."] if has_file else (),
            commands=[f"export DAGSTER_HOME={directory}"],
        )


class HomeRelative(Check):
    code = "home-relative"
    title = "DAGSTER_HOME is a relative path"
    severity = "error"
    source = "machine"

    def find(self, subject: Subject) -> Iterator[Finding]:
        home = subject.machine.home
        if home is not None and not Path(home).is_absolute():
            yield self.finding(
                f"DAGSTER_HOME is {home}, a relative path, which Dagster refuses.",
                "Give the whole path.",
                names=[home],
                commands=[f"export DAGSTER_HOME={shlex.quote(str(subject.machine.here / home))}"],
            )


class HomeMissing(Check):
    code = "home-missing"
    title = "DAGSTER_HOME is no directory"
    severity = "error"
    source = "machine"

    def find(self, subject: Subject) -> Iterator[Finding]:
        home = subject.machine.home
        if home is not None and Path(home).is_absolute() and not Path(home).is_dir():
            yield self.finding(
                f"DAGSTER_HOME is {home}, which is not a directory.",
                "Create it, or set DAGSTER_HOME to the one that Dagster's daemon uses.",
                names=[home],
                commands=[f"mkdir -p {shlex.quote(home)}"],
            )


class HomeDiffers(Check):
    """Looks at the processes in /proc that this user may look into; elsewhere there are none."""

    code = "home-differs"
    title = "A daemon on this machine uses another DAGSTER_HOME"
    severity = "warning"
    source = "file"

    def find(self, subject: Subject) -> Iterator[Finding]:
        home = subject.file.parent
        homes = dict(daemon_homes())
        if not homes or any(_same(found, home) for found in homes.values()):
            return
        pid, other = min(homes.items())
        yield self.finding(
            f"DAGSTER_HOME is {home} here, but no dagster-daemon on this machine uses that.",
            "Use one directory for all of Dagster's processes: start the daemon again with this "
            "one, or set the other here.",
            names=[str(home), *sorted(set(homes.values()))],
            evidence=[f"process {n}: DAGSTER_HOME={found}" for n, found in sorted(homes.items())],
            commands=[f"export DAGSTER_HOME={shlex.quote(other)}  # as process {pid}"],
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


CHECKS = (HomeUnset(), HomeRelative(), HomeMissing(), HomeDiffers())
