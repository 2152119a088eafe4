"""Does each asset have the pools it should have? Findings over code locations, before any run.

This looks at definitions, at ``dagster.yaml`` and at which pools have a limit on the instance. It
executes and changes nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import dagster as dg

from dagster_lifeguard.assign import Policy
from dagster_lifeguard.compat.definitions import metadata_texts, node_of
from dagster_lifeguard.compat.instance import DEFAULT_LIMIT_COMES_LATE, PoolSettings
from dagster_lifeguard.compat.locations import (
    LocationOrigin,
    load_repositories,
    op_jobs,
    repository_assets,
)
from dagster_lifeguard.compat.ops import applied_policy, leaf_ops
from dagster_lifeguard.config import Config, describe_rule
from dagster_lifeguard.names import enumerate_some
from dagster_lifeguard.plan import Plan
from dagster_lifeguard.units import with_op

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dagster_lifeguard.plan import Assignment
    from dagster_lifeguard.units import AssetItem

Severity = Literal["error", "warning"]

CODES: Mapping[str, str] = {
    "config-invalid": "A setting or rule is not allowed.",
    "selection-invalid": "A rule's asset selection is malformed or names no asset.",
    "template-unfilled": "An asset has no value, or several, for a template of its rule.",
    "needs-engine": "A rule asks for what the engine in `engine:` cannot do.",
    "name-clash": "Two assets would share a pool named after one of them.",
    "not-applied": "The definitions do not have the pools that the policy gives them.",
    "no-rule": "No rule selects an asset, so it is unlimited.",
    "unused-rule": "A rule decides for no asset.",
    "unused-pool": "A declared pool is used by no asset.",
    "same-target": "Assets declare the same table or path and share no pool.",
    "steps-interleave": "A graph asset's steps claim one by one, so runs of it may interleave.",
    "shared-op": "An op is used by several assets or jobs and has one pool for all of them.",
    "partly-limited": "An op is tagged with a pool where it is used once, and not elsewhere.",
    "limits-differ": "Several policies declare different limits for one pool.",
    "default-limit": "`dagster.yaml` gives pools another default limit than the policy, or none.",
    "limit-in-force": "A pool has another limit on the instance than the policy declares.",
    "limit-not-set": "At granularity run, pools have no limit of their own on the instance.",
}
"""Every code of a finding, and what it says."""

TARGET_METADATA = (
    "dagster/table_name",
    "dagster/uri",
    "table_name",
    "table",
    "uri",
    "file_path",
    "path",
)
"""Metadata by which assets say what they write: Dagster's own keys, then the customary ones."""


@dataclass(frozen=True)
class Finding:
    """Something a user should know, with what to do about it.

    Attributes:
        code: One of ``CODES``.
        severity: An error means that an asset is not protected as the policy says.
        message: What was found, in one line.
        remedy: What to do, in one line.
        names: The assets, pools or rules concerned.
    """

    code: str
    severity: Severity
    message: str
    remedy: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Location:
    """What was found in one code location.

    Attributes:
        name: The location's name, as Dagster shows it.
        assignments: What the policy gives each asset.
        findings: What is wrong within the location.
        own_pools: For each pool named after an asset, the assets of that name.
        unused_rules: Indices of the rules that decide for no asset here.
        limits: For each pool used here, its declared limit; None if unlimited.
        default_limits: The default limits of the policies that apply here.
        rules: What each rule selects, in order.
    """

    name: str
    assignments: tuple[Assignment, ...]
    findings: tuple[Finding, ...]
    own_pools: Mapping[str, frozenset[str]]
    unused_rules: frozenset[int]
    limits: Mapping[str, int | None]
    default_limits: frozenset[int | None]
    rules: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """The answer of ``lifeguard check``.

    Attributes:
        locations: One for each code location.
        granularity: What a pool limits on the instance: ``op`` or ``run``.
        findings: All findings, errors first.
    """

    locations: tuple[Location, ...]
    granularity: str
    findings: tuple[Finding, ...] = field(default=())

    def of_severity(self, severity: Severity) -> tuple[Finding, ...]:
        """Return the findings of one severity."""
        return tuple(f for f in self.findings if f.severity == severity)


