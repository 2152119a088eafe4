"""Dagster's components: the folder of definitions that a ``dg`` project has."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dagster as dg


def defs_folder(repository: dg.RepositoryDefinition) -> Path | None:
    """Return the folder whose component tree is in a repository; None if there is no tree.

    Relies on: ``RepositoryDefinition.get_component_tree`` and ``ComponentTree.defs_module_path``
    (1.11.0).
    """
    tree: Any = getattr(repository, "get_component_tree", lambda: None)()
    module_path = getattr(tree, "defs_module_path", None)
    return None if module_path is None else Path(module_path)


def as_its_parts_made_them(
    context: dg.ComponentLoadContext, defs: dg.Definitions
) -> dg.Definitions:
    """Return the definitions of a folder without the metadata that its own ``defs.yaml`` added.

    Dagster writes the file and the component of a ``defs.yaml`` into the metadata of all its
    definitions. For a folder this overwrites the metadata of the folder's parts.

    Relies on: ``context.component_tree.build_defs(context.component_loc)`` returns the definitions
    that it has already built for the component (1.13.8). If it contains anything other than
    ``defs``, these are returned unchanged.
    """
    of_context: Any = context
    own: dg.Definitions = of_context.component_tree.build_defs(of_context.component_loc)
    fields = ("assets", "asset_checks", "schedules", "sensors", "jobs", "resources")
    sizes = [[len(getattr(whole, field) or ()) for field in fields] for whole in (own, defs)]
    return own if sizes[0] == sizes[1] else defs


def cause_of(error: BaseException) -> BaseException:
    """Return what was wrong, where Dagster's error only says in which part of the tree it was.

    Relies on: ``ComponentTreeException`` is raised from its cause (1.11.16).
    """
    while type(error).__name__ == "ComponentTreeException" and error.__cause__ is not None:
        error = error.__cause__
    return error


def _takes_yaml() -> bool:
    try:
        module: object = importlib.import_module("dagster.components.core.defs_module")
    except ImportError:  # before 1.10.18
        return False
    return hasattr(module, "ComponentRootComponent")


DEFS_FOLDER_TAKES_YAML = _takes_yaml()
"""Whether the folder of definitions may itself have a ``defs.yaml``.

Before 1.13.8 the code server, which lists the components of a location, takes the root of the tree
for a ``DefsFolderComponent``. With a ``defs.yaml`` in that folder it is another class, and the
location cannot be served.
"""
