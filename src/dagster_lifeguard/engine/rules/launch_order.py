"""The order in which the run queue launches runs, if pools are shared fairly.

Dagster's run queue launches by priority, then by age. So 10,000 runs of a backfill are ahead of the
daily run, long before a step of either asks for a slot. Here the runs that will ask for a fair pool
form the **line** of that pool. Together they keep the places that they have by priority and age.
Within these places they are sorted by the fair order of the pool (see ``order``): queued runs count
as waiters, and runs in progress as holders. All other runs keep their own places.

A run that will ask for several fair pools is in the line of the pool with the fewest slots. A pool
without a limit has no line.

A run that stays in the queue in any order, because of a limit by tag or of other pools, comes last
in its line and does not count there. Otherwise a group would be delayed by runs that cannot start.

Groups take turns at launches, so the turns of a line are kept from one look at the queue to the
next.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from dagster_lifeguard.engine.rules.model import PoolView, QueuedTicket, TicketKey
from dagster_lifeguard.engine.rules.order import ranked, turns_after, turns_in_force
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

IN_PROGRESS = ("STARTING", "STARTED", "CANCELING")
"""The statuses of runs that Dagster's run queue counts as in progress."""

OVER = ("SUCCESS", "FAILURE", "CANCELED")
"""The statuses of runs that are over."""

TagLimit = tuple[str, "str | None", bool, int]
"""Key, value (None for any), whether it is for each value by itself, and limit."""


