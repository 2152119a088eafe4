"""What a policy gives each asset, worked out without changing anything."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_lifeguard.compat.copies import original_node
from dagster_lifeguard.compat.definitions import node_of, selector
from dagster_lifeguard.compat.ops import (
    ON_CONFLICT_TAG,
    leaf_ops,
    op_under_policy,
    op_with_pool,
)
from dagster_lifeguard.config import describe_rule
from dagster_lifeguard.duplicates import agree
from dagster_lifeguard.errors import (
    LifeguardError,
    NeedsEngineError,
    SelectionError,
)
from dagster_lifeguard.names import Term, asked_by, fill_run_fields, is_held_by_asset
from dagster_lifeguard.templates import PoolNames
from dagster_lifeguard.units import distinct_items, units_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dagster_lifeguard.config import Config, Engine, Rule
    from dagster_lifeguard.duplicates import OnConflict
    from dagster_lifeguard.units import AssetItem, Kind, Unit


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a policy gives one asset, or one asset check that runs in an op of its own.

    Attributes:
        asset: The asset key as Dagster writes it, ``a/b``; of a check, ``a/b:name``.
        group: The asset's group; None for a check.
        kind: What executes it. ``external``: nothing in this code location does.
        rule: Index of the rule that decided; None if no rule selects it.
        pools: What its ops get, each op one of them: a pool or, under the engine, an expression
            over several. Empty: unlimited.
        current: The same in the definitions as they are.
        explicit: Whether a pool that the asset declares itself was kept.
        steps: How many ops execute it. Several: a graph asset, whose steps claim one by one.
        executed_with: Keys of the other assets that the same op or graph makes.
        shared_ops: Names of its ops that are also used elsewhere.
        partly_limited_ops: Names of its ops that claim a pool where a tag says so, and none
            where they are used without it.
        engine: Who admits its steps.
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
    partly_limited_ops: tuple[str, ...] = ()
    engine: Engine = "stock"

    @property
    def terms(self) -> tuple[Term, ...]:
        """The pools that its steps ask for, as written, and how many slots of each."""
        return _terms(self.pools)

    @property
    def own_terms(self) -> tuple[Term, ...]:
        """The same for this asset alone: what it is executed with has pools of its own."""
        key = dg.AssetKey.from_user_string(self.asset).path
        return tuple(fill_run_fields(term, asset=key, partition=None) for term in self.terms)

    @property
    def current_terms(self) -> tuple[Term, ...]:
        """The same in the definitions as they are."""
        return _terms(self.current)

    @property
    def holds(self) -> bool:
        """Whether the steps of a graph asset hold their pools together."""
        return any(map(is_held_by_asset, self.pools))


def _terms(texts: Iterable[str]) -> tuple[Term, ...]:
    return tuple({term.name: term for text in texts for term in asked_by(text)}.values())


@dataclass(frozen=True, slots=True)
class SharedOp:
    """An op that several assets or jobs use; it has one pool wherever it is used."""

    op: str
    pool: str
    assets: tuple[str, ...]
    jobs: tuple[str, ...]


@dataclass(slots=True)
class _Decision:
    """The pool of one op, by the first unit in order of name that gives it one."""

    pool: str | None
    explicit: bool
    units: tuple[str, ...]
    on_conflict: tuple[OnConflict, ...]


class Plan:
    """What a policy would do to some definitions.

    Attributes:
        problems: What keeps the policy from being applied.
        new_ops: For each op as the user wrote it, what is to stand in its place.
        untagged: Those of them whose uses lose the tag ``dagster/concurrency_key``.

    Args:
        policy: The rules.
        items: The assets and asset checks; the same object may come several times.

    Raises:
        UnsupportedDefinitionsError: An item is none of Dagster's asset classes.
    """

    def __init__(self, policy: Config, items: Iterable[AssetItem]) -> None:
        self._policy = policy
        self._items = distinct_items(items)
        self._units = units_of(self._items)
        self._pools = PoolNames(policy)
        refusals = list(_refusals(policy))
        self.problems: list[LifeguardError] = [problem for _, problem in refusals]
        self._refused = {index for index, _ in refusals}
        rule_of = _matcher(policy.rules, self._items, self.problems)
        self._rules = [rule_of(unit) for unit in self._units]
        self._decisions: dict[dg.OpDefinition, _Decision] = {}
        for unit, rule_index in zip(self._units, self._rules, strict=True):
            self._decide(unit, rule_index)
        self.problems += self._pools.problems()
        self.new_ops = self._new_ops()
        self.untagged = {op for op, decision in self._decisions.items() if not decision.explicit}

    def _decide(self, unit: Unit, rule_index: int | None) -> None:
        pool, override = None, False
        # A check that no rule is for has no say in what becomes of a run.
        on_conflict: tuple[OnConflict, ...] = () if unit.is_check else ("queue",)
        if rule_index is not None and rule_index not in self._refused:
            override = self._policy.rules[rule_index].override
            on_conflict = (self._policy.rules[rule_index].on_conflict,)
            if override or any(use.declared is None for use in unit.ops):
                pool = self._pools.of(unit, rule_index)
        for use in unit.ops:
            explicit = use.declared is not None and not override
            of_op = use.declared if explicit else pool
            known = self._decisions.get(use.op)
            if known is None:
                self._decisions[use.op] = _Decision(of_op, explicit, (unit.name,), on_conflict)
                continue
            known.units = (*known.units, unit.name)
            known.on_conflict = (*known.on_conflict, *on_conflict)
            if known.pool is None:
                known.pool, known.explicit = of_op, explicit

    def _new_ops(self) -> dict[dg.OpDefinition, dg.OpDefinition]:
        policy, text = self._policy, self._policy.model_dump_json()
        return {
            op: op_under_policy(op, policy, text, _tags(decision))
            if decision.explicit
            else op_with_pool(op, decision.pool, policy, text, _tags(decision))
            for op, decision in self._decisions.items()
        }

    @property
    def own_pools(self) -> Mapping[str, str]:
        """For each pool that is named after an asset, that asset."""
        return self._pools.own_pools

    @property
    def unused_rules(self) -> tuple[int, ...]:
        """Indices of the rules that decide for no asset."""
        used = set(self._rules)
        return tuple(i for i in range(len(self._policy.rules)) if i not in used)

    def shared_ops(self, jobs: Iterable[object] = ()) -> tuple[SharedOp, ...]:
        """Return the ops that get a pool and are used in several places, by name.

        Args:
            jobs: The jobs beside the assets; jobs of ops may use an op that an asset uses.
        """
        job_names: defaultdict[dg.OpDefinition, set[str]] = defaultdict(set)
        for job in jobs:
            if isinstance(job, dg.JobDefinition):
                for op, _ in leaf_ops(original_node(job.graph)):
                    job_names[op].add(job.name)
        shared = [
            SharedOp(op.name, decision.pool, decision.units, tuple(sorted(job_names[op])))
            for op, decision in self._decisions.items()
            if decision.pool is not None and (len(decision.units) > 1 or op in job_names)
        ]
        return tuple(sorted(shared, key=lambda s: s.op))

    def assignments(self) -> tuple[Assignment, ...]:
        """Return one for each asset and each check with an op of its own, sorted by name."""
        found = [
            assignment
            for unit, rule_index in zip(self._units, self._rules, strict=True)
            for assignment in self._assignments_of(unit, rule_index)
        ]
        found += _external(self._items)
        return tuple(sorted(found, key=lambda a: a.asset))

    def _assignments_of(self, unit: Unit, rule_index: int | None) -> Iterator[Assignment]:
        decisions = [self._decisions[use.op] for use in unit.ops]
        common: dict[str, Any] = {
            "kind": unit.kind,
            "engine": self._policy.engine,
            "rule": rule_index,
            "pools": tuple(sorted({d.pool for d in decisions if d.pool})),
            "current": unit.current,
            "explicit": any(d.explicit for d in decisions),
            "steps": unit.step_count,
            "shared_ops": tuple(
                sorted(use.op.name for use in unit.ops if len(self._decisions[use.op].units) > 1)
            ),
            "partly_limited_ops": tuple(
                sorted(
                    use.op.name
                    for use in unit.ops
                    if use.is_partly_declared and self._decisions[use.op].explicit
                )
            ),
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


def _tags(decision: _Decision) -> Mapping[str, str]:
    """The tags that an op gets: none for what it has anyway, so that nothing changes for most."""
    on_conflict = agree(decision.on_conflict)
    return {} if on_conflict == "queue" else {ON_CONFLICT_TAG: on_conflict}


def _refusals(policy: Config) -> Iterator[tuple[int | None, LifeguardError]]:
    """Refuse what stock Dagster cannot do: anything but one slot of one static pool per op.

    The engine can do all of it.

    Each refusal comes with the index of the rule that it concerns, if it concerns one.
    """
    if policy.engine == "lifeguard":
        return
    for index, rule in enumerate(policy.rules):
        reasons = list(_beyond_stock(rule))
        if reasons:
            name = describe_rule(index, rule)
            yield (
                index,
                NeedsEngineError(
                    f"{name} asks for {' and '.join(reasons)}: needs engine: lifeguard.",
                    remedy="Under engine: stock give each op one slot of one pool of a fixed name.",
                    names=[name],
                ),
            )
    for error in policy.pools_beyond_stock():
        yield None, error


def _beyond_stock(rule: Rule) -> Iterator[str]:
    if len(rule.terms) > 1:
        yield f"{len(rule.terms)} pools for one op"
    for term in rule.terms:
        if term.slots > 1:
            yield f"{term.slots} slots of {term.name!r}"
        if any(f.name == "partition" for f in term.fields):
            yield "'{partition}', known only when a step claims"
    if rule.hold != "step":
        yield f"hold: {rule.hold}"


def _matcher(
    rules: Sequence[Rule], items: Sequence[AssetItem], problems: list[LifeguardError]
) -> Callable[[Unit], int | None]:
    """Return a function that finds the first rule for a unit; selections are resolved once."""
    selected: list[frozenset[dg.AssetKey] | None] = []  # None: every asset
    select: Callable[[str], frozenset[dg.AssetKey]] | None = None
    for index, rule in enumerate(rules):
        if rule.assets.strip() == "*":
            selected.append(None)
            continue
        select = select or selector(items)
        try:
            selected.append(select(rule.assets))
        except ValueError as error:
            selected.append(frozenset())
            problems.append(
                SelectionError(
                    f"{describe_rule(index, rule)}: {error}.",
                    remedy='Write an asset selection: key:"a/b", group:, kind:, tag:, owner:, '
                    "with and, or, not, and + for what is up- or downstream.",
                    names=[rule.assets],
                )
            )

    def rule_of(unit: Unit) -> int | None:
        for index, (rule, keys) in enumerate(zip(rules, selected, strict=True)):
            if (keys is None or unit.keys[0] in keys) and (rule.checks or not unit.is_check):
                return index
        return None

    return rule_of


def _external(items: Sequence[AssetItem]) -> Iterator[Assignment]:
    """Assets that nothing here executes get no pool, and are listed so that none seems missing."""
    for item in items:
        if isinstance(item, dg.AssetSpec):
            specs = [item]
        elif isinstance(item, dg.SourceAsset):
            specs = [dg.AssetSpec(item.key, group_name=item.group_name)]
        else:
            specs = list(item.specs) if node_of(item) is None else []
        for spec in specs:
            yield Assignment(spec.key.to_user_string(), spec.group_name, "external", None, (), ())
