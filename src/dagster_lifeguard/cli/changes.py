"""Changes to a user's files: shown first, agreed to, and put in place whole."""

from __future__ import annotations

import difflib
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dagster_lifeguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Change:
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
        """Put the whole new file in place at once, with the old one's permissions."""
        try:
            self._replace(self.path.resolve())
        except OSError as error:
            raise ConfigError(
                f"{self.path} cannot be written: {error.strerror}.",
                remedy="Give yourself the right to write it, or run this as its owner.",
                names=[str(self.path)],
            ) from error

    def undo(self) -> None:
        """Put the old file back, or away if there was none."""
        if self.old is None:
            self.path.unlink()
        else:
            Change(self.path, self.new, self.old).write()

    def _replace(self, path: Path) -> None:
        mode = path.stat().st_mode if self.old is not None else 0o644
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
                file.write(self.new)
            Path(name).chmod(mode & 0o777)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def agreed(changes: Sequence[Change], *, yes: bool, dry_run: bool = False) -> bool:
    """Show the changes, and ask for consent unless it was given."""
    for change in changes:
        for line in change.diff().splitlines():
            click.secho(line, fg={"+": "green", "-": "red", "@": "cyan"}.get(line[:1]))
    if dry_run:
        return False
    if not yes:
        if not _is_terminal():
            raise click.UsageError("Nothing was written: say --yes to write without being asked.")
        click.confirm("Write this?", abort=True)
    return True


def _is_terminal() -> bool:
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
        if not Path(home).is_dir():
            raise ConfigError(
                f"DAGSTER_HOME is {home}, which is not a directory.",
                remedy="Create it, or set DAGSTER_HOME to one that exists.",
                names=[home],
            )
        return Path(home) / "dagster.yaml"
    here = Path("dagster.yaml")
    return here if here.exists() else None


def read(file: Path) -> str:
    """What the file says, its line ends as they are."""
    try:
        with file.open(encoding="utf-8", newline="") as opened:  # keep its line ends as they are
            return opened.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file} cannot be read: {error}.", remedy="Mend it first.", names=[str(file)]
        ) from error