class AskingRun(Protocol):
    """A run, as far as the run queue looks at it.

    Attributes:
        pools: The pools for which its steps will ask; None where that is not known.
        first_pools: The slots for which its first steps will ask, by pool; None where that is not
            known, or where one of these steps asks for none.
    """

    @property
    def run_id(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def tags(self) -> Mapping[str, str]: ...
    @property
    def pools(self) -> frozenset[str] | None: ...
    @property
    def first_pools(self) -> Mapping[str, int] | None: ...


R = TypeVar("R", bound=AskingRun)


@dataclass(frozen=True, slots=True)
class Turns:
    """The turns of one line, see ``order``.

    Attributes:
        turn: The pool's turn.
        of_groups: Per group, where its next turn begins; a group not listed begins at ``turn``.
    """

    turn: int = 0
    of_groups: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QueueRules:
    """What the order depends on besides the runs.

    Attributes:
        fair_by: For each pool with a fair order, the tag whose values are its groups.
        limit_of: The limit in force of a pool; None if it is unlimited.
        by_run: Whether the granularity is ``run``.
        tag_limits: How many runs may go on with some tag.
    """

    fair_by: Mapping[str, str]
    limit_of: Callable[[str], int | None]
    by_run: bool
    tag_limits: Sequence[TagLimit] = ()

    @property
    def tags(self) -> frozenset[str]:
        """The tags that make a difference to the order."""
        return frozenset({*self.fair_by.values(), *(key for key, *_ in self.tag_limits)})


def priority_of(tags: Mapping[str, str]) -> int:
    """The priority of a run with these tags in the run queue; a value that is no number is 0."""
    try:
        return int(tags.get("dagster/priority", "0"))
    except ValueError:
        return 0


def by_priority(queued: Iterable[R]) -> list[R]:
    """Dagster's own order of the queue.

    Args:
        queued: The runs in the queue, oldest first.
    """
    return sorted(queued, key=lambda run: -run.priority)


def counted_for(
    tags: Mapping[str, str], limits: Iterable[TagLimit]
) -> Iterator[tuple[str, str | None, int]]:
    """The limits by tag that count a run with these tags: key, value (None for any) and limit."""
    for key, wanted, per_value, limit in limits:
        own = tags.get(key)
        if own is not None and wanted in (None, own):
            yield key, own if per_value or wanted is not None else None, limit


class LaunchOrder:
    """The order of one look at the queue, and the turns after its launches.

    Args:
        rules: What the order depends on besides the runs.
        turns: The turns of lines, by pool.
        going_on: The runs in progress.
    """

    def __init__(
        self, rules: QueueRules, turns: Mapping[str, Turns], going_on: Iterable[AskingRun]
    ) -> None:
        self._rules = rules
        limits = {pool: rules.limit_of(pool) for pool in rules.fair_by}
        self._limits = {pool: limit for pool, limit in limits.items() if limit is not None}
        self._turns = turns
        self._held: dict[str, Counter[str]] = defaultdict(Counter)
        self._tags_going_on: Counter[tuple[str, str | None]] = Counter()
        self._going_on: Counter[str] = Counter()
        for run in going_on:
            self._going_on.update(run.pools or ())
            counted = counted_for(run.tags, rules.tag_limits)
            self._tags_going_on.update({(key, value) for key, value, _ in counted})
            for pool in self._limits.keys() & (run.pools or frozenset()):
                self._held[pool][self._group(run, pool)] += self._slots(run, pool)
        self._lines: dict[str, PoolView] = {}

    def of(self, queued: Iterable[R]) -> list[R]:
        """The runs in the order in which they are to be launched.

        Args:
            queued: The runs in the queue, oldest first.
        """
        runs = by_priority(queued)
        lines: dict[str, list[int]] = defaultdict(list)
        for place, run in enumerate(runs):
            pool = self._line_of(run)
            if pool is not None:
                lines[pool].append(place)
        found = list(runs)
        for pool, places in lines.items():
            # Both are by priority: a run takes a place of its own priority.
            for place, of_run in zip(places, self._in_line(pool, places, runs), strict=True):
                found[place] = runs[of_run]
        return found

    def launched(self, run_id: str) -> bool:
        """Note that a run of a line is launched; whether it was in one."""
        for pool, line in self._lines.items():
            for waiter in line.queue:
                if waiter.key.run_id == run_id:
                    end, turn = turns_after(waiter.group, waiter.priority, waiter.slots, line)
                    self._lines[pool] = replace(
                        line,
                        queue=tuple(other for other in line.queue if other is not waiter),
                        turn=turn,
                        turns={**line.turns, waiter.group: end},
                    )
                    return True
        return False

    @property
    def turns(self) -> dict[str, Turns]:
        """The turns of lines, by pool, as they are to be remembered."""
        kept = {pool: self._turns[pool] for pool in self._limits if pool in self._turns}
        for pool, line in self._lines.items():
            groups = {waiter.group for waiter in line.queue}
            kept[pool] = Turns(
                line.turn,
                {g: at for g, at in line.turns.items() if at > line.turn or g in groups},
            )
        return kept

    def _in_line(self, pool: str, places: Sequence[int], runs: Sequence[AskingRun]) -> list[int]:
        """These places in the fair order of the pool's line."""
        waiters: dict[bool, list[QueuedTicket]] = {False: [], True: []}
        for place in places:
            run = runs[place]
            waiters[self._stays(run)].append(
                QueuedTicket(
                    number=place,
                    priority=run.priority,
                    slots=self._slots(run, pool),
                    since=0.0,
                    key=TicketKey(run.run_id, ""),
                    session="",
                    group=self._group(run, pool),
                )
            )
        turns = self._turns.get(pool, Turns())
        limit = self._limits[pool]
        line = PoolView(pool, PoolSettings(limit), turn=turns.turn, limit_known=limit)
        begins = turns_in_force(line, turns.of_groups.items())
        begins = {**dict.fromkeys((w.group for w in waiters[False]), turns.turn), **begins}
        self._lines[pool] = replace(line, queue=tuple(waiters[False]), turns=begins)
        # With the free ones ahead, those that stay count for nothing among them.
        in_order = [
            waiter
            for stays in (False, True)
            for _, waiter in ranked(waiters[stays], self._held[pool], begins, turns.turn)
        ]
        return [w.number for w in sorted(in_order, key=lambda waiter: -waiter.priority)]

    def _line_of(self, run: AskingRun) -> str | None:
        asked = self._limits.keys() & (run.pools or frozenset())
        return min(asked, key=lambda pool: (self._limits[pool], pool), default=None)

    def _group(self, run: AskingRun, pool: str) -> str:
        return run.tags.get(self._rules.fair_by[pool], "")

    def _slots(self, run: AskingRun, pool: str) -> int:
        if self._rules.by_run:
            return 1
        asked = (run.first_pools or {}).get(pool, 1)
        return max(1, min(asked, self._limits[pool]))

    def _stays(self, run: AskingRun) -> bool:
        """Whether the run stays in the queue in any order."""
        counted = counted_for(run.tags, self._rules.tag_limits)
        if any(self._tags_going_on[key, value] >= limit for key, value, limit in counted):
            return True
        if self._rules.by_run:
            return any(self._is_full(pool, self._going_on[pool]) for pool in run.pools or ())
        first = run.first_pools or {}
        return bool(first) and all(self._is_full(pool, 0) for pool in first)

    def _is_full(self, pool: str, taken: int) -> bool:
        limit = self._rules.limit_of(pool)
        return limit is not None and limit <= taken
