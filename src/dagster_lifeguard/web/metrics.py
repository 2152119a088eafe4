"""The metrics for Prometheus.

A pool gets a label of its own when it is first busy, or at once where there are no more pools than
labels. Labels are never taken away again, so that no counter goes back. All further pools are
summed as one, ``_other``: its oldest wait is the longest of theirs.
"""

from __future__ import annotations

from collections import Counter as Count
from collections import defaultdict
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dagster_lifeguard.errors import LifeguardError
from dagster_lifeguard.insight.durations import uses
from dagster_lifeguard.insight.pools import startable
from dagster_lifeguard.insight.waits import NOBODY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dagster_lifeguard.deployment.contract import Settings
    from dagster_lifeguard.deployment.history import RunExecution
    from dagster_lifeguard.web.deployment_reader import Reader
    from dagster_lifeguard.web.look import Look

LABELS_MAX = 200
OTHER = "_other"
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_BUCKETS = (0.1, 0.5, 1, 5, 15, 30, 60, 300, 900, 3600, 14400)
_GAUGES = {
    "held": ("lifeguard_pool_held_slots", "Slots that are held."),
    "limit": ("lifeguard_pool_limit_slots", "Limit of the pool; none if it is unlimited."),
    "over": ("lifeguard_pool_over_limit_slots", "Slots held beyond the limit."),
    "leaked": ("lifeguard_pool_leaked_slots", "Slots held by runs that are over."),
    "waiting": (
        "lifeguard_pool_waiting_steps",
        "Steps that wait at the pool; under granularity run, runs in the run queue.",
    ),
    "startable": (
        "lifeguard_pool_startable",
        "Steps and runs that wait although slots are free for them.",
    ),
    "queued": ("lifeguard_pool_queued_runs", "Runs that the run queue holds back for the pool."),
    "oldest": (
        "lifeguard_pool_oldest_wait_seconds",
        "How long the longest of the waiting steps and queued runs has waited.",
    ),
    "oldest_queued": (
        "lifeguard_pool_oldest_queued_seconds",
        "How long the longest of the queued runs has waited.",
    ),
}
_LONGEST = ("oldest", "oldest_queued")
"""Several pools with one label have their largest value here, not the sum."""


class Labels:
    """Which pools have a label of their own.

    Args:
        count_max: The most pools with a label.
    """

    def __init__(self, count_max: int = LABELS_MAX) -> None:
        self._count_max = count_max
        self._named: set[str] = set()

    def of(self, pool: str) -> str:
        """The label of a pool that is busy."""
        if pool not in self._named and len(self._named) < self._count_max and pool != OTHER:
            self._named.add(pool)
        return self.known(pool)

    def known(self, pool: str) -> str:
        """The label of a pool that may be idle."""
        return pool if pool in self._named else OTHER

    def has_room_for(self, count: int) -> bool:
        """Whether this many pools can all have a label."""
        return count <= self._count_max


