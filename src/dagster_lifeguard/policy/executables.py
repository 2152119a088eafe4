"""Units: what Dagster executes together, and what of it a policy looks at."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from dagster_lifeguard.compat.copies import original_node
from dagster_lifeguard.compat.definitions import (
    io_manager_key,
    made_keys,
    node_of,
    observation_as_assets,
)
from dagster_lifeguard.compat.ops import declared_pool, leaf_ops
from dagster_lifeguard.errors import UnsupportedDefinitionsError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dagster_lifeguard.compat.ops import Leaf

Kind = Literal["asset", "multi_asset", "graph_asset", "observation", "check", "external"]

AssetItem = dg.AssetsDefinition | dg.AssetSpec | dg.SourceAsset


@dataclass(frozen=True, slots=True)
class OpUse:
    """An op of a unit, as the user wrote it.

    Attributes:
        op: The op.
        declared: The pool that the user gave it, on the op or where it is used; None if none.
        is_partly_declared: Whether that pool is a tag on some of its uses and not on others.
        graphs: The names of the graphs in which the unit uses it; None if it is the op by itself.
    """

    op: dg.OpDefinition
    declared: str | None
    is_partly_declared: bool
    graphs: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """The ops that one assets definition executes.

    Attributes:
        name: Its first asset key in alphabetical order, ``a/b``; of a unit that only checks,
            ``a/b:check_name``.
        assets: The definition.
        keys: The asset keys that it makes, or checks, sorted: its members.
        ops: Each of its ops once, as the user wrote it.
        current: The pools that its steps claim in the definitions as they are, sorted.
        steps: The uses of its ops, as the user wrote them: one for each of its steps in a run.
        is_check: Whether it makes no asset and only checks some.
    """

    name: str
    assets: dg.AssetsDefinition
    keys: tuple[dg.AssetKey, ...]
    ops: tuple[OpUse, ...]
    current: tuple[str, ...]
    steps: tuple[Leaf, ...]
    is_check: bool

    @property
    def kind(self) -> Kind:
        """What executes the unit."""
        if self.is_check:
            return "check"
        if not isinstance(node_of(self.assets), dg.OpDefinition):
            return "graph_asset"
        if len(self.keys) > 1:
            return "multi_asset"
        return "asset" if self.assets.is_materializable else "observation"

    @property
    def node_name(self) -> str:
        """The name of its op or graph."""
        node = node_of(self.assets)
        assert node is not None
        return node.name

    @property
    def resources(self) -> tuple[str, ...]:
        """The keys of the resources that its ops require, sorted; without io managers."""
        return tuple(sorted({key for use in self.ops for key in use.op.required_resource_keys}))

    def io_manager(self, key: dg.AssetKey) -> str | None:
        """The key of the io manager that stores an asset; None if none does."""
        return io_manager_key(self.assets, key)

    @property
    def selects(self) -> bool:
        """Whether a run may select some of its members, and its plan tells which.

        Not of a graph: only its last steps make assets, and all of them work on these.
        """
        is_op = isinstance(node_of(self.assets), dg.OpDefinition)
        return is_op and len(self.keys) > 1 and bool(self.assets.can_subset)


def with_op(item: Any) -> Any:
    """Return the assets definition that Dagster makes of an observable source asset.

    A source asset gets its op only when Dagster loads it; anything else is returned as it is.
    """
    if isinstance(item, dg.SourceAsset) and item.is_observable:
        return observation_as_assets(item)
    return item


def distinct_items(items: Iterable[AssetItem]) -> list[AssetItem]:
    """Return each item once.

    Raises:
        UnsupportedDefinitionsError: An item is none of Dagster's asset classes.
    """
    found = list({id(item): item for item in items}.values())
    for item in found:
        if not isinstance(item, AssetItem):
            raise UnsupportedDefinitionsError(
                f"{type(item).__name__} builds its assets only while Dagster loads them.",
                remedy="Pass the AssetsDefinitions that it builds, or apply the policy to those.",
                names=[type(item).__name__],
            )
    return found


def units_of(items: Iterable[AssetItem]) -> list[Unit]:
    """Return the units among these items, sorted by name; external assets have none."""
    units = []
    for item in items:
        if isinstance(item, dg.AssetsDefinition) and node_of(item) is not None:
            unit = _unit(item)
            if unit is not None:
                units.append(unit)
    units.sort(key=lambda unit: unit.name)
    return units


def _unit(assets: dg.AssetsDefinition) -> Unit | None:
    keys = made_keys(assets)
    is_check = not keys
    if keys:
        name = keys[0].to_user_string()
    else:
        checks = sorted(assets.check_keys)
        if not checks:
            return None
        name = f"{checks[0].asset_key.to_user_string()}:{checks[0].name}"
        keys = tuple(dict.fromkeys(check.asset_key for check in checks))
    node = node_of(assets)
    assert node is not None
    uses = list(leaf_ops(node))
    current = {pool for use in uses if (pool := declared_pool(use.op, use.tags))}
    original = original_node(node)
    leaves = tuple(uses if original is node else leaf_ops(original))
    return Unit(name, assets, keys, _ops(leaves), tuple(sorted(current)), leaves, is_check)


def _ops(uses: Iterable[Leaf]) -> tuple[OpUse, ...]:
    declared: defaultdict[dg.OpDefinition, set[str | None]] = defaultdict(set)
    graphs: defaultdict[dg.OpDefinition, dict[str | None, None]] = defaultdict(dict)
    for op, tags, graph, _ in uses:
        declared[op].add(declared_pool(op, tags))
        graphs[op][graph] = None
    # Where a tag gives only some uses a pool, it counts for the op.
    return tuple(
        OpUse(
            op,
            max(filter(None, pools), default=None),
            len(pools) > 1 and None in pools,
            tuple(graphs[op]),
        )
        for op, pools in declared.items()
    )