def inspect_location(origin: LocationOrigin, config: Config | None, granularity: str) -> Location:
    """Load a code location into this process and look at its assets.

    Args:
        origin: The code location.
        config: The policy to measure by. None: the policy that the definitions had applied, or
            else every asset its own pool.
        granularity: ``op`` or ``run``.

    Raises:
        Exception: Whatever the location's code raises.
    """
    locations = [
        _inspect_repository(origin.name, repository, config, granularity)
        for repository in load_repositories(origin)
    ]
    if len(locations) == 1:
        return locations[0]
    return Location(
        origin.name,
        tuple(a for location in locations for a in location.assignments),
        tuple(f for location in locations for f in location.findings),
        _merged(location.own_pools for location in locations),
        frozenset.intersection(*(location.unused_rules for location in locations))
        if locations
        else frozenset(),
        {pool: limit for location in locations for pool, limit in location.limits.items()},
        frozenset(limit for location in locations for limit in location.default_limits),
        locations[0].rules if locations else (),
    )


def _inspect_repository(
    name: str, repository: dg.RepositoryDefinition, config: Config | None, granularity: str
) -> Location:
    items = repository_assets(repository)
    jobs = op_jobs(repository)
    parts = _by_policy(items, config)
    plans = [(policy, Plan(policy, part)) for policy, part in parts]
    assignments_of = [part.assignments() for _, part in plans]
    assignments = [a for part in assignments_of for a in part]
    declared: defaultdict[str, set[int | None]] = defaultdict(set)
    for (policy, _), part in zip(plans, assignments_of, strict=True):
        for pool in (pool for assignment in part for pool in assignment.pools):
            declared[pool].add(policy.limit_of(pool))
    limits = {
        pool: min(declared[pool], key=lambda limit: (limit is None, limit)) for pool in declared
    }
    findings = [f for policy, part in plans for f in _policy_findings(policy, part, jobs)]
    findings += _differing_limits(declared)
    findings += _asset_findings(assignments, granularity)
    findings += _same_targets(items, assignments)
    return Location(
        name,
        tuple(sorted(assignments, key=lambda a: a.asset)),
        tuple(findings),
        _merged(
            {pool: frozenset([asset]) for pool, asset in part.own_pools.items()}
            for _, part in plans
        ),
        frozenset.intersection(*(frozenset(part.unused_rules) for _, part in plans)),
        limits,
        frozenset(policy.default_limit for policy, _ in plans),
        tuple(rule.assets for rule in plans[0][0].rules),
    )


def _merged(
    parts: Iterable[Mapping[str, frozenset[str]]],
) -> dict[str, frozenset[str]]:
    merged: defaultdict[str, frozenset[str]] = defaultdict(frozenset)
    for part in parts:
        for pool, assets in part.items():
            merged[pool] |= assets
    return dict(merged)


def _differing_limits(declared: Mapping[str, set[int | None]]) -> Iterator[Finding]:
    for pool, limits in declared.items():
        if len(limits) > 1:
            shown = " and ".join(sorted("unlimited" if n is None else str(n) for n in limits))
            yield Finding(
                "limits-differ",
                "warning",
                f"The policies of this code location declare the limits {shown} for the pool "
                f"{pool}.",
                "Apply one policy to the merged definitions.",
                (pool,),
            )


def _by_policy(
    items: Sequence[AssetItem], config: Config | None
) -> list[tuple[Config, list[AssetItem]]]:
    """Group the assets by the policy to measure them by; where none was applied, by the first."""
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
    for op, _ in leaf_ops(node) if node is not None else ():
        policy = applied_policy(op)
        if isinstance(policy, Config):
            return policy
    return None


