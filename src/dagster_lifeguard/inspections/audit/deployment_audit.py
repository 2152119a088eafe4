"""An audit of a deployment: by the engine's ledger where it has one, else by its event logs."""

from __future__ import annotations

import gc
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from dagster_lifeguard.compat.events import read_event_rows
from dagster_lifeguard.deployment.history import read_span
from dagster_lifeguard.engine.rules.pool_settings import (
    LIMIT_MAX,
    limit_in_force,
    own_limits,
)
from dagster_lifeguard.errors import DeploymentError
from dagster_lifeguard.insight.pool_account import open_ledger
from dagster_lifeguard.inspections.audit.audit_result import Caveat
from dagster_lifeguard.inspections.audit.executions import Limits, audit_executions
from dagster_lifeguard.inspections.audit.leases import EVENTS
from dagster_lifeguard.inspections.audit.ledger_audit import audit_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dagster_lifeguard.deployment.contract import Deployment, Settings
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
    from dagster_lifeguard.engine.rules.rate import Rate
    from dagster_lifeguard.inspections.audit.audit_result import Audit, Source, Subject

_Item = TypeVar("_Item")
Verdict = Literal["kept", "exceeded", "unsafe", "in-doubt", "no-evidence"]
FOUND: tuple[Verdict, ...] = ("exceeded", "unsafe")
"""The verdicts of something found, for which a command ends with exit code 1."""


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit of a deployment says.

    Attributes:
        limits: Whether limits were kept.
        executions: Whether two runs made one asset at once, which only event logs tell; the same
            as ``limits`` where limits are judged by them too.
    """

    limits: Audit
    executions: Audit

    @property
    def verdict(self) -> Verdict:
        """``no-evidence`` when there was nothing to judge, which proves nothing.

        ``unsafe`` when no limit and no rate was exceeded, but a late writer may not have been told
        from its successor: a fence did not grow, or a step went on after its lease. ``in-doubt``
        when executions of which no end is known may have been too many.
        """
        if self.limits.excess_count or self.limits.early_count:
            return "exceeded"
        if self.limits.stale_count or self.limits.outlived_count:
            return "unsafe"
        if self.limits.caveats["limits"][Caveat.DOUBTFUL]:
            return "in-doubt"
        return "kept" if self.limits.executions else "no-evidence"

    @property
    def finding_count(self) -> int:
        """How much was found for which a command ends with exit code 1."""
        found = self.limits
        return found.excess_count + found.early_count + found.stale_count + found.outlived_count

    def caveats(self, subject: Subject) -> Mapping[Caveat, int]:
        """What could not be judged of this, and how often."""
        judged = self.executions if subject == "duplicates" else self.limits
        return judged.caveats[subject]


def audit(
    deployment: Deployment,
    *,
    since: float,
    until: float,
    pool: str | None = None,
    by: Source | None = None,
    long_seconds: float = 600.0,
    progress: Callable[[str, int], None] = lambda _what, _count: None,
) -> AuditReport:
    """Audit a deployment.

    Args:
        deployment: The deployment.
        since: What was over before is not judged; seconds since the epoch.
        until: Now.
        pool: Only this pool.
        by: By what limits are judged; None for the best there is.
        long_seconds: Waits as long as this are told.
        progress: Called now and then with what is read and how much of it was.

    Raises:
        DeploymentError: It cannot be read, or has no ledger.
    """
    with _imports_left_alone():
        return _audit(deployment, since, until, pool, by, long_seconds, progress)


@contextmanager
def _imports_left_alone() -> Iterator[None]:
    """Let the garbage collector pass over what is there already, which is a fifth of the time."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _audit(
    deployment: Deployment,
    since: float,
    until: float,
    pool: str | None,
    by: Source | None,
    long_seconds: float,
    progress: Callable[[str, int], None],
) -> AuditReport:
    settings = deployment.settings()
    if by is None:
        with open_ledger(deployment, settings) as store:
            with_ledger = store is not None and settings.granularity == "op"
        by = "ledger" if with_ledger else "event-logs"
    live = deployment.pool_settings()
    limits = Limits(
        _own_limits(live, settings.default_limit),
        settings.default_limit,
        per_run=settings.granularity == "run",
        expressions=settings.engine is not False,
    )
    rates = {
        name: rate
        for name, found in live.items()
        if (rate := found.rate) is not None and pool in (None, name)
    }
    if by == "ledger":
        of_limits = _by_ledger(
            deployment, settings, limits, rates, since, until, pool, long_seconds, progress
        )
        unwritten = sum(limits.of(name) is None for name in rates)
        of_limits = _with_caveat(of_limits, "rates", Caveat.STARTS_UNWRITTEN, unwritten)
    of_executions = audit_executions(
        _counted(deployment.history(since, until), "runs", progress),
        limits,
        since=since,
        until=until,
        pool=pool,
        long_seconds=long_seconds,
        assets_only=by == "ledger",
    )
    if by == "ledger":
        return AuditReport(of_limits, of_executions)
    judged = _with_caveat(of_executions, "rates", Caveat.LEDGER_ONLY, len(rates))
    for subject in _ENGINES:
        judged = _with_caveat(judged, subject, Caveat.LEDGER_ONLY, int(bool(settings.engine)))
    return AuditReport(judged, judged)


