"""A policy meets definitions: which op gets which pool, and the definitions that have them.

Planning and applying are apart. ``plan`` only looks, and reports every problem it finds;
``Policy.apply`` raises the first of them or returns new definitions. The definitions it was given
are left as they were.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import dagster as dg

from dagster_lifeguard import compat
from dagster_lifeguard.config import Config, Rule
from dagster_lifeguard.errors import (
    LifeguardError,
    NameClashError,
    NeedsEngineError,
    SelectionError,
    TemplateError,
    UnsupportedDefinitionsError,
)
from dagster_lifeguard.names import Field, format_expression, pool_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dagster_lifeguard.names import Naming, Term

Kind = Literal["asset", "multi_asset", "graph_asset", "observation", "check", "external"]

AssetItem = dg.AssetsDefinition | dg.AssetSpec | dg.SourceAsset

_Lazy = TypeVar("_Lazy", bound="compat.LazyDefinitions[Any]")


@dataclass(frozen=True)
class Assignment:
    """What a policy gives one asset, or one asset check that runs in an op of its own.

    Attributes:
        asset: The asset key as Dagster writes it, ``a/b``; of a check, ``a/b:name``.
        group: The asset's group; None for a check.
        kind: What executes it. ``external``: nothing in this code location does.
        rule: Index of the rule that decided; None if no rule selects it.
        pools: The pools that its steps claim, each step one of them. Empty: unlimited.
        current: The pools that its ops have in the definitions as they are.
        explicit: Whether a pool that the asset declares itself was kept.
        steps: How many ops execute it. Several: a graph asset, whose steps claim one by one.
        executed_with: Keys of the other assets that the same op makes.
        shared_ops: Names of its ops that are also used elsewhere.
    """

    asset: str
    group: str | None
    kind: Kind
    rule: int | None
    pools: tuple[str, ...]
    current: tuple[str, ...]
    explicit: bool = False
    steps: int = 0
    executed_with: tuple[str, ...] = ()
    shared_ops: tuple[str, ...] = ()


@dataclass(frozen=True)
class SharedOp:
    """An op that several assets or jobs use; it has one pool wherever it is used."""

    op: str
    pool: str | None
    assets: tuple[str, ...]
    jobs: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What a policy would do to some definitions.

    Attributes:
        assignments: One for each asset and each check with an op of its own, sorted by name.
        shared_ops: Ops used in several places, if the policy gives them a pool.
        problems: What keeps the policy from being applied.
        unused_rules: Indices of the rules that decide for no asset.
        own_pools: For each pool named after an asset, that asset.
        new_ops: The ops to be replaced, and by what.
    """

    assignments: tuple[Assignment, ...]
    shared_ops: tuple[SharedOp, ...]
    problems: tuple[LifeguardError, ...]
    unused_rules: tuple[int, ...]
    own_pools: Mapping[str, str]
    new_ops: Mapping[dg.OpDefinition, dg.OpDefinition] = field(repr=False)


class Policy(Config):
    """The rules that give each asset its pools.

    ``Policy()`` gives every asset a pool of its own. See ``Config`` for the settings.

    Raises:
        pydantic.ValidationError: A setting is not allowed.
    """

    @overload
    def apply(self, defs: dg.Definitions) -> dg.Definitions: ...

    @overload
    def apply(self, defs: _Lazy) -> _Lazy: ...

    def apply(self, defs: dg.Definitions | _Lazy) -> dg.Definitions | _Lazy:
        """Return the definitions with each op's pool set by the rules, and nothing else changed.

        Applying a policy to definitions that already had one applied replaces it. What a
        ``@definitions`` function returns is left lazy.

        Limits are not set here: a pool is limited by its limit on the instance, or else by
        ``concurrency: pools: default_limit`` in ``dagster.yaml``.

        Raises:
            LifeguardError: A rule cannot be honoured; its subclass says why. Nothing is applied.
            UnsupportedDefinitionsError: ``defs`` is not a ``Definitions``, or holds assets that
                Dagster builds only when it loads them.
        """
        if isinstance(defs, compat.LazyDefinitions):
            lazy: _Lazy = compat.map_lazy_definitions(defs, self.apply)
            return lazy
        if not isinstance(defs, dg.Definitions):
            raise UnsupportedDefinitionsError(
                f"A policy applies to a Definitions, not to a {type(defs).__name__}.",
                remedy="Wrap it: Policy().apply(dg.Definitions(assets=[...])).",
            )
        return _apply(self, defs)


