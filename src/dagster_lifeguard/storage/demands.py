"""The demand and the ticket of each step of a run: expressions filled in from the run's plan.

Partitions. ``orders[{partition}]`` asks for the pool of each partition of the run, and for one slot
of ``{all}orders[*]``. This pool stands for all partitions, and always has the largest number of
slots that a pool can have. ``orders[{partition:%Y-%m}]`` asks for the pool of each month in which a
partition of the run begins.

Some runs ask for every slot of ``{all}orders[*]`` instead, so they wait for each run of a single
partition. These are runs with more partitions than ``PARTITIONS_MAX`` pools or than a demand may
name, runs that do not list the partitions of their range, and runs with a partition key that does
not have the format in the term.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from dagster_lifeguard.compat.plans import partition_keys, step_plans
from dagster_lifeguard.engine.rules.model import POOLS_PER_DEMAND_MAX, Demand, TicketKey
from dagster_lifeguard.engine.rules.pool_expressions import (
    SLOTS_MAX,
    asked_by,
    of_assets,
    ticket_name,
)
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.policy.partitions import all_partitions, of_partitions
from dagster_lifeguard.storage.expressions import demand_of, is_deferred

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dagster import AssetKey, DagsterInstance, DagsterRun

    from dagster_lifeguard.compat.plans import StepPlan
    from dagster_lifeguard.engine.rules.pool_expressions import Term

PARTITIONS_MAX = 30
"""The most pools of partitions that one run asks for one by one."""

_LISTED_MAX = 10_000
"""The most partitions of one run whose pools are computed."""

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
    return RunPlan({step.step_key: step.selected(run) for step in steps}, partition_keys(run))


def plan_by_id(instance: DagsterInstance, run_id: str) -> RunPlan:
    """The same for a run that is stored; no steps if there is none of this id."""
    run = instance.get_run_by_id(run_id)
    return RunPlan({}, None) if run is None else plan_of(instance, run)


@dataclass(frozen=True, slots=True)
class StepDemand:
    """What a step asks for.

    Attributes:
        ticket: The ticket by which it asks: its own, or the one of its graph asset.
        demand: The pools and slots; None when there is nothing to ask for.
    """

    ticket: TicketKey
    demand: Demand | None


class Demands:
    """Knows what steps ask for; the plan of a run is read once, and only where it is needed.

    Args:
        load: Reads the plan of a run.
    """

    def __init__(self, load: Callable[[str], RunPlan]) -> None:
        self.plan = lru_cache(maxsize=_RUNS_KNOWN_MAX)(load)

    def of(self, run_id: str, step_key: str, text: str) -> StepDemand:
        """What a step asks for whose pool is this text.

        Raises:
            ConfigError: See ``names.asked_by``, or the run has no plan to fill the text in from.
        """
        if not is_deferred(text):
            return StepDemand(_ticket(run_id, step_key, text), demand_of(text))
        return asked(run_id, step_key, text, self.plan(run_id))

    def members(self, ticket: TicketKey) -> frozenset[str]:
        """The planned steps that share the ticket of a graph asset."""
        steps = self.plan(ticket.run_id).steps.items()
        return frozenset(
            key
            for key, step in steps
            if step.pool is not None and _ticket(ticket.run_id, key, step.pool) == ticket
        )


def asked(run_id: str, step_key: str, text: str, plan: RunPlan) -> StepDemand:
    """What a step of a run asks for; see ``Demands.of``."""
    step = plan.steps.get(step_key) or plan.steps.get(_key_in_plan(step_key))
    if step is None:
        raise ConfigError(
            f"Step {step_key} of run {run_id} is not in the plan of its run, so the pools in "
            f"{text!r} are not known.",
            remedy="Launch the run through Dagster, which stores its plan.",
            names=[step_key],
        )
    demand = demand_for(text, step.members, plan.partitions)
    return StepDemand(_ticket(run_id, step_key, text), demand)


def demand_for(
    text: str, assets: Iterable[AssetKey], partitions: tuple[str, ...] | None
) -> Demand | None:
    """What a step asks for whose pool is this text; None when there is nothing to ask for.

    Args:
        text: A pool or an expression.
        assets: The assets that the step makes or checks.
        partitions: The partitions for which its run executes; None if they cannot be listed.
    """
    if not is_deferred(text):
        return demand_of(text)
    keys = tuple(assets)
    slots = _filled(text, keys, partitions)
    if partitions is not None and len(slots) > POOLS_PER_DEMAND_MAX:
        slots = _filled(text, keys, None)
    return Demand.of(slots) if slots else None


def _ticket(run_id: str, step_key: str, text: str) -> TicketKey:
    return TicketKey(run_id, ticket_name(step_key, text))


def _key_in_plan(step_key: str) -> str:
    """A step that is mapped over what another yields is in the plan once, as ``step[?]``.

    Unless the run executes an earlier one again: then it may be there by its own key.
    """
    name, bracket, _ = step_key.partition("[")
    return f"{name}[?]" if bracket else step_key


def _filled(
    text: str, assets: Iterable[AssetKey], partitions: tuple[str, ...] | None
) -> dict[str, int]:
    """The slots of each pool that an expression asks for; equal terms count with the most slots.

    Args:
        text: The expression.
        assets: The assets that the step makes or checks.
        partitions: The partitions to ask for one by one; None for every slot of all partitions.
    """
    slots: dict[str, int] = {}
    for term in of_assets(asked_by(text), [key.path for key in assets]):
        for filled in _each_partition(term, partitions):
            slots[filled.name] = max(slots.get(filled.name, 0), filled.slots)
    return slots


def _each_partition(term: Term, partitions: tuple[str, ...] | None) -> Iterator[Term]:
    if not term.is_by_partition:
        yield term
        return
    found = _listed(term, partitions)
    yield replace(all_partitions(term), slots=SLOTS_MAX if found is None else 1)
    yield from found or ()


def _listed(term: Term, partitions: tuple[str, ...] | None) -> tuple[Term, ...] | None:
    """The pools of these partitions; None to ask for all that there are."""
    if partitions is None or len(partitions) > _LISTED_MAX:
        return None
    try:
        found = of_partitions(term, partitions)
    except ValueError:
        return None
    return found if len(found) <= PARTITIONS_MAX else None
