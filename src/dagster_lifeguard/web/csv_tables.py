"""The tables of pages as CSV."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from dagster_lifeguard.errors import UnknownNameError
from dagster_lifeguard.insight.timeline import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dagster_lifeguard.insight.durations import Spread
    from dagster_lifeguard.insight.run_label import RunLabel

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A text that begins so is a formula to a spreadsheet; a quote before it makes it a text."""


def csv_of(template: str, page: Any, name: str) -> str:
    """A table of a page as CSV, with a line of names at the top.

    Args:
        template: The kind of page.
        page: The page.
        name: The table; empty for the first of the page.

    Raises:
        UnknownNameError: The page has no such table.
    """
    tables = TABLES.get(template, {})
    chosen = name or next(iter(tables), "")
    if chosen not in tables:
        raise UnknownNameError(
            f"This page has no table {name!r}." if name else "This page has no table.",
            remedy=f"Ask for one of: {', '.join(tables)}." if tables else "Ask for its JSON.",
            names=[name],
        )
    columns, rows = tables[chosen]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows(page):
        writer.writerow([_cell(row[column]) for column in columns])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def _pools(page: Any) -> Iterable[Mapping[str, Any]]:
    for row in page.rows:
        pool = row.pool
        yield {
            "pool": pool.pool,
            "pools": row.count,
            "group": row.group,
            "state": row.standing.value,
            "held": pool.held,
            "limit": pool.limit,
            "limit_until": None if pool.fall_back is None else pool.fall_back.at,
            "limit_set_by": "" if row.origin is None else row.origin.source,
            "limit_set_at": None if row.origin is None else row.origin.at,
            "drift": "" if row.origin is None else row.origin.drift,
            "waiting": pool.waiting,
            "queued": pool.queued,
            "oldest_wait_seconds": pool.oldest_wait,
            **_spread("wait", pool.waits),
        }


def _holders(page: Any) -> Iterable[Mapping[str, Any]]:
    for one in page.pool.holders:
        yield {
            "run_id": one.run_id,
            "step_key": one.step_key,
            **_about(page.labels.get(one.run_id), one.step_key),
            "slots": one.slots,
            "since": one.since,
            "held_seconds": one.elapsed,
            **_spread("typical", one.typical),
        }


def _queue(page: Any) -> Iterable[Mapping[str, Any]]:
    for one in page.pool.queue:
        yield {
            "position": one.position,
            "run_id": one.run_id,
            "step_key": one.step_key,
            **_about(page.labels.get(one.run_id), one.step_key),
            "slots": one.slots,
            "priority": one.priority,
            "since": one.since,
            "waited_seconds": one.waited,
            "reason": one.reason.value,
        }


def _run_queue(page: Any) -> Iterable[Mapping[str, Any]]:
    for one in page.queued.first:
        yield {
            "position": one.place.position,
            "run_id": one.run_id,
            **_about(page.labels.get(one.run_id), ""),
            "waited_seconds": one.waited,
            "kept_by": "; ".join(
                f"{each.obstacle.value} {each.name}".strip() for each in one.place.blockages
            ),
        }


def _upstream(page: Any) -> Iterable[Mapping[str, Any]]:
    for one in page.upstream:
        yield {
            "obstacle": one.obstacle.value,
            "name": one.name,
            "limit": one.limit,
            "taken": one.taken,
            "queued_runs": one.queued,
            "waiting_steps": one.steps,
        }


def _trend(page: Any) -> Iterable[Mapping[str, Any]]:
    found = () if page.trend is None else (page.trend.now, page.trend.before)
    for one in filter(None, found):
        yield {
            "since": one.since,
            "until": one.until,
            "started": 0 if one.waits is None else one.waits.count,
            **_spread("wait", one.waits),
            "released": 0 if one.holds is None else one.holds.count,
            **_spread("held", one.holds),
        }


def _limits(page: Any) -> Iterable[Mapping[str, Any]]:
    for change in () if page.account is None else page.account.changes:
        yield {"at": change.at, "limit": change.limit, "until": change.until}


