"""An audit of the engine's ledger: every grant, release, limit and rate, as they were committed.

Nothing is estimated. Of one pool, the order of the entries is the order in which the engine
decided, whatever the clocks say: a pool is locked while an entry of it is written.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dagster_lifeguard.audit.findings import Audit, Caveat, Lane, Occupant, Wait
from dagster_lifeguard.audit.starts import Starts
from dagster_lifeguard.audit.sweep import Sweep
from dagster_lifeguard.audit.waits import LongWaits
from dagster_lifeguard.model import EntryKind, limit_in_force
from dagster_lifeguard.rate import Rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dagster_lifeguard.model import Entry


def audit_ledger(
    entries: Iterable[Entry],
    limits: Mapping[str, int | None],
    rates: Mapping[str, Rate] | None = None,
    *,
    default_limit: int | None = None,
    begin: float | None,
    since: float,
    until: float,
    long_seconds: float = 600.0,
) -> Audit:
    """Judge what the ledger tells.

    Args:
        entries: Oldest first. Those before ``since`` say what was held and in force then.
        limits: Of the pools whose limit did not change since the ledger begins; of others their
            first change is the first that is known.
        rates: The same of rates.
        default_limit: Of a pool from when its own limit is deleted; None: it is unlimited then.
        begin: When the ledger begins; None if there is none.
        since: What was over before is not judged.
        until: The end of what was observed.
        long_seconds: Waits as long as this are counted.
    """
    sweep = Sweep({Lane("pool", pool): limit for pool, limit in limits.items()}, since)
    starts = Starts(rates or {}, since)
    caveats: Counter[Caveat] = Counter()
    waits = LongWaits(long_seconds)
    pools: set[str] = set()
    count = 0
    last: tuple[str, str, int] | None = None
    for entry in entries:
        lane = Lane("pool", entry.pool)
        if entry.kind is EntryKind.LIMIT:
            limit = limit_in_force(entry.pool, entry.limit, default_limit)
            sweep.set_limit(lane, entry.at, limit)
            continue
        if entry.kind is EntryKind.RATE:
            rate = Rate.read(entry.detail) if entry.detail else None
            starts.set_rate(entry.pool, rate, entry.at)
            continue
        key = (entry.run_id, entry.step_key, entry.fence)
        if entry.kind is EntryKind.GRANTED:
            occupant = Occupant(entry.run_id, entry.step_key, entry.at, entry.slots)
            sweep.enter(lane, occupant, key)
            starts.start(entry.pool, occupant)
            if entry.at >= since:
                count += key != last  # one that asks for several pools has an entry for each
                last = key
                pools.add(entry.pool)
                seconds = entry.seconds or 0.0
                waits.add(Wait(seconds, entry.pool, entry.run_id, entry.step_key, entry.at))
        elif entry.kind in (EntryKind.RELEASED, EntryKind.EXPIRED):
            was_in = sweep.leave(lane, entry.at, key)
            if entry.at >= since:
                caveats[Caveat.EXPIRED] += entry.kind is EntryKind.EXPIRED
                caveats[Caveat.BEGAN_BEFORE] += not was_in
    sweep.finish()
    if begin is None or begin > since:
        caveats[Caveat.LEDGER_SHORT] = 1
    caveats += sweep.caveats
    return Audit(
        source="ledger",
        since=since if begin is None else max(since, begin),
        until=until,
        executions=count,
        pools=len(pools),
        excesses=sweep.found("pool"),
        excess_count=sweep.counts["pool"],
        rated_pools=len(starts.pools),
        early=tuple(starts.found),
        early_count=starts.count,
        waits=waits.longest(),
        wait_count=waits.count,
        caveats=+caveats,
    )
