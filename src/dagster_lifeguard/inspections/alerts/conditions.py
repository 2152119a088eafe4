"""What the rules of alerts find in one look at a deployment, beside what an earlier look left.

Prometheus remembers for its rules; here a memory is handed from one look to the next, as JSON.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from dagster_lifeguard.deployment.history import read_ledger
from dagster_lifeguard.engine.rules.model import EntryKind
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.engine.store.retry import retry
from dagster_lifeguard.insight.pool_account import open_ledger
from dagster_lifeguard.insight.pools import runs_leaked, startable
from dagster_lifeguard.insight.waits import read_held_back
from dagster_lifeguard.inspections.alerts import rules
from dagster_lifeguard.inspections.audit.deployment_audit import audit
from dagster_lifeguard.texts import duration_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dagster_lifeguard.deployment.contract import Deployment, PoolState
    from dagster_lifeguard.insight.waits import HeldBack
    from dagster_lifeguard.inspections.alerts.rules import AlertRule, Severity


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that somebody should look at.

    Attributes:
        rule: The name of its rule, as in `monitoring/alerts.yaml`.
        severity: ``critical`` or ``warning``.
        pool: The pool; empty where it is about the deployment.
        summary: What is wrong, in a sentence.
        remedy: What to do about it.
        deployment: What the deployment is called.
    """

    rule: str
    severity: Severity
    pool: str
    summary: str
    remedy: str
    deployment: str


@dataclass
class Memory:
    """What one look leaves to the next.

    Attributes:
        since: Since when each condition holds, by rule and pool.
        told: The conditions that were told and still hold.
        over: For each pool its limit, and how many slots were held beyond it.
        standing: For each pool where somebody could go in, what there was, and since when.
        entry: The newest entry of the engine's ledger; None if it was not looked at yet.
    """

    since: dict[str, float] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    over: dict[str, tuple[int, int]] = field(default_factory=dict)
    standing: dict[str, tuple[list[int], float]] = field(default_factory=dict)
    entry: int | None = None

    @classmethod
    def read(cls, text: str | None) -> Memory:
        """The memory in a text; an empty one if it is of another version of this package."""
        try:
            return cls(**json.loads(text or "{}"))
        except (TypeError, ValueError):
            return cls()

    def text(self) -> str:
        """The memory as a text."""
        return json.dumps(asdict(self))


def look(
    deployment: Deployment, memory: Memory, *, wait_seconds: float, audited_seconds: float
) -> tuple[list[Alert], Memory]:
    """The alerts that were not told yet, and what to remember once they are.

    Args:
        deployment: Where to look.
        memory: What the look before left.
        wait_seconds: The longest wait that is not told.
        audited_seconds: How much of the past is audited; 0 for none.
    """
    now = time.time()
    found = _Sight(deployment, memory, now, wait_seconds, audited_seconds)
    since: dict[str, float] = {}
    told: list[str] = []
    alerts = []
    for rule, pool, value in found.conditions():
        key = f"{rule.name}/{pool}"
        since[key] = memory.since.get(key, now)
        if key in memory.told:
            told.append(key)
        elif now - since[key] >= rule.lasting_seconds:
            told.append(key)
            alerts.append(_alert(rule, pool, value, deployment.name))
    return alerts, Memory(since, told, found.over, found.standing, found.entry)


def _alert(rule: AlertRule, pool: str, value: float, deployment: str) -> Alert:
    shown = duration_text(value) if rule.is_duration else f"{value:,.0f}"
    summary = rule.summary.format(pool=pool_text(pool), value=shown)
    return Alert(rule.name, rule.severity, pool, summary, rule.remedy, deployment)


class _Sight:
    """One look.

    Attributes:
        over: See ``Memory``.
        standing: The same.
        entry: The same.
    """

    def __init__(
        self,
        deployment: Deployment,
        memory: Memory,
        now: float,
        wait_seconds: float,
        audited_seconds: float,
    ) -> None:
        self._deployment, self._memory, self._now = deployment, memory, now
        self._wait_seconds, self._audited_seconds = wait_seconds, audited_seconds
        settings = deployment.settings()
        seen = deployment.pools()
        unfinished = deployment.unfinished_runs()
        self._held_back = read_held_back(deployment, settings, seen, now, unfinished)
        self._states = (*seen, *self._held_back.unlisted)
        by_run = settings.granularity == "run"
        self._leaked = frozenset() if by_run else runs_leaked(deployment, seen, unfinished)
        self._startable = startable(self._states, self._held_back, now)
        self.over: dict[str, tuple[int, int]] = {}
        self.standing: dict[str, tuple[list[int], float]] = {}
        self.entry = memory.entry

    def conditions(self) -> Iterator[tuple[AlertRule, str, float]]:
        """Each rule that finds something, at which pool, and how much."""
        for state in self._states:
            for rule, value in self._of_pool(state, self._held_back):
                yield rule, state.pool, value
        for pool, count in self._expired().items():
            yield rules.EXPIRED, pool, count
        if self._audited_seconds:
            since = self._now - self._audited_seconds
            report = audit(self._deployment, since=since, until=self._now)
            if report.finding_count:
                yield rules.AUDIT_FINDING, "", report.finding_count

    def _of_pool(self, state: PoolState, held_back: HeldBack) -> Iterator[tuple[AlertRule, float]]:
        waits = held_back.waits_for(state)
        if state.limit is not None and state.held > state.limit:
            over = state.held - state.limit
            self.over[state.pool] = (state.limit, over)
            limit, before = self._memory.over.get(state.pool, (None, 0))
            is_told = f"{rules.OVER_LIMIT.name}/{state.pool}" in self._memory.told
            rises = over > before and state.pool not in self._limits_set
            if limit == state.limit and (rises or is_told):
                yield rules.OVER_LIMIT, over
        elif state.limit is not None:
            self.over[state.pool] = (state.limit, 0)
        leaked = sum(step.slots for step in state.holding if step.run_id in self._leaked)
        if leaked:
            yield rules.LEAKED, leaked
        oldest = waits.oldest(self._now)
        if oldest is not None and oldest > self._wait_seconds:
            yield rules.WAIT_LONG, oldest
        count = self._startable.get(state.pool, 0)
        if count:
            moved = [state.held, len(waits.steps), len(waits.runs)]
            before_moved, since = self._memory.standing.get(state.pool, ([], self._now))
            if before_moved != moved:
                since = self._now
            self.standing[state.pool] = (moved, since)
            if self._now - since >= rules.STANDING_SECONDS:
                yield rules.QUEUE_STANDS, count

    @cached_property
    def _limits_set(self) -> frozenset[str]:
        """The pools whose limit was set since the look before: a short-lived limit may be over."""
        deployment, entry = self._deployment, self._memory.entry
        if entry is None:
            return frozenset()
        with open_ledger(deployment, deployment.settings()) as store:
            if store is None:
                return frozenset()
            entries = read_ledger(store, kind=EntryKind.LIMIT, first=entry + 1)
            return frozenset(entry.pool for entry in entries)

    def _expired(self) -> Mapping[str, int]:
        """For each pool how often slots were taken back since the look before."""
        deployment = self._deployment
        counts: dict[str, int] = {}
        with open_ledger(deployment, deployment.settings()) as store:
            if store is None:
                return {}
            newest = retry(lambda: store.ledger(count_max=1))
            if self.entry is not None:
                first = self.entry + 1
                for entry in read_ledger(store, kind=EntryKind.EXPIRED, first=first):
                    counts[entry.pool] = counts.get(entry.pool, 0) + 1
            self.entry = newest[0].number if newest else 0
        return counts