def _executions(page: Any) -> Iterable[Mapping[str, Any]]:
    for bar in page.timeline.bars:
        yield {
            "run_id": bar.run_id,
            "step_key": bar.step_key,
            "attempt": bar.attempt,
            "assets": " ".join(bar.assets),
            "partitions": " ".join(bar.partitions),
            "began": bar.spans[0].started,
            "ended": bar.spans[-1].ended,
            "queued_seconds": bar.seconds_in(Phase.QUEUED),
            "waited_seconds": bar.seconds_in(Phase.WAITING),
            "executed_seconds": bar.seconds_in(Phase.EXECUTING),
            "outcome": bar.result,
        }


def _dropped(page: Any) -> Iterable[Mapping[str, Any]]:
    for one in page.dropped.last:
        yield {
            "run_id": one.run_id,
            "dropped": one.ended,
            "partition": one.partition,
            "kept_run_id": one.kept,
        }


def _findings(page: Any) -> Iterable[Mapping[str, Any]]:
    for group, findings in page.groups.items():
        for one in findings:
            yield {
                "group": group,
                "code": one.code,
                "severity": one.severity,
                "message": one.message,
                "remedy": one.remedy,
            }


def _waits(page: Any) -> Iterable[Mapping[str, Any]]:
    for wait in page.limits.waits:
        yield {
            "pool": wait.name,
            "run_id": wait.run_id,
            "step_key": wait.step_key,
            "waited_seconds": wait.seconds,
            "ended": wait.ended,
        }


def _excesses(page: Any) -> Iterable[Mapping[str, Any]]:
    for found in page.limits.excesses:
        yield {
            "pool": found.lane.name,
            "held": found.held,
            "limit": found.limit,
            "started": found.started,
            "ended": found.ended,
            "runs": " ".join(who.run_id for who in found.occupants),
        }


def _rates(page: Any) -> Iterable[Mapping[str, Any]]:
    for found in page.limits.early:
        yield {
            "pool": found.pool,
            "rate": found.rate,
            "started": found.occupant.started,
            "too_early_seconds": found.seconds,
            "run_id": found.occupant.run_id,
            "step_key": found.occupant.step_key,
        }


def _fences(page: Any) -> Iterable[Mapping[str, Any]]:
    for found in page.limits.stale:
        yield {
            "pool": found.pool,
            "fence": found.fence,
            "largest_before": found.largest,
            "started": found.occupant.started,
            "run_id": found.occupant.run_id,
            "step_key": found.occupant.step_key,
            "first_run_id": found.first.run_id,
            "first_step_key": found.first.step_key,
        }


def _leases(page: Any) -> Iterable[Mapping[str, Any]]:
    for found in page.limits.outlived:
        yield {
            "pools": " ".join(found.pools),
            "run_id": found.run_id,
            "step_key": found.step_key,
            "fence": found.fence,
            "granted": found.granted,
            "expired": found.expired,
            "went_on_seconds": found.seconds,
            "last_event": found.event,
            "last_event_at": found.wrote,
        }


def _duplicates(page: Any) -> Iterable[Mapping[str, Any]]:
    for found in page.executions.duplicates:
        yield {
            "asset": found.lane.name,
            "partition": found.lane.partition,
            "runs_at_once": found.held,
            "started": found.started,
            "ended": found.ended,
            "runs": " ".join(who.run_id for who in found.occupants),
        }


def _histogram(page: Any) -> Iterable[Mapping[str, Any]]:
    for found in page.waits:
        yield {
            "at_least_seconds": found.at_least,
            "below_seconds": found.below,
            "count": found.count,
        }


def _changes(page: Any) -> Iterable[Mapping[str, Any]]:
    for change in page.changes:
        yield {
            "at": change.at,
            "what": change.what,
            "before": change.before,
            "after": change.after,
            "run_id": change.run_id,
            "step_key": change.step_key,
            "forced": change.forced,
            "who": change.who,
        }


def _steps(page: Any) -> Iterable[Mapping[str, Any]]:
    for step in page.explanation.steps:
        place = step.queue_place
        yield {
            "run_id": step.run_id,
            "step_key": step.step_key,
            "assets": " ".join(step.assets),
            "state": step.state.value,
            "seconds": step.seconds,
            "pools": " ".join(asked.pool.pool for asked in step.pools),
            "queue_position": None if place is None else place.position,
        }


