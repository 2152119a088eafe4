"""Everything taken from Dagster that Dagster does not promise to keep.

No other module may import ``dagster._*`` or touch a private attribute of a Dagster object. Each
function here says what it relies on; ``tests/test_compat.py`` fails when Dagster changes it. All
of it was tested on Dagster 1.10.0 (the oldest supported) and 1.13.27.

Definitions are never rebuilt from their parts. Each is copied as it is and the one thing that
differs is put in, so whatever else a definition holds, in whatever version of Dagster, is kept.
"""

from __future__ import annotations

import importlib
import inspect
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakValueDictionary

import dagster as dg
from dagster import _record
from dagster._check import CheckError
from dagster._core.definitions.external_asset import create_external_asset_from_source_asset
from dagster._core.definitions.node_container import create_execution_structure
from dagster._core.definitions.reconstruct import repository_def_from_target_def
from dagster._core.instance.config import dagster_instance_config
from dagster._core.op_concurrency_limits_counter import GlobalOpConcurrencyLimitsCounter
from dagster._core.storage.tags import GLOBAL_CONCURRENCY_TAG
from dagster._core.workspace import load_target
from dagster._grpc.utils import get_loadable_targets
from dagster._utils.test import definitions
from dagster._utils.warnings import BetaWarning, PreviewWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from dagster._core.definitions.node_definition import NodeDefinition

LazyDefinitions = definitions.LazyDefinitions
"""What the decorator ``@definitions`` makes of a function (1.10.0, public from 1.11)."""

UNSTABLE_API_WARNINGS: tuple[type[Warning], ...] = (BetaWarning, PreviewWarning)
"""What Dagster warns with where code uses parts of it that may change (1.10.0)."""

_T = TypeVar("_T")

_ORIGINAL = "_lifeguard_original"
_POLICY = "_lifeguard_policy"


# --- ops and graphs -------------------------------------------------------------------------------


def original_node(node: NodeDefinition) -> NodeDefinition:
    """Return the op or graph as the user wrote it, whether or not a policy was applied to it."""
    return cast("NodeDefinition", vars(node).get(_ORIGINAL, node))


def applied_policy(op: dg.OpDefinition) -> object | None:
    """Return the policy that was applied to this op; None if none was."""
    return cast("object | None", vars(op).get(_POLICY))


def declared_pool(op: dg.OpDefinition, tags: Mapping[str, str]) -> str | None:
    """Return the pool that a step of the op claims: ``op.pool``, or else the older tag.

    Relies on: a step's pool is ``op.pool`` or else its ``dagster/concurrency_key`` tag (1.10.0).
    """
    return op.pool or tags.get(GLOBAL_CONCURRENCY_TAG) or op.tags.get(GLOBAL_CONCURRENCY_TAG)


def op_under_policy(op: dg.OpDefinition, policy: object, policy_text: str) -> dg.OpDefinition:
    """Copy an op as it is, with a note of the policy that was applied to it.

    Args:
        op: The op as the user wrote it.
        policy: The policy.
        policy_text: The policy in writing; policies of one text are one.
    """
    return _copy_once((id(op), policy_text), op, {_POLICY: policy})


def op_with_pool(
    op: dg.OpDefinition, pool: str | None, policy: object, policy_text: str
) -> dg.OpDefinition:
    """Copy an op as it is, but for its pool, with a note of the policy that gave it.

    The tag ``dagster/concurrency_key`` goes with the pool it used to name: Dagster refuses an op
    whose tag and pool differ.

    Relies on: ``OpDefinition._pool`` and ``NodeDefinition._tags`` (1.10.0).
    """
    assert hasattr(op, "_pool")
    changes: dict[str, object] = {"_pool": pool, _POLICY: policy}
    if GLOBAL_CONCURRENCY_TAG in op.tags:
        changes["_tags"] = {k: v for k, v in op.tags.items() if k != GLOBAL_CONCURRENCY_TAG}
    return _copy_once((id(op), policy_text, pool), op, changes)


# The same copy for the same original and the same changes, for as long as it is used: parts of a
# project may be wrapped one by one and merged then, and Dagster wants one object for one name. A
# copy keeps its original alive, so no id in a key can come to name another object.
_COPIES: WeakValueDictionary[tuple[object, ...], Any] = WeakValueDictionary()


def _copy_once(key: tuple[object, ...], obj: _T, changes: Mapping[str, object]) -> _T:
    known = _COPIES.get(key)
    if known is None:
        known = _clone(obj)
        known.__dict__.update(changes)
        known.__dict__[_ORIGINAL] = obj
        _COPIES[key] = known
    return cast("_T", known)


