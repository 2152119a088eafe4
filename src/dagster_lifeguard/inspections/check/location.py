"""A code location: what its assets get, and what is wrong within it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.compat.components import defs_folder
from dagster_lifeguard.compat.locations import (
    load_repositories,
    op_jobs,
    python_file,
    repository_assets,
)
from dagster_lifeguard.inspections.check.assets import asset_findings, demand_findings, same_targets
from dagster_lifeguard.inspections.check.executors import executor_findings
from dagster_lifeguard.inspections.check.policies import (
    by_policy,
    differing_limits,
    policy_findings,
)
from dagster_lifeguard.inspections.check.tags import tag_findings
from dagster_lifeguard.policy.assignments import Assignments
from dagster_lifeguard.policy.config import describe_rule
from dagster_lifeguard.policy.protection import how_to_apply

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import dagster as dg

    from dagster_lifeguard.compat.locations import LocationOrigin
    from dagster_lifeguard.engine.rules.pool_expressions import Term
    from dagster_lifeguard.inspections.finding import Finding
    from dagster_lifeguard.policy.assignments import Assignment
    from dagster_lifeguard.policy.config import Config, Engine


@dataclass(frozen=True)
class Location:
    """What was found in one code location.

    Attributes:
        name: The location's name, as Dagster shows it.
        assignments: What the policy gives each asset.
        findings: What is wrong within the location.
        own_pools: For each pool named after an asset, the assets of that name.
        limits: For each pool used here, its declared limit; None if unlimited.
        by_partition: Those of them in whose names a partition is still to be filled in.
        default_limits: The default limits of the policies that apply here.
        engines: Who admits steps, by these policies.
        rules: What each rule selects, in order.
        on_conflict: The rules that say something of duplicate runs, as messages name them.
    """

    name: str
    assignments: tuple[Assignment, ...]
    findings: tuple[Finding, ...]
    own_pools: Mapping[str, frozenset[str]]
    limits: Mapping[str, int | None]
    by_partition: frozenset[Term]
    default_limits: frozenset[int | None]
    engines: frozenset[Engine]
    rules: tuple[str, ...]
    on_conflict: tuple[str, ...] = ()


def inspect_location(
    origin: LocationOrigin, config: Config | None, granularity: str, config_file: Path | None = None
) -> Location:
    """Load a code location into this process and look at its assets.

    Args:
        origin: The code location.
        config: The policy to measure by. None: the policy that the definitions had applied, or
            else every asset its own pool.
        granularity: ``op`` or ``run``.
        config_file: The file that ``config`` was read from.

    Raises:
        Exception: Whatever the location's code raises.
    """
    locations = [
        _inspect_repository(origin, repository, config, granularity, config_file)
        for repository in load_repositories(origin)
    ]
    if len(locations) == 1:
        return locations[0]
    return Location(
        name=origin.name,
        assignments=tuple(a for location in locations for a in location.assignments),
        findings=tuple(f for location in locations for f in location.findings),
        own_pools=_merged(location.own_pools for location in locations),
        limits={pool: n for location in locations for pool, n in location.limits.items()},
        by_partition=frozenset(term for location in locations for term in location.by_partition),
        default_limits=frozenset(n for location in locations for n in location.default_limits),
        engines=frozenset(engine for location in locations for engine in location.engines),
        rules=locations[0].rules if locations else (),
        on_conflict=tuple(rule for location in locations for rule in location.on_conflict),
    )


def _inspect_repository(
    origin: LocationOrigin,
    repository: dg.RepositoryDefinition,
    config: Config | None,
    granularity: str,
    config_file: Path | None,
) -> Location:
    items = repository_assets(repository)
    jobs = op_jobs(repository)
    parts = by_policy(items, config)
    plans = [(policy, Assignments(policy, part)) for policy, part in parts]
    assignments_of = [part.assignments() for _, part in plans]
    assignments = [a for part in assignments_of for a in part]
    declared: defaultdict[str, set[int | None]] = defaultdict(set)
    by_partition = set()
    for (policy, _), part in zip(plans, assignments_of, strict=True):
        for term in (term for assignment in part for term in assignment.own_terms):
            declared[term.name].add(policy.limit_of(term.name))
            if term.fields and all(field.is_of_partition for field in term.fields):
                by_partition.add(term)
    limits = {
        pool: min(declared[pool], key=lambda limit: (limit is None, limit)) for pool in declared
    }
    remedy = how_to_apply(python_file(origin), defs_folder(repository), config_file)
    findings = [f for policy, part in plans for f in policy_findings(policy, part, jobs, remedy)]
    findings += differing_limits(declared)
    findings += asset_findings(assignments, granularity)
    findings += demand_findings(assignments, limits)
    findings += same_targets(items, assignments)
    findings += executor_findings(repository)
    for (policy, members), part in zip(parts, assignments_of, strict=True):
        findings += tag_findings(policy, members, part, is_file=config is not None)
    return Location(
        name=origin.name,
        assignments=tuple(sorted(assignments, key=lambda a: a.asset)),
        findings=tuple(findings),
        own_pools=_merged(
            {pool: frozenset([asset]) for pool, asset in part.own_pools.items()}
            for _, part in plans
        ),
        limits=limits,
        by_partition=frozenset(by_partition),
        default_limits=frozenset(policy.default_limit for policy, _ in plans),
        engines=frozenset(policy.engine for policy, _ in plans),
        rules=tuple(rule.selection for rule in plans[0][0].rules),
        on_conflict=tuple(
            f"{describe_rule(index, rule)}: on_conflict: {rule.on_conflict}"
            for policy, _ in plans
            for index, rule in enumerate(policy.rules)
            if rule.on_conflict != "queue"
        ),
    )


def _merged(
    parts: Iterable[Mapping[str, frozenset[str]]],
) -> dict[str, frozenset[str]]:
    merged: defaultdict[str, frozenset[str]] = defaultdict(frozenset)
    for part in parts:
        for pool, assets in part.items():
            merged[pool] |= assets
    return dict(merged)