@overload
def apply_per_asset_concurrency(defs: dg.Definitions) -> dg.Definitions: ...


@overload
def apply_per_asset_concurrency(defs: _Lazy) -> _Lazy: ...


def apply_per_asset_concurrency(defs: dg.Definitions | _Lazy) -> dg.Definitions | _Lazy:
    """Give every asset a pool of its own, so that with a limit of 1 no two runs execute it at once.

    The same as ``Policy().apply(defs)``; see there for what it raises. The asset
    ``["my_group", "my_asset"]`` gets the pool ``my_group_my_asset``. A pool that an asset
    declares itself is kept.
    """
    return Policy().apply(defs)


# --- applying -------------------------------------------------------------------------------------


def _apply(policy: Policy, defs: dg.Definitions) -> dg.Definitions:
    assets, checks = list(defs.assets or ()), list(defs.asset_checks or ())
    schedules, sensors = list(defs.schedules or ()), list(defs.sensors or ())
    jobs = list(defs.jobs or ())
    whole = [with_op(item) for item in assets]
    targets = [
        item for automation in (*schedules, *sensors) for item in compat.target_assets(automation)
    ]
    target_jobs = [
        job for automation in (*schedules, *sensors) for job in compat.target_jobs(automation)
    ]

    planned = plan(policy, [*whole, *checks, *targets], [*jobs, *target_jobs])
    if planned.problems:
        raise planned.problems[0]
    replacement = compat.OpReplacement(planned.new_ops)

    def new_asset(item: Any, item_with_op: Any) -> Any:
        if not isinstance(item_with_op, dg.AssetsDefinition):
            return item
        new = replacement.assets(item_with_op)
        return item if new is item_with_op else new

    fields = {
        "assets": [new_asset(*pair) for pair in zip(assets, whole, strict=True)],
        "asset_checks": [replacement.assets(item) for item in checks],
        "schedules": [replacement.schedule(item) for item in schedules],
        "sensors": [replacement.sensor(item) for item in sensors],
        "jobs": [replacement.job(item) for item in jobs],
    }
    given = {name: getattr(defs, name) is not None for name in fields}
    return compat.replace_definitions(
        defs, **{name: value for name, value in fields.items() if given[name]}
    )


def with_op(item: Any) -> Any:
    """Return the assets definition that Dagster makes of an observable source asset.

    A source asset gets its op only when Dagster loads it; anything else is returned as it is.
    """
    if isinstance(item, dg.SourceAsset) and item.is_observable:
        return compat.observation_as_assets(item)
    return item


# --- planning -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Unit:
    """What is executed together: the ops of one assets definition."""

    assets: dg.AssetsDefinition
    keys: tuple[dg.AssetKey, ...]  # never empty; the first decides which rule applies
    ops: tuple[tuple[dg.OpDefinition, Mapping[str, str]], ...]
    is_check: bool

    @property
    def name(self) -> str:
        if self.is_check:
            key = min(self.assets.check_keys)
            return f"{key.asset_key.to_user_string()}:{key.name}"
        return self.keys[0].to_user_string()


@dataclass
class _Decision:
    """The pool of one op, by the first unit in order of name that has a say."""

    rule: int | None
    pool: str | None
    explicit: bool
    units: list[str] = field(default_factory=list)


