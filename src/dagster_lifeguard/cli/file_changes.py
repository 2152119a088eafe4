"""Changes to a user's files: shown first, agreed to, and put in place whole."""

from __future__ import annotations

import difflib
import errno
import os
import stat
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dagster_lifeguard.deployment.home import home_folder, home_problem
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.policy.yaml_text import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


FILE_NAME = "lifeguard.yaml"
"""What the file with rules and pools is called, unless another is named."""


@dataclass(frozen=True)
class FileChange:
    """A file and what it is to say."""

    path: Path
    old: str | None
    new: str

    def diff(self) -> str:
        name = str(self.path)
        return "".join(
            difflib.unified_diff(
                (self.old or "").splitlines(keepends=True),
                self.new.splitlines(keepends=True),
                fromfile="/dev/null" if self.old is None else name,
                tofile=name,
            )
        )

    def write(self) -> None:
        """Put the whole new file in place at once; see ``write_all``."""
        write_all([self])

    def undo(self) -> None:
        """Put the old file back, or away if there was none."""
        if self.old is None:
            self.path.unlink()
        else:
            FileChange(self.path, self.new, self.old).write()


def write_all(changes: Sequence[FileChange]) -> None:
    """Put all new files in place, each at once; if one cannot be prepared, none is."""
    ready: list[tuple[Path, Path]] = []
    try:
        for change in changes:
            with _refusing(change.path):
                ready.append((_prepare(change), change.path.resolve()))
        for new, path in ready:
            with _refusing(path):
                new.replace(path)
    finally:
        for new, _ in ready:
            new.unlink(missing_ok=True)


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        is_missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}.",
            remedy=f"Create the directory {path.parent}, or name another file."
            if is_missing
            else f"Run this as a user who may write in {path.parent}. Nothing was written.",
            names=[str(path)],
        ) from error


def _prepare(change: FileChange) -> Path:
    """Write the new contents beside the file, with the old one's owner and permissions."""
    path = change.path.resolve()
    old = path.stat() if change.old is not None else None
    if old is not None and not old.st_mode & 0o222:
        raise PermissionError(errno.EACCES, "it is read-only")
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    new = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(change.new)
        new.chmod(stat.S_IMODE(old.st_mode) if old else 0o644)
        if old is not None and (old.st_uid, old.st_gid) != (new.stat().st_uid, new.stat().st_gid):
            os.chown(new, old.st_uid, old.st_gid)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    return new


def agreed(changes: Sequence[FileChange], *, yes: bool, dry_run: bool = False) -> bool:
    """Show the changes, and ask for consent unless it was given."""
    show(changes)
    return not dry_run and consented("Write this?", "Nothing was written", yes=yes)


def show(changes: Sequence[FileChange]) -> None:
    """Print what the changes take out and put in."""
    for change in changes:
        for line in change.diff().splitlines():
            click.secho(line, fg={"+": "green", "-": "red", "@": "cyan"}.get(line[:1]))


def consented(question: str, nothing: str, *, yes: bool) -> bool:
    """Ask for consent unless it was given; where nobody can be asked, it has to be given."""
    if yes:
        return True
    if not can_ask():
        raise click.UsageError(f"{nothing}: say --yes to do it without being asked.")
    if click.confirm(question):
        return True
    click.echo(f"{nothing}.")
    return False


def can_ask() -> bool:
    """Return whether somebody can answer a question."""
    return sys.stdin.isatty()


def instance_file(path: str | None) -> Path | None:
    """The dagster.yaml that is meant: as named, of DAGSTER_HOME, or here; None if there is none."""
    if path is not None:
        if not Path(path).parent.is_dir():
            raise ConfigError(
                f"{Path(path).parent} is not a directory.", remedy="Create it first.", names=[path]
            )
        return Path(path)
    home = os.getenv("DAGSTER_HOME")
    if home:
        problem = home_problem(home)
        if problem is not None:
            raise ConfigError(
                f"{problem}.",
                remedy="Correct it, or create the directory. Nothing was written.",
                names=[home],
            )
        return home_folder(home) / "dagster.yaml"
    here = Path("dagster.yaml")
    return here if here.exists() else None


def read(file: Path) -> str:
    """What the file says, its line ends as they are."""
    return read_text(file, remedy="Name a file that can be read.")
