"""Origins: where the code locations are that a user names, or that the project here has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dagster_lifeguard.compat.locations import (
    origins_of_file,
    origins_of_module,
    origins_of_project,
    origins_of_workspace,
)
from dagster_lifeguard.errors import LoadError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dagster_lifeguard.compat.locations import LocationOrigin


def find_origins(
    modules: Sequence[str], files: Sequence[str], workspaces: Sequence[str], directory: str
) -> list[LocationOrigin]:
    """Return the code locations that a user names; without any, those of the project here.

    Args:
        modules: Python modules.
        files: Python files.
        workspaces: Files like ``workspace.yaml``.
        directory: Where modules and files import from.

    Raises:
        LoadError: There is no such file or project, or another process serves its code.
    """
    for path in (*files, *workspaces):
        if not Path(path).is_file():
            raise LoadError(f"{path} is not a file.", remedy="Name an existing file.", names=[path])
    origins = [o for module in modules for o in origins_of_module(module, directory)]
    origins += [o for file in files for o in origins_of_file(file, directory)]
    origins += [o for path in workspaces for o in _of_file(origins_of_workspace, path)]
    if not (modules or files or workspaces):
        origins = _origins_here()
    for origin in origins:
        if not origin.target:
            raise LoadError(
                f"The code location {origin.name} is served by another process.",
                remedy="Run lifeguard check -m or -f where its code is installed.",
                names=[origin.name],
            )
    return origins


def _origins_here() -> list[LocationOrigin]:
    if Path("pyproject.toml").is_file():
        origins = _of_file(origins_of_project, "pyproject.toml")
        if origins:
            return origins
    if Path("workspace.yaml").is_file():
        return _of_file(origins_of_workspace, "workspace.yaml")
    raise LoadError(
        "There is no Dagster project here: no tool.dagster or tool.dg in a pyproject.toml, and no "
        "workspace.yaml.",
        remedy="Go to the project's directory, or name its code: lifeguard check -m MODULE.",
    )


def _of_file(origins: Callable[[str], Sequence[LocationOrigin]], path: str) -> list[LocationOrigin]:
    try:
        return list(origins(path))
    except Exception as error:
        raise LoadError(
            f"{path}: {first_line(error)}",
            remedy="Dagster must be able to read it: try dagster definitions validate.",
            names=[path],
        ) from error