def _clone(obj: Any) -> Any:
    """Copy an object as ``copy.copy`` does, ten times faster: it is done twice for each asset.

    Relies on: the classes of definitions keep their state in ``__dict__`` alone (1.10.0).
    """
    new = object.__new__(type(obj))
    new.__dict__.update(vars(obj))
    return new


def leaf_ops(node: NodeDefinition) -> Iterator[tuple[dg.OpDefinition, Mapping[str, str]]]:
    """Yield each op under a node, once per use, with the tags that its step will have.

    Relies on: ``GraphDefinition.nodes`` and ``Node.definition``, ``Node.tags`` (1.10.0).
    """
    if isinstance(node, dg.OpDefinition):
        yield node, node.tags
        return
    for inner in cast("Any", node).nodes:
        if isinstance(inner.definition, dg.OpDefinition):
            yield inner.definition, {**inner.definition.tags, **inner.tags}
        else:
            yield from leaf_ops(inner.definition)


class OpReplacement:
    """Replaces ops wherever they are used, keeping identity.

    Dagster refuses two op or graph definitions of one name in a repository unless they are the
    same object, so whatever holds a replaced op is copied once, and only then. Definitions to
    which a policy was applied before are taken back to what the user wrote first.

    Args:
        new_ops: For each op as the user wrote it, what is to stand in its place.
        untagged: Those of them whose uses lose the tag ``dagster/concurrency_key``.
    """

    def __init__(
        self,
        new_ops: Mapping[dg.OpDefinition, dg.OpDefinition],
        untagged: AbstractSet[dg.OpDefinition],
    ) -> None:
        self._new: dict[int, Any] = {id(op): new for op, new in new_ops.items()}
        self._untagged = {id(op) for op in untagged}
        # An id names an object only while that object lives.
        self._kept: list[object] = list(new_ops)

    def node(self, node: NodeDefinition) -> NodeDefinition:
        """Return the node with its ops replaced, from what the user wrote.

        Relies on: ``GraphDefinition._node_defs``, ``_dependencies``, ``_dependency_structure``,
        ``_node_dict``, ``_nodes_in_topological_order``, ``_parent_graph_def`` (1.10.0).
        """
        original = original_node(node)
        if isinstance(original, dg.OpDefinition):
            return cast("NodeDefinition", self._new.get(id(original), original))
        return self._once(original, self._new_graph)

    def assets(self, assets: dg.AssetsDefinition) -> dg.AssetsDefinition:
        """Return the assets definition with its ops replaced.

        Relies on: ``AssetsDefinition._computation`` is a record with a ``node_def`` (1.10.0).
        """
        return self._once(assets, self._new_assets)

    def job(self, job: _T) -> _T:
        """Return the job with its ops replaced; jobs that are still to be resolved stay.

        Relies on: ``JobDefinition._copy(graph_def=...)`` (1.10.0).
        """
        return self._once(job, self._new_job) if isinstance(job, dg.JobDefinition) else job

    def schedule(self, schedule: _T) -> _T:
        """Return the schedule with the ops of its target replaced.

        Relies on: ``ScheduleDefinition._target``, an ``AutomationTarget`` (1.10.0).
        """
        if not isinstance(schedule, dg.ScheduleDefinition):
            return schedule  # its job is still to be resolved, and holds no op
        return self._once(schedule, self._new_schedule)

    def sensor(self, sensor: dg.SensorDefinition) -> dg.SensorDefinition:
        """Return the sensor with the ops of its targets replaced.

        Relies on: ``SensorDefinition._targets``, a list of ``AutomationTarget`` (1.10.0).
        """
        return self._once(sensor, self._new_sensor)

    def _once(self, obj: _T, make: Callable[[Any], Any]) -> _T:
        if id(obj) not in self._new:
            self._new[id(obj)] = make(obj)
            self._kept.append(obj)
        return cast("_T", self._new[id(obj)])

    def _new_graph(self, graph: Any) -> Any:
        inner = [self.node(node) for node in graph._node_defs]
        dependencies = self._untagged_dependencies(graph)
        if _all_same(inner, graph._node_defs) and dependencies is graph._dependencies:
            return graph
        untagged = dependencies is not graph._dependencies
        new = _copy_once((id(graph), *map(id, inner), untagged), graph, {"_node_defs": inner})
        if new._dependency_structure is graph._dependency_structure:  # it is new indeed
            new._dependencies = dependencies
            new._dependency_structure, new._node_dict = create_execution_structure(
                inner, dependencies, graph_definition=new
            )
            new._nodes_in_topological_order = new._get_nodes_in_topological_order()
            if graph.is_subselected:
                new._parent_graph_def = self.node(graph._parent_graph_def)
        return new

    def _untagged_dependencies(self, graph: Any) -> Any:
        """Relies on: ``_dependencies`` is keyed by ``NodeInvocation``, a named tuple (1.10.0)."""
        names = {
            node.name for node in graph._node_defs if id(original_node(node)) in self._untagged
        }
        new = {
            use._replace(tags={k: v for k, v in use.tags.items() if k != GLOBAL_CONCURRENCY_TAG})
            if use.name in names and GLOBAL_CONCURRENCY_TAG in use.tags
            else use: inputs
            for use, inputs in graph._dependencies.items()
        }
        return graph._dependencies if _all_same(list(new), list(graph._dependencies)) else new

    def _new_assets(self, assets: Any) -> Any:
        computation = assets._computation
        if computation is None:
            return assets
        node = self.node(computation.node_def)
        if node is computation.node_def:
            return assets
        new = _clone(assets)
        new._computation = _record.copy(computation, node_def=node)
        return new

    def _new_job(self, job: Any) -> Any:
        graph = self.node(job.graph)
        return job if graph is job.graph else job._copy(graph_def=graph)

    def _new_schedule(self, schedule: Any) -> Any:
        target = self._target(schedule._target)
        if target is schedule._target:
            return schedule
        new = _clone(schedule)
        new._target = target
        return new

    def _new_sensor(self, sensor: Any) -> Any:
        targets = [self._target(target) for target in sensor._targets]
        if _all_same(targets, sensor._targets):
            return sensor
        new = _clone(sensor)
        new._targets = targets
        return new

    def _target(self, target: Any) -> Any:
        job = self.job(target.resolvable_to_job)
        assets = [self.assets(item) for item in target.assets_defs]
        if job is target.resolvable_to_job and _all_same(assets, target.assets_defs):
            return target
        return target._replace(resolvable_to_job=job, assets_defs=assets)


