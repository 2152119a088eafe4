"""The policies of a code location: which assets each is for, and whether it is in force there."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

import dagster as dg

from dagster_lifeguard.compat.definitions import node_of
from dagster_lifeguard.compat.ops import applied_policy, leaf_ops
from dagster_lifeguard.engine.rules.shown_names import enumerate_some, pool_text
from dagster_lifeguard.inspections.finding import Finding
from dagster_lifeguard.policy.apply import Policy
from dagster_lifeguard.policy.config import Config, describe_rule
from dagster_lifeguard.policy.executables import with_op
from dagster_lifeguard.texts import limit_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dagster_lifeguard.policy.assignments import Assignments, RulesUnheeded
    from dagster_lifeguard.policy.executables import AssetItem
    from dagster_lifeguard.policy.op_pools import SharedOp

_ALIKE = 0.8
"""How much two names have in common, of 1, where one is taken for a misspelling of the other."""

_DIGITS = re.compile(r"\d+")


def by_policy(
    items: Sequence[AssetItem], config: Config | None
) -> list[tuple[Config, list[AssetItem]]]:
    """Group the assets by the policy to measure them by.

    That is the given one, or else the one that was applied to them. Assets to which none was
    applied join the first group; where none was applied at all, each is to have its own pool.
    """
    whole: list[AssetItem] = [with_op(item) for item in items]
    if config is not None:
        return [(config, whole)]
    groups: list[tuple[Config, list[AssetItem]]] = []
    unapplied: list[AssetItem] = []
    for item in whole:
        policy = _applied_policy(item)
        if policy is None:
            unapplied.append(item)
            continue
        for known, members in groups:
            if known == policy:
                members.append(item)
                break
        else:
            groups.append((policy, [item]))
    if not groups:
        return [(Policy(), unapplied)]
    groups[0][1].extend(unapplied)
    return groups


def _applied_policy(item: AssetItem) -> Config | None:
    node = node_of(item) if isinstance(item, dg.AssetsDefinition) else None
    for op, *_ in leaf_ops(node) if node is not None else ():
        policy = applied_policy(op)
        if isinstance(policy, Config):
            return policy
    return None


def policy_findings(
    policy: Config, planned: Assignments, jobs: Sequence[dg.JobDefinition], how_to_apply: str
) -> Iterator[Finding]:
    """Find what keeps a policy from being applied, or from doing what its rules say."""
    for problem in planned.problems:
        yield Finding(problem.code, "error", problem.message, problem.remedy, problem.names)
    if not planned.problems:
        yield from _not_applied(planned, how_to_apply)
    for op in planned.shared_ops(jobs):
        yield _shared(op)
    yield from _misspelt(policy)
    for unheeded in planned.rules_unheeded():
        yield _unheeded(policy, unheeded)
    for index in planned.unused_rules:
        if not policy.rules[index].selects_all:
            yield Finding(
                "unused-rule",
                "warning",
                f"{describe_rule(index, policy.rules[index])} decides for no asset.",
                "Correct its selection, put it before the rule that decides instead, or drop it.",
                (policy.rules[index].assets,),
            )


def _misspelt(policy: Config) -> Iterator[Finding]:
    """Find pools of rules that are declared under a name with another letter or two."""
    for index, rule in enumerate(policy.rules):
        for term in rule.terms:
            if term.fields or term.name in policy.pools:
                continue
            near = difflib.get_close_matches(term.name, policy.pools, n=1, cutoff=_ALIKE)
            # Numbered pools are alike by intent.
            if near and _DIGITS.sub("", term.name) != _DIGITS.sub("", near[0]):
                yield Finding(
                    "pool-undeclared",
                    "warning",
                    f"{describe_rule(index, rule)} names the pool {term.name}, which is not "
                    f"declared: it has the default limit, {limit_text(policy.default_limit)}.",
                    f"Did you mean {near[0]}? Or declare {term.name} under pools.",
                    (term.name,),
                )


def _shared(found: SharedOp) -> Finding:
    users = [f"asset {name}" for name in found.assets] + [f"job {name}" for name in found.jobs]
    if found.graph is None:
        used, kind = f"The op {found.op} is used by {enumerate_some(users)}", "op"
    else:
        users_of_graph = f"the graph {found.graph}, which {enumerate_some(users)} share"
        used, kind = f"The op {found.op} is in {users_of_graph}", "graph"
    return Finding(
        "shared-op",
        "warning",
        f"{used}; for all of them it claims the pool {pool_text(found.pool)}.",
        f"Dagster knows one {kind} by that name. Give each its own {kind} if they need not wait "
        "for each other.",
        (found.op,),
    )


def _unheeded(policy: Config, found: RulesUnheeded) -> Finding:
    def named(rule: int | None) -> str:
        return "no rule" if rule is None else describe_rule(rule, policy.rules[rule])

    others = "; ".join(
        f"{named(rule)} for {enumerate_some(assets)}" for rule, assets in found.others.items()
    )
    return Finding(
        "one-rule-per-op",
        "warning",
        f"The op {found.op} has the pool of its first asset, {found.first}, by "
        f"{named(found.rule)}. What else selects its assets gives them no pool: {others}.",
        "Set engine: lifeguard, under which each asset has its own rule. Or let one rule select "
        "all assets of the op.",
        (found.op, *(asset for assets in found.others.values() for asset in assets)),
    )


def _not_applied(planned: Assignments, how_to_apply: str) -> Iterator[Finding]:
    differing = [a for a in planned.assignments() if not a.is_applied]
    if not differing:
        return
    first = differing[0]
    do_not = "1 asset does not" if len(differing) == 1 else f"{len(differing)} assets do not"
    yield Finding(
        "not-applied",
        "error",
        f"{do_not} have the pool that the policy gives: "
        f"{first.asset} should have {first.text or 'none'} and has {first.current_text or 'none'}"
        + (f"; also {enumerate_some([a.asset for a in differing[1:]])}." if differing[1:] else "."),
        how_to_apply,
        tuple(a.asset for a in differing),
    )


def differing_limits(declared: Mapping[str, set[int | None]]) -> Iterator[Finding]:
    """Find the pools for which several policies declare different limits."""
    for pool, limits in declared.items():
        if len(limits) > 1:
            shown = " and ".join(sorted(map(limit_text, limits)))
            yield Finding(
                "limits-differ",
                "warning",
                f"The policies of this code location declare the limits {shown} for the pool "
                f"{pool_text(pool)}.",
                "Apply one policy to the merged definitions.",
                (pool,),
            )