def plan(policy: Config, items: Iterable[AssetItem], jobs: Iterable[object] = ()) -> Plan:
    """Work out what a policy gives each asset, without changing anything.

    Args:
        policy: The rules.
        items: The assets and asset checks; the same object may come several times.
        jobs: The jobs beside them. Jobs of ops may use an op that an asset uses.

    Raises:
        UnsupportedDefinitionsError: An item is none of Dagster's asset classes.
    """
    distinct = list({id(item): item for item in items}.values())
    for item in distinct:
        if not isinstance(item, AssetItem):
            raise UnsupportedDefinitionsError(
                f"{type(item).__name__} builds its assets only while Dagster loads them.",
                remedy="Pass the AssetsDefinitions that it builds, or apply the policy to those.",
                names=[type(item).__name__],
            )
    refusals = list(_refusals(policy))
    problems: list[LifeguardError] = [problem for _, problem in refusals]
    units = sorted(_units(distinct), key=lambda unit: unit.name)
    rule_of = _matcher(policy.rules, distinct, problems)
    pools = _PoolNames(policy, refused={index for index, _ in refusals})

    decisions: dict[int, _Decision] = {}
    decided: list[tuple[_Unit, int | None]] = []
    for unit in units:
        rule_index = rule_of(unit)
        decided.append((unit, rule_index))
        for op, tags in unit.ops:
            new = _decide(policy, pools, unit, rule_index, op, tags)
            old = decisions.setdefault(id(op), new)
            if old.pool is None and not old.explicit and new.pool is not None:
                old.rule, old.pool, old.explicit = new.rule, new.pool, new.explicit
            if unit.name not in old.units:
                old.units.append(unit.name)
    problems += pools.problems()

    job_names = _job_names_by_op(jobs, decisions)
    new_ops = _new_ops(policy, units, decisions)
    shared = {
        id(op): SharedOp(
            op.name, decision.pool, tuple(decision.units), tuple(sorted(job_names[id(op)]))
        )
        for unit in units
        for op, _ in unit.ops
        if (decision := decisions[id(op)]).pool is not None
        and (len(decision.units) > 1 or job_names[id(op)])
    }
    assignments = [
        assignment
        for unit, rule_index in decided
        for assignment in _assignments(unit, rule_index, decisions, shared)
    ]
    assignments += _external(distinct)
    used = {rule_index for _, rule_index in decided}
    return Plan(
        assignments=tuple(sorted(assignments, key=lambda a: a.asset)),
        shared_ops=tuple(sorted(shared.values(), key=lambda s: s.op)),
        problems=tuple(problems),
        unused_rules=tuple(i for i in range(len(policy.rules)) if i not in used),
        own_pools=pools.own_pools,
        new_ops=new_ops,
    )


def _refusals(policy: Config) -> Iterator[tuple[int | None, LifeguardError]]:
    """Refuse what stock Dagster cannot do: anything but one slot of one static pool per op.

    Each refusal comes with the index of the rule that it concerns, if it concerns one.
    """
    if policy.engine == "lifeguard":
        yield (
            None,
            NeedsEngineError(
                "engine: lifeguard is not part of this release.",
                remedy="Write engine: stock; one static pool per op.",
            ),
        )
        return
    for index, rule in enumerate(policy.rules):
        reasons = []
        if len(rule.terms) > 1:
            reasons.append(f"{len(rule.terms)} pools for one op")
        reasons += [f"{term.slots} slots of {term.name!r}" for term in rule.terms if term.slots > 1]
        reasons += [
            f"{str(f)!r}, known only when a step claims"
            for term in rule.terms
            for f in term.fields
            if f.name == "partition"
        ]
        if reasons:
            yield (
                index,
                NeedsEngineError(
                    f"{describe_rule(index, rule)} asks for {' and '.join(reasons)}: "
                    "needs engine: lifeguard.",
                    remedy="Under engine: stock give each op one slot of one pool whose name is fixed.",
                    names=[describe_rule(index, rule)],
                ),
            )
    for name, pool in policy.pools.items():
        if pool.rate is not None:
            yield (
                None,
                NeedsEngineError(
                    f"Pool {name!r} has a rate ({pool.rate}): needs engine: lifeguard.",
                    remedy="Under engine: stock give it a limit alone.",
                    names=[name],
                ),
            )


def describe_rule(index: int, rule: Rule) -> str:
    """Name a rule the way messages do: by its place, from 1, and its selection."""
    return f'rule {index + 1} (assets: "{rule.assets}")'


def _units(items: Sequence[AssetItem]) -> Iterator[_Unit]:
    for item in items:
        node = compat.node_of(item) if isinstance(item, dg.AssetsDefinition) else None
        if node is None:
            continue
        assert isinstance(item, dg.AssetsDefinition)
        keys = compat.declared_keys(item)
        is_check = not keys
        if is_check:
            keys = tuple(dict.fromkeys(key.asset_key for key in sorted(item.check_keys)))
        if keys:
            yield _Unit(item, keys, tuple(compat.leaf_ops(node)), is_check)


