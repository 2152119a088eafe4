"""Names of pools: two that are meant to be one, and the tag that named pools before."""

from __future__ import annotations

import shlex
from collections import defaultdict
from typing import TYPE_CHECKING

from dagster_lifeguard.compat.health import tagged_steps
from dagster_lifeguard.engine.rules.pool_expressions import is_reserved
from dagster_lifeguard.engine.rules.pool_settings import own_limits
from dagster_lifeguard.engine.rules.shown_names import enumerate_some, pool_text, pools_text
from dagster_lifeguard.inspections.doctor.check import Told, check
from dagster_lifeguard.texts import limit_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dagster_lifeguard.inspections.doctor.examined import Examined


@check(severity="warning", source="deployment")
def names_differ_by_case(subject: Examined) -> Iterator[Told]:
    """Names of pools differ only by case."""
    for names in _alike(subject, str.casefold):
        yield Told(
            f"{pools_text(names)} differ only by case, and are different pools.",
            "Write one of them everywhere, and delete the limit of the other.",
            names=names,
            evidence=_told(subject, names),
            commands=_deletions(subject, names),
        )


@check(severity="warning", source="deployment")
def names_old_naming(subject: Examined) -> Iterator[Told]:
    """One asset's pool is named in two ways."""
    for names in _alike(subject, lambda name: name.replace("/", "_")):
        # Where assets use all of them, they are what naming: path is for.
        if not set(names) <= subject.used_pools:
            yield Told(
                f"{pools_text(names)} are names of one asset's pool, by naming: path and "
                "by naming: underscore, and are different pools.",
                "Keep the one that the definitions use, and delete the limit of the other.",
                names=names,
                evidence=_told(subject, names),
                commands=_deletions(subject, names),
            )


@check(severity="error", source="deployment")
def name_reserved(subject: Examined) -> Iterator[Told]:
    """A limit has a name under which the engine limits nothing."""
    limits = own_limits(subject.deployment.pool_settings())
    names = sorted(filter(is_reserved, limits))
    if names and subject.settings.engine is not False:
        yield Told(
            f"{enumerate_some(names)}: limited, and the engine has its own use for names that "
            "begin so: what asks for such a pool is not limited by this.",
            "Give the pool another name, and delete this limit.",
            names=names,
            evidence=[f"{name}: limit {limits[name]}" for name in names],
            commands=[_deletion(name) for name in names],
        )


@check(severity="warning", source="instance")
def key_tag(subject: Examined) -> Iterator[Told]:
    """Steps bear the tag dagster/concurrency_key."""
    found = {
        step.step_key: step for step in tagged_steps(subject.instance, reversed(subject.plans))
    }
    if found:
        yield Told(
            f"{enumerate_some(sorted(found))} bear the tag dagster/concurrency_key, from "
            "before there were pools. Beside a pool it has no effect.",
            'Take it out and say pool="..." instead.',
            names=sorted(found),
            evidence=[
                f"{step.step_key}: tag {step.tag}, "
                + (
                    f"not heeded: its pool is {pool_text(step.pool)}"
                    if step.pool
                    else "taken for its pool"
                )
                for step in found.values()
            ],
        )


def _alike(subject: Examined, form: Callable[[str], str]) -> Iterator[list[str]]:
    """The pools whose names have one form, where there are several."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted({state.pool for state in subject.pools} | subject.used_pools):
        groups[form(name)].append(name)
    return (names for names in groups.values() if len(names) > 1)


def _told(subject: Examined, names: list[str]) -> list[str]:
    states = {state.pool: state for state in subject.pools}
    told = []
    for name in names:
        users = [asset for asset, pools in subject.assets.items() if name in pools]
        limit = states[name].limit if name in states else subject.settings.default_limit
        told.append(
            f"{pool_text(name)}: limit {limit_text(limit)}, "
            + (f"used by {enumerate_some(users)}" if users else "used by no asset that has run")
        )
    return told


def _deletions(subject: Examined, names: list[str]) -> list[str]:
    """How to delete the limits of those that nothing uses."""
    own = own_limits(subject.deployment.pool_settings())
    return [_deletion(name) for name in names if name in own and not subject.may_be_used(name)]


def _deletion(pool: str) -> str:
    """What deletes a limit that no ``lifeguard.yaml`` declares; Dagster's CLI has no command."""
    name = pool if is_reserved(pool) else pool_text(pool)
    return shlex.join(["lifeguard", "apply", "--prune", name])


CHECKS = (names_differ_by_case, names_old_naming, name_reserved, key_tag)
