"""An audit of executions as the event logs tell them."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from dagster_lifeguard.engine.rules.pool_expressions import Term
from dagster_lifeguard.engine.rules.pool_settings import limit_in_force
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.insight.graphs import as_holders
from dagster_lifeguard.inspections.audit.audit_result import (
    SUBJECTS,
    Audit,
    Caveat,
    Lane,
    LongWait,
    Occupant,
    no_caveats,
)
from dagster_lifeguard.inspections.audit.spool import Spool
from dagster_lifeguard.inspections.audit.sweep import Sweep
from dagster_lifeguard.inspections.audit.waits import LongWaits
from dagster_lifeguard.policy.partitions import of_partitions
from dagster_lifeguard.storage.expressions import demand_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dagster import AssetKey

    from dagster_lifeguard.deployment.history import RunExecution, StepExecution
    from dagster_lifeguard.inspections.audit.audit_result import Subject


@dataclass(frozen=True, slots=True)
class Limits:
    """What is measured by.

    Attributes:
        limits: Of the pools that have one of their own.
        default_limit: Of the others; None if these are unlimited.
        per_run: Whether runs count, however many of their steps are in a pool at once.
        expressions: Whether what stands in ``op.pool`` may name several pools, as for the engine.
    """

    limits: Mapping[str, int]
    default_limit: int | None
    per_run: bool = False
    expressions: bool = False

    def of(self, pool: str) -> int | None:
        """A pool's limit; None if it is unlimited."""
        return limit_in_force(pool, self.limits.get(pool), self.default_limit)


def audit_executions(
    runs: Iterable[RunExecution],
    limits: Limits,
    *,
    since: float,
    until: float,
    pool: str | None = None,
    long_seconds: float = 600.0,
    assets_only: bool = False,
) -> Audit:
    """Judge what the event logs tell: by pools, and whether two runs made one asset at once.

    Args:
        runs: In any order; all that were not over before ``since``.
        limits: What is measured by.
        since: What was over before is not judged.
        until: The end of what was observed: an execution without an end is taken to last until
            its run ended, or else until here.
        pool: Judge only this pool, and the assets in it.
        long_seconds: Waits as long as this are counted.
        assets_only: Whether the pools are judged by something better.
    """
    with Spool() as spool:
        waits = LongWaits(long_seconds)
        reading = _Reading(spool, limits, since, until, pool, waits, assets_only=assets_only)
        for run in runs:
            reading.add(run)
        sweep = Sweep({Lane("pool", name): limits.of(name) for name in reading.pools})
        _sweep(sweep, spool.in_order(), since)
    caveats = {s: reading.caveats[s] + sweep.caveats[s] for s in SUBJECTS}
    caveats["limits"][Caveat.LIMITS_OF_TODAY] = 1
    caveats["limits"][Caveat.CLOCKS] = caveats["duplicates"][Caveat.CLOCKS] = 1
    return Audit(
        source="event-logs",
        since=since,
        until=until,
        executions=reading.count,
        pools=len(reading.pools),
        excesses=sweep.found("pool"),
        excess_count=sweep.counts["pool"],
        duplicates=sweep.found("asset"),
        duplicate_count=sweep.counts["asset"],
        waits=reading.waits.longest(),
        wait_count=reading.waits.count,
        caveats=caveats,
    )


def _sweep(sweep: Sweep, intervals: Iterator[tuple[Any, ...]], since: float) -> None:
    """Feed intervals, which come by their starts, with their ends in between."""
    going_on: list[tuple[float, int, list[tuple[Lane, int | str]]]] = []

    def leave_until(moment: float) -> None:
        while going_on and going_on[0][0] <= moment:
            at, _, entered = heapq.heappop(going_on)
            sweep.judging = at > since
            for lane, key in entered:
                sweep.leave(lane, at, key)

    for number, (start, end, run_id, step_key, doubtful, lanes) in enumerate(intervals):
        leave_until(start)
        sweep.judging = start >= since
        entered = []
        for kind, name, partition, slots in lanes:
            lane = Lane(kind, name, partition)
            # A run is in an asset, and at granularity run in a pool, once.
            key = number if kind == "pool" and step_key else run_id
            sweep.enter(lane, Occupant(run_id, step_key, start, slots), key, doubtful=doubtful)
            entered.append((lane, key))
        heapq.heappush(going_on, (end, number, entered))
    leave_until(math.inf)
    sweep.finish()


_Lane = tuple[str, str, str, int]
"""A lane's kind, name and partition, and the slots that are taken there."""


class _Place(NamedTuple):
    """What executions that ask for the same and make the same take part in.

    Attributes:
        lanes: All of them.
        judged: What they are judged by.
        counts: Whether a pool is among the lanes.
        caveat: Why none is, if one might have been.
    """

    lanes: tuple[_Lane, ...]
    judged: tuple[Subject, ...]
    counts: bool
    caveat: Caveat | None


