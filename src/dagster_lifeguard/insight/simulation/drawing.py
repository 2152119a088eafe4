"""One possible future of the present: runs and holds drawn from the past, as arrivals of a play.

A queued run is played like a past run that is drawn: its start-up, its steps, the pauses between
them and its end. So is a run in progress, from the step on where it is. A holder holds as long as a
past hold that is drawn among those that were longer than it has held already.

All that one future draws is of one stretch of the past, as a machine that is slow stays slow for a
while. Else the sum of many draws would seem far more certain than it is.
"""

from __future__ import annotations

from collections import defaultdict
from math import inf
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from dagster_lifeguard.compat.health import RunQueue
from dagster_lifeguard.engine.rules.model import Demand, TicketKey
from dagster_lifeguard.insight.shapes import SAMPLES_MIN, Shape, ShapeStep
from dagster_lifeguard.insight.simulation.arrivals import Arrival, Start, Submission
from dagster_lifeguard.insight.simulation.run_queue import QueuePlay

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Mapping, Sequence

    from dagster_lifeguard.insight.shapes import Shapes
    from dagster_lifeguard.insight.simulation.present import Present, PresentRun, Standing

LONGER_MIN = 2
"""How many known holds must be longer than a holder's hold so far, to draw its end."""

STRETCHES = 10
"""The past is as long as so many of the stretches that futures are drawn from."""

T = TypeVar("T")

_LAUNCHED_AT_ONCE = RunQueue(-1, (), heeds_pools=False, buffer=0)


class Future(NamedTuple):
    """What is played.

    Attributes:
        tickets: The place among the arrivals of each ticket that waits now.
        runs: The place among the submissions of each run that is in the queue now.
    """

    arrivals: tuple[Arrival, ...]
    queue: QueuePlay
    start: Start
    tickets: dict[TicketKey, int]
    runs: dict[str, int]


