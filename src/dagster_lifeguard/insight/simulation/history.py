"""Recordings read from a deployment: from the engine's ledger, or else from event logs."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dagster_lifeguard.deployment.history import read_span
from dagster_lifeguard.engine.rules.launch_order import priority_of
from dagster_lifeguard.engine.rules.model import Demand, EntryKind, TicketKey
from dagster_lifeguard.engine.rules.pool_settings import (
    NOTHING_SET,
    PoolSettings,
    limit_in_force,
    parse_order,
)
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.errors import ConfigError, DeploymentError
from dagster_lifeguard.insight.durations import terms_used
from dagster_lifeguard.insight.graphs import as_holders
from dagster_lifeguard.insight.pool_account import open_ledger
from dagster_lifeguard.insight.simulation.arrivals import Change
from dagster_lifeguard.insight.simulation.recording import Doubt, Recorded, Recording, in_order
from dagster_lifeguard.texts import number

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from dagster_lifeguard.deployment.contract import Deployment, Settings
    from dagster_lifeguard.deployment.history import LedgerSpan, RunExecution, StepExecution
    from dagster_lifeguard.engine.rules.model import Entry
    from dagster_lifeguard.engine.store.contract import Store
    from dagster_lifeguard.insight.simulation.recording import Source

    Tags = Callable[[Collection[str]], Mapping[str, Mapping[str, str]]]

RUNS_AT_ONCE = 1000


def read_recording(
    deployment: Deployment, *, since: float, until: float, by: Source | None = None
) -> Recording:
    """Read what was asked for in a window.

    Args:
        deployment: The deployment.
        since: Seconds since the epoch.
        until: The same: now.
        by: Where to read; None: the ledger where there is one, else the event logs.

    Raises:
        DeploymentError: It cannot be read, has no ledger, or its pools hold back runs.
    """
    settings = deployment.settings()
    if settings.granularity == "run":
        raise DeploymentError(
            f"{deployment.name} has granularity: run, so its pools hold runs back in the queue, "
            "and the run queue cannot be simulated.",
            remedy="See what waited where with: lifeguard timeline POOL",
            names=[deployment.name],
        )
    live = deployment.pool_settings()
    with open_ledger(deployment, settings) as store:
        if store is None and by == "ledger":
            raise DeploymentError(
                f"{deployment.name} has no ledger: the engine does not run there, or is not "
                "reached from here.",
                remedy="Leave out --by ledger to play what Dagster's event logs tell.",
                names=[deployment.name],
            )
        if store is not None and by != "event-logs":
            past, ahead = _past(store, live, settings, since)
            span = (since + ahead, until + ahead)
            return from_ledger(past, live, settings.default_limit, span, _tags_of(deployment))
    return from_event_logs(
        deployment.history(since, until), live, settings, (since, until), _tags_of(deployment)
    )


def _past(
    store: Store, live: Mapping[str, PoolSettings], settings: Settings, since: float
) -> tuple[LedgerSpan, float]:
    ahead = store.now() - time.time()
    limits = {
        pool: limit_in_force(pool, found.limit, settings.default_limit)
        for pool, found in live.items()
    }
    rates = {pool: found.rate for pool, found in live.items() if found.rate is not None}
    return read_span(store, limits, rates, since=since + ahead), ahead


def _tags_of(deployment: Deployment) -> Tags:
    def tags(run_ids: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        ids = sorted(run_ids)
        return {
            run.run_id: run.tags
            for first in range(0, len(ids), RUNS_AT_ONCE)
            for run in deployment.runs(ids[first : first + RUNS_AT_ONCE])
        }

    return tags


# ---- the ledger ----------------------------------------------------------------------------------


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

    def _settings(self, pool: str) -> PoolSettings:
        if pool not in self.now:
            live = self._live.get(pool, NOTHING_SET)
            in_force = limit_in_force(pool, live.limit, self._default_limit)
            limit = self._past.limits.get(pool, in_force)
            found = PoolSettings(limit, self._past.rates.get(pool), live.fair_by)
            self.first[pool] = self.now[pool] = found
        return self.now[pool]

    def look(self, entries: Iterable[Entry], *, before: bool) -> None:
        for entry in entries:
            settings = self._settings(entry.pool)
            if entry.kind is EntryKind.GRANTED:
                self._granted(entry, before=before)
            elif entry.kind in (EntryKind.RELEASED, EntryKind.EXPIRED):
                grant = self.grants.get((entry.run_id, entry.step_key, entry.fence))
                if grant is not None:
                    grant.ended = grant.at + (entry.seconds or 0.0)
            else:
                self._changed(entry, settings, before=before)

    def _granted(self, entry: Entry, *, before: bool) -> None:
        name = (entry.run_id, entry.step_key, entry.fence)
        grant = self.grants.get(name)
        if grant is None:
            waited = None if before else entry.seconds or 0.0
            key = TicketKey(entry.run_id, entry.step_key)
            grant = self.grants[name] = _Grant(key, {}, entry.at, waited)
        grant.slots[entry.pool] = entry.slots

    def _changed(self, entry: Entry, settings: PoolSettings, *, before: bool) -> None:
        pool = entry.pool
        if entry.kind is EntryKind.LIMIT:
            limit = limit_in_force(pool, entry.limit, self._default_limit)
            after = replace(settings, limit=limit)
            # The first that the ledger tells of a pool was in force before, as far as is known.
            before = before or (pool not in self._past.limits and pool not in self._limit_told)
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
) -> Recording:
    """The recording that a ledger tells.

    Args:
        past: What the ledger tells.
        live: What is set of pools now.
        default_limit: The limit of a pool that has none of its own.
        window: From when until when, by the ledger's clock.
        tags_of: Looks up the tags of runs.
    """
    since, until = window
    read = _Ledger(past, live, default_limit)
    read.look(past.before, before=True)
    read.look(past.since, before=False)
    tags = tags_of({grant.key.run_id for grant in read.grants.values()})
    arrivals, waited = in_order(
        Recorded(
            grant.key,
            Demand.of(grant.slots),
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
    began = past.begin
    if began is not None and began > since:
        since = min(began, until)
    return Recording(
        source="ledger",
        since=since,
        until=until,
        arrivals=tuple(arrivals),
        waited=tuple(waited),
        settings={**dict(_in_force(live, default_limit)), **read.first},
        changes=tuple(read.changes),
        doubts=(
            *_general_doubts(unended),
            *_ledger_doubts(read, is_short=since > window[0]),
        ),
    )


def _in_force(
    live: Mapping[str, PoolSettings], default_limit: int | None
) -> Iterable[tuple[str, PoolSettings]]:
    for pool, found in live.items():
        limit = limit_in_force(pool, found.limit, default_limit)
        yield pool, replace(found, limit=limit)


def _general_doubts(unended: int) -> Iterable[Doubt]:
    yield Doubt(
        "arrivals-as-recorded",
        "Runs start when they did: the run queue is not simulated. A step that started after "
        "another step of its run follows it.",
    )
    yield Doubt(
        "durations-as-recorded",
        "Steps last as long as they did. Code that slows down under load is not simulated.",
    )
    if unended:
        yield Doubt(
            "unfinished",
            f"{number(unended, 'execution')} had not ended and is taken to end now."
            if unended == 1
            else f"{number(unended, 'execution')} had not ended and are taken to end now.",
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


# ---- event logs ----------------------------------------------------------------------------------


def from_event_logs(
    runs: Iterable[RunExecution],
    live: Mapping[str, PoolSettings],
    settings: Settings,
    window: tuple[float, float],
    tags_of: Tags,
) -> Recording:
    """The recording that event logs tell.

    Args:
        runs: The runs of the window.
        live: What is set of pools now.
        settings: What holds for all pools.
        window: From when until when.
        tags_of: Looks up the tags of runs.
    """
    since, until = window
    steps: list[tuple[StepExecution, Demand]] = []
    unknown_plans = unended = unread = 0
    for run in runs:
        unknown_plans += run.pools is None
        for step in run.steps if settings.engine is False else as_holders(run.steps):
            if step.pool is None or (step.ended is not None and step.ended < since):
                continue
            try:
                demand = Demand.of({term.name: term.slots for term in terms_used(step, settings)})
            except ConfigError:
                unread += 1
                continue
            unended += step.ended is None
            steps.append((step, demand))
    tags = tags_of({step.run_id for step, _ in steps})
    arrivals, waited = in_order(
        Recorded(
            TicketKey(step.run_id, step.step_key),
            demand,
            step.started if step.waiting is None else min(step.waiting, step.started),
            step.started,
            max(step.started, until if step.ended is None else step.ended),
            priority_of(of_run),
            of_run,
            judged=step.started >= since,
        )
        for step, demand in steps
        for of_run in (tags.get(step.run_id, {}),)
    )
    pools = {pool for _, demand in steps for pool in demand.pools}
    in_force = dict(
        _in_force(
            {pool: live.get(pool, NOTHING_SET) for pool in {*pools, *live}}, settings.default_limit
        )
    )
    return Recording(
        source="event-logs",
        since=since,
        until=until,
        arrivals=tuple(arrivals),
        waited=tuple(waited),
        settings=in_force,
        doubts=(
            *_general_doubts(unended),
            Doubt(
                "settings-of-today",
                "Event logs do not tell which limits, rates and orders were in force: the past is "
                "played with those of today.",
            ),
            Doubt(
                "step-priorities",
                "Priorities are those of runs: event logs do not tell those of steps.",
            ),
            *(
                [
                    Doubt(
                        "unknown-plans",
                        f"{number(unknown_plans, 'run')} of unknown plan: their "
                        "pools are not known, and they were left out.",
                    )
                ]
                if unknown_plans
                else []
            ),
            *(
                [
                    Doubt(
                        "unread-demands",
                        f"{number(unread, 'step')} asked for something that is no "
                        "demand, and were left out.",
                    )
                ]
                if unread
                else []
            ),
        ),
    )
