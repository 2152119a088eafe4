"""Which run stands in for another, and which of them may be dropped. No Dagster, no I/O.

A run is dropped only in favour of one that does all that was asked of it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from dagster_lifeguard.engine.rules.members import Members
from dagster_lifeguard.engine.rules.pool_expressions import (
    Term,
    format_expression,
    parse_expression,
)
from dagster_lifeguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

OnConflict = Literal["queue", "skip_new", "cancel_running", "replace_queued"]
"""What is to happen when a run is submitted whose work another run does or will do."""

ON_CONFLICT: tuple[OnConflict, ...] = get_args(OnConflict)

DUPLICATE_TAG = "lifeguard/duplicate_of"
"""On a run that was dropped: the id of the run that does the work."""

NO_DUPLICATE = "none"
"""The value of that tag on a run that was not dropped after all: it could not be terminated, or
took the tag over from its parent."""

Droppable = Literal["new", "queued", "running"]
"""A run, by where it stands when the new one is submitted."""

DROPS: Mapping[OnConflict, frozenset[Droppable]] = {
    "queue": frozenset(),
    "skip_new": frozenset({"new"}),
    "cancel_running": frozenset({"queued", "running"}),
    "replace_queued": frozenset({"queued"}),
}
"""Which runs each answer lets be dropped."""


def agree(answers: Iterable[OnConflict]) -> OnConflict:
    """What all of the answers allow; ``queue`` if that is nothing, or if there is no answer."""
    drops = [DROPS[answer] for answer in answers]
    common = frozenset.intersection(*drops) if drops else frozenset()
    return next(answer for answer in ON_CONFLICT if DROPS[answer] == common)


def write_answers(answers: Mapping[str, OnConflict]) -> str | None:
    """Write down what the rules say of each asset that an op makes; None for nothing but ``queue``.

    An answer for some of the assets is a term of a pool expression: ``{of:marts/*}skip_new``.

    Args:
        answers: By asset, as ``names.pool_name(key, "path")`` names it.
    """
    terms = []
    for answer in ON_CONFLICT:
        chosen = [name for name, of_asset in answers.items() if of_asset == answer]
        if chosen and answer != "queue":
            terms.append(Term(answer, members=Members.among(chosen, answers)))
    return format_expression(terms) or None


def read_answers(text: str, assets: Collection[str]) -> OnConflict:
    """What a text of ``write_answers`` allows for a step that makes or checks these assets.

    What is not understood is ``queue``, so that no run is dropped for it.
    """
    try:
        terms = parse_expression(text, with_members=True)
    except ConfigError:
        return "queue"

    def answer(asset: str | None) -> OnConflict:
        for term in terms:
            if term.members is None or (asset is not None and asset in term.members):
                return next((known for known in ON_CONFLICT if known == term.name), "queue")
        return "queue"

    return agree(map(answer, assets)) if assets else answer(None)


@dataclass(frozen=True, slots=True)
class WorkStep:
    """A step that a run is to execute.

    Attributes:
        key: Its key in the run.
        op: The op, or outermost graph, that it belongs to.
        assets: The assets that it makes, of those that are selected.
        checks: The asset checks that it evaluates, likewise.
        after: Keys of the steps that it waits for.
        on_conflict: What the policy wrote on its op for what it makes and checks; None if nothing.
    """

    key: str
    op: str
    assets: frozenset[str] = frozenset()
    checks: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()
    on_conflict: OnConflict | None = None

    @property
    def outputs(self) -> frozenset[str]:
        """The assets and the checks."""
        return self.assets | self.checks


@dataclass(frozen=True, slots=True)
class WorkProgress:
    """What a run that executes has behind it.

    Attributes:
        outputs: The assets and checks that it has made.
        succeeded: Keys of the steps that ended well.
        given_up: Keys of the steps that failed or were skipped.
    """

    outputs: frozenset[str] = frozenset()
    succeeded: frozenset[str] = frozenset()
    given_up: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """What a run was asked to do, but for its assets and checks.

    Attributes:
        run_id: The run.
        ancestors: Its parent and the root of its group, if it is a re-execution.
        terms: What another run must have in common with it to do the same work: the job, the code,
            the config, the partitions, the tags that steps may read.
        claims: The names under which the run was requested, such as a run key or a backfill. The
            run may be dropped only for a run with the same names.
        priority: Its place in the run queue.
    """

    run_id: str
    ancestors: frozenset[str]
    terms: Hashable
    claims: frozenset[tuple[str, str]] = frozenset()
    priority: int = 0

    def stands_in_for(self, dropped: WorkOrder) -> bool:
        """Whether this run does the same work as another, as far as both make the same assets.

        Not the other way round: it may have more claims and a higher priority.
        """
        return (
            self.run_id != dropped.run_id
            and self.run_id not in dropped.ancestors
            and dropped.run_id not in self.ancestors
            and self.terms == dropped.terms
            and self.claims >= dropped.claims
            and self.priority >= dropped.priority
        )


def on_conflict_of(steps: Sequence[WorkStep]) -> OnConflict:
    """What the rules of a run's assets allow to be dropped: what all of them allow.

    An op that makes assets and has no entry counts as ``queue``. An op without an entry that only
    checks assets does not count. An op that does neither counts as ``queue``, because its purpose
    is not known.
    """
    answers: list[OnConflict] = []
    for of_op in _by_op(steps):
        only_checks = any(s.checks for s in of_op) and not any(s.assets for s in of_op)
        makes_something = any(s.outputs for s in of_op)
        for step in of_op:
            if step.on_conflict is None and only_checks:
                continue
            answers.append(step.on_conflict or "queue" if makes_something else "queue")
    return agree(answers)


def outputs_of(steps: Sequence[WorkStep]) -> frozenset[str]:
    """The assets and checks that a run is to make; none if it does anything else besides."""
    if not all(any(step.outputs for step in of_op) for of_op in _by_op(steps)):
        return frozenset()
    return frozenset().union(*(step.outputs for step in steps))


def outputs_to_come(steps: Sequence[WorkStep], progress: WorkProgress) -> frozenset[str]:
    """The assets and checks that a run will still make, unless something goes wrong.

    Excluded are outputs that it has made, outputs of steps that have ended, and outputs of steps
    that wait for a failed step: these will not be made.
    """
    lost = set(progress.given_up)
    waiting = [step for step in steps if step.key not in progress.succeeded]
    grown = True
    while grown:
        more = {s.key for s in waiting if s.key not in lost and not lost.isdisjoint(s.after)}
        lost |= more
        grown = bool(more)
    to_come = [step.outputs for step in waiting if step.key not in lost]
    return frozenset().union(*to_come) - progress.outputs


def covers(to_come: Collection[str], wanted: Collection[str]) -> bool:
    """Whether a run that will make some assets and checks makes all that another is to make."""
    return bool(wanted) and set(wanted) <= set(to_come)


def _by_op(steps: Iterable[WorkStep]) -> Iterable[Sequence[WorkStep]]:
    found: defaultdict[str, list[WorkStep]] = defaultdict(list)
    for step in steps:
        found[step.op].append(step)
    return found.values()