def _matcher(
    rules: Sequence[Rule], items: Sequence[AssetItem], problems: list[LifeguardError]
) -> Callable[[_Unit], int | None]:
    """Return a function that finds the first rule for a unit; selections are resolved once."""
    selected: list[frozenset[dg.AssetKey] | None] = []  # None: every asset
    select: Callable[[str], frozenset[dg.AssetKey]] | None = None
    for index, rule in enumerate(rules):
        if rule.assets.strip() == "*":
            selected.append(None)
            continue
        select = select or compat.selector(items)
        try:
            selected.append(select(rule.assets))
        except dg.DagsterError as error:
            selected.append(frozenset())
            problems.append(
                SelectionError(
                    f"{describe_rule(index, rule)}: {str(error).splitlines()[0]}.",
                    remedy="Write an asset selection: key:, group:, kind:, tag:, owner:, with "
                    "and, or, not, and + for what is up- or downstream.",
                    names=[rule.assets],
                )
            )

    def rule_of(unit: _Unit) -> int | None:
        for index, (rule, keys) in enumerate(zip(rules, selected, strict=True)):
            if (keys is None or unit.keys[0] in keys) and (rule.checks or not unit.is_check):
                return index
        return None

    return rule_of


class _PoolNames:
    """Fills in the templates of rules, and collects what goes wrong."""

    def __init__(self, policy: Config, refused: set[int | None]) -> None:
        self._policy = policy
        self._refused = refused
        self._unfilled: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
        self._owners: defaultdict[str, dict[str, None]] = defaultdict(dict)

    @property
    def own_pools(self) -> Mapping[str, str]:
        return {pool: next(iter(owners)) for pool, owners in self._owners.items()}

    def of(self, unit: _Unit, rule_index: int) -> str | None:
        """Return the pool expression of a unit; None if unlimited or if it cannot be filled in."""
        if rule_index in self._refused:
            return None
        terms = self._policy.rules[rule_index].terms
        filled: list[Term] = []
        for term in terms:
            try:
                new = term.fill(lambda f: _value(f, unit, self._policy.naming))
            except LookupError as error:
                self._unfilled[rule_index, str(error.args[0])].append(unit.name)
                return None
            filled.append(new)
            if any(f.name == "asset" for f in term.fields):
                self._owners[new.name][unit.keys[0].to_user_string()] = None
        return format_expression(filled) if filled else None

    def problems(self) -> Iterator[LifeguardError]:
        for (index, reason), assets in self._unfilled.items():
            yield TemplateError(
                f"{describe_rule(index, self._policy.rules[index])}: {_some(assets)}: {reason}.",
                remedy="Narrow the rule's assets, or put a rule for these assets before it.",
                names=assets,
            )
        for pool, owners in self._owners.items():
            if len(owners) > 1:
                yield NameClashError(
                    f"The assets {_some(list(owners))} would share the pool {pool!r}.",
                    remedy="Set naming: path, which never gives two assets one name, or give one "
                    "of them a rule of its own.",
                    names=list(owners),
                )


def _some(names: Sequence[str]) -> str:
    shown = " and ".join(names) if len(names) == 2 else ", ".join(names[:5])  # noqa: PLR2004
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"  # noqa: PLR2004


def _value(template: Field, unit: _Unit, naming: Naming) -> str:
    """Return what a template stands for in a unit.

    Raises:
        LookupError: The asset has no such value, or several; the argument says so.
    """
    key = unit.keys[0]
    if template.name == "asset":
        return pool_name(key.path, naming)
    spec = unit.assets.specs_by_key.get(key)
    if spec is None:
        raise LookupError(f"{template} is not known of a check's asset")
    if template.name == "group":
        return spec.group_name or "default"
    if template.name == "kind":
        return _only(template, sorted(spec.kinds))
    if template.name == "owner":
        return _only(template, list(spec.owners))
    if template.name == "io_manager":
        return _only(template, [compat.io_manager_key(unit.assets, key)])
    if template.name == "tag":
        return _only(template, [spec.tags.get(template.key or "")])
    assert template.name == "metadata", template
    return _only(template, [compat.metadata_text(spec.metadata.get(template.key or ""))])