def _policy_findings(
    policy: Config, planned: Plan, jobs: Sequence[dg.JobDefinition]
) -> Iterator[Finding]:
    for problem in planned.problems:
        yield Finding(problem.code, "error", problem.message, problem.remedy, problem.names)
    if not planned.problems:
        yield from _not_applied(planned)
    for op in planned.shared_ops(jobs):
        users = [f"asset {name}" for name in op.assets] + [f"job {name}" for name in op.jobs]
        yield Finding(
            "shared-op",
            "warning",
            f"The op {op.op} is used by {enumerate_some(users)}; in all of them it claims the pool "
            f"{op.pool}.",
            "Dagster knows one op by that name. Give each its own op if they need not wait for "
            "each other.",
            (op.op,),
        )
    for index in planned.unused_rules:
        if policy.rules[index].assets.strip() != "*":
            yield Finding(
                "unused-rule",
                "warning",
                f"{describe_rule(index, policy.rules[index])} decides for no asset.",
                "Correct its selection, put it before the rule that decides instead, or drop it.",
                (policy.rules[index].assets,),
            )


def _not_applied(planned: Plan) -> Iterator[Finding]:
    differing = [a for a in planned.assignments() if a.pools != a.current]
    if not differing:
        return
    first = differing[0]
    yield Finding(
        "not-applied",
        "error",
        f"{_count(len(differing), 'asset')} not have the pool that the policy gives: "
        f"{first.asset} should have {_pools(first.pools)} and has {_pools(first.current)}"
        + (f"; also {enumerate_some([a.asset for a in differing[1:]])}." if differing[1:] else "."),
        "Wrap the definitions: defs = apply_per_asset_concurrency(defs), or "
        'defs = Policy.from_yaml(Path(__file__).with_name("lifeguard.yaml")).apply(defs).',
        tuple(a.asset for a in differing),
    )


def _asset_findings(assignments: Sequence[Assignment], granularity: str) -> Iterator[Finding]:
    uncovered = [
        a.asset
        for a in assignments
        if a.rule is None and a.kind not in ("external", "check") and not a.pools
    ]
    if uncovered:
        yield Finding(
            "no-rule",
            "warning",
            f"No rule selects {enumerate_some(uncovered)}: unlimited.",
            'End the rules with one for all other assets: assets: "*".',
            tuple(uncovered),
        )
    partly = [(a.asset, op) for a in assignments for op in a.partly_limited_ops]
    for asset, op in partly:
        yield Finding(
            "partly-limited",
            "error",
            f"The op {op} of {asset} is tagged with a pool where it is used once; where it is used "
            "without the tag it is unlimited.",
            "Give the op itself the pool, or set override: true in the asset's rule.",
            (asset, op),
        )
    interleaving = [
        a.asset for a in assignments if a.kind == "graph_asset" and a.steps > 1 and a.pools
    ]
    if interleaving and granularity == "op":
        yield Finding(
            "steps-interleave",
            "warning",
            f"The steps of {enumerate_some(interleaving)} claim one by one: between two steps of "
            "one run, another run may execute a step.",
            "Set granularity: run under concurrency: pools in dagster.yaml, or make it one op.",
            tuple(interleaving),
        )


def _same_targets(
    items: Sequence[AssetItem], assignments: Sequence[Assignment]
) -> Iterator[Finding]:
    by_asset = {a.asset: a for a in assignments if a.kind != "external"}
    writers: defaultdict[tuple[str, str], dict[str, frozenset[str]]] = defaultdict(dict)
    for key, name, value in metadata_texts(items, TARGET_METADATA):
        assignment = by_asset.get(key)
        if assignment is not None:
            writers[name, value][key] = frozenset(assignment.pools)
    for (name, value), pools_of in sorted(writers.items()):
        assets = list(pools_of)
        same_op = set(by_asset[assets[0]].executed_with) | {assets[0]} >= set(assets)
        if len(assets) > 1 and not same_op and not frozenset.intersection(*pools_of.values()):
            yield Finding(
                "same-target",
                "warning",
                f"{enumerate_some(assets)} declare {name}: {value} and share no pool.",
                f'Give them one pool with a rule: pools: ["{{metadata:{name}}}"].',
                tuple(assets),
            )


