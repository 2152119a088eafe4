"""The recording that the engine's ledger tells."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.fall_backs import FallBacks
from dagster_lifeguard.engine.rules.launch_order import priority_of
from dagster_lifeguard.engine.rules.model import EntryKind, TicketKey
from dagster_lifeguard.engine.rules.pool_settings import (
    NOTHING_SET,
    FallBack,
    PoolSettings,
    limit_in_force,
    parse_order,
)
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.insight.simulation.arrivals import Change
from dagster_lifeguard.insight.simulation.doubts import Doubt, general_doubts
from dagster_lifeguard.insight.simulation.past_runs import PastQueue
from dagster_lifeguard.insight.simulation.recording import (
    Recorded,
    Recording,
    demand_of,
    in_order,
    settings_in_force,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dagster_lifeguard.deployment.history import LedgerSpan
    from dagster_lifeguard.engine.rules.model import Entry
    from dagster_lifeguard.insight.simulation.recording import Tags

_NO_QUEUE = PastQueue()


@dataclass(slots=True)
class _Grant:
    key: TicketKey
    slots: dict[str, int]
    at: float
    waited: float | None
    ended: float | None = None


class _Ledger:
    """What is known after the entries so far."""

    def __init__(
        self, past: LedgerSpan, live: Mapping[str, PoolSettings], default_limit: int | None
    ) -> None:
        self._past = past
        self._live = live
        self._default_limit = default_limit
        self.grants: dict[tuple[str, str, int], _Grant] = {}
        self.first: dict[str, PoolSettings] = {}
        self.now: dict[str, PoolSettings] = {}
        self.changes: list[Change] = []
        self.reordered: set[str] = set()
        self._limit_told: set[str] = set()
        self._ends = FallBacks()

    def _settings(self, pool: str) -> PoolSettings:
        if pool not in self.now:
            live = self._live.get(pool, NOTHING_SET)
            in_force = limit_in_force(pool, live.limit, self._default_limit)
            limit = self._past.limits.get(pool, in_force)
            found = PoolSettings(limit, self._past.rates.get(pool), live.fair_by)
            self.first[pool] = self.now[pool] = found
        return self.now[pool]

    def look(self, entries: Iterable[Entry], *, before: bool) -> None:
        for entry in self._ends.among(entries):
            settings = self._settings(entry.pool)
            if entry.kind is EntryKind.GRANTED:
                self._granted(entry, before=before)
            elif entry.kind in (EntryKind.RELEASED, EntryKind.EXPIRED):
                grant = self.grants.get((entry.run_id, entry.step_key, entry.fence))
                if grant is not None:
                    grant.ended = grant.at + (entry.seconds or 0.0)
            else:
                self._changed(entry, settings, before=before)

    def end(self, until: float, *, before: bool) -> None:
        """Take the ends of temporary limits that no entry of their pools came after."""
        for entry in self._ends.rest(until):
            self._changed(entry, self._settings(entry.pool), before=before)

    def _granted(self, entry: Entry, *, before: bool) -> None:
        name = (entry.run_id, entry.step_key, entry.fence)
        grant = self.grants.get(name)
        if grant is None:
            waited = None if before else entry.seconds or 0.0
            key = TicketKey(entry.run_id, entry.step_key)
            grant = self.grants[name] = _Grant(key, {}, entry.at, waited)
        grant.slots[entry.pool] = entry.slots

    def _with_limit(self, settings: PoolSettings, pool: str, limit: int | None) -> PoolSettings:
        return replace(settings, limit=limit_in_force(pool, limit, self._default_limit))

    def _changed(self, entry: Entry, settings: PoolSettings, *, before: bool) -> None:
        pool = entry.pool
        if entry.kind is EntryKind.LIMIT:
            after = self._with_limit(settings, pool, entry.limit)
            if pool not in self._past.limits and pool not in self._limit_told:
                # The first limit that the ledger tells of a pool was in force before, as far as is
                # known; before a temporary limit, the lasting one.
                lasting = FallBack.read(entry.detail).limit if entry.detail else entry.limit
                settings = self.first[pool] = self._with_limit(settings, pool, lasting)
            self._limit_told.add(pool)
        elif entry.kind is EntryKind.RATE:
            after = replace(settings, rate=Rate.read(entry.detail) if entry.detail else None)
        else:
            after = replace(settings, fair_by=parse_order(entry.detail or "fifo"))
            self.reordered.add(pool)
        self.now[pool] = after
        if before:
            self.first[pool] = after
        elif after != settings:
            self.changes.append(Change(entry.at, pool, after))


def from_ledger(
    past: LedgerSpan,
    live: Mapping[str, PoolSettings],
    default_limit: int | None,
    window: tuple[float, float],
    tags_of: Tags,
    queue: PastQueue = _NO_QUEUE,
) -> Recording:
    """The recording that a ledger tells.

    Args:
        past: What the ledger tells.
        live: What is set of pools now.
        default_limit: The limit of a pool that has none of its own.
        window: From when until when, by the ledger's clock.
        tags_of: Looks up the tags of runs.
        queue: What is known of the run queue.
    """
    since, until = window
    if past.begin is not None and past.begin > since:
        since = min(past.begin, until)
    read = _Ledger(past, live, default_limit)
    read.look(past.before, before=True)
    read.end(since, before=True)
    read.look(past.since, before=False)
    # Also the ends that are still to come: they are known, and what is set for good comes then.
    read.end(math.inf, before=False)
    tags = tags_of({grant.key.run_id for grant in read.grants.values()})
    runs = queue.past_runs(since, until)
    executions = (
        Recorded(
            grant.key,
            demand_of(grant.slots),
            grant.at - max(0.0, grant.waited or 0.0),
            grant.at,
            max(grant.at, until if grant.ended is None else grant.ended),
            priority_of(of_run),
            of_run,
            judged=grant.waited is not None,
        )
        for grant in read.grants.values()
        for of_run in (tags.get(grant.key.run_id, {}),)
    )
    unended = sum(grant.ended is None for grant in read.grants.values())
    return Recording.of(
        "ledger",
        (since, until),
        in_order(executions, runs, queue.in_process),
        {**settings_in_force(live, default_limit, queue.pools), **read.first},
        queue,
        tuple(sorted(read.changes, key=lambda change: change.at)),
        doubts=(
            *general_doubts(unended),
            *queue.doubts(),
            *_ledger_doubts(read, is_short=since > window[0]),
        ),
    )


def _ledger_doubts(read: _Ledger, *, is_short: bool) -> Iterable[Doubt]:
    yield Doubt(
        "step-priorities",
        "Priorities are those of runs: the ledger does not tell those of steps.",
    )
    yield Doubt(
        "waiting-now",
        "Steps that still wait, or gave up waiting, are not in the ledger and were left out.",
    )
    if is_short:
        yield Doubt("ledger-short", "The ledger begins later than was asked for.")
    pools = tuple(sorted({change.pool for change in read.changes}))
    if pools:
        yield Doubt(
            "changed-meanwhile",
            "Settings were changed meanwhile; the play of the past changes them at the same "
            "times: " + ", ".join(pools) + ".",
            pools,
        )
    if read.reordered:
        pools = tuple(sorted(read.reordered))
        yield Doubt(
            "order-unknown",
            "Which order was in force before its change is not known: " + ", ".join(pools) + ".",
            pools,
        )