def _about(label: RunLabel | None, step_key: str) -> dict[str, Any]:
    if label is None:
        return dict.fromkeys(_ABOUT)
    return {
        "job": label.job,
        "assets": " ".join(label.assets_of(step_key)),
        "partition": label.partition,
        "backfill": label.backfill,
        "tags": " ".join(f"{key}={value}" for key, value in label.tags.items()),
    }


def _spread(name: str, spread: Spread | None) -> dict[str, Any]:
    return {
        f"{name}_p50_seconds": None if spread is None else spread.p50,
        f"{name}_p95_seconds": None if spread is None else spread.p95,
    }


_ABOUT = ("job", "assets", "partition", "backfill", "tags")
_OF_STEPS = ("run_id", "step_key", "assets", "state", "seconds", "pools", "queue_position")
_OF_EXECUTIONS = (
    "run_id",
    "step_key",
    "attempt",
    "assets",
    "partitions",
    "began",
    "ended",
    "queued_seconds",
    "waited_seconds",
    "executed_seconds",
    "outcome",
)

TABLES: Mapping[
    str, Mapping[str, tuple[Sequence[str], Callable[[Any], Iterable[Mapping[str, Any]]]]]
] = {
    "overview": {
        "pools": (
            (
                "pool",
                "pools",
                "group",
                "state",
                "held",
                "limit",
                "limit_until",
                "limit_set_by",
                "limit_set_at",
                "drift",
                "waiting",
                "queued",
                "oldest_wait_seconds",
                "wait_p50_seconds",
                "wait_p95_seconds",
            ),
            _pools,
        )
    },
    "pool": {
        "holders": (
            (
                "run_id",
                "step_key",
                *_ABOUT,
                "slots",
                "since",
                "held_seconds",
                "typical_p50_seconds",
                "typical_p95_seconds",
            ),
            _holders,
        ),
        "queue": (
            (
                "position",
                "run_id",
                "step_key",
                *_ABOUT,
                "slots",
                "priority",
                "since",
                "waited_seconds",
                "reason",
            ),
            _queue,
        ),
        "run-queue": (("position", "run_id", *_ABOUT, "waited_seconds", "kept_by"), _run_queue),
        "upstream": (
            ("obstacle", "name", "limit", "taken", "queued_runs", "waiting_steps"),
            _upstream,
        ),
        "executions": (_OF_EXECUTIONS, _executions),
        "trend": (
            (
                "since",
                "until",
                "started",
                "wait_p50_seconds",
                "wait_p95_seconds",
                "released",
                "held_p50_seconds",
                "held_p95_seconds",
            ),
            _trend,
        ),
        "waits": (("at_least_seconds", "below_seconds", "count"), _histogram),
        "limits": (("at", "limit", "until"), _limits),
        "changes": (
            ("at", "what", "before", "after", "run_id", "step_key", "forced", "who"),
            _changes,
        ),
    },
    "asset": {
        "executions": (_OF_EXECUTIONS, _executions),
        "steps": (_OF_STEPS, _steps),
        "dropped": (("run_id", "dropped", "partition", "kept_run_id"), _dropped),
    },
    "run": {"executions": (_OF_EXECUTIONS, _executions), "steps": (_OF_STEPS, _steps)},
    "audit": {
        "excesses": (("pool", "held", "limit", "started", "ended", "runs"), _excesses),
        "rates": (
            ("pool", "rate", "started", "too_early_seconds", "run_id", "step_key"),
            _rates,
        ),
        "fences": (
            (
                "pool",
                "fence",
                "largest_before",
                "started",
                "run_id",
                "step_key",
                "first_run_id",
                "first_step_key",
            ),
            _fences,
        ),
        "leases": (
            (
                "pools",
                "run_id",
                "step_key",
                "fence",
                "granted",
                "expired",
                "went_on_seconds",
                "last_event",
                "last_event_at",
            ),
            _leases,
        ),
        "duplicates": (
            ("asset", "partition", "runs_at_once", "started", "ended", "runs"),
            _duplicates,
        ),
        "waits": (("pool", "run_id", "step_key", "waited_seconds", "ended"), _waits),
    },
    "doctor": {"findings": (("group", "code", "severity", "message", "remedy"), _findings)},
}
"""For each kind of page its tables: their columns, and what makes their rows."""