def report(
    locations: Sequence[Location],
    config: Config | None,
    settings: PoolSettings | None,
) -> Report:
    """Put the code locations of a deployment together and add what only shows across them."""
    findings = [
        replace(f, message=f"{location.name}: {f.message}") if len(locations) > 1 else f
        for location in locations
        for f in location.findings
        if f.code != "unused-rule"
    ]
    # A rule is for all locations, so it is unused only if it is so in each of them.
    findings += _unused_everywhere(locations)
    findings += _clashes_across(locations)
    if config is not None:
        findings += _unused_pools(locations, config)
    if settings is not None:
        findings += _limits_in_force(locations, settings)
    findings.sort(key=lambda f: f.severity)
    granularity = settings.granularity if settings else "op"
    return Report(tuple(locations), granularity, tuple(findings))


def _unused_everywhere(locations: Sequence[Location]) -> list[Finding]:
    counted = Counter(
        f for location in locations for f in location.findings if f.code == "unused-rule"
    )
    return [finding for finding, count in counted.items() if count == len(locations)]


def _clashes_across(locations: Sequence[Location]) -> Iterator[Finding]:
    owners: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for location in locations:
        for pool, assets in location.own_pools.items():
            for asset in sorted(assets):
                owners[pool].setdefault(asset, location.name)
    for pool, places in owners.items():
        if len(places) > 1:
            described = [f"{asset} (in {place})" for asset, place in places.items()]
            yield Finding(
                "name-clash",
                "error",
                f"The assets {enumerate_some(described)} would share the pool {pool!r}.",
                "Set naming: path, which never gives two assets one name.",
                tuple(places),
            )


def _unused_pools(locations: Sequence[Location], config: Config) -> Iterator[Finding]:
    used = {pool for location in locations for pool in location.limits}
    unused = [name for name in config.pools if name not in used]
    if unused:
        yield Finding(
            "unused-pool",
            "warning",
            f"No asset uses the declared pool {enumerate_some(unused)}.",
            "Correct the name, use it in a rule, or drop it.",
            tuple(unused),
        )


def _limits_in_force(locations: Sequence[Location], settings: PoolSettings) -> Iterator[Finding]:
    used = sorted({pool for location in locations for pool in location.limits})
    unset = [pool for pool in used if pool not in settings.limits]
    yield from _other_limits(locations, settings.limits)
    declared = {limit for location in locations for limit in location.default_limits}
    if unset and settings.default_limit not in declared:
        found = "no default limit, so pools are unlimited until each is given one"
        if settings.default_limit is not None:
            found = f"the default limit {settings.default_limit}"
        wanted = ", ".join(sorted("unlimited" if n is None else str(n) for n in declared))
        yield Finding(
            "default-limit",
            "warning",
            f"dagster.yaml sets {found}; the policy declares {wanted}.",
            "Run lifeguard init, which sets concurrency: pools: default_limit, or set the limits "
            "one by one: dagster instance concurrency set POOL LIMIT.",
            tuple(unset),
        )
    elif unset and settings.granularity == "run" and DEFAULT_LIMIT_COMES_LATE:
        yield Finding(
            "limit-not-set",
            "warning",
            f"{enumerate_some(unset)} only {'has' if len(unset) == 1 else 'have'} the default "
            "limit, which the run queue first applies to a pool one pass after it meets it.",
            "Set the limits before the first runs: dagster instance concurrency set POOL LIMIT.",
            tuple(unset),
        )


def _other_limits(locations: Sequence[Location], in_force: Mapping[str, int]) -> Iterator[Finding]:
    declared = {pool: n for location in locations for pool, n in location.limits.items()}
    differing = sorted(p for p, n in declared.items() if p in in_force and in_force[p] != n)
    if differing:
        first = differing[0]
        wanted = declared[first]
        yield Finding(
            "limit-in-force",
            "warning",
            f"On the instance the pool {first} has the limit {in_force[first]}; the policy "
            f"declares {'unlimited' if wanted is None else wanted}"
            + (f". So too: {enumerate_some(differing[1:])}." if differing[1:] else "."),
            "Set the one or declare the other: dagster instance concurrency set POOL LIMIT.",
            tuple(differing),
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun} does" if number == 1 else f"{number} {noun}s do"


def _pools(pools: Sequence[str]) -> str:
    return " and ".join(pools) or "none"
