"""Limits: whether pools that are used have one, and what it means for their assets."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from typing import TYPE_CHECKING

from dagster_lifeguard.compat.instance import DEFAULT_LIMIT_COMES_LATE
from dagster_lifeguard.engine.rules.pool_expressions import is_held_by_asset
from dagster_lifeguard.engine.rules.pool_settings import own_limits
from dagster_lifeguard.engine.rules.shown_names import enumerate_some, pool_text, pools_text
from dagster_lifeguard.inspections.doctor.check import Told, check
from dagster_lifeguard.texts import temporary_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dagster_lifeguard.compat.plans import StepPlan
    from dagster_lifeguard.inspections.doctor.examined import Examined


@check(severity="error", source="deployment")
def pool_unlimited(subject: Examined) -> Iterator[Told]:
    """A pool that is used has no limit."""
    limited = {state.pool for state in subject.pools if state.limit is not None}
    unlimited = sorted(subject.used_pools - limited)
    if unlimited and subject.settings.default_limit is None:
        yield Told(
            f"{pools_text(unlimited)}: used by assets or runs, and unlimited, since there "
            "is neither a limit for it nor a default limit.",
            "Set a default limit in dagster.yaml, or a limit of its own.",
            names=unlimited,
            evidence=_users(subject, unlimited),
            commands=["lifeguard init", *(_set(pool) for pool in unlimited[:3])],
        )


@check(severity="note", source="deployment")
def limit_unused(subject: Examined) -> Iterator[Told]:
    """A limit is set for a pool that nothing uses."""
    unused = sorted(
        p for p in own_limits(subject.deployment.pool_settings()) if not subject.may_be_used(p)
    )
    if unused and subject.assets:
        yield Told(
            f"{pools_text(unused)}: limited, and asked for by no asset that has run.",
            'Compare the name with pool="..." in the definitions: lifeguard check lists them. '
            "A function that an asset calls has no pool of its own.",
            names=unused,
            evidence=[f"pools in use: {pools_text(sorted(subject.used_pools)) or 'none'}"],
        )


@check(severity="warning", source="deployment")
def limit_zero(subject: Examined) -> Iterator[Told]:
    """A pool that is used is paused."""
    states = {state.pool: state for state in subject.pools}
    for pool in sorted(subject.used_pools):
        state = states.get(pool)
        if (subject.settings.default_limit if state is None else state.limit) == 0:
            waiting = 0 if state is None else subject.held_back.waits_for(state).count
            end = None if state is None else state.settings.fall_back
            limit = "0" if end is None else temporary_text(0, end.at, end.limit, time.time())
            back = shlex.join(["lifeguard", "limit", pool, "--back"])
            yield Told(
                f"The limit of {pool_text(pool)} is {limit}: it is paused, and what asks for it "
                "waits.",
                "Give it a limit, if that is not meant."
                if end is None
                else "The pause ends by itself. End it now, if it is not meant.",
                names=[pool],
                evidence=[f"{waiting} waiting", *_users(subject, [pool])],
                commands=[_set(pool) if end is None else back],
            )


@check(severity="warning", source="instance")
def default_limit_late(subject: Examined) -> Iterator[Told]:
    """The run queue lets the first runs of a pool pass."""
    if subject.why_not("deployment") is not None or not DEFAULT_LIMIT_COMES_LATE:
        return
    settings = subject.settings
    if settings.engine:
        return  # It tells the run queue of every pool that a run is to ask for.
    written = {row.name for row in subject.instance.event_log_storage.get_pool_limits()}
    unwritten = sorted(subject.used_pools - written)
    if settings.granularity == "run" and settings.default_limit is not None and unwritten:
        yield Told(
            f"{pools_text(unwritten)}: the run queue writes the default limit down only "
            "after it let the runs pass that were waiting when it first met the pool.",
            "Set the limit before the first runs.",
            names=unwritten,
            evidence=_users(subject, unwritten),
            commands=[_set(pool, settings.default_limit) for pool in unwritten[:3]],
        )


@check(severity="note", source="deployment")
def granularity_run(subject: Examined) -> Iterator[Told]:
    """A slot is for a whole run."""
    if subject.settings.granularity == "run" and subject.used_pools:
        yield Told(
            "Granularity is run: a run takes a slot of every pool of its assets before it "
            "starts and keeps them to its end; its steps do not wait.",
            "Runs that do not go through the queue (dagster asset materialize, dagster job "
            "execute) are not limited. For slots that steps take: granularity: op.",
            evidence=[f"{pool_text(pool)} is used" for pool in sorted(subject.used_pools)[:5]],
        )


@check(severity="note", source="instance")
def steps_take_turns(subject: Examined) -> Iterator[Told]:
    """Two runs may take turns within one asset."""
    if subject.why_not("deployment") is not None or subject.settings.granularity == "run":
        return
    graphs = sorted({graph for plan in subject.plans.values() for graph in _graphs(subject, plan)})
    if graphs:
        yield Told(
            f"Granularity is op, and several steps make {enumerate_some(graphs)}: each takes "
            "its slot by itself, so two runs may take turns between them.",
            "If a whole run is to have the asset to itself, set granularity: run under "
            "concurrency: pools in dagster.yaml"
            + (", or hold: asset in its rule." if subject.settings.engine else "."),
            names=graphs,
        )


def _graphs(subject: Examined, plan: Iterable[StepPlan]) -> Iterator[str]:
    """The graphs of which several steps ask for one pool, each by itself."""
    counts = Counter(
        (step.step_key.rpartition(".")[0], pool)
        for step in plan
        if "." in step.step_key
        and not (subject.settings.engine and is_held_by_asset(step.pool or ""))
        for pool in subject.asked_by(step)
    )
    return (graph for (graph, _), count in counts.items() if count > 1)


def _users(subject: Examined, pools: Iterable[str]) -> list[str]:
    found = []
    for pool in list(pools)[:3]:
        assets = [asset for asset, used in subject.assets.items() if pool in used]
        found.append(f"{pool_text(pool)}: {enumerate_some(assets) or 'runs or steps'}")
    return found


def _set(pool: str, limit: int = 1) -> str:
    return shlex.join(["dagster", "instance", "concurrency", "set", pool, str(limit)])


CHECKS = (
    pool_unlimited,
    limit_unused,
    limit_zero,
    default_limit_late,
    granularity_run,
    steps_take_turns,
)