class Futures:
    """Draws futures of one present.

    Args:
        present: The present.
        shapes: The past.

    Attributes:
        is_outlasted: Whether a holder has held for longer than nearly all that is known.
        is_unknown: Whether too little is known of a holder, a waiter or a run.
        sampled: The samples that are drawn from, each with its size.
    """

    def __init__(self, present: Present, shapes: Shapes) -> None:
        self._present = present
        self._shapes = shapes
        self._of_run: dict[str, list[tuple[Standing, int | None]]] = defaultdict(list)
        self.is_outlasted = self.is_unknown = False
        self.sampled: dict[object, int] = {}
        self._seconds: dict[TicketKey, Sequence[float]] = {}
        for order, ticket in enumerate(present.waiting):
            self._of_run[ticket.key.run_id].append((ticket, order))
            self._seconds[ticket.key] = self._holds(ticket)
        for ticket in present.holding:
            self._of_run[ticket.key.run_id].append((ticket, None))
            self._seconds[ticket.key] = () if ticket.is_stuck else self._remaining(ticket)
        self._kinds: dict[tuple[str, frozenset[str] | None], Sequence[Shape]] = {}
        self._known = {run.run_id for run in present.going_on}
        self._loose = [run_id for run_id in self._of_run if run_id not in self._known]
        self._going_on = [(run, self._possible(run)) for run in present.going_on]
        self._queued = [(run, self._like(run)) for run in present.queued]

    @property
    def size(self) -> int:
        """About how many arrivals and runs are played."""
        return (
            len(self._present.waiting)
            + len(self._present.holding)
            + sum(2 + (len(shapes[-1].steps) if shapes else 0)
                  for _, shapes in (*self._going_on, *self._queued))
        )  # fmt: skip

    # ---- what is drawn from --------------------------------------------------------------------

    def _holds(self, ticket: Standing) -> Sequence[float]:
        """Past holds of the step; of one that asks for several pools, at the first known."""
        best: tuple[object, Sequence[float]] = (None, ())
        for pool in ticket.demand.pools:
            step, found = self._shapes.holds_of(pool, ticket.key.step_key)
            if found and (not best[1] or step is not None):
                best = (pool, step), found
                if step is not None:
                    break
        name, found = best
        if found:
            self.sampled[name] = len(found)
        else:
            self.is_unknown = True
        return found

    def _remaining(self, ticket: Standing) -> Sequence[float]:
        elapsed = self._present.at - ticket.since
        known = self._holds(ticket)
        longer = [seconds - elapsed for seconds in known if seconds > elapsed]
        if len(longer) >= LONGER_MIN:
            return longer
        self.is_outlasted = self.is_outlasted or bool(known)
        return ()

    def _like(self, run: PresentRun) -> Sequence[Shape]:
        kind = run.job_name, run.pools
        if kind not in self._kinds:
            self._kinds[kind] = self._shapes.runs_like(*kind)
        found = self._kinds[kind]
        if found:
            self.sampled[kind] = len(found)
            return found
        self.is_unknown = True
        return self._made_up(run)

    def _made_up(self, run: PresentRun) -> Sequence[Shape]:
        """What a run may be like if too few like it are known: one step for each pool.

        When it ends is not known then, which matters where runs wait for the end of others.
        """
        rules = self._present.rules
        rest = 0.0 if rules is None or rules.runs_max < 0 else inf
        others = self._shapes.runs_near(run.job_name) or (Shape("", frozenset(), 0.0, 0.0, ()),)
        asked = run.first_pools or dict.fromkeys(run.pools or (), 1)
        holds = {}
        for pool in asked:
            _, holds[pool] = self._shapes.holds_of(pool, "")
            if holds[pool]:
                self.sampled[pool, None] = len(holds[pool])
        if not asked or not all(holds.values()):
            return ()
        count = max(len(others), *map(len, holds.values()))
        return tuple(
            Shape(
                run.job_name,
                frozenset(asked),
                others[n % len(others)].starts,
                rest,
                tuple(
                    ShapeStep(
                        f"({pool})",
                        Demand.of({pool: slots}),
                        others[n % len(others)].starts,
                        holds[pool][n % len(holds[pool])],
                        None,
                    )
                    for pool, slots in asked.items()
                ),
            )
            for n in range(count)
        )

    def _possible(self, run: PresentRun) -> Sequence[Shape]:
        """The past runs that this one may be like, as far as it has come."""
        found = self._like(run)
        here = {ticket.key.step_key for ticket, _ in self._of_run.get(run.run_id, ())}
        if here:
            like = [shape for shape in found if here <= {step.step_key for step in shape.steps}]
            # Of a run with other steps it is not known what follows them.
            return like or [shape._replace(steps=()) for shape in found]
        possible = [shape for shape in found if self._next_at(run, shape) > self._present.at]
        if len(possible) >= LONGER_MIN or not found:
            return possible
        if run.started is None and run.launched is not None:
            return _slower(found, self._present.at - run.launched)
        self.is_outlasted = True
        return ()

    def _next_at(self, run: PresentRun, shape: Shape) -> float:
        """When something happens next in a run of which no step holds or waits."""
        launched = _launched(run, shape, self._present.at)
        moments = [launched + shape.starts] if run.started is None else []
        last = launched
        for step in shape.steps:
            ended = run.done.get(step.step_key)
            if ended is not None:
                last = max(last, ended)
            elif step.after is None:
                moments.append(launched + step.at)
            else:
                before = run.done.get(shape.steps[step.after].step_key)
                if before is not None:
                    moments.append(before + step.at)
        return min(moments, default=last + shape.rest)

    # ---- a draw --------------------------------------------------------------------------------

    def draw(self, draws: random.Random) -> Future:
        """One future."""
        drawn = _Draw(self._present, draws, self._seconds, self._shapes.launching_share)
        choice = drawn.choice
        for run_id in self._loose:
            for ticket, order in self._of_run[run_id]:
                drawn.put(ticket, order, None)
        for run, shapes in self._going_on:
            shape = choice(shapes) if shapes else None
            drawn.go_on(run, shape, self._of_run.get(run.run_id, ()))
        for run, shapes in self._queued:
            drawn.queue(run, drawn.following(shapes) if shapes else None)
        return drawn.future()


def _launched(run: PresentRun, shape: Shape, now: float) -> float:
    """When a run that starts up as a past one did would have been launched."""
    if run.started is not None:
        return run.started - shape.starts
    return now if run.launched is None else run.launched


def _slower(shapes: Sequence[Shape], elapsed: float) -> Sequence[Shape]:
    """The same runs, with start-ups that take up to twice as long as one has taken already."""
    found = []
    for number, shape in enumerate(shapes, start=1):
        more = elapsed * (1 + number / len(shapes)) - shape.starts
        steps = tuple(s._replace(at=s.at + more) if s.after is None else s for s in shape.steps)
        rest = shape.rest if steps else shape.rest + more
        found.append(shape._replace(starts=shape.starts + more, steps=steps, rest=rest))
    return found


