"""Limits of the run queue by tag: whether they can count any run.

``concurrency.runs``, ``run_queue`` and the configuration of the run coordinator may all set them;
Dagster makes one list of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.compat.health import run_queue
from dagster_lifeguard.compat.ops import CONCURRENCY_KEY_TAG
from dagster_lifeguard.inspections.doctor.check import Told, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagster_lifeguard.engine.rules.launch_order import TagLimit
    from dagster_lifeguard.inspections.doctor.examined import Examined

RUNS_MIN = 10
"""With fewer recent runs there is nothing to go by."""

_BY_DAGSTER = ("dagster/", ".dagster/")
"""How tags begin that Dagster gives to runs of some kind, of which the next may be one."""


@check(severity="warning", source="instance")
def tag_limit_of_pools(subject: Examined) -> Iterator[Told]:
    """The run queue has a limit for the tag dagster/concurrency_key."""
    for limit in _tag_limits(subject):
        key, value, _, count = limit
        if key == CONCURRENCY_KEY_TAG and not _counted(subject, key, value):
            yield Told(
                f"{_described(limit)} limits nothing: the run queue counts tags of runs, and this "
                "tag names pools of ops.",
                "Take it out of tag_concurrency_limits and limit the pool, under pools in "
                "lifeguard.yaml or with dagster instance concurrency set. Dagster reads the tag "
                "from ops; assets that have it need a rule:",
                names=[key],
                evidence=_evidence(subject, limit),
                snippet=_rule(f"{key}={value or 'VALUE'}", value or "VALUE", count),
            )


@check(severity="warning", source="instance")
def tag_limit_idle(subject: Examined) -> Iterator[Told]:
    """The run queue has a limit for a tag that no run has."""
    if len(subject.latest_runs) < RUNS_MIN:
        return
    for limit in _tag_limits(subject):
        key, value, per_value, count = limit
        if key.startswith(_BY_DAGSTER) or _counted(subject, key, value):
            continue
        pool = f"{key}_{value or 'VALUE'}" if per_value or value else key
        yield Told(
            f"{_described(limit)} limits nothing: none of the last {len(subject.latest_runs)} "
            "runs has it.",
            "Runs have the tags of their jobs, schedules and launches, not those of ops and "
            "assets. Correct the tag, or, if assets have it, give them a pool in lifeguard.yaml:",
            names=[key],
            evidence=_evidence(subject, limit),
            snippet=_rule(f"{key}={value or 'VALUE'}", pool, count),
        )


def _tag_limits(subject: Examined) -> tuple[TagLimit, ...]:
    queue = run_queue(subject.instance)
    return () if queue is None else queue.tag_limits


def _counted(subject: Examined, key: str, value: str | None) -> bool:
    """Whether a recent run has the tag, and the value if the limit is for one."""
    runs = subject.latest_runs
    return any(key in run.tags and value in (None, run.tags[key]) for run in runs)


def _described(limit: TagLimit) -> str:
    key, value, _, count = limit
    tag = key if value is None else f"{key}: {value}"
    return f"The limit of {count} for the tag {tag}"


def _evidence(subject: Examined, limit: TagLimit) -> Iterator[str]:
    key, value, per_value, count = limit
    of_value = "" if value is None else f", value: {value}"
    if per_value:
        of_value = ", value: {applyLimitPerUniqueValue: true}"
    yield f"tag_concurrency_limits: [{{key: {key}{of_value}, limit: {count}}}]"
    others = {found for run in subject.latest_runs if (found := run.tags.get(key)) is not None}
    if others:
        yield f"Values that runs have: {', '.join(sorted(others)[:5])}"


def _rule(tag: str, pool: str, limit: int) -> tuple[str, ...]:
    return (
        "rules:",
        f'  - assets: "tag:{tag}"',
        f'    pools: ["{pool}"]',
        "pools:",
        f"  {pool}: {limit}",
    )


CHECKS = (tag_limit_of_pools, tag_limit_idle)
