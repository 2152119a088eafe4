"""What a policy gives each asset, worked out without changing anything."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_lifeguard.compat.definitions import node_of
from dagster_lifeguard.compat.ops import (
    ON_CONFLICT_TAG,
    declared_pool,
    op_under_policy,
    op_with_pool,
)
from dagster_lifeguard.engine.rules.duplicates import agree, write_answers
from dagster_lifeguard.engine.rules.pool_expressions import (
    Term,
    asked_by,
    is_held_by_asset,
    of_assets,
)
from dagster_lifeguard.engine.rules.pool_naming import pool_name
from dagster_lifeguard.engine.rules.shown_names import terms_text
from dagster_lifeguard.policy.executables import distinct_items, units_of
from dagster_lifeguard.policy.op_pools import OpPools, Wish
from dagster_lifeguard.policy.pool_names import Asked, PoolNames
from dagster_lifeguard.policy.rules import matcher, refusals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dagster_lifeguard.engine.rules.duplicates import OnConflict
    from dagster_lifeguard.errors import LifeguardError
    from dagster_lifeguard.policy.config import Config, Engine
    from dagster_lifeguard.policy.executables import AssetItem, Kind, Unit
    from dagster_lifeguard.policy.op_pools import OpPool, SharedOp

    _Rules = Mapping[dg.AssetKey, int | None]


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a policy gives one asset, or one asset check that runs in an op of its own.

    Attributes:
        asset: The asset key as Dagster writes it, ``a/b``; of a check, ``a/b:name``.
        group: The asset's group; None for a check.
        kind: What executes it. ``external``: nothing in this code location does.
        rule: Index of the rule that decided for its op or, under the engine, for the asset itself;
            None if no rule selects it.
        pools: The texts for its ops, one for each op: a pool or, under the engine, an expression of
            several pools. Empty: unlimited.
        current: The same texts in the definitions as they are.
        explicit: Whether a pool that the asset declares itself was kept.
        steps: How many ops execute it. Several: a graph asset, whose steps claim one by one.
        executed_with: Keys of the other assets that the same op or graph makes.
        shared_ops: Names of its ops that other assets use too.
        tagged_ops: Names of its ops whose pool is a tag on the use in this asset, so that Dagster's
            UI shows no pool.
        partly_limited_ops: Names of its ops with a pool on tagged uses only, and other uses
            without the tag.
        engine: The engine that decides about its steps: ``stock`` or ``lifeguard``.
        checks: For a check, the assets that it checks.
        pool_of_steps: Of a graph asset with several ops: the key of each step, with the text for
            its op; None: unlimited.
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
    tagged_ops: tuple[str, ...] = ()
    partly_limited_ops: tuple[str, ...] = ()
    engine: Engine = "stock"
    checks: tuple[str, ...] = ()
    pool_of_steps: tuple[tuple[str, str | None], ...] = ()

    @property
    def terms(self) -> tuple[Term, ...]:
        """The pools that its ops ask for, as written, and how many slots of each."""
        return tuple(dict.fromkeys(term for text in self.pools for term in asked_by(text)))

    @property
    def own_terms(self) -> tuple[Term, ...]:
        """The pools that a step asks for which makes this asset alone, or does this check."""
        return self._own(self.pools)

    @property
    def own_current_terms(self) -> tuple[Term, ...]:
        """The same in the definitions as they are."""
        return self._own(self.current)

    @property
    def text(self) -> str:
        """What the policy gives it, as people are shown it; empty if it is unlimited."""
        return ", ".join(filter(None, map(self._shown, self.pools)))

    @property
    def current_text(self) -> str:
        """The same in the definitions as they are."""
        return ", ".join(filter(None, map(self._shown, self.current)))

    def _shown(self, text: str) -> str:
        return terms_text(self._own([text]))

    @property
    def is_applied(self) -> bool:
        """Whether the definitions have the pools of the policy, however the texts are written."""
        if self.pools == self.current:
            return True
        held = {pool for pool in self.current if is_held_by_asset(pool)}
        return self.holds == bool(held) and set(self.own_terms) == set(self.own_current_terms)

    def _own(self, texts: Iterable[str]) -> tuple[Term, ...]:
        keys = [dg.AssetKey.from_user_string(name).path for name in self.checks or (self.asset,)]
        own = (term for text in texts for term in of_assets(asked_by(text), keys))
        return tuple({term.name: term for term in own}.values())

    @property
    def holds(self) -> bool:
        """Whether the steps of a graph asset hold their pools together."""
        return any(map(is_held_by_asset, self.pools))


@dataclass(frozen=True, slots=True)
class RulesUnheeded:
    """Under ``engine: stock``, an op that makes several assets with different rules.

    Attributes:
        op: The op.
        first: The asset whose rule decides.
        rule: Index of this rule; None if no rule selects that asset.
        others: For each rule without effect on the op, by index: the assets that it selects.
    """

    op: str
    first: str
    rule: int | None
    others: Mapping[int | None, tuple[str, ...]]


class Assignments:
    """What a policy would do to some definitions.

    Attributes:
        problems: The errors that prevent applying the policy.
        new_ops: For each op as the user wrote it, its replacement.
        untagged: The ops whose uses lose the tag ``dagster/concurrency_key``.
        pools_of_uses: The ops whose pool depends on the use, with these pools.

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
        partitions = _partitions(self._items)
        self._pools = PoolNames(policy, partitions)
        self._policy_text = policy.model_dump_json()
        refused = list(refusals(policy))
        self.problems: list[LifeguardError] = [problem for _, problem in refused]
        self._refused = {index for index, _ in refused}
        rule_of = matcher(policy.rules, self._items, partitions, self.problems)
        self._rules = [{key: rule_of(unit, key) for key in unit.keys} for unit in self._units]
        self._op_pools = OpPools()
        for unit, rules in zip(self._units, self._rules, strict=True):
            self._decide(unit, rules)
        self._op_pools.settle(self._pools.text)
        self.problems += self._pools.problems()
        self.new_ops = {found.op: self._new_op(found) for found in self._op_pools}
        self.pools_of_uses = {
            found.op: pools for found in self._op_pools if (pools := found.of_uses) is not None
        }
        self.untagged = {
            found.op
            for found in self._op_pools
            if not found.is_kept and found.op not in self.pools_of_uses
        }

    def _deciding(self, unit: Unit) -> tuple[dg.AssetKey, ...]:
        """The assets of a unit whose rules give it its pools: stock Dagster has one for an op."""
        return unit.keys if self._policy.engine == "lifeguard" else unit.keys[:1]

    def _decide(self, unit: Unit, rules: _Rules) -> None:
        answers: dict[dg.AssetKey, OnConflict] = {
            key: "queue" if rule is None else self._policy.rules[rule].on_conflict
            for key, rule in rules.items()
            # A check that no rule is for has no say in what becomes of a run.
            if rule is not None or not unit.is_check
        }
        overrides = [self._overrides(rules[key]) for key in self._deciding(unit)]
        found: dict[str | None, dict[dg.AssetKey, Asked]] = {}
        for use in unit.ops:
            is_kept = use.declared is not None and not any(overrides)
            kept = None if all(overrides) else use.declared
            if not is_kept and kept not in found:
                found[kept] = self._asked(unit, rules, kept)
            asked = {} if is_kept else found[kept]
            declared = use.declared if is_kept else None
            found_pool = self._op_pools.add(use, Wish(unit, asked, declared))
            found_pool.answers = {
                key: agree(of[key] for of in (found_pool.answers, answers) if key in of)
                for key in {**found_pool.answers, **answers}
            }

    def _overrides(self, rule: int | None) -> bool:
        return rule is not None and rule not in self._refused and self._policy.rules[rule].override

    def _asked(self, unit: Unit, rules: _Rules, declared: str | None) -> dict[dg.AssetKey, Asked]:
        """What an op asks for on behalf of each asset; one keeps the declared pool by its rule."""
        asked = {}
        for key in self._deciding(unit):
            rule = rules[key]
            if declared is not None and not self._overrides(rule):
                asked[key] = Asked(-1 if rule is None else rule, self._pools.kept(unit, declared))
            elif rule is None or rule in self._refused:
                asked[key] = Asked(-1, ())
            else:
                asked[key] = Asked(rule, self._pools.of_member(unit, key, rule))
        return asked

    def _new_op(self, found: OpPool) -> dg.OpDefinition:
        policy, text, tags = self._policy, self._policy_text, _tags(found)
        if found.is_kept:
            return op_under_policy(found.op, policy, text, tags)
        pool = found.first.pool if found.of_uses is None else None
        return op_with_pool(found.op, pool, policy, text, tags)

    @property
    def own_pools(self) -> Mapping[str, str]:
        """For each pool that is named after an asset, that asset."""
        return self._pools.own_pools

    @property
    def unused_rules(self) -> tuple[int, ...]:
        """Indices of the rules that decide for no asset."""
        used = {
            rule
            for unit, rules in zip(self._units, self._rules, strict=True)
            for key, rule in rules.items()
            if rule is not None
            and (key in self._deciding(unit) or self._policy.rules[rule].on_conflict != "queue")
        }
        return tuple(i for i in range(len(self._policy.rules)) if i not in used)

    def shared_ops(self, jobs: Iterable[object] = ()) -> tuple[SharedOp, ...]:
        """See ``OpPools.shared``."""
        return self._op_pools.shared(jobs)

    def rules_unheeded(self) -> Iterator[RulesUnheeded]:
        """Yield the ops whose pool goes by the rule of one asset, where others have other pools."""
        policy = self._policy

        def gives(rule: int | None) -> tuple[tuple[str, ...], bool]:
            return (
                ((), False)
                if rule is None
                else (policy.rules[rule].pools, policy.rules[rule].override)
            )

        for unit, rules in zip(self._units, self._rules, strict=True):
            (first, *_), others = self._deciding(unit), defaultdict(list)
            is_kept = all(wish.explicit for use in unit.ops for wish in self._op_pools.at(use))
            for key in unit.keys if policy.engine == "stock" else ():
                rule = rules[key]
                if gives(rule) != gives(rules[first]) and (not is_kept or self._overrides(rule)):
                    others[rule].append(key.to_user_string())
            if others:
                yield RulesUnheeded(
                    op=unit.node_name,
                    first=first.to_user_string(),
                    rule=rules[first],
                    others={rule: tuple(names) for rule, names in others.items()},
                )

    def assignments(self) -> tuple[Assignment, ...]:
        """Return one for each asset and each check with an op of its own, sorted by name."""
        found = [
            assignment
            for unit, rules in zip(self._units, self._rules, strict=True)
            for assignment in self._assignments_of(unit, rules)
        ]
        found += _external(self._items)
        return tuple(sorted(found, key=lambda a: a.asset))

    def _pool_of_steps(self, unit: Unit) -> tuple[tuple[str, str | None], ...]:
        uses = {use.op: use for use in unit.ops}
        found = []
        for leaf in unit.steps:
            wish = self._op_pools.of(uses[leaf.op]).at(leaf.graph)
            pool = declared_pool(leaf.op, leaf.tags) if wish.explicit else wish.pool
            found.append((leaf.step, pool))
        return tuple(found)

    def _assignments_of(self, unit: Unit, rules: _Rules) -> Iterator[Assignment]:
        decisions = [wish for use in unit.ops for wish in self._op_pools.at(use)]
        deciding = self._deciding(unit)
        common: dict[str, Any] = {
            "kind": unit.kind,
            "engine": self._policy.engine,
            "pools": tuple(sorted({d.pool for d in decisions if d.pool})),
            "current": unit.current,
            "steps": len(unit.steps),
            "pool_of_steps": self._pool_of_steps(unit) if len(unit.steps) > 1 else (),
            "shared_ops": tuple(
                sorted(use.op.name for use in unit.ops if len(self._op_pools.of(use).units) > 1)
            ),
            "tagged_ops": tuple(
                sorted(
                    use.op.name
                    for use in unit.ops
                    if use.op in self.pools_of_uses
                    and any(wish.pool is not None for wish in self._op_pools.at(use))
                )
            ),
            "partly_limited_ops": tuple(
                sorted(
                    use.op.name
                    for use in unit.ops
                    if use.is_partly_declared
                    and all(wish.explicit for wish in self._op_pools.at(use))
                )
            ),
        }

        def is_kept(rule: int | None) -> bool:
            return any(d.explicit for d in decisions) or (
                not self._overrides(rule) and any(use.declared is not None for use in unit.ops)
            )

        if unit.is_check:
            found = [rules[key] for key in deciding if rules[key] is not None]
            yield Assignment(
                asset=unit.name,
                group=None,
                rule=found[0] if found else None,
                explicit=is_kept(found[0] if found else None),
                checks=tuple(key.to_user_string() for key in unit.keys),
                **common,
            )
            return
        selected = [key for key in unit.keys if key in unit.assets.keys]
        names = tuple(key.to_user_string() for key in selected)
        groups = unit.assets.group_names_by_key
        for key, name in zip(selected, names, strict=True):
            rule = rules[key if key in deciding else deciding[0]]
            yield Assignment(
                asset=name,
                group=groups.get(key),
                rule=rule,
                explicit=is_kept(rule),
                executed_with=tuple(other for other in names if other != name),
                **common,
            )


def _tags(found: OpPool) -> Mapping[str, str]:
    """The tags that an op gets: none for what it has anyway, so that nothing changes for most."""
    unit, answers = found.first.unit, found.answers
    if unit.selects and answers.keys() <= set(unit.keys):
        names = {key: pool_name(key.path, "path") for key in unit.keys}
        text = write_answers({names[key]: answers.get(key, "queue") for key in unit.keys})
    else:
        text = write_answers({"": agree(answers.values())})
    return {} if text is None else {ON_CONFLICT_TAG: text}


def _partitions(
    items: Sequence[AssetItem],
) -> Mapping[dg.AssetKey, dg.PartitionsDefinition[Any]]:
    """The partitions of each asset that has any, external assets included."""
    specs = (
        spec
        for item in items
        for spec in (item.specs if isinstance(item, dg.AssetsDefinition) else [item])
    )
    return {spec.key: spec.partitions_def for spec in specs if spec.partitions_def is not None}


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