class _Draw:
    """Puts one future together."""

    def __init__(
        self,
        present: Present,
        draws: random.Random,
        seconds: Mapping[TicketKey, Sequence[float]],
        launching_share: float,
    ) -> None:
        self._present, self._draws, self._seconds = present, draws, seconds
        self._launching_share = launching_share
        self._when = draws.random() ** 0.5  # Rather of late: what comes is like what came last.
        self._followed: dict[int, int] = {}
        self._arrivals: list[Arrival] = []
        self._submissions: list[Submission] = []
        self._holding: list[int] = []
        self._waiting: list[tuple[int, int, float]] = []
        self._tickets: dict[TicketKey, int] = {}
        self._runs: dict[str, int] = {}

    def choice(self, known: Sequence[T]) -> T:
        """One of these, of the stretch of the past that the future is like."""
        first, length = self._stretch(len(known))
        return known[first + int(self._draws.random() * length)]

    def following(self, known: Sequence[T]) -> T:
        """The same, each the one after the one before: what was launched together is alike."""
        first, length = self._stretch(len(known))
        number = self._followed.get(id(known))
        if number is None:
            number = int(self._draws.random() * length)
        self._followed[id(known)] = number + 1
        return known[first + number % length]

    def _stretch(self, count: int) -> tuple[int, int]:
        length = min(count, max(SAMPLES_MIN, count // STRETCHES))
        return round(self._when * (count - length)), length

    def put(self, ticket: Standing, order: int | None, run: int | None) -> int:
        """Let a ticket wait at this place of all waiters; without a place, let it hold."""
        place = len(self._arrivals)
        known = self._seconds[ticket.key]
        seconds = self.choice(known) if known else inf
        if order is None:
            self._holding.append(place)
        else:
            self._waiting.append((order, place, ticket.since))
            self._tickets[ticket.key] = place
        self._arrivals.append(
            Arrival(
                ticket.key, 0.0, ticket.demand, seconds, ticket.priority, ticket.tags, None, run
            )
        )
        return place

    def go_on(
        self,
        run: PresentRun,
        shape: Shape | None,
        here: Iterable[tuple[Standing, int | None]],
    ) -> None:
        """Let a run in progress go on like a past one."""
        now, number = self._present.at, len(self._submissions)
        launched = now if shape is None else _launched(run, shape, now)
        places = {ticket.key.step_key: self.put(ticket, order, number) for ticket, order in here}
        last, unended = launched, bool(places)
        for step in () if shape is None else shape.steps:
            if step.step_key in places:
                continue
            ended = run.done.get(step.step_key)
            if ended is not None:
                last = max(last, ended)
                continue
            before = None if step.after is None or shape is None else shape.steps[step.after]
            after = None if before is None else places.get(before.step_key)
            at = step.at
            if after is None:
                base = launched if before is None else run.done.get(before.step_key, now)
                at = max(0.0, base + step.at - now)
            places[step.step_key] = self._add(run, number, step, at, after)
            unended = True
        rest = inf if shape is None else shape.rest
        if not unended:
            rest = max(0.0, last + rest - now)
        starts = 0.0 if shape is None else shape.starts
        begun = launched + starts if run.started is None else run.started
        launching = 0.0
        if run.started is None:
            launching = max(0.0, launched + self._launching_share * starts - now)
        self._submit(run, begun - now, rest, launching, is_queued=False)

    def queue(self, run: PresentRun, shape: Shape | None) -> None:
        """Let a queued run be like a past one, once it is launched."""
        number = len(self._submissions)
        self._runs[run.run_id] = number
        places: list[int] = []
        for step in () if shape is None else shape.steps:
            after = None if step.after is None else places[step.after]
            places.append(self._add(run, number, step, step.at, after))
        starts, rest = (0.0, inf) if shape is None else (shape.starts, shape.rest)
        self._submit(run, starts, rest, self._launching_share * starts, is_queued=True)

    def _add(
        self, run: PresentRun, number: int, step: ShapeStep, at: float, after: int | None
    ) -> int:
        key = TicketKey(run.run_id, step.step_key)
        self._arrivals.append(
            Arrival(
                key, at, step.demand, step.seconds, run.priority, run.tags, after, number
            )
        )  # fmt: skip
        return len(self._arrivals) - 1

    def _submit(
        self, run: PresentRun, starts: float, rest: float, launching: float, *, is_queued: bool
    ) -> None:
        self._submissions.append(
            Submission(
                run.run_id,
                self._present.at,
                starts,
                rest,
                run.priority,
                run.tags,
                run.pools,
                run.first_pools,
                is_queued,
                launching,
            )
        )

    def future(self) -> Future:
        present = self._present
        rules = present.rules or _LAUNCHED_AT_ONCE
        start = Start(
            present.at,
            self._holding,
            [(place, since) for _, place, since in sorted(self._waiting)],
            present.due_ns,
            self._draws.uniform(0.0, rules.interval_seconds),
        )
        queue = QueuePlay(self._submissions, rules, present.by_run)
        return Future(tuple(self._arrivals), queue, start, self._tickets, self._runs)
