"""A second version of the engine's tables, as a later package would bring.

As a script, a command of Dagster or of this package, in a process that has the later package::

    python versions.py FOLDER dagster asset materialize ...
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.store import sql, upkeep

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST, SECOND = 1, 2
LATER_PACKAGE = "999.0.0"


def later(folder: Path, *, for_all: bool = True) -> Path:
    """Write the SQL of a package that knows a second version, with a column more in each table.

    Args:
        folder: Where.
        for_all: Whether packages that know only the first version may use those tables.
    """
    for dialect in ("sqlite", "postgres"):
        known = sql.FOLDER / dialect
        made = folder / dialect
        made.mkdir(parents=True)
        for file in ("statements.sql", "version_1.sql"):
            made.joinpath(file).write_text(known.joinpath(file).read_text())
        head = "-- usable from: 1\n" if for_all else ""
        columns = ";\n".join(
            f"ALTER TABLE {table} ADD COLUMN note TEXT NOT NULL DEFAULT 'made'"
            for table in _tables(made.joinpath("version_1.sql").read_text())
        )
        made.joinpath("version_2.sql").write_text(f"{head}{columns};\n")
    return folder


def _tables(script: str) -> list[str]:
    words = script.split()
    return [
        name
        for before, word, name in zip(words, words[1:], words[2:], strict=False)
        if (before, word) == ("CREATE", "TABLE")
    ]


def know(folder: Path) -> None:
    """Let this process know the versions whose SQL is in this folder."""
    sql.FOLDER = folder
    for known in (sql.script, sql.newest_version, sql.usable_from):
        known.cache_clear()


class SecondVersion:
    """Lets this process know a second version of the tables, or not.

    Args:
        folder: Where to write its SQL.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = sql.FOLDER

    def __call__(self, *, for_all: bool = True) -> Path:
        """Know it from now on; the folder of its SQL.

        Args:
            for_all: Whether packages that know only the first version may use those tables.
        """
        made = later(self._folder / f"sql{for_all}", for_all=for_all)
        know(made)
        return made

    def forget(self) -> None:
        """Know only the first again."""
        know(self._known)

    @contextmanager
    def in_force(self, *, for_all: bool = True) -> Iterator[None]:
        """Know it for the length of a block."""
        self(for_all=for_all)
        try:
            yield
        finally:
            self.forget()


def main(folder: str, command: str, *arguments: str) -> None:
    know(Path(folder))
    upkeep.package_version.cache_clear()
    of_this = metadata.version
    metadata.version = lambda name: LATER_PACKAGE if name == "dagster-lifeguard" else of_this(name)
    sys.argv = [command, *arguments]
    if command == "lifeguard":
        from dagster_lifeguard.cli import main as lifeguard

        lifeguard()
    from dagster._cli import main as dagster

    dagster()


if __name__ == "__main__":
    main(*sys.argv[1:])
