"""Ops replaced wherever definitions use them."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import dagster as dg
from dagster import _record
from dagster._core.definitions.node_container import create_execution_structure
from dagster._core.storage.tags import GLOBAL_CONCURRENCY_TAG

from dagster_lifeguard.compat.copies import clone, copy_once, original_node
from dagster_lifeguard.compat.ops import declared_pool, tags_with_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from dagster._core.definitions.node_definition import NodeDefinition

_T = TypeVar("_T")

_NONE: Mapping[dg.OpDefinition, Mapping[str, str | None]] = MappingProxyType({})


class OpReplacement:
    """Replaces ops in all their uses, keeping identity.

    Dagster refuses two op or graph definitions of one name in a repository unless they are the same
    object. So each definition that contains a replaced op is copied once; all others are kept. If a
    policy was applied before, the user's original definitions are used.

    Args:
        new_ops: For each op as the user wrote it, its replacement.
        untagged: The ops whose uses lose the tag ``dagster/concurrency_key``.
        pools_of_uses: For ops without a pool of their own: the pool, or None, of the uses in each
            graph. In other graphs a use keeps what the user wrote.
    """

    def __init__(
        self,
        new_ops: Mapping[dg.OpDefinition, dg.OpDefinition],
        untagged: AbstractSet[dg.OpDefinition],
        pools_of_uses: Mapping[dg.OpDefinition, Mapping[str, str | None]] = _NONE,
    ) -> None:
        self._new: dict[int, Any] = {id(op): new for op, new in new_ops.items()}
        self._untagged = {id(op) for op in untagged}
        self._pools_of_uses = {id(op): pools for op, pools in pools_of_uses.items()}
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
        dependencies = self._tagged_dependencies(graph)
        if _all_same(inner, graph._node_defs) and dependencies is graph._dependencies:
            return graph
        tags: tuple[object, ...] = ()
        if dependencies is not graph._dependencies:
            tags = tuple((use, use.tags.get(GLOBAL_CONCURRENCY_TAG)) for use in dependencies)
        new = copy_once((id(graph), *map(id, inner), *tags), graph, {"_node_defs": inner})
        if new._dependency_structure is graph._dependency_structure:  # it is new indeed
            new._dependencies = dependencies
            new._dependency_structure, new._node_dict = create_execution_structure(
                inner, dependencies, graph_definition=new
            )
            new._nodes_in_topological_order = new._get_nodes_in_topological_order()
            if graph.is_subselected:
                new._parent_graph_def = self.node(graph._parent_graph_def)
        return new

    def _tagged_dependencies(self, graph: Any) -> Any:
        """Relies on: ``_dependencies`` is keyed by ``NodeInvocation``, a named tuple (1.10.0)."""
        ops = {node.name: original_node(node) for node in graph._node_defs}
        new = {
            self._tagged(graph.name, use, ops.get(use.name)): inputs
            for use, inputs in graph._dependencies.items()
        }
        return graph._dependencies if _all_same(list(new), list(graph._dependencies)) else new

    def _tagged(self, graph_name: str, use: Any, op: Any) -> Any:
        """One use of an op, with the tags that give its step its pool."""
        if id(op) in self._untagged:
            pool = None
        elif id(op) in self._pools_of_uses:
            written = declared_pool(op, {**op.tags, **use.tags})
            pool = self._pools_of_uses[id(op)].get(graph_name, written)
        else:
            return use
        tags = tags_with_pool(use.tags, pool)
        return use if tags == use.tags else use._replace(tags=tags)

    def _new_assets(self, assets: Any) -> Any:
        computation = assets._computation
        if computation is None:
            return assets
        node = self.node(computation.node_def)
        if node is computation.node_def:
            return assets
        new = clone(assets)
        new._computation = _record.copy(computation, node_def=node)
        return new

    def _new_job(self, job: Any) -> Any:
        graph = self.node(job.graph)
        return job if graph is job.graph else job._copy(graph_def=graph)

    def _new_schedule(self, schedule: Any) -> Any:
        target = self._target(schedule._target)
        if target is schedule._target:
            return schedule
        new = clone(schedule)
        new._target = target
        return new

    def _new_sensor(self, sensor: Any) -> Any:
        targets = [self._target(target) for target in sensor._targets]
        if _all_same(targets, sensor._targets):
            return sensor
        new = clone(sensor)
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