class Metrics(Collector):
    """Gauges from the reader's last look, and counters of what was executed since the start."""

    def __init__(self, labels_max: int = LABELS_MAX) -> None:
        self.registry = CollectorRegistry()
        self._labels = Labels(labels_max)
        self._reader: Reader | None = None
        self._audit_findings: int | None = None
        self._waits = self._histogram("wait", "How long steps waited that went in.")
        self._holds = self._histogram("hold", "How long slots were held that were given back.")
        self._grants = self._counter("grants", "Times that a step, or a run, went in.")
        self._expiries = self._counter(
            "expiries", "Times that the engine took slots back from a holder that was silent."
        )
        ProcessCollector(registry=self.registry)

    def attach(self, reader: Reader) -> None:
        """Take the gauges from this reader from now on."""
        self._reader = reader
        self.registry.register(self)

    def render(self) -> bytes:
        """All metrics in the format of Prometheus."""
        return generate_latest(self.registry)

    def executed(self, before: RunExecution | None, run: RunExecution, settings: Settings) -> None:
        """Count what a run did since it was last read."""
        old_waits, old_holds = _moments(before, settings)
        waits, holds = _moments(run, settings)
        for (pool, _, seconds), count in (waits - old_waits).items():
            for _ in range(count):
                self._waits.labels(self._labels.of(pool)).observe(max(0.0, seconds))
                self._grants.labels(self._labels.of(pool)).inc()
        for (pool, _, seconds), count in (holds - old_holds).items():
            for _ in range(count):
                self._holds.labels(self._labels.of(pool)).observe(max(0.0, seconds))

    def expired(self, pools: Iterable[str]) -> None:
        """Count slots that were taken back."""
        for pool in pools:
            self._expiries.labels(self._labels.of(pool)).inc()

    def audited(self, findings: int) -> None:
        """Take the number of findings of an audit."""
        self._audit_findings = findings

    def describe(self) -> Iterable[Metric]:
        """Describe nothing: the gauges depend on the deployment."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The gauges."""
        try:
            look = self._reader.look() if self._reader is not None else None
        except LifeguardError:
            look = None
        answers = look is not None and not look.trouble
        yield _gauge("lifeguard_up", "Whether the deployment answers.", answers)
        if look is None:
            return
        name = "lifeguard_last_look_timestamp_seconds"
        yield _gauge(name, "When the deployment was last looked at.", look.at)
        yield _gauge("lifeguard_pools", "Pools that have a limit or are in use.", len(look.states))
        if self._audit_findings is not None:
            yield _gauge(
                "lifeguard_audit_findings",
                "Findings of the latest audit of the last hour: limits and rates exceeded, fences "
                "and leases broken.",
                self._audit_findings,
            )
        if look.record is not None and look.record.share is not None:
            yield _gauge(
                "lifeguard_estimates_judged_waits",
                "Waits of the last week whose estimated range is compared with what came.",
                look.record.waits,
            )
            yield _gauge(
                "lifeguard_estimates_held_ratio",
                "The share of these waits that ended within the estimated range; 0.8 is aimed at.",
                look.record.share,
            )
        values = self._values(look)
        for key, (name, text) in _GAUGES.items():
            family = GaugeMetricFamily(name, text, labels=("pool",))
            for label, found in values.items():
                if key in found:
                    family.add_metric((label,), found[key])
            yield family

    def _values(self, look: Look) -> dict[str, dict[str, float]]:
        values: dict[str, dict[str, float]] = defaultdict(dict)
        now = look.at
        seen = look.deployment.held_back(now)
        held_back = NOBODY if seen is None else seen
        states = (*look.states, *held_back.unlisted)
        can_start = startable(states, held_back, now)
        all_named = self._labels.has_room_for(len(states))
        for state in states:
            waits = held_back.waits_for(state)
            is_named = all_named or state.holding or waits.count
            label = self._labels.of(state.pool) if is_named else self._labels.known(state.pool)
            found = values[label]
            limit = state.limit
            leaked = [s.slots for s in state.holding if look.deployment.is_leaked(s.run_id)]
            told = {
                "held": state.held,
                "limit": limit,
                "over": 0 if limit is None else max(0, state.held - limit),
                "leaked": None if seen is None else sum(leaked),
                "waiting": len(waits.steps),
                "startable": None if seen is None else can_start.get(state.pool, 0),
                "queued": None if seen is None else len(waits.runs),
                "oldest": waits.oldest(now) or 0.0,
                "oldest_queued": None if seen is None else waits.oldest_queued(now) or 0.0,
            }
            for key, value in told.items():
                if value is None:
                    continue
                before = found.get(key, 0.0)
                found[key] = max(before, value) if key in _LONGEST else before + value
        return values

    def _histogram(self, noun: str, text: str) -> Histogram:
        return Histogram(
            f"lifeguard_pool_{noun}_seconds",
            text,
            ("pool",),
            registry=self.registry,
            buckets=_BUCKETS,
        )

    def _counter(self, noun: str, text: str) -> Counter:
        return Counter(f"lifeguard_pool_{noun}_total", text, ("pool",), registry=self.registry)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


_Moments = Count[tuple[str, str, float]]


def _moments(run: RunExecution | None, settings: Settings) -> tuple[_Moments, _Moments]:
    """The waits and the holds of a run, each with its pool and its step."""
    found = [] if run is None else list(uses(run, settings))
    waits = Count((use.pool, use.name, use.waited) for use in found)
    holds = Count((use.pool, use.name, use.held) for use in found if use.held is not None)
    return waits, holds
