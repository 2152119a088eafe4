"""Graphs that hold their pool as a whole, as one execution each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.pool_expressions import ticket_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dagster_lifeguard.deployment.history.executions import StepExecution


def as_holders(steps: Iterable[StepExecution]) -> tuple[StepExecution, ...]:
    """The executions of a run, with one execution for each graph with ``hold: asset``.

    That execution has the graph's name as step key. It lasts from the first start of a step to the
    last end; if any of its steps has no end, it has none either. Other steps stay as they are.
    """
    found: dict[object, StepExecution] = {}
    for number, step in enumerate(steps):
        name = step.step_key if step.pool is None else ticket_name(step.step_key, step.pool)
        if name == step.step_key:
            found[number] = step  # Each attempt claims for itself.
            continue
        key = (name, step.pool)
        graph = found.get(key)
        found[key] = replace(step, step_key=name) if graph is None else _with(graph, step)
    return tuple(found.values())


def _with(graph: StepExecution, step: StepExecution) -> StepExecution:
    is_first = step.started < graph.started
    ends = graph.ended is None or step.ended is None
    return replace(
        graph,
        asset_keys=tuple(sorted({*graph.asset_keys, *step.asset_keys})),
        started=min(graph.started, step.started),
        ended=None if ends else max(graph.ended or 0.0, step.ended or 0.0),
        outcome=step.outcome if step.ended is None else graph.outcome,
        partitions=tuple(sorted({*graph.partitions, *step.partitions})),
        waiting=step.waiting if is_first else graph.waiting,
    )
