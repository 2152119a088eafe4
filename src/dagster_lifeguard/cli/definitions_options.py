"""The options by which a command is told where the definitions are."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from dagster_lifeguard.compat.locations import LocationOrigin


@dataclass(frozen=True)
class DefinitionsNamed:
    """The definitions that a user names.

    Attributes:
        modules: Python modules.
        files: Python files.
        workspaces: Files like ``workspace.yaml``.
        directory: Where modules and files import from.
    """

    modules: tuple[str, ...]
    files: tuple[str, ...]
    workspaces: tuple[str, ...]
    directory: str

    @property
    def is_any(self) -> bool:
        """Whether something is named."""
        return bool(self.modules or self.files or self.workspaces)

    def find(self) -> list[LocationOrigin]:
        """Find their code locations; where nothing is named, those of the project here.

        Raises:
            LoadError: A file does not exist, there is no project here, or another process serves
                the code.
        """
        from dagster_lifeguard.inspections.check.origins import find_origins  # noqa: PLC0415 - slow

        return find_origins(self.modules, self.files, self.workspaces, self.directory)


def definitions_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``-m``, ``-f``, ``-w`` and ``-d``, and hand it ``definitions``."""

    @click.option(
        "-m",
        "--module-name",
        "modules",
        multiple=True,
        help="Python module with definitions. Repeatable.",
    )
    @click.option(
        "-f",
        "--python-file",
        "files",
        multiple=True,
        help="Python file with definitions. Repeatable.",
    )
    @click.option(
        "-w", "--workspace", "workspaces", multiple=True, help="A workspace.yaml. Repeatable."
    )
    @click.option(
        "-d", "--working-directory", help="Directory that -m and -f import from.  [default: .]"
    )
    @functools.wraps(command)
    def with_definitions(
        *args: Any,
        modules: tuple[str, ...],
        files: tuple[str, ...],
        workspaces: tuple[str, ...],
        working_directory: str | None,
        **kwargs: Any,
    ) -> None:
        if not all(modules):
            raise click.UsageError("-m names no module.")
        directory = working_directory or str(Path.cwd())
        named = DefinitionsNamed(modules, files, workspaces, directory)
        command(*args, definitions=named, **kwargs)

    return with_definitions