class _Reading:
    """Takes runs apart into intervals: start, end, run, step, doubtful, lanes."""

    def __init__(
        self,
        spool: Spool,
        limits: Limits,
        since: float,
        until: float,
        pool: str | None,
        waits: LongWaits,
        *,
        assets_only: bool,
    ) -> None:
        self.pools: set[str] = set()
        self.count = 0
        self.waits = waits
        self.caveats = no_caveats()
        self._spool = spool
        self._limits = limits
        self._since = since
        self._until = until
        self._pool = pool
        self._judges_pools = not assets_only
        self._terms: dict[str, tuple[Term, ...] | None] = {}
        # Executions differ less than they are many: each place is made, and written, once.
        self._place_of = lru_cache(maxsize=10_000)(self._place)

    def add(self, run: RunExecution) -> None:
        """Take a run."""
        over = self._until if run.ended is None else run.ended
        if self._limits.per_run and self._judges_pools:
            self._add_run(run, over)
        for step in as_holders(run.steps) if self._limits.expressions else run.steps:
            self._add_step(run, step, over)
        if self._asks(run) and run.enqueued is not None and run.dequeued is not None:
            self._wait(", ".join(run.pools or ()), run.run_id, "", run.enqueued, run.dequeued)

    def _asks(self, run: RunExecution) -> bool:
        """Whether the run planned steps with a pool that is to be judged, as far as can be told."""
        if self._pool is None:
            return bool(run.pools)
        found = [self._terms_of(text, ()) for text in run.pools or ()]
        return any(terms is None or self._pool in {t.name for t in terms} for terms in found)

    def _add_run(self, run: RunExecution, over: float) -> None:
        if run.started is None or not self._is_seen(run.started, over, ("limits",)):
            return
        if run.pools is None:
            self.caveats["limits"][Caveat.POOL_UNKNOWN] += 1
            return
        named = [self._terms_of(text, ()) for text in run.pools]
        terms = {Term(term.name) for found in named if found for term in found}
        if run.ended is None and terms:
            self.caveats["limits"][Caveat.UNFINISHED] += 1
        lanes, caveat = self._in_pools(terms)
        place = _Place(lanes, ("limits",) if lanes else (), bool(lanes), caveat)
        self._put(place, run.started, over, run.run_id, "", doubtful=run.ended is None)

    def _add_step(self, run: RunExecution, step: StepExecution, over: float) -> None:
        end = max(over, step.started) if step.ended is None else step.ended
        place = self._place_of(step.pool, step.partitions, step.asset_keys)
        if place is None or not self._is_seen(step.started, end, place.judged):
            return
        doubtful = step.ended is None
        if doubtful:
            for subject in place.judged:
                self.caveats[subject][Caveat.UNFINISHED] += 1
        if run.pools is None and self._judges_pools and not self._limits.per_run:
            self.caveats["limits"][Caveat.POOL_UNKNOWN] += 1
        if step.waiting is not None:
            self._wait(step.pool or "", step.run_id, step.step_key, step.waiting, step.started)
        self._put(place, step.started, end, step.run_id, step.step_key, doubtful=doubtful)

    def _place(
        self, text: str | None, partitions: tuple[str, ...], asset_keys: tuple[AssetKey, ...]
    ) -> _Place | None:
        """What a step takes part in; None if it is not to be judged."""
        terms = self._terms_of(text, partitions)
        if self._pool is not None and self._pool not in {term.name for term in terms or ()}:
            return None
        # At granularity run, its run is in the pools.
        elsewhere = self._limits.per_run or not self._judges_pools
        in_pools, caveat = self._in_pools(() if elsewhere else terms)
        assets = [
            ("asset", asset_key.to_user_string(), partition, 1)
            for asset_key in asset_keys
            for partition in partitions or ("",)
        ]
        subjects: dict[Subject, bool] = {"limits": bool(in_pools), "duplicates": bool(assets)}
        judged = tuple(subject for subject, is_judged in subjects.items() if is_judged)
        return _Place((*in_pools, *assets), judged, bool(in_pools), caveat)

    def _in_pools(self, terms: Iterable[Term] | None) -> tuple[tuple[_Lane, ...], Caveat | None]:
        """The lanes of pools, and why there is none."""
        if terms is None:
            return (), Caveat.POOL_UNKNOWN
        asked = [term for term in terms if self._pool in (None, term.name)]
        limited = [term for term in asked if self._limits.of(term.name) is not None]
        self.pools.update(term.name for term in limited)
        lanes = tuple(("pool", term.name, "", term.slots) for term in limited)
        return lanes, Caveat.UNLIMITED if asked and not limited else None

    def _put(
        self,
        place: _Place,
        start: float,
        end: float,
        run_id: str,
        step_key: str,
        *,
        doubtful: bool,
    ) -> None:
        self.count += place.counts
        if place.caveat is not None:
            self.caveats["limits"][place.caveat] += 1
        if place.lanes:
            self._spool.add((start, end, run_id, step_key, doubtful, place.lanes))

    def _terms_of(self, text: str | None, partitions: Sequence[str]) -> tuple[Term, ...] | None:
        """What a step asks for; None if that cannot be told from here."""
        if text is None:
            return ()
        if text not in self._terms:
            self._terms[text] = self._parsed(text)
        terms = self._terms[text]
        if terms is None or not any(term.is_deferred for term in terms):
            return terms
        fields = (field for term in terms for field in term.fields)
        if len(partitions) != 1 or not all(field.is_of_partition for field in fields):
            return None
        if any(term.members is not None for term in terms):
            return None
        try:
            return tuple(filled for t in terms for filled in of_partitions(t, partitions))
        except ValueError:  # A key that is not written as the term says.
            return None

    def _parsed(self, text: str) -> tuple[Term, ...] | None:
        if not self._limits.expressions:
            return (Term(text),)
        try:
            return demand_of(text).terms
        except ConfigError:
            return None

    def _is_seen(self, start: float, end: float, judged: tuple[Subject, ...]) -> bool:
        """Whether there is something to judge; what took no time overlaps nothing."""
        if end < start:
            for subject in judged:
                self.caveats[subject][Caveat.CLOCKS_DISAGREE] += 1
        return end > start and end > self._since and start < self._until

    def _wait(self, name: str, run_id: str, step_key: str, begin: float, end: float) -> None:
        if end < begin:
            self.caveats["waits"][Caveat.CLOCKS_DISAGREE] += 1
        elif end >= self._since:
            self.waits.add(LongWait(end - begin, name, run_id, step_key, end))