def _all_same(new: Sequence[object], old: Sequence[object]) -> bool:
    return all(a is b for a, b in zip(new, old, strict=True))


def target_assets(automation: object) -> list[dg.AssetsDefinition]:
    """Return the assets definitions that a schedule or sensor carries as its target.

    They may be missing from ``Definitions.assets``, and where they are not, Dagster requires them
    to have the same computation.
    """
    return [item for target in _targets(automation) for item in target.assets_defs]


def _targets(automation: Any) -> Sequence[Any]:
    if isinstance(automation, dg.ScheduleDefinition):
        return [cast("Any", automation)._target]
    if isinstance(automation, dg.SensorDefinition):
        return cast("Sequence[Any]", cast("Any", automation)._targets)
    return []


# --- definitions ----------------------------------------------------------------------------------


def node_of(assets: dg.AssetsDefinition) -> NodeDefinition | None:
    """Return the op or graph that executes these assets; None for external assets.

    Relies on: ``AssetsDefinition.computation`` (1.10.0).
    """
    computation: Any = assets.computation
    return None if computation is None else cast("NodeDefinition", computation.node_def)


def made_keys(assets: dg.AssetsDefinition) -> tuple[dg.AssetKey, ...]:
    """Return the asset keys that the op or graph makes, sorted; of a subset, those of the whole.

    Sorted, as no order that Dagster keeps is the same in every process: that of ``specs`` comes
    from a set for graph assets, and that of the outputs is the caller's, which for a dbt project
    comes from a set too. Pools that differ from process to process would protect nothing.

    Relies on: ``AssetsDefinition.node_keys_by_output_name`` (1.10.0).
    """
    return tuple(sorted(set(assets.node_keys_by_output_name.values())))


def io_manager_key(assets: dg.AssetsDefinition, key: dg.AssetKey) -> str | None:
    """Return the key of the io manager that stores the asset.

    Relies on: ``AssetsDefinition.has_output_for_asset_key`` and
    ``get_io_manager_key_for_asset_key`` (1.10.0).
    """
    if not assets.has_output_for_asset_key(key):
        return None
    return assets.get_io_manager_key_for_asset_key(key)


def observation_as_assets(source: dg.SourceAsset) -> dg.AssetsDefinition:
    """Turn an observable source asset into the assets definition that Dagster makes of it.

    Dagster does so itself when it loads a repository, but drops the op on the way whenever
    resources are bound, and the pool would go with it.

    Relies on: ``create_external_asset_from_source_asset`` (1.10.0).
    """
    return create_external_asset_from_source_asset(source)


def replace_definitions(defs: dg.Definitions, **fields: object) -> dg.Definitions:
    """Copy a ``Definitions`` with some fields changed and all others kept.

    Relies on: ``Definitions`` is a record (1.10.0).
    """
    return _record.replace(defs, **fields)


def map_lazy_definitions(lazy: _T, func: Callable[[dg.Definitions], dg.Definitions]) -> _T:
    """Apply a function to what a ``@definitions`` function will return.

    Relies on: ``LazyDefinitions`` is a record with ``load_fn`` (1.10.0).
    """
    load = cast("Any", lazy).load_fn
    return cast("_T", _record.replace(cast("Any", lazy), load_fn=lambda *args: func(load(*args))))


