"""The assets of a code location: whether their pools protect what they write."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from dagster_lifeguard.compat.definitions import metadata_texts
from dagster_lifeguard.engine.rules.shown_names import enumerate_some, pool_text
from dagster_lifeguard.inspections.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dagster_lifeguard.policy.assignments import Assignment
    from dagster_lifeguard.policy.executables import AssetItem

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


def asset_findings(assignments: Sequence[Assignment], granularity: str) -> Iterator[Finding]:
    """Find assets that are unlimited, or limited only in part."""
    uncovered = [
        a.asset
        for a in assignments
        if a.rule is None and a.kind not in ("external", "check") and not a.own_terms
    ]
    if uncovered:
        yield Finding(
            "no-rule",
            "warning",
            f"No rule selects {enumerate_some(uncovered)}: unlimited.",
            'End the rules with one for all other assets: assets: "*".',
            tuple(uncovered),
        )
    partly: defaultdict[str, list[str]] = defaultdict(list)
    for a in assignments:
        for op in a.partly_limited_ops:
            partly[op].append(a.asset)
    for op, assets in partly.items():
        yield Finding(
            "partly-limited",
            "error",
            f"The op {op} of {enumerate_some(assets)} is tagged with a pool where it is used once; "
            "where it is used without the tag it is unlimited.",
            "Give the op itself the pool, or set override: true in the asset's rule.",
            (*assets, op),
        )
    interleaving = [
        a.asset
        for a in assignments
        if a.kind == "graph_asset" and a.steps > 1 and a.pools and not a.holds
    ]
    if interleaving and granularity == "op":
        yield Finding(
            "steps-interleave",
            "warning",
            f"The steps of {enumerate_some(interleaving)} claim one by one: between two steps of "
            "one run, another run may execute a step.",
            "Set granularity: run under concurrency: pools in dagster.yaml, or make it one op."
            if all(a.engine == "stock" for a in assignments)
            else "Set hold: asset in its rule.",
            tuple(interleaving),
        )


def demand_findings(
    assignments: Sequence[Assignment], limits: Mapping[str, int | None]
) -> Iterator[Finding]:
    """Find demands that no slots can ever meet; one finding for all assets with the same."""
    asking: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for a in assignments:
        for term in a.own_terms:
            asking[term.name, term.slots].append(a.asset)
    for (pool, slots), assets in asking.items():
        limit = limits[pool]
        if limit is not None and 0 < limit < slots:
            yield slots_above_limit(
                assets,
                pool,
                slots,
                f"whose limit is {limit}",
                "Ask for fewer slots, or raise the limit under pools.",
            )


def slots_above_limit(
    assets: Sequence[str],
    pool: str,
    slots: int,
    whose_limit: str,
    remedy: str,
    commands: tuple[str, ...] = (),
) -> Finding:
    """The finding for assets that ask for more slots of a pool than its limit."""
    each = "asks" if len(assets) == 1 else "each ask"
    they = "it would" if len(assets) == 1 else "they would"
    return Finding(
        "slots-above-limit",
        "error",
        f"{enumerate_some(assets)} {each} for {slots} slots of the pool {pool_text(pool)}, "
        f"{whose_limit}: {they} wait for ever.",
        remedy,
        (*assets, pool),
        commands=commands,
    )


def same_targets(
    items: Sequence[AssetItem], assignments: Sequence[Assignment]
) -> Iterator[Finding]:
    """Find assets that say they write the same table or path, and may do so at once."""
    by_asset = {a.asset: a for a in assignments if a.kind != "external"}
    writers: defaultdict[tuple[str, str], dict[str, frozenset[str]]] = defaultdict(dict)
    for key, name, value in metadata_texts(items, TARGET_METADATA):
        assignment = by_asset.get(key)
        if assignment is not None:
            writers[name, value][key] = frozenset(term.name for term in assignment.own_terms)
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
