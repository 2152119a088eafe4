"""The tables of pages as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from enum import Enum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from dagster_lifeguard.errors import UnknownNameError
from dagster_lifeguard.insight.timeline import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet reads a text that begins so as a formula; a quote before it makes it a text."""


class CsvTable(NamedTuple):
    """A table of a page.

    Attributes:
        columns: The name of each column, and the path of its value from the row, such as
            ``lane.name``. A path that leads over a tuple leads to all of its items.
        rows: Finds the rows of a page.
    """

    columns: Mapping[str, str]
    rows: Callable[[Any], Iterable[Any]]


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
        writer.writerow([_cell(_at(row, path)) for path in columns.values()])
    return text.getvalue()


def _at(row: Any, path: str) -> Any:
    """The value at a path; None where something on the way is None."""
    for name in path.split("."):
        if row is None:
            return None
        if type(row) is tuple:  # A named tuple is a row, not several.
            row = tuple(getattr(item, name) for item in row)
        else:
            row = getattr(row, name)
    return row


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, Enum):
        value = value.value
    elif isinstance(value, tuple):
        value = " ".join(value)
    elif isinstance(value, Mapping):
        value = " ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def _labelled(find: Callable[[Any], Iterable[Any]]) -> Callable[[Any], Iterator[Any]]:
    """Rows that each name a run, with what the page knows about that run."""

    def rows(page: Any) -> Iterator[Any]:
        for row in find(page):
            label = page.labels.get(row.run_id)
            step_key = getattr(row, "step_key", "")
            assets = None if label is None else label.assets_of(step_key)
            yield SimpleNamespace(row=row, label=label, assets=assets)

    return rows


def _queued_runs(page: Any) -> Iterator[Any]:
    for run in page.queued.first:
        blockages = (f"{each.obstacle.value} {each.name}" for each in run.place.blockages)
        kept_by = "; ".join(map(str.strip, blockages))
        yield SimpleNamespace(
            run_id=run.run_id, place=run.place, waited=run.waited, kept_by=kept_by
        )


def _periods(page: Any) -> Iterator[Any]:
    for one in () if page.trend is None else filter(None, (page.trend.now, page.trend.before)):
        started = 0 if one.waits is None else one.waits.count
        released = 0 if one.holds is None else one.holds.count
        yield SimpleNamespace(period=one, started=started, released=released)


def _executions(page: Any) -> Iterator[Any]:
    for bar in page.timeline.bars:
        yield SimpleNamespace(
            bar=bar,
            began=bar.spans[0].started,
            ended=bar.spans[-1].ended,
            **{phase.value: bar.seconds_in(phase) for phase in Phase},
        )


def _findings(page: Any) -> Iterator[Any]:
    for group, findings in page.groups.items():
        for finding in findings:
            yield SimpleNamespace(group=group, finding=finding)


def _table(rows: Callable[[Any], Iterable[Any]], columns: str) -> CsvTable:
    """A table; ``columns`` has ``name=path`` for each column, or ``name`` if they are the same."""
    pairs = (column.partition("=") for column in columns.split())
    return CsvTable({name: path or name for name, _, path in pairs}, rows)


_ABOUT = "job=label.job assets partition=label.partition backfill=label.backfill tags=label.tags"
_OF_EXECUTIONS = _table(
    _executions,
    "run_id=bar.run_id step_key=bar.step_key attempt=bar.attempt assets=bar.assets "
    "partitions=bar.partitions began ended queued_seconds=queued waited_seconds=waiting "
    "executed_seconds=executing outcome=bar.result",
)
_OF_STEPS = _table(
    lambda page: page.explanation.steps,
    "run_id step_key assets state seconds pools=pools.pool.pool "
    "queue_position=queue_place.position",
)

TABLES: Mapping[str, Mapping[str, CsvTable]] = {
    "overview": {
        "pools": _table(
            lambda page: page.rows,
            "pool=pool.pool pools=count group state=standing held=pool.held limit=pool.limit "
            "limit_until=pool.fall_back.at limit_set_by=origin.source limit_set_at=origin.at "
            "drift=origin.drift waiting=pool.waiting queued=pool.queued "
            "oldest_wait_seconds=pool.oldest_wait wait_p50_seconds=pool.waits.p50 "
            "wait_p95_seconds=pool.waits.p95",
        )
    },
    "pool": {
        "holders": _table(
            _labelled(lambda page: page.pool.holders),
            f"run_id=row.run_id step_key=row.step_key {_ABOUT} slots=row.slots since=row.since "
            "held_seconds=row.elapsed typical_p50_seconds=row.typical.p50 "
            "typical_p95_seconds=row.typical.p95",
        ),
        "queue": _table(
            _labelled(lambda page: page.pool.queue),
            f"position=row.position run_id=row.run_id step_key=row.step_key {_ABOUT} "
            "slots=row.slots priority=row.priority since=row.since waited_seconds=row.waited "
            "reason=row.reason",
        ),
        "run-queue": _table(
            _labelled(_queued_runs),
            f"position=row.place.position run_id=row.run_id {_ABOUT} waited_seconds=row.waited "
            "kept_by=row.kept_by",
        ),
        "upstream": _table(
            lambda page: page.upstream,
            "obstacle name limit taken queued_runs=queued waiting_steps=steps",
        ),
        "executions": _OF_EXECUTIONS,
        "trend": _table(
            _periods,
            "since=period.since until=period.until started wait_p50_seconds=period.waits.p50 "
            "wait_p95_seconds=period.waits.p95 released held_p50_seconds=period.holds.p50 "
            "held_p95_seconds=period.holds.p95",
        ),
        "waits": _table(
            lambda page: page.waits, "at_least_seconds=at_least below_seconds=below count"
        ),
        "limits": _table(
            lambda page: () if page.account is None else page.account.changes, "at limit until"
        ),
        "changes": _table(
            lambda page: page.changes, "at what before after run_id step_key forced who"
        ),
    },
    "asset": {
        "executions": _OF_EXECUTIONS,
        "steps": _OF_STEPS,
        "dropped": _table(
            lambda page: page.dropped.last, "run_id dropped=ended partition kept_run_id=kept"
        ),
    },
    "run": {"executions": _OF_EXECUTIONS, "steps": _OF_STEPS},
    "audit": {
        "excesses": _table(
            lambda page: page.limits.excesses,
            "pool=lane.name held limit started ended runs=occupants.run_id",
        ),
        "rates": _table(
            lambda page: page.limits.early,
            "pool rate started=occupant.started too_early_seconds=seconds run_id=occupant.run_id "
            "step_key=occupant.step_key",
        ),
        "fences": _table(
            lambda page: page.limits.stale,
            "pool fence largest_before=largest started=occupant.started run_id=occupant.run_id "
            "step_key=occupant.step_key first_run_id=first.run_id first_step_key=first.step_key",
        ),
        "leases": _table(
            lambda page: page.limits.outlived,
            "pools run_id step_key fence granted expired went_on_seconds=seconds last_event=event "
            "last_event_at=wrote",
        ),
        "duplicates": _table(
            lambda page: page.executions.duplicates,
            "asset=lane.name partition=lane.partition runs_at_once=held started ended "
            "runs=occupants.run_id",
        ),
        "waits": _table(
            lambda page: page.limits.waits,
            "pool=name run_id step_key waited_seconds=seconds ended",
        ),
    },
    "doctor": {
        "findings": _table(
            _findings,
            "group code=finding.code severity=finding.severity message=finding.message "
            "remedy=finding.remedy",
        )
    },
}
"""For each kind of page its tables."""