def _only(template: Field, values: Sequence[object]) -> str:
    found = [str(value) for value in values if value is not None and str(value)]
    if len(found) > 1:
        raise LookupError(f"{template} could be any of {', '.join(found)}")
    if not found:
        raise LookupError(f"{template} has no value")
    return found[0]


def _decide(
    policy: Config,
    pools: _PoolNames,
    unit: _Unit,
    rule_index: int | None,
    op: dg.OpDefinition,
    tags: Mapping[str, str],
) -> _Decision:
    original = compat.original_op(op)
    declared = compat.declared_pool(original, tags)
    if rule_index is None:
        return _Decision(None, declared, explicit=declared is not None)
    if declared is not None and not policy.rules[rule_index].override:
        return _Decision(rule_index, declared, explicit=True)
    return _Decision(rule_index, pools.of(unit, rule_index), explicit=False)


def _new_ops(
    policy: Config, units: Iterable[_Unit], decisions: Mapping[int, _Decision]
) -> dict[dg.OpDefinition, dg.OpDefinition]:
    new_ops = {}
    for unit in units:
        for op, tags in unit.ops:
            decision = decisions[id(op)]
            original = compat.original_op(op)
            if decision.explicit or decision.pool == compat.declared_pool(original, tags):
                new = original
            elif op is not original and op.pool == decision.pool:
                new = op
            else:
                new = compat.op_with_pool(original, decision.pool, policy)
            if new is not op and op not in new_ops:
                new_ops[op] = new
    return new_ops


def _job_names_by_op(
    jobs: Iterable[object], decisions: Mapping[int, _Decision]
) -> defaultdict[int, set[str]]:
    names: defaultdict[int, set[str]] = defaultdict(set)
    for job in jobs:
        if isinstance(job, dg.JobDefinition):
            for op, _ in compat.leaf_ops(job.graph):
                if id(op) in decisions:
                    names[id(op)].add(job.name)
    return names


def _assignments(
    unit: _Unit,
    rule_index: int | None,
    decisions: Mapping[int, _Decision],
    shared: Mapping[int, SharedOp],
) -> Iterator[Assignment]:
    of_ops = [decisions[id(op)] for op, _ in unit.ops]
    common: dict[str, Any] = {
        "kind": _kind(unit),
        "rule": rule_index,
        "pools": tuple(sorted({d.pool for d in of_ops if d.pool})),
        "current": tuple(
            sorted({pool for op, tags in unit.ops if (pool := compat.declared_pool(op, tags))})
        ),
        "explicit": any(d.explicit for d in of_ops),
        "steps": len(unit.ops),
        "shared_ops": tuple(sorted({op.name for op, _ in unit.ops if id(op) in shared})),
    }
    if unit.is_check:
        yield Assignment(asset=unit.name, group=None, **common)
        return
    selected = [key for key in unit.keys if key in unit.assets.keys]
    names = tuple(key.to_user_string() for key in selected)
    groups = unit.assets.group_names_by_key
    for key, name in zip(selected, names, strict=True):
        yield Assignment(
            asset=name,
            group=groups.get(key),
            executed_with=tuple(other for other in names if other != name),
            **common,
        )


def _kind(unit: _Unit) -> Kind:
    if unit.is_check:
        return "check"
    if not isinstance(compat.node_of(unit.assets), dg.OpDefinition):
        return "graph_asset"
    if len(unit.keys) > 1:
        return "multi_asset"
    return "asset" if unit.assets.is_materializable else "observation"


def _external(items: Sequence[AssetItem]) -> Iterator[Assignment]:
    """Assets that nothing here executes get no pool, and are listed so that none seems missing."""
    for item in items:
        if isinstance(item, dg.AssetSpec):
            specs = [item]
        elif isinstance(item, dg.SourceAsset):
            specs = [dg.AssetSpec(item.key, group_name=item.group_name)]
        else:
            specs = list(item.specs) if compat.node_of(item) is None else []
        for spec in specs:
            yield Assignment(spec.key.to_user_string(), spec.group_name, "external", None, (), ())
