"""The rules of a policy: what stock Dagster cannot do of them, and the first one for an asset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagster_lifeguard.compat.definitions import selector
from dagster_lifeguard.errors import LifeguardError, NeedsEngineError, SelectionError
from dagster_lifeguard.policy.config import describe_rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import dagster as dg

    from dagster_lifeguard.policy.config import Config, Rule
    from dagster_lifeguard.policy.executables import AssetItem, Unit


def refusals(policy: Config) -> Iterator[tuple[int | None, LifeguardError]]:
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
        for field in term.fields:
            if field.is_of_partition:
                yield f"'{field}', known only when a step claims"
    if rule.hold != "step":
        yield f"hold: {rule.hold}"


def matcher(
    rules: Sequence[Rule],
    items: Sequence[AssetItem],
    partitions: Mapping[dg.AssetKey, dg.PartitionsDefinition[Any]],
    problems: list[LifeguardError],
) -> Callable[[Unit, dg.AssetKey], int | None]:
    """Return a function that finds the first rule for an asset; selections are resolved once."""
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

    def rule_of(unit: Unit, key: dg.AssetKey) -> int | None:
        for index, (rule, keys) in enumerate(zip(rules, selected, strict=True)):
            if (
                (keys is None or key in keys)
                and (rule.checks or not unit.is_check)
                and (not rule.conditions or meets(rule, unit, key))
            ):
                return index
        return None

    def meets(rule: Rule, unit: Unit, key: dg.AssetKey) -> bool:
        return (
            (rule.partitioned is None or rule.partitioned is (key in partitions))
            and (rule.resource is None or any(map(rule.takes_resource, unit.resources)))
            and (rule.io_manager is None or rule.takes_io_manager(unit.io_manager(key)))
        )

    return rule_of
