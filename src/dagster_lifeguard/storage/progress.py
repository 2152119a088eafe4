"""The progress of a run: which of its planned steps may still execute.

These are the rules of Dagster's executors: a step begins when its upstream steps have succeeded or
were skipped. It never begins once an upstream step has failed, or will never begin itself; Dagster
stores no event for that. A mapped step, ``step[?]`` in a plan, executes once for each key that its
upstream step yields.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

from dagster import DagsterEventType

from dagster_lifeguard.compat.events import mapping_key_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from dagster import EventLogEntry

    from dagster_lifeguard.compat.plans import StepPlan

_ENDS = frozenset(
    {
        DagsterEventType.STEP_SUCCESS,
        DagsterEventType.STEP_FAILURE,
        DagsterEventType.STEP_SKIPPED,
    }
)
_BEGINS = frozenset({DagsterEventType.STEP_START, DagsterEventType.STEP_RESTARTED})
_MOMENTS = _ENDS | _BEGINS | {DagsterEventType.STEP_UP_FOR_RETRY}
EVENTS = _MOMENTS | {DagsterEventType.STEP_OUTPUT}
"""The types of events that tell how far a run has come."""

_MAPPED = "[?]"


@dataclass(frozen=True, slots=True)
class StepProgress:
    """What the steps of a run did.

    Attributes:
        last: For each step that began or was skipped, its last beginning or end, or
            that it is to try again.
        yielded: For each step with dynamic outputs, the mapping keys that it yielded.
    """

    last: Mapping[str, DagsterEventType] = field(default_factory=dict)
    yielded: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def over(self, plan: Mapping[str, StepPlan]) -> AbstractSet[str]:
        """The steps of a plan, by their keys in it, that will not execute any more."""
        over: set[str] = set()
        dead: set[str] = set()  # Nothing that waits for these begins.
        mapping_keys: dict[str, frozenset[str]] = defaultdict(frozenset)
        waits_for = {key: step.after & plan.keys() for key, step in plan.items()}
        for planned in TopologicalSorter(waits_for).static_order():
            before = waits_for[planned]
            if _MAPPED not in planned:
                self._judge(planned, before, over, dead)
                continue
            keys = frozenset[str]().union(
                *(mapping_keys[b] if _MAPPED in b else self.yielded.get(b, ()) for b in before)
            )
            mapping_keys[planned] = keys
            made = [planned.replace(_MAPPED, f"[{key}]") for key in sorted(keys)]
            for key, step in zip(sorted(keys), made, strict=True):
                self._judge(step, {b.replace(_MAPPED, f"[{key}]") for b in before}, over, dead)
            if not dead.isdisjoint((*made, *before)):
                dead.add(planned)
            # Of what has not ended it may still be made.
            if over.issuperset((*made, *before)):
                over.add(planned)
        return plan.keys() & over

    def _judge(self, step: str, before: AbstractSet[str], over: set[str], dead: set[str]) -> None:
        last = self.last.get(step)
        never = last is None and not dead.isdisjoint(before)
        if never or last is DagsterEventType.STEP_FAILURE:
            dead.add(step)
        if never or last in _ENDS:
            over.add(step)

    def executing(self) -> Iterator[str]:
        """The steps that began and did not end."""
        return (step for step, kind in self.last.items() if kind in _BEGINS)


def of_events(entries: Iterable[EventLogEntry]) -> StepProgress:
    """The progress that these events tell, the oldest first."""
    last: dict[str, DagsterEventType] = {}
    yielded: dict[str, frozenset[str]] = {}
    for entry in entries:
        step, kind = entry.step_key, entry.dagster_event_type
        if step is None:
            continue
        if kind in _MOMENTS:
            last[step] = kind
        mapping_key = mapping_key_of(entry)
        if mapping_key is not None:
            yielded[step] = yielded.get(step, frozenset()) | {mapping_key}
    return StepProgress(last, yielded)