def selector(
    assets: Iterable[dg.AssetsDefinition | dg.SourceAsset | dg.AssetSpec],
) -> Callable[[str], frozenset[dg.AssetKey]]:
    """Return a function that resolves asset selections, Dagster's own syntax, among these assets.

    The function raises ValueError if a selection is malformed, names an asset that does not
    exist, or is of a kind that Dagster does not resolve in Python.

    Relies on: ``AssetGraph.from_assets``; ``AssetSelection.from_string(include_sources=True)``
    (1.10.0).
    """
    whole = [
        dg.AssetsDefinition(specs=[item]) if isinstance(item, dg.AssetSpec) else item
        for item in assets
    ]
    graph = _asset_graph_class().from_assets(whole)

    def select(selection: str) -> frozenset[dg.AssetKey]:
        try:
            with warnings.catch_warnings():
                # They concern the use made of Dagster here, so no user can do anything about them.
                for category in UNSTABLE_API_WARNINGS:
                    warnings.simplefilter("ignore", category)
                parsed: Any = cast("Any", dg.AssetSelection).from_string(
                    selection, include_sources=True
                )
                return frozenset(parsed.resolve(graph))
        except NotImplementedError as error:  # such as column:, which only Dagster's UI knows
            raise ValueError("Dagster resolves this selection only in its UI") from error
        except (dg.DagsterError, CheckError) as error:  # before 1.11 the latter is none of its own
            raise ValueError(str(error).splitlines()[0]) from error

    return select


def _asset_graph_class() -> Any:
    try:
        return importlib.import_module(
            "dagster._core.definitions.assets.graph.asset_graph"
        ).AssetGraph
    except ImportError:  # before 1.11
        return importlib.import_module("dagster._core.definitions.asset_graph").AssetGraph


# --- code locations -------------------------------------------------------------------------------


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


def op_jobs(repository: dg.RepositoryDefinition) -> list[dg.JobDefinition]:
    """Return the jobs that are made of ops rather than of assets.

    Relies on: ``JobDefinition.asset_layer.executable_asset_keys`` (1.10.0).
    """
    return [
        job
        for job in repository.get_all_jobs()
        if not set(cast("Any", job).asset_layer.executable_asset_keys)
    ]


def metadata_texts(items: Iterable[object], names: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Yield asset key, metadata name and value wherever an asset has text under such a name."""
    for item in items:
        if isinstance(item, dg.AssetsDefinition):
            for key, metadata in item.metadata_by_key.items():
                for name in names:
                    value = metadata_text(metadata.get(name))
                    if value:
                        yield key.to_user_string(), name, value


def metadata_text(value: object) -> str | None:
    """Return a metadata value as text; None if it is not a text, path, URL or number."""
    plain = getattr(value, "value", value)
    return str(plain) if isinstance(plain, str | int | os.PathLike) else None


# --- the instance ---------------------------------------------------------------------------------


DEFAULT_LIMIT_COMES_LATE = (
    "concurrency_keys" in inspect.signature(GlobalOpConcurrencyLimitsCounter).parameters
)
"""Whether the run queue lets all runs pass that wait for a pool which it meets for the first time.

It writes the default limit down only after it looked up which pools have one (1.11.1 and later).
"""


@dataclass(frozen=True)
class PoolSettings:
    """What ``dagster.yaml`` says of pools.

    Attributes:
        default_limit: Limit of a pool that has none of its own; None if such a pool is unlimited.
        granularity: ``op`` or ``run``.
        limits: The pools that have a limit on the instance, and which.
    """

    default_limit: int | None
    granularity: str
    limits: Mapping[str, int] = field(default_factory=dict)


def instance_pool_settings() -> PoolSettings | None:
    """Return the pool settings of the instance in DAGSTER_HOME; None if there is none.

    Relies on: ``DagsterInstance.get_concurrency_config().pool_config`` and
    ``EventLogStorage.get_pool_limits`` (1.10.0).
    """
    home = os.getenv("DAGSTER_HOME")
    if not home or not Path(home).is_dir():
        return None
    with dg.DagsterInstance.get() as instance:
        config: Any = cast("Any", instance).get_concurrency_config().pool_config
        granularity = config.pool_granularity
        return PoolSettings(
            config.default_pool_limit,
            "op" if granularity is None else str(granularity.value),
            {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()},
        )


def instance_config_problem(home: str) -> str | None:
    """Return what Dagster has against the ``dagster.yaml`` in a directory; None if nothing.

    Relies on: ``dagster_instance_config`` (1.10.0).
    """
    try:
        dagster_instance_config(home)
    except Exception as error:  # noqa: BLE001 - it raises several unrelated classes
        return " ".join(str(error).split())
    return None
