"""The report on a deployment: its code locations, and what only shows across them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dagster_lifeguard.compat.instance import DEFAULT_LIMIT_COMES_LATE
from dagster_lifeguard.engine.rules.pool_expressions import stands_for
from dagster_lifeguard.engine.rules.shown_names import enumerate_some, pool_text, pools_text
from dagster_lifeguard.inspections.check.assets import slots_above_limit
from dagster_lifeguard.inspections.finding import Finding, worst_first
from dagster_lifeguard.storage.run_coordinator import LifeguardRunCoordinator
from dagster_lifeguard.texts import limit_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dagster_lifeguard.compat.instance import InstancePoolSettings
    from dagster_lifeguard.inspections.check.location import Location
    from dagster_lifeguard.policy.config import Config


@dataclass(frozen=True)
class CheckReport:
    """The answer of ``lifeguard check``.

    Attributes:
        locations: One for each code location.
        granularity: What a pool limits on the instance: ``op`` or ``run``; ``op`` if none was
            looked at.
        instance: The directory of the instance whose limits were looked at; None if none was.
        findings: All findings, errors first.
    """

    locations: tuple[Location, ...]
    granularity: str
    instance: str | None
    findings: tuple[Finding, ...]


def report_on(
    locations: Sequence[Location],
    config: Config | None,
    instance: InstancePoolSettings | Finding | None,
    places: Mapping[str, str] | None = None,
) -> CheckReport:
    """Put the code locations of a deployment together and add what only shows across them.

    Args:
        locations: The code locations.
        config: The policy to measure by, if it is not that of the definitions.
        instance: Its settings, or the finding that there is none. None: not to be looked at.
        places: Where the file of that policy names a pool, by pool.
    """
    settings = None if isinstance(instance, Finding) else instance
    findings = [instance] if isinstance(instance, Finding) else []
    findings += [
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
        findings += _without_coordinator(locations, settings)
    findings = [_placed(finding, places or {}) for finding in findings]
    findings.sort(key=worst_first)
    granularity = settings.granularity if settings else "op"
    home = settings.home if settings else None
    return CheckReport(tuple(locations), granularity, home, tuple(findings))


def _placed(finding: Finding, places: Mapping[str, str]) -> Finding:
    """A finding about names in a policy's file, with their places there."""
    if finding.code not in ("unused-pool", "pool-undeclared"):
        return finding
    found = tuple(f"{places[name]}: {name}" for name in finding.names if name in places)
    return replace(finding, evidence=(*finding.evidence, *found))


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
                f"The assets {enumerate_some(described)} would share the pool {pool_text(pool)!r}.",
                "Set naming: path, which never gives two assets one name.",
                tuple(places),
            )


def _unused_pools(locations: Sequence[Location], config: Config) -> Iterator[Finding]:
    used = {pool for location in locations for pool in location.limits}
    # The names of assets are filled in beside their templates, those of partitions are not known.
    partitioned = {term for location in locations for term in location.by_partition}
    unused = [
        name
        for name in config.pools
        if name not in used and not any(stands_for(term, name) for term in partitioned)
    ]
    if unused:
        yield Finding(
            "unused-pool",
            "warning",
            f"No rule gives an asset the declared pool {pools_text(unused)}.",
            "Correct the name, use it in a rule, or drop it. If only slots() asks for it, all is "
            "well: --ignore unused-pool.",
            tuple(unused),
        )


def _limits_in_force(
    locations: Sequence[Location], settings: InstancePoolSettings
) -> Iterator[Finding]:
    if not settings.has_engine and any("lifeguard" in location.engines for location in locations):
        yield Finding(
            "engine-off",
            "error",
            "The policy says engine: lifeguard, and the instance is on Dagster's own storage, "
            "which takes each expression for the name of one pool.",
            "Switch the engine on: lifeguard engine enable.",
        )
    used = sorted({pool for location in locations for pool in location.limits})
    unset = [pool for pool in used if pool not in settings.limits]
    yield from _other_limits(locations, settings)
    yield from _too_few_in_force(locations, settings)
    declared = {limit for location in locations for limit in location.default_limits}
    if unset and settings.default_limit not in declared:
        found = "no default limit, so pools are unlimited until each is given one"
        if settings.default_limit is not None:
            found = f"the default limit {settings.default_limit}"
        wanted = ", ".join(sorted(map(limit_text, declared)))
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
            f"{pools_text(unset)} only {'has' if len(unset) == 1 else 'have'} the default "
            "limit, which the run queue first applies to a pool one pass after it meets it.",
            "Set the limits before the first runs: dagster instance concurrency set POOL LIMIT.",
            tuple(unset),
        )


def _too_few_in_force(
    locations: Sequence[Location], settings: InstancePoolSettings
) -> Iterator[Finding]:
    """Find demands that the declared limits could meet, and those on the instance never do."""
    asked: defaultdict[tuple[str, int], dict[str, int | None]] = defaultdict(dict)
    for location in locations:
        of_assets = ((a.asset, t.name, t.slots) for a in location.assignments for t in a.own_terms)
        for asset, pool, slots in of_assets:
            asked[pool, slots][asset] = location.limits[pool]
    for (pool, slots), declared in sorted(asked.items()):
        in_force = settings.limits.get(pool, settings.default_limit)
        assets = sorted(a for a, limit in declared.items() if limit is None or slots <= limit)
        if assets and in_force and in_force < slots:
            yield slots_above_limit(
                assets,
                pool,
                slots,
                f"whose limit on the instance is {in_force}",
                f"Set the limit that the policy declares, {limit_text(declared[assets[0]])}.",
                commands=("lifeguard apply",),
            )


def _without_coordinator(
    locations: Sequence[Location], settings: InstancePoolSettings
) -> Iterator[Finding]:
    rules = list(dict.fromkeys(rule for location in locations for rule in location.on_conflict))
    if rules and not issubclass(settings.run_coordinator, LifeguardRunCoordinator):
        yield Finding(
            "coordinator-missing",
            "warning",
            f"{enumerate_some(rules)}, which nobody heeds: the run coordinator in dagster.yaml is "
            f"{settings.run_coordinator.__name__}.",
            "Set run_coordinator: module: dagster_lifeguard.storage.run_coordinator, class: "
            "LifeguardRunCoordinator, or drop on_conflict.",
            tuple(rules),
        )


def _other_limits(
    locations: Sequence[Location], settings: InstancePoolSettings
) -> Iterator[Finding]:
    default = settings.default_limit
    declared = {
        pool: (limit, location.default_limits)
        for location in locations
        for pool, limit in location.limits.items()
    }
    # Of those that are by default on both sides the default limits are compared, elsewhere.
    differing = sorted(
        pool
        for pool, (limit, by_default) in declared.items()
        if settings.limits.get(pool, default) != limit
        and (pool in settings.limits or limit not in by_default)
    )
    if differing:
        first = differing[0]
        has = f"the limit {settings.limits.get(first)}"
        if first not in settings.limits:
            has = "no limit" if default is None else f"the default limit {default}"
        yield Finding(
            "limit-in-force",
            "warning",
            f"On the instance the pool {pool_text(first)} has {has}; the policy declares "
            f"{limit_text(declared[first][0])}"
            + (f". So too: {pools_text(differing[1:])}." if differing[1:] else "."),
            "Set what is declared: lifeguard apply. Or declare what is set: lifeguard pull.",
            tuple(differing),
        )
