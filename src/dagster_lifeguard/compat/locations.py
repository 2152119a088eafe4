"""Code locations: where they come from, and what their repositories hold."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
from dagster._core.definitions.reconstruct import repository_def_from_target_def
from dagster._core.workspace import load_target
from dagster._grpc.utils import get_loadable_targets

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class LocationOrigin:
    """Where a code location comes from, in a form that can be handed to another process.

    Attributes:
        name: The location's name, as Dagster shows it.
        target: Keyword arguments for Dagster's loader; empty if it cannot be loaded here.
    """

    name: str
    target: tuple[tuple[str, str], ...]


def origins_of_module(module: str, working_directory: str) -> Sequence[LocationOrigin]:
    """Return the code location of a Python module."""
    target = load_target.ModuleTarget(module, None, working_directory, None)
    return _origins(target.create_origins())


def origins_of_file(python_file: str, working_directory: str) -> Sequence[LocationOrigin]:
    """Return the code location of a Python file."""
    target = load_target.PythonFileTarget(python_file, None, working_directory, None)
    return _origins(target.create_origins())


def origins_of_workspace(path: str) -> Sequence[LocationOrigin]:
    """Return the code locations of a ``workspace.yaml``.

    Raises:
        dagster.DagsterError: The file is not a workspace.
    """
    return _origins(load_target.WorkspaceFileTarget([path]).create_origins())


def origins_of_project(pyproject: str) -> Sequence[LocationOrigin]:
    """Return the code location that a pyproject.toml names in ``tool.dagster`` or ``tool.dg``.

    Before Dagster 1.11 only ``tool.dagster`` is known to Dagster.
    """
    return _origins(load_target.PyProjectFileTarget(pyproject).create_origins())


def _origins(origins: Iterable[Any]) -> list[LocationOrigin]:
    result = []
    for origin in origins:
        try:
            loadable = origin.loadable_target_origin
        except dg.DagsterError:  # a location that another process serves has none
            loadable = None
        names = (
            "python_file",
            "module_name",
            "package_name",
            "autoload_defs_module_name",
            "working_directory",
            "attribute",
        )
        target = {name: getattr(loadable, name, None) for name in names}
        result.append(
            LocationOrigin(
                origin.location_name, tuple((k, v) for k, v in target.items() if v is not None)
            )
        )
    return result


def load_repositories(origin: LocationOrigin) -> list[dg.RepositoryDefinition]:
    """Load the code of a location into this process, the way Dagster's code server does.

    Relies on: ``get_loadable_targets`` and ``repository_def_from_target_def`` (1.10.0).

    Raises:
        Exception: Whatever the user's code raises.
    """
    parameters = inspect.signature(get_loadable_targets).parameters
    target: dict[str, object] = dict(origin.target)
    arguments = {name: target.get(name) for name in parameters if name != "resolve_lazy_defs"}
    if "resolve_lazy_defs" in parameters:
        arguments["resolve_lazy_defs"] = True
    repositories = []
    for loadable in cast("Any", get_loadable_targets)(**arguments):
        repository = repository_def_from_target_def(loadable.target_definition)
        if repository is not None:
            repositories.append(repository)
    return repositories


def python_file(origin: LocationOrigin) -> Path | None:
    """Return the file whose definitions a code location has; None if Dagster puts them together.

    The location has been loaded into this process before.
    """
    target = dict(origin.target)
    if "python_file" in target:
        return Path(target["python_file"])
    module = sys.modules.get(target.get("module_name", target.get("package_name", "")))
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file)


def repository_assets(
    repository: dg.RepositoryDefinition,
) -> list[dg.AssetsDefinition | dg.SourceAsset]:
    """Return the assets and asset checks of a repository, each once.

    Relies on: ``RepositoryDefinition.assets_defs_by_key``, ``asset_checks_defs_by_key`` and
    ``source_assets_by_key`` (1.10.0).
    """
    of_repository = cast("Any", repository)
    items = [
        *of_repository.assets_defs_by_key.values(),
        *of_repository.asset_checks_defs_by_key.values(),
        *of_repository.source_assets_by_key.values(),
    ]
    return list({id(item): item for item in items}.values())


def executors_of_pooled_jobs(repository: dg.RepositoryDefinition) -> dict[str, str]:
    """Return the name of the executor of each job that has an op with a pool.

    Relies on: ``GraphDefinition.iterate_op_defs`` and ``JobDefinition.executor_def`` (1.10.0).
    """
    return {
        job.name: job.executor_def.name
        for job in repository.get_all_jobs()
        if any(op.pool for op in cast("Any", job.graph).iterate_op_defs())
    }


def op_jobs(repository: dg.RepositoryDefinition) -> list[dg.JobDefinition]:
    """Return the jobs that are made of ops rather than of assets.

    Relies on: ``JobDefinition.asset_layer.executable_asset_keys`` (1.10.0).
    """
    return [
        job
        for job in repository.get_all_jobs()
        if not set(cast("Any", job).asset_layer.executable_asset_keys)
    ]
