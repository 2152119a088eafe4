"""Templates of pool names, filled in from what an asset declares."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, cast

from dagster_lifeguard.compat.definitions import io_manager_key, metadata_text
from dagster_lifeguard.config import describe_rule
from dagster_lifeguard.errors import NameClashError, TemplateError
from dagster_lifeguard.model import POOLS_PER_DEMAND_MAX
from dagster_lifeguard.names import (
    Term,
    enumerate_some,
    op_pool,
    pool_name,
    safe_value,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dagster import AssetKey

    from dagster_lifeguard.config import Config
    from dagster_lifeguard.errors import LifeguardError
    from dagster_lifeguard.names import Field, Naming
    from dagster_lifeguard.units import Unit


class PoolNames:
    """The pools that rules give to units; collects what goes wrong on the way."""

    def __init__(self, policy: Config) -> None:
        self._policy = policy
        # Read once: a rule is used for many assets.
        self._rules = [
            [(term, any(f.name == "asset" for f in term.fields)) for term in rule.terms]
            for rule in policy.rules
        ]
        self._unfilled: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
        self._owners: dict[str, str | list[str]] = {}

    def of(self, unit: Unit, rule_index: int) -> str | None:
        """Return the ``op.pool`` of a unit; None if unlimited or if it cannot be filled in."""
        naming = self._policy.naming
        filled: list[Term] = []
        for term, is_own in self._rules[rule_index]:
            # Stock Dagster knows one pool for an op, whatever it makes.
            every = is_own and self._policy.engine == "lifeguard"
            keys = unit.keys if every else unit.keys[:1]
            try:
                named = [term.fill(partial(_value, unit, key, naming)) for key in keys]
            except LookupError as error:
                self._unfilled[rule_index, str(error.args[0])].append(unit.name)
                return None
            if is_own:
                for new, key in zip(named, keys, strict=True):
                    self._note_owner(new.name, key.to_user_string())
            if every and unit.kind == "multi_asset" and unit.assets.can_subset and len(keys) > 1:
                # Which of them a step makes is known when it claims. Of the steps of a graph only
                # the last ones make assets, and all work on them.
                filled.append(term.fill(partial(_deferred, unit, naming)))
            else:
                filled += named
        slots: dict[str, int] = {}  # Where two come out as one pool, the larger counts.
        for term in filled:
            slots[term.name] = max(slots.get(term.name, 0), term.slots)
        filled = [Term.written(name, count) for name, count in slots.items()]
        if len(filled) > POOLS_PER_DEMAND_MAX:
            reason = f"it would ask for more than {POOLS_PER_DEMAND_MAX} pools"
            self._unfilled[rule_index, reason].append(unit.name)
            return None
        if not filled:
            return None
        holds = self._policy.rules[rule_index].hold == "asset" and unit.kind == "graph_asset"
        return op_pool(filled, hold_asset=holds)

    def _note_owner(self, pool: str, asset: str) -> None:
        known = self._owners.setdefault(pool, asset)
        if isinstance(known, list):
            if asset not in known:
                known.append(asset)
        elif known != asset:
            self._owners[pool] = [known, asset]

    @property
    def own_pools(self) -> Mapping[str, str]:
        """For each pool that is named after an asset, that asset."""
        return {p: a if isinstance(a, str) else a[0] for p, a in self._owners.items()}

    def problems(self) -> Iterator[LifeguardError]:
        """Report templates that could not be filled in and pools named after several assets."""
        for (index, reason), assets in self._unfilled.items():
            rule = describe_rule(index, self._policy.rules[index])
            yield TemplateError(
                f"{rule}: {enumerate_some(assets)}: {reason}.",
                remedy="Narrow the rule's assets, or put a rule for these assets before it.",
                names=assets,
            )
        for pool, owners in self._owners.items():
            if isinstance(owners, list):
                yield NameClashError(
                    f"The assets {enumerate_some(owners)} would share the pool {pool!r}.",
                    remedy="Set naming: path, which never gives two assets one name, or give one "
                    "of them a rule of its own.",
                    names=owners,
                )


def _deferred(unit: Unit, naming: Naming, template: Field) -> str:
    """Return what of a template is known before a step claims: for an asset, how it is named."""
    if template.name == "asset":
        return f"{{asset:{template.key or naming}}}"
    return _value(unit, unit.keys[0], naming, template)


def _value(unit: Unit, key: AssetKey, naming: Naming, template: Field) -> str:
    """Return what a template stands for in a unit, safe in a pool name.

    Raises:
        LookupError: The asset has no such value, or several; the argument says so.
    """
    if template.name == "asset":
        return pool_name(key.path, cast("Naming", template.key or naming))
    if template.name == "partition":
        return _partition(template, unit)
    spec = unit.assets.specs_by_key.get(key)
    if spec is None:
        raise LookupError(f"{template} is not known of a check's asset")
    if template.name == "group":
        return safe_value(spec.group_name or "default")
    if template.name == "kind":
        return _only(template, sorted(spec.kinds))
    if template.name == "owner":
        return _only(template, list(spec.owners))
    if template.name == "io_manager":
        return _only(template, [io_manager_key(unit.assets, key)])
    if template.name == "tag":
        return _only(template, [spec.tags.get(template.key or "")])
    assert template.name == "metadata", template
    return _only(template, [metadata_text(spec.metadata.get(template.key or ""))])


def _partition(template: Field, unit: Unit) -> str:
    """Leave the partition to the step that claims, if all that the unit makes has partitions."""
    specs = (unit.assets.specs_by_key.get(key) for key in unit.keys)
    if not all(spec is not None and spec.partitions_def is not None for spec in specs):
        raise LookupError(f"{template}: not all that it makes has partitions")
    return str(template)


def _only(template: Field, values: Sequence[object]) -> str:
    found = [str(value) for value in values if value is not None and str(value)]
    if len(found) > 1:
        raise LookupError(f"{template} could be any of {', '.join(found)}")
    if not found:
        raise LookupError(f"{template} has no value")
    return safe_value(found[0])
