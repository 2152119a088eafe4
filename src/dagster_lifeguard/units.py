"""Units: what Dagster executes together, and what of it a policy looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from dagster_lifeguard import compat
from dagster_lifeguard.errors import UnsupportedDefinitionsError

if TYPE_CHECKING:
    from collections.abc import Iterable

Kind = Literal["asset", "multi_asset", "graph_asset", "observation", "check", "external"]

AssetItem = dg.AssetsDefinition | dg.AssetSpec | dg.SourceAsset


@dataclass(frozen=True, slots=True)
class OpUse:
    """An op of a unit.

    Attributes:
        op: The op as it is in the definitions.
        original: The op as the user wrote it.
        declared: The pool that the user gave it, where it is used here; None if none.
    """

    op: dg.OpDefinition
    original: dg.OpDefinition
    declared: str | None


@dataclass(frozen=True, slots=True)
class Unit:
    """The ops that one assets definition executes.

    Attributes:
        name: Its first asset key, ``a/b``; of a unit that only checks, ``a/b:check_name``.
        assets: The definition.
        keys: The asset keys that it makes, or checks, as declared. The first decides which rule
            applies.
        ops: Each of its ops once.
        step_count: How many steps it has in a run; ops that are used twice count twice.
        is_check: Whether it makes no asset and only checks some.
    """

    name: str
    assets: dg.AssetsDefinition
    keys: tuple[dg.AssetKey, ...]
    ops: tuple[OpUse, ...]
    step_count: int
    is_check: bool

    @property
    def kind(self) -> Kind:
        """What executes the unit."""
        if self.is_check:
            return "check"
        if not isinstance(compat.node_of(self.assets), dg.OpDefinition):
            return "graph_asset"
        if len(self.keys) > 1:
            return "multi_asset"
        return "asset" if self.assets.is_materializable else "observation"


def with_op(item: Any) -> Any:
    """Return the assets definition that Dagster makes of an observable source asset.

    A source asset gets its op only when Dagster loads it; anything else is returned as it is.
    """
    if isinstance(item, dg.SourceAsset) and item.is_observable:
        return compat.observation_as_assets(item)
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
        if isinstance(item, dg.AssetsDefinition) and compat.node_of(item) is not None:
            unit = _unit(item)
            if unit is not None:
                units.append(unit)
    units.sort(key=lambda unit: unit.name)
    return units


def _unit(assets: dg.AssetsDefinition) -> Unit | None:
    keys = compat.declared_keys(assets)
    if keys:
        return Unit(keys[0].to_user_string(), assets, keys, *_ops(assets), is_check=False)
    checks = sorted(assets.check_keys)
    if not checks:
        return None
    name = f"{checks[0].asset_key.to_user_string()}:{checks[0].name}"
    keys = tuple(dict.fromkeys(check.asset_key for check in checks))
    return Unit(name, assets, keys, *_ops(assets), is_check=True)


def _ops(assets: dg.AssetsDefinition) -> tuple[tuple[OpUse, ...], int]:
    node = compat.node_of(assets)
    assert node is not None
    uses: dict[dg.OpDefinition, OpUse] = {}
    step_count = 0
    for op, tags in compat.leaf_ops(node):
        step_count += 1
        original = compat.original_op(op)
        declared = compat.declared_pool(original, tags)
        # One use of an op may be tagged with a pool and another not; the tag then counts for the
        # op, for a pool on the op itself would silence the tag.
        known = uses.get(op)
        if known is None or (known.declared or "") < (declared or ""):
            uses[op] = OpUse(op, original, declared)
    return tuple(uses.values()), step_count