def _own_limits(live: Mapping[str, PoolSettings], default_limit: int | None) -> dict[str, int]:
    """The limits of today; of a pool with a temporary limit, the higher of its two.

    Which of them was in force when is only known by a ledger that tells when it was set.
    """
    found = own_limits(live)
    for pool, settings in live.items():
        if settings.fall_back is not None:
            lasting = limit_in_force(pool, settings.lasting_limit, default_limit)
            found[pool] = LIMIT_MAX if lasting is None else max(found[pool], lasting)
    return found


_ENGINES: tuple[Subject, ...] = ("fences", "leases")
"""What is judged where the engine runs."""


def _with_caveat(found: Audit, subject: Subject, caveat: Caveat, count: int) -> Audit:
    if not count:
        return found
    counts = Counter({**found.caveats[subject], caveat: count})
    return replace(found, caveats={**found.caveats, subject: counts})


def _by_ledger(
    deployment: Deployment,
    settings: Settings,
    limits: Limits,
    rates: Mapping[str, Rate],
    since: float,
    until: float,
    pool: str | None,
    long_seconds: float,
    progress: Callable[[str, int], None],
) -> Audit:
    with open_ledger(deployment, settings) as store:
        if store is None:
            raise DeploymentError(
                f"{deployment.name} has no ledger: the engine does not run there, or is not "
                "reached from here.",
                remedy="Leave out --by ledger to judge by Dagster's event logs.",
                names=[deployment.name],
            )
        instance = deployment.instance
        assert instance is not None, "a ledger is read from an instance"
        names = {state.pool for state in deployment.pools()} if pool is None else {pool}
        # What was asked for by the clock here is looked for by the clock that wrote the ledger.
        ahead = store.now() - time.time()
        own_limits = {name: limits.of(name) for name in names}
        past = read_span(store, own_limits, rates, since=since + ahead, pool=pool)
        found = audit_ledger(
            replace(past, since=_counted(past.since, "entries of the ledger", progress)),
            default_limit=settings.default_limit,
            since=since + ahead,
            until=until,
            long_seconds=long_seconds,
            events_of=lambda run_ids: read_event_rows(instance, tuple(run_ids), EVENTS),
        )
        return replace(found, since=since) if found.since == since + ahead else found


def _counted(
    items: Iterable[_Item], what: str, progress: Callable[[str, int], None]
) -> Iterator[_Item]:
    count = 0
    for count, item in enumerate(items, start=1):
        yield item
        if count % 100 == 0:
            progress(what, count)
    progress(what, count)
