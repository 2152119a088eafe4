"""What each step of a run asks for, and by which ticket: expressions filled in from its plan.

Partitions. ``orders[{partition}]`` asks for the pool of each partition of the run, and for one slot
of ``orders[%]``, which stands for them all. A run of more than ``PARTITIONS_MAX`` partitions, or
of a range that its run does not list, asks for every slot of ``orders[%]`` instead: it meets each
run of a single partition there. So a limit on ``orders[%]`` is also a limit on how many partitions
execute at once. No partition is named ``%``, for one that is would be written ``%25``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from dagster_lifeguard.compat.plans import partition_keys, step_plans
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.model import Demand, TicketKey
from dagster_lifeguard.names import (
    SLOTS_MAX,
    fill_run_fields,
    parse_expression,
    safe_value,
    split_hold,
    ticket_name,
)
from dagster_lifeguard.storage.expressions import demand_of, is_deferred

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dagster import AssetKey, DagsterInstance, DagsterRun

    from dagster_lifeguard.compat.plans import StepPlan
    from dagster_lifeguard.names import Term

PARTITIONS_MAX = 30
"""So many partitions of one run are asked for one by one."""

ANY_PARTITION = "%"
"""Stands for a partition in the name of the pool of them all."""

_RUNS_KNOWN_MAX = 64


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run plans.

    Attributes:
        steps: Its steps, by key.
        partitions: The partitions for which it executes; None if they cannot be listed.
    """

    steps: Mapping[str, StepPlan]
    partitions: tuple[str, ...] | None


def plan_of(instance: DagsterInstance, run: DagsterRun) -> RunPlan:
    """What a run plans; no steps if it was created without a plan."""
    steps = step_plans(instance, cast("Any", run).execution_plan_snapshot_id) or ()
    return RunPlan({step.step_key: step for step in steps}, partition_keys(run))


def plan_by_id(instance: DagsterInstance, run_id: str) -> RunPlan:
    """The same for a run that is stored; no steps if there is none of this id."""
    run = instance.get_run_by_id(run_id)
    return RunPlan({}, None) if run is None else plan_of(instance, run)


@dataclass(frozen=True, slots=True)
class Asking:
    """What a step asks for.

    Attributes:
        ticket: The ticket by which it asks: its own, or the one of its graph asset.
        demand: The pools and slots; None when there is nothing to ask for.
        whole_pools: Those of the pools that stand for all partitions of something.
    """

    ticket: TicketKey
    demand: Demand | None
    whole_pools: frozenset[str] = frozenset()


class Demands:
    """Knows what steps ask for; the plan of a run is read once, and only where it is needed.

    Args:
        load: Reads the plan of a run.
        limit_of: The limit that a pool has now, None if it has none of its own.
    """

    def __init__(
        self, load: Callable[[str], RunPlan], limit_of: Callable[[str], int | None]
    ) -> None:
        self.plan = lru_cache(maxsize=_RUNS_KNOWN_MAX)(load)
        self._limit_of = limit_of

    def of(self, run_id: str, step_key: str, text: str) -> Asking:
        """What a step asks for whose pool is this text.

        Raises:
            ConfigError: The text is no expression, or the run has no plan to fill it in from.
                Better a run that fails with a word than one that goes unlimited.
        """
        if not is_deferred(text):
            return Asking(_ticket(run_id, step_key, text), demand_of(text))
        return asked(run_id, step_key, text, self.plan(run_id), self._limit_of)

    def members(self, ticket: TicketKey) -> frozenset[str]:
        """The planned steps that share the ticket of a graph asset."""
        steps = self.plan(ticket.run_id).steps.items()
        return frozenset(
            key
            for key, step in steps
            if step.pool is not None and _ticket(ticket.run_id, key, step.pool) == ticket
        )


def asked(
    run_id: str, step_key: str, text: str, plan: RunPlan, limit_of: Callable[[str], int | None]
) -> Asking:
    """What a step of a run asks for; see ``Demands.of``."""
    step = plan.steps.get(step_key) or plan.steps.get(_key_in_plan(step_key))
    if step is None:
        raise ConfigError(
            f"Step {step_key} of run {run_id} is not in the plan of its run, so the pools in "
            f"{text!r} are not known.",
            remedy="Launch the run through Dagster, which stores its plan.",
            names=[step_key],
        )
    slots, whole_pools = _filled(text, step.asset_keys, plan.partitions, limit_of)
    return Asking(_ticket(run_id, step_key, text), Demand.of(slots) if slots else None, whole_pools)


def _ticket(run_id: str, step_key: str, text: str) -> TicketKey:
    return TicketKey(run_id, ticket_name(step_key, text))


def _key_in_plan(step_key: str) -> str:
    """A step that is mapped over what another yields is in the plan once, as ``step[?]``.

    Unless the run executes an earlier one again: then it may be there by its own key.
    """
    name, bracket, _ = step_key.partition("[")
    return f"{name}[?]" if bracket else step_key


def _filled(
    text: str,
    assets: Iterable[AssetKey],
    partitions: tuple[str, ...] | None,
    limit_of: Callable[[str], int | None],
) -> tuple[dict[str, int], frozenset[str]]:
    """The slots of each pool that an expression asks for, and the pools of all partitions.

    Of two terms that come out as one pool the larger counts.
    """
    slots: dict[str, int] = {}
    whole_pools = set()
    for term in parse_expression(split_hold(text)[1]):
        for of_asset in _each_asset(term, assets):
            if not any(field.name == "partition" for field in of_asset.fields):
                slots[of_asset.name] = max(slots.get(of_asset.name, 0), of_asset.slots)
                continue
            whole = _with_partition(of_asset, ANY_PARTITION)
            whole_pools.add(whole)
            if partitions is None or len(partitions) > PARTITIONS_MAX:
                limit = limit_of(whole)
                slots[whole] = max(1, SLOTS_MAX if limit is None else limit)
                continue
            slots[whole] = max(slots.get(whole, 0), 1)
            for partition in partitions:
                name = _with_partition(of_asset, safe_value(partition))
                slots[name] = max(slots.get(name, 0), of_asset.slots)
    return slots, frozenset(whole_pools)


def _each_asset(term: Term, assets: Iterable[AssetKey]) -> Iterator[Term]:
    if not any(field.name == "asset" for field in term.fields):
        yield term
        return
    for key in assets:
        yield fill_run_fields(term, asset=key.path, partition=None)


def _with_partition(term: Term, text: str) -> str:
    return fill_run_fields(term, asset=None, partition=text).name
