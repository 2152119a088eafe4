"""Dagster's run queue in a world: which runs wait in it, and which are launched at a look.

The daemon looks at the queue every few seconds. A look goes down the line, as ``queue_look``
describes it. Runs that the same limits hold back form one line, since a look that keeps the first
of them keeps all of them. Where a pool is fair, the order is that of ``launch_order``.

The daemon looks at multiples of its interval, or so long after them, and not while nothing has
happened. It launches the runs of a look one after the other, or several at once, and looks again
once all are launched. While as many runs are in progress as may be, it does not read the queue.

A list has the first run of each line, in the order of the queue. So a look costs as much as the
lines ahead of the last run that it launches, not as much as the runs that wait.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from dagster_lifeguard.engine.rules.launch_order import LaunchOrder, QueueRules, counted_for
from dagster_lifeguard.insight.queue_look import ALLOTTED_SECONDS
from dagster_lifeguard.insight.simulation.events import (
    ARRIVE,
    BEGUN,
    LOOK_AT_QUEUE,
    RUN_END,
    SUBMIT,
)
from dagster_lifeguard.insight.simulation.outcome import RUN_QUEUE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dagster_lifeguard.compat.health import RunQueue
    from dagster_lifeguard.engine.rules.launch_order import Turns
    from dagster_lifeguard.insight.simulation.admission import Admission
    from dagster_lifeguard.insight.simulation.arrivals import Arrival, Start, Submission
    from dagster_lifeguard.insight.simulation.events import Events
    from dagster_lifeguard.insight.simulation.outcome import Play

_Tag = tuple[str, "str | None"]

_BY_QUEUE = (RUN_QUEUE,)


class QueuePlay(NamedTuple):
    """What is played of the run queue.

    Attributes:
        submissions: The runs, in the order in which they are submitted.
        rules: How the queue lets runs go.
        by_run: Whether the granularity is ``run``.
    """

    submissions: Sequence[Submission]
    rules: RunQueue
    by_run: bool = False


@dataclass(eq=False, slots=True)
class _Line:
    """The runs that the same limits hold back.

    Attributes:
        tags: The limits by tag that count them, with the limit of each.
        asks: The slots of each pool that count for one of them.
        waiting: Rank and place of each, the first first.
        keepers: What has kept them since ``since``, by the looks since then.
        since: A moment, in seconds since the epoch.
        stood: For how many seconds each keeper kept the line before that moment.
    """

    tags: tuple[tuple[_Tag, int], ...]
    asks: tuple[tuple[str, int], ...]
    waiting: deque[tuple[int, int]] = field(default_factory=deque)
    keepers: tuple[str, ...] = ()
    since: float = 0.0
    stood: dict[str, float] = field(default_factory=dict)

    def stood_until(self, now: float) -> dict[str, float]:
        """For how many seconds each keeper has kept the line."""
        found = dict(self.stood)
        for name in self.keepers:
            found[name] = found.get(name, 0.0) + (now - self.since) / len(self.keepers)
        return found

    def keep(self, keepers: tuple[str, ...], now: float) -> None:
        """Let these keep the line from now on."""
        if keepers != self.keepers:
            self.stood = self.stood_until(now)
            self.keepers, self.since = keepers, now


class WorldQueue:
    """The run queue of a world, and the runs in progress.

    Args:
        played: The runs and the rules.
        arrivals: The arrivals, of which some belong to the runs.
        admission: The pools.
        events: The clock.
        play: Where it is written down what happens.
        start: Where the play begins, if it begins in the middle.
    """

    def __init__(
        self,
        played: QueuePlay,
        arrivals: Sequence[Arrival],
        admission: Admission,
        events: Events,
        play: Play,
        start: Start | None = None,
    ) -> None:
        self._submissions, self._rules, self._by_run = played
        self._phase = 0.0 if start is None else start.phase
        placed = () if start is None else start.placed
        self._arrivals = arrivals
        self._admission = admission
        self._events = events
        self._play = play
        play.launched = [None] * len(self._submissions)
        self._first: dict[int, list[int]] = defaultdict(list)
        self._unended = [0] * len(self._submissions)
        for place, arrival in enumerate(arrivals):
            if arrival.run is not None:
                self._unended[arrival.run] += 1
                if arrival.after is None and place not in placed:
                    self._first[arrival.run].append(place)
        self._lines: dict[object, _Line] = {}
        self._heads: list[tuple[int, int, _Line]] = []
        self._otherwise_kept: set[_Line] = set()  # Than by the queue, as far as is known.
        self._entered: dict[int, tuple[_Line, dict[str, float]]] = {}
        self._in_progress: dict[int, Submission] = {}
        self._tagged: Counter[_Tag] = Counter()
        self._promised: Counter[str] = Counter()
        self._turns: Mapping[str, Turns] = {}
        self._looked = -math.inf
        self._launchers = [-math.inf] * max(1, self._rules.launches_at_once)
        self._busy_until = -math.inf
        self._is_looking = False
        for run, submission in enumerate(self._submissions):
            events.at(submission.at, SUBMIT, run)

    # ---- what happens --------------------------------------------------------------------------

    def submit(self, run: int, now: float) -> None:
        """Let a run enter the queue, or be launched at once if it goes around it."""
        line = self._line_of(self._submissions[run])
        if not self._submissions[run].is_queued:
            self._launch(run, line, now)
            return
        self._entered[run] = line, line.stood_until(now)
        rank = -self._submissions[run].priority, run
        if line.waiting and line.waiting[-1] < rank:
            line.waiting.append(rank)
        else:
            self._leave_heads(line)
            insort(line.waiting, rank)
            self._join_heads(line)
        self.stir(now)

    def stir(self, now: float) -> None:
        """Let the daemon look in time, as a run may be launched now that could not before."""
        if self._entered and not self._is_looking:
            self._is_looking = True
            interval = max(self._rules.interval_seconds, 0.1)
            passed = math.floor((now - self._phase) / interval)
            look_at = (passed + 1) * interval + self._phase
            self._events.at(max(look_at, self._busy_until), LOOK_AT_QUEUE, None)

    def begun(self, run: int, now: float) -> None:
        """Let the first steps of a run no longer count as if they were about to ask."""
        self._forget(self._line_of(self._submissions[run]))
        self.stir(now)

    def step_ended(self, run: int, now: float) -> None:
        """Note that an arrival of a run ended; the run may end with its last one."""
        self._unended[run] -= 1
        if not self._unended[run]:
            self._events.at(now + self._submissions[run].rest, RUN_END, run)

    def run_ended(self, run: int, now: float) -> None:
        """Let a run no longer be in progress."""
        line = self._line_of(self._in_progress.pop(run))
        for tag, _ in line.tags:
            self._tagged[tag] -= 1
        if self._by_run:
            self._forget(line)
        self.stir(now)

    def _forget(self, line: _Line) -> None:
        for pool, slots in line.asks:
            self._promised[pool] -= slots

    def finish(self, until: float) -> None:
        """Write down how long runs stood that were never launched."""
        self._looked = max(until, self._looked)
        for run in tuple(self._entered):
            self._note_queued(run, max(0.0, until - self._submissions[run].at))

    # ---- a look --------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Launch the runs that nothing keeps in the queue."""
        self._is_looking = False
        self._looked = now
        kept: set[_Line] = set()
        if not self._is_full():
            if self._admission.fair_by:
                self._look_fairly(kept, now)
            else:
                self._look_by_priority(kept, now)
        for line in self._otherwise_kept - kept:
            if line.waiting:
                line.keep(_BY_QUEUE, now)
        self._otherwise_kept = {line for line in kept if line.keepers != _BY_QUEUE}

    def _look_by_priority(self, kept: set[_Line], now: float) -> None:
        heads = self._heads
        place = 0
        while place < len(heads) and not self._is_full():
            _, run, line = heads[place]
            if self._is_kept(line, now):
                kept.add(line)
                place += 1
            else:
                self._launch(run, line, now)  # Only later places change.

    def _look_fairly(self, kept: set[_Line], now: float) -> None:
        rules = QueueRules(
            self._admission.fair_by,
            self._admission.limit_of,
            self._by_run,
            self._rules.tag_limits,
        )
        order = LaunchOrder(rules, self._turns, self._in_progress.values())
        runs = {self._submissions[run].run_id: run for run in sorted(self._entered)}
        for submission in order.of([self._submissions[run] for run in runs.values()]):
            if self._is_full():
                break
            run = runs[submission.run_id]
            line, _ = self._entered[run]
            if line in kept:
                continue
            if self._is_kept(line, now):
                kept.add(line)
                continue
            self._launch(run, line, now)
            order.launched(submission.run_id)
        self._turns = order.turns

    def _is_kept(self, line: _Line, now: float) -> bool:
        keepers = self._keepers(line)
        if keepers:
            line.keep(keepers, now)
        return bool(keepers)

    def _is_full(self) -> bool:
        return 0 <= self._rules.runs_max <= len(self._in_progress)

    def _keepers(self, line: _Line) -> tuple[str, ...]:
        """What keeps the runs of a line in the queue; see ``QueueLook``."""
        for tag, limit in line.tags:
            if self._tagged[tag] >= limit:
                return _BY_QUEUE
        if not self._rules.heeds_pools:
            return ()
        full = []
        for pool, _ in line.asks:
            if self._left(pool) <= 0:
                full.append(pool)
            elif not self._by_run:
                return ()
        return tuple(full)

    def _left(self, name: str) -> float:
        pool = self._admission.pool(name)
        limit = pool.settings.limit
        if limit is None:
            return math.inf
        taken = self._promised[name]
        if not self._by_run:
            taken += pool.present + pool.waiting
        return limit + self._rules.buffer - taken

    def _launch(self, run: int, line: _Line, now: float) -> None:
        submission = self._submissions[run]
        if submission.is_queued:
            now = max(now, heappop(self._launchers))
            heappush(self._launchers, now + submission.launching)
        self._busy_until = max(self._busy_until, now + submission.launching)
        if run in self._entered:
            self._note_queued(run, now - submission.at)
            rank = -submission.priority, run
            if line.waiting[0] == rank:
                self._leave_heads(line)
                line.waiting.popleft()
                self._join_heads(line)
            else:
                line.waiting.remove(rank)
        self._play.launched[run] = now
        self._play.awaited_runs.discard(run)
        self._in_progress[run] = submission
        self._play.runs_most = max(self._play.runs_most, len(self._in_progress))
        for tag, _ in line.tags:
            self._tagged[tag] += 1
        if line.asks:
            for pool, slots in line.asks:
                self._promised[pool] += slots
            if not self._by_run:
                begun = now + max(0.0, submission.starts + ALLOTTED_SECONDS)
                self._events.at(begun, BEGUN, run)
        for place in self._first.get(run, ()):
            self._events.at(now + self._arrivals[place].at, ARRIVE, place)
        if not self._unended[run]:
            self._events.at(now + submission.rest, RUN_END, run)

    # ---- lines, and for how long runs stood in them --------------------------------------------

    def _line_of(self, submission: Submission) -> _Line:
        """The line of the runs that the same limits hold back."""
        counted = counted_for(submission.tags, self._rules.tag_limits)
        tags = tuple(((key, value), limit) for key, value, limit in counted)
        asked: Iterable[tuple[str, int]] = (submission.first_pools or {}).items()
        if self._by_run:
            asked = ((pool, 1) for pool in submission.pools or ())
        asks = tuple(sorted(asked))
        found = self._lines.get((tags, asks))
        if found is None:
            found = self._lines[tags, asks] = _Line(tags, asks)
        return found

    def _leave_heads(self, line: _Line) -> None:
        if line.waiting:
            del self._heads[bisect_left(self._heads, line.waiting[0])]

    def _join_heads(self, line: _Line) -> None:
        if line.waiting:
            insort(self._heads, (*line.waiting[0], line))
            self._otherwise_kept.add(line)
        else:
            line.keep((), self._looked)

    def _note_queued(self, run: int, seconds: float) -> None:
        """Write down for how long a run stood in the queue, and for what."""
        line, before = self._entered.pop(run)
        stood = line.stood_until(self._looked)
        stood = {name: at - before.get(name, 0.0) for name, at in stood.items()}
        stood = {name: at for name, at in stood.items() if at > 0}
        rest = seconds - sum(stood.values())
        if rest > 0:
            stood[RUN_QUEUE] = stood.get(RUN_QUEUE, 0.0) + rest
        for place in self._first.get(run, ()):
            self._play.queued[place] = seconds
            self._play.stood[place] = dict(stood)
