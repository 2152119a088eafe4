"""Templates of pool names, filled in from what an asset declares."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from dagster_lifeguard.compat.definitions import (
    metadata_text,
    partition_keys_of,
)
from dagster_lifeguard.engine.rules.members import Members
from dagster_lifeguard.engine.rules.model import POOLS_PER_DEMAND_MAX
from dagster_lifeguard.engine.rules.pool_expressions import (
    Term,
    asked_by,
    format_expression,
    op_pool,
    parse_expression,
)
from dagster_lifeguard.engine.rules.pool_naming import pool_name, safe_value
from dagster_lifeguard.engine.rules.shown_names import enumerate_some, pool_text
from dagster_lifeguard.errors import ConfigError, NameClashError, TemplateError
from dagster_lifeguard.policy.config import describe_rule
from dagster_lifeguard.policy.partitions import without_partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dagster import AssetKey, AssetSpec, PartitionsDefinition

    from dagster_lifeguard.engine.rules.pool_expressions import Field
    from dagster_lifeguard.engine.rules.pool_naming import Naming
    from dagster_lifeguard.errors import LifeguardError
    from dagster_lifeguard.policy.config import Config
    from dagster_lifeguard.policy.executables import Unit


class Asked(NamedTuple):
    """What is asked for on behalf of one asset.

    Attributes:
        rule: Index of the rule that decides; -1 where none does and it keeps a pool of its own.
        terms: The pools, and slots of each.
    """

    rule: int
    terms: tuple[Term, ...]


class PoolNames:
    """The pools that rules give to units; collects what goes wrong on the way.

    Args:
        policy: The rules.
        partitions: The partitions of each asset that has any.
    """

    def __init__(
        self, policy: Config, partitions: Mapping[AssetKey, PartitionsDefinition[Any]]
    ) -> None:
        self._policy = policy
        self._partitions = partitions
        self._terms = [rule.terms for rule in policy.rules]  # Read once: for many assets.
        self._unfilled: defaultdict[tuple[int, str], dict[str, None]] = defaultdict(dict)
        self._unwritable: dict[str, str] = {}
        self._owners: dict[str, str | list[str]] = {}

    def of_member(self, unit: Unit, key: AssetKey, rule_index: int) -> tuple[Term, ...]:
        """What a rule lets a unit ask for on behalf of one asset; nothing if it has no value.

        Where a run may select some assets of the unit, ``{asset}`` is left to the step, so that
        many assets are asked for by one term.
        """
        naming = self._policy.naming
        leaves_asset = unit.selects and self._policy.engine == "lifeguard"
        spec = unit.assets.specs_by_key.get(key)
        partitions = self._partitions.get(key)
        found: dict[Term, int] = {}  # Where two come out as one pool, the larger counts.
        try:
            for written, resources in self._by_resource(unit, rule_index):
                value = partial(_value, unit, key, spec, partitions, resources, naming)
                term = _of_partitions(written, partitions)
                filled = term.fill(value)
                if term.has("asset"):
                    self._note_owner(filled.name, key.to_user_string())
                    if leaves_asset:
                        filled = term.fill(partial(_asset_left, value, naming))
                pool = replace(filled, slots=1)
                found[pool] = max(found.get(pool, 0), filled.slots)
        except LookupError as error:
            who = unit.name if unit.is_check else key.to_user_string()
            self._unfilled[rule_index, str(error.args[0])][who] = None
            return ()
        return tuple(replace(pool, slots=count) for pool, count in found.items())

    def _by_resource(self, unit: Unit, rule_index: int) -> Iterator[tuple[Term, Sequence[str]]]:
        """The terms of a rule, with the resources for which each stands.

        Under the engine a unit asks for a pool of each of its resources.
        """
        rule, terms = self._policy.rules[rule_index], self._terms[rule_index]
        if not any(term.has("resource") for term in terms):
            yield from ((term, ()) for term in terms)
            return
        resources = [name for name in unit.resources if rule.takes_resource(name)]
        for term in terms:
            if term.has("resource") and len(resources) > 1 and self._policy.engine == "lifeguard":
                yield from ((term, [resource]) for resource in resources)
            else:
                yield term, resources

    def kept(self, unit: Unit, declared: str) -> tuple[Term, ...]:
        """The terms of a pool that an op declares, for an expression with terms of rules too."""
        try:
            terms = asked_by(declared)
            if parse_expression(format_expression(terms)) == terms:
                return terms
        except ConfigError:
            pass
        self._unwritable[declared] = unit.node_name
        return ()

    def text(self, unit: Unit, asked: Mapping[AssetKey, Asked]) -> str | None:
        """Return the ``op.pool`` of a unit; None if it is unlimited.

        Args:
            unit: The unit.
            asked: What it asks for on behalf of each of its assets.
        """
        # In the order of the rules, so that no term moves when an asset gets another name.
        ordered = sorted(
            (
                (rule, place, key, term)
                for key, (rule, terms) in asked.items()
                for place, term in enumerate(terms)
            ),
            key=lambda found: found[:3],
        )
        slots: defaultdict[Term, dict[AssetKey, int]] = defaultdict(dict)
        for _, _, key, term in ordered:
            of_assets = slots[replace(term, slots=1)]
            of_assets[key] = max(of_assets.get(key, 0), term.slots)
        if len(slots) > POOLS_PER_DEMAND_MAX:
            reason = f"it would ask for more than {POOLS_PER_DEMAND_MAX} pools"
            self._unfilled[min(rule for rule, _ in asked.values()), reason][unit.name] = None
            return None
        if not slots:
            return None
        if unit.selects and len(asked) > 1:
            terms = list(_by_member(slots, asked))
        else:
            terms = [replace(pool, slots=max(of.values())) for pool, of in slots.items()]
        return op_pool(terms, hold_asset=self._holds(unit, asked))

    def _holds(self, unit: Unit, asked: Mapping[AssetKey, Asked]) -> bool:
        rules = {rule for rule, terms in asked.values() if terms}
        return unit.kind == "graph_asset" and any(
            rule >= 0 and self._policy.rules[rule].hold == "asset" for rule in rules
        )

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
        for pool, op in self._unwritable.items():
            yield TemplateError(
                f"The op {op} declares the pool {pool!r}, which some of its assets keep and others "
                "do not, and no expression can name it.",
                remedy="Say override: true in all rules of its assets or in none, or give the pool "
                "a name without '+', '*', braces and white space.",
                names=[op],
            )
        for (index, reason), of_assets in self._unfilled.items():
            assets = list(of_assets)
            rule = describe_rule(index, self._policy.rules[index])
            yield TemplateError(
                f"{rule}: {enumerate_some(assets)}: {reason}.",
                remedy="Narrow the rule's assets, or put a rule for these assets before it.",
                names=assets,
            )
        for pool, owners in self._owners.items():
            if isinstance(owners, list):
                yield NameClashError(
                    f"The assets {enumerate_some(owners)} would share the pool "
                    f"{pool_text(pool)!r}.",
                    remedy="Set naming: path, which never gives two assets one name, or give one "
                    "of them a rule of its own.",
                    names=owners,
                )


def _by_member(
    slots: Mapping[Term, Mapping[AssetKey, int]], keys: Iterable[AssetKey]
) -> Iterator[Term]:
    """A term for each pool and number of slots, with the assets for which it is asked."""
    names = {key: pool_name(key.path, "path") for key in keys}
    for pool, slots_of in slots.items():
        for count in sorted(set(slots_of.values())):
            chosen = [names[key] for key, number in slots_of.items() if number == count]
            members = Members.among(chosen, names.values())
            yield replace(pool, slots=count, members=members)


def _asset_left(value: Callable[[Field], str], naming: Naming, template: Field) -> str:
    """Return what of a template is known before a step claims: for an asset, how it is named."""
    if template.name == "asset":
        return f"{{asset:{template.key or naming}}}"
    return value(template)


def _value(
    unit: Unit,
    key: AssetKey,
    spec: AssetSpec | None,
    partitions: PartitionsDefinition[Any] | None,
    resources: Sequence[str],
    naming: Naming,
    template: Field,
) -> str:
    """Return what a template stands for in an asset of a unit, safe in a pool name.

    Raises:
        LookupError: The asset has no such value, or several; the argument says so.
    """
    if template.name == "asset":
        return pool_name(key.path, cast("Naming", template.key or naming))
    if template.is_of_partition:
        _require_partition(template, partitions)
        return str(template)  # Left to the step that claims.
    if template.name == "resource":
        return _only(template, resources)
    if spec is None:
        raise LookupError(f"{template} is not known of a check's asset")
    if template.name == "group":
        return safe_value(spec.group_name or "default")
    if template.name == "kind":
        return _only(template, sorted(spec.kinds))
    if template.name == "owner":
        return _only(template, list(spec.owners))
    if template.name == "io_manager":
        return _only(template, [unit.io_manager(key)])
    if template.name == "tag":
        return _only(template, [spec.tags.get(template.key or "")])
    assert template.name == "metadata", template
    return _only(template, [metadata_text(spec.metadata.get(template.key or ""))])


def _of_partitions(term: Term, partitions: PartitionsDefinition[Any] | None) -> Term:
    """The term of an asset with these partitions, with the format of their keys if it matters.

    Raises:
        LookupError: Nothing is left of its name without a partition.
    """
    if partitions is None and term.is_by_partition:
        left = without_partition(term)
        if not left.name:
            raise LookupError(f"{term.name}: it has no partitions")
        return left
    if partitions is not None and any(field.needs_keys for field in term.fields):
        return replace(term, keys=partition_keys_of(partitions))
    return term


def _require_partition(template: Field, partitions: PartitionsDefinition[Any] | None) -> None:
    """Refuse a template that no partition of the asset can fill in.

    Raises:
        LookupError: The argument says why.
    """
    if partitions is None:
        raise LookupError(f"{template}: it has no partitions")
    if not template.needs_keys:
        return
    try:
        part = partition_keys_of(partitions).part(template.dimension)
    except LookupError as error:
        raise LookupError(f"{template}: {error.args[0]}") from error
    if template.key is not None and part.time_format is None:
        of = f"of the dimension {part.dimension} " if part.dimension else ""
        raise LookupError(f"{template}: its partitions {of}are not time windows")


def _only(template: Field, values: Sequence[object]) -> str:
    found = [str(value) for value in values if value is not None and str(value)]
    if len(found) > 1:
        raise LookupError(f"{template} could be any of {', '.join(found)}")
    if not found:
        raise LookupError(f"{template} has no value")
    return safe_value(found[0])
