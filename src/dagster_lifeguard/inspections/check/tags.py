"""Assets tagged ``dagster/concurrency_key``, which Dagster reads from ops and not from assets."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from dagster_lifeguard.compat.definitions import tag_values
from dagster_lifeguard.compat.ops import CONCURRENCY_KEY_TAG
from dagster_lifeguard.engine.rules.shown_names import enumerate_some
from dagster_lifeguard.inspections.finding import Finding
from dagster_lifeguard.policy.assignments import Assignments
from dagster_lifeguard.policy.config import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dagster_lifeguard.policy.assignments import Assignment
    from dagster_lifeguard.policy.config import Config
    from dagster_lifeguard.policy.executables import AssetItem


def tag_findings(
    policy: Config, items: Sequence[AssetItem], assignments: Sequence[Assignment], *, is_file: bool
) -> Iterator[Finding]:
    """Find tags on assets that name a pool which the assets do not have: one for each value.

    Each comes with the rules that give these assets the pool. The rules are tried on the assets
    first, for another rule or a pool of the asset's own may stand in their way.

    Args:
        policy: The policy of these assets.
        items: The assets.
        assignments: What the policy gives them.
        is_file: Whether the policy is in a file; otherwise it is in the code.
    """
    silent = _without_their_pool(items, assignments)
    if not silent:
        return
    rules = {value: _rule(value, policy) for value in silent}
    tried = policy.model_copy(update={"rules": (*rules.values(), *policy.rules)})
    failing = _failing(silent, Assignments(tried, items), items)
    helping = [rules[value] for value in silent if set(silent[value]) - set(failing.get(value, ()))]
    for value, assets in silent.items():
        remedies: list[str] = []
        snippet: tuple[str, ...] = ()
        if value in failing:
            remedies.append(
                f"For {enumerate_some(failing[value])} no rule will do: write "
                f'pool="{value}" in the decorator, or drop the tag.'
            )
        if rules[value] in helping:
            where, snippet = _lines_to_paste(policy, rules[value], helping, is_file=is_file)
            remedies.append(f"{where}, or drop the tag.")
        yield Finding(
            "tag-without-effect",
            "warning",
            f"The tag {CONCURRENCY_KEY_TAG}: {value} of {enumerate_some(assets)} limits nothing: "
            "Dagster reads it from ops, not from assets.",
            " ".join(remedies),
            tuple(assets),
            snippet=snippet,
        )


def _without_their_pool(
    items: Sequence[AssetItem], assignments: Sequence[Assignment]
) -> Mapping[str, list[str]]:
    """For each value of the tag, the executed assets that bear it and lack the pool."""
    pools = {
        a.asset: {term.name for term in a.own_terms} for a in assignments if a.kind != "external"
    }
    found: defaultdict[str, list[str]] = defaultdict(list)
    for asset, value in sorted(tag_values(items, CONCURRENCY_KEY_TAG)):
        if value and value not in pools.get(asset, {value}):
            found[value].append(asset)
    return found


def _failing(
    silent: Mapping[str, list[str]], tried: Assignments, items: Sequence[AssetItem]
) -> Mapping[str, list[str]]:
    """For each value, the assets that lack the pool even so, or divide the rules of their op."""
    lacking = _without_their_pool(items, tried.assignments())
    divided = {
        asset
        for op in tried.rules_unheeded()
        for asset in (op.first, *(asset for assets in op.others.values() for asset in assets))
    }
    failing = {
        value: [a for a in assets if a in divided or a in lacking.get(value, ())]
        for value, assets in silent.items()
    }
    return {value: assets for value, assets in failing.items() if assets}


def _rule(value: str, policy: Config) -> Rule:
    # Under the engine the assets keep pools of their own beside the shared one.
    own = ("{asset}",) if policy.engine == "lifeguard" else ()
    return Rule(assets=f"tag:{CONCURRENCY_KEY_TAG}={value}", pools=(*own, value))


def _lines_to_paste(
    policy: Config, rule: Rule, all_helping: Sequence[Rule], *, is_file: bool
) -> tuple[str, tuple[str, ...]]:
    """Return where to paste which lines, so that the rule is in force.

    Rules that are written down get one more. Where none are, all helping rules come at once: a
    file has one list of rules, and the policy that is applied last replaces the others.
    """
    if "rules" not in policy.model_fields_set:
        rules = (*all_helping, *policy.rules)
        if is_file:
            return "Add these rules to the file", ("rules:", *_yaml(*rules))
        return "Apply these rules below the definitions", _applied(policy, rules)
    where = "Put this rule before the others"
    if is_file:
        return where, tuple(_yaml(rule))
    # Policies of one content are equal, whether they were read from a file or written in Python.
    in_python = f"{_python(rule)},"
    return where, ("# in lifeguard.yaml:", *_yaml(rule), "# or in Python:", in_python)


def _yaml(*rules: Rule) -> Iterator[str]:
    for rule in rules:
        yield f'  - assets: "{rule.assets}"'
        yield f"    pools: [{_quoted(rule.pools)}]"


def _python(rule: Rule) -> str:
    return f'Rule(assets="{rule.assets}", pools=[{_quoted(rule.pools)}])'


def _quoted(pools: Sequence[str]) -> str:
    return ", ".join(f'"{pool}"' for pool in pools)


def _applied(policy: Config, rules: Sequence[Rule]) -> tuple[str, ...]:
    """Return lines that apply a policy with other rules to ``defs``."""
    settings = policy.model_dump(exclude_unset=True)
    return (
        "from dagster_lifeguard import Policy, Rule",
        "defs = Policy(",
        *(f"    {name}={value!r}," for name, value in settings.items()),
        "    rules=[",
        *(f"        {_python(rule)}," for rule in rules),
        "    ]",
        ").apply(defs)",
    )
