"""An audit of the engine's ledger: every grant, release, limit and rate, as they were committed.

Nothing is estimated. Of one pool, the order of the entries is the order in which the engine
decided, whatever the clocks say: a pool is locked while an entry of it is written. Only the end of
a temporary limit has no entry: it comes before the first entry that the engine wrote after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.fall_backs import FallBacks
from dagster_lifeguard.engine.rules.model import EntryKind
from dagster_lifeguard.engine.rules.pool_settings import limit_in_force
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.inspections.audit.audit_result import Audit, Caveat, Lane, LongWait, Occupant
from dagster_lifeguard.inspections.audit.fences import Fences
from dagster_lifeguard.inspections.audit.leases import Leases
from dagster_lifeguard.inspections.audit.starts import Starts
from dagster_lifeguard.inspections.audit.sweep import Sweep
from dagster_lifeguard.inspections.audit.waits import LongWaits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dagster_lifeguard.deployment.history import LedgerSpan
    from dagster_lifeguard.engine.rules.model import Entry
    from dagster_lifeguard.inspections.audit.leases import EventsOf


def audit_ledger(
    past: LedgerSpan,
    *,
    default_limit: int | None = None,
    since: float,
    until: float,
    long_seconds: float = 600.0,
    events_of: EventsOf = lambda _run_ids: {},
) -> Audit:
    """Judge what the ledger tells.

    Args:
        past: What it tells. Of the pools whose limit or rate did not change since the ledger
            begins, those of today are known; of others their first change is the first.
        default_limit: Of a pool from when its own limit is deleted; None: it is unlimited then.
        since: From when on was asked for; what was over before is not judged.
        until: The end of what was observed.
        long_seconds: Waits as long as this are counted.
        events_of: Gives what runs wrote to Dagster's event log; see ``leases``.
    """
    judged = _Judged(past, default_limit, LongWaits(long_seconds))
    judged.look(past.before, judging=False)
    judged.look(past.since, judging=True)
    judged.end(until)
    return judged.audit(past.begin, since, until, events_of)


class _Judged:
    """What is known after the entries so far."""

    def __init__(self, past: LedgerSpan, default_limit: int | None, waits: LongWaits) -> None:
        self._sweep = Sweep({Lane("pool", pool): limit for pool, limit in past.limits.items()})
        self._starts = Starts(past.rates)
        self._ends = FallBacks()
        self._fences = Fences()
        self._leases = Leases()
        self._last_at: dict[str, float] = {}
        self._stepped: set[str] = set()
        self._waits = waits
        self._default_limit = default_limit
        self._caveats = self._sweep.caveats
        self._pools: set[str] = set()
        self._count = 0
        self._negative_waits: set[str] = set()

    def look(self, entries: Iterable[Entry], *, judging: bool) -> None:
        """Take entries, of each pool in the order of their commits.

        Args:
            entries: The entries.
            judging: Whether they are judged themselves, or say what was so before those that are.
        """
        sweep = self._sweep
        sweep.judging = judging
        last: tuple[str, str, int] | None = None
        for entry in self._ends.among(entries):
            lane = Lane("pool", entry.pool)
            if judging:
                self._look_at_clock(entry)
            if entry.kind is EntryKind.LIMIT:
                self._limit(entry)
                continue
            if entry.kind is EntryKind.RATE:
                rate = Rate.read(entry.detail) if entry.detail else None
                self._starts.set_rate(entry.pool, rate, entry.at)
                continue
            key = (entry.run_id, entry.step_key, entry.fence)
            if entry.kind is EntryKind.GRANTED:
                occupant = Occupant(entry.run_id, entry.step_key, entry.at, entry.slots)
                sweep.enter(lane, occupant, key)
                self._fences.grant(entry.pool, entry.fence, occupant)
                if judging:
                    self._count += key != last  # One that asks for several pools has several.
                    last = key
                    self._granted(entry, occupant)
            elif entry.kind in (EntryKind.RELEASED, EntryKind.EXPIRED):
                was_in = sweep.leave(lane, entry.at, key)
                if judging and not was_in:
                    self._caveats["limits"][Caveat.BEGAN_BEFORE] += 1
                if judging and entry.kind is EntryKind.EXPIRED:
                    self._leases.expired(entry)

    def _look_at_clock(self, entry: Entry) -> None:
        """Note a step back of the clock. A step forth looks like a time without entries."""
        if entry.at < self._last_at.get(entry.pool, entry.at):
            self._stepped.add(entry.pool)
        self._last_at[entry.pool] = entry.at

    def end(self, until: float) -> None:
        """Take the ends of temporary limits that no entry of their pools came after."""
        for entry in self._ends.rest(until):
            self._limit(entry)

    def _limit(self, entry: Entry) -> None:
        limit = limit_in_force(entry.pool, entry.limit, self._default_limit)
        self._sweep.set_limit(Lane("pool", entry.pool), entry.at, limit)

    def _granted(self, entry: Entry, occupant: Occupant) -> None:
        self._starts.start(entry.pool, occupant)
        self._pools.add(entry.pool)
        seconds = entry.seconds or 0.0
        if seconds < 0:
            self._negative_waits.add(entry.pool)
        self._waits.add(LongWait(seconds, entry.pool, entry.run_id, entry.step_key, entry.at))

    def audit(self, begin: float | None, since: float, until: float, events_of: EventsOf) -> Audit:
        """What was found.

        Args:
            begin: When the ledger begins; None if there is none.
            since: From when on was asked for.
            until: The end of what was observed.
            events_of: Gives what runs wrote to Dagster's event log.
        """
        self._sweep.finish()
        stepped = self._stepped
        self._leases.judge(events_of, stepped)
        caveats = self._caveats
        caveats["limits"][Caveat.LEDGER_SHORT] = int(begin is None or begin > since)
        caveats["limits"][Caveat.CLOCK_STEPPED] = len(stepped)
        caveats["rates"][Caveat.RATES_BY_CLOCK] = len(stepped & self._starts.pools)
        caveats["leases"][Caveat.EXPIRED] = self._leases.unproven
        caveats["waits"][Caveat.CLOCK_STEPPED] = len(stepped | self._negative_waits)
        return Audit(
            source="ledger",
            since=since if begin is None else max(since, begin),
            until=until,
            executions=self._count,
            pools=len(self._pools),
            excesses=self._sweep.found("pool"),
            excess_count=self._sweep.counts["pool"],
            rated_pools=len(self._starts.pools),
            early=tuple(self._starts.found),
            early_count=self._starts.count,
            stale=tuple(self._fences.found),
            stale_count=self._fences.count,
            outlived=tuple(self._leases.found),
            outlived_count=self._leases.count,
            waits=self._waits.longest(),
            wait_count=self._waits.count,
            caveats={subject: +counts for subject, counts in caveats.items()},
        )
