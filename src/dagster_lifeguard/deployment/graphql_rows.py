"""The rows that a webserver answers with, turned into pools, runs and events."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from dagster import AssetKey, DagsterEventType

from dagster_lifeguard.compat.events import WITH_ERROR, EventRow, says
from dagster_lifeguard.deployment.contract import HoldingStep, PoolState, Run, WaitingStep
from dagster_lifeguard.deployment.history.executions import READ
from dagster_lifeguard.engine.rules.launch_order import priority_of
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

_KINDS = {kind.name: kind.value for kind in READ}
"""What the schema calls the types of events, and what they are stored as."""
_ENGINE_EVENT = DagsterEventType.ENGINE_EVENT.value


def tag_of(step: Mapping[str, Any], name: str) -> str | None:
    """A tag of a step, which a webserver tells among the metadata of its plan."""
    return next((item["value"] for item in step["metadata"] if item["key"] == name), None)


def state_of(row: Mapping[str, Any]) -> PoolState:
    """The state of a pool, of which a webserver knows no setting but the limit."""
    pending = {(step["runId"], step["stepKey"]): step for step in row["pendingSteps"]}
    held = Counter((slot["runId"], slot["stepKey"]) for slot in row["claimedSlots"])
    holding = [
        HoldingStep(*key, slots, since=pending.get(key, {}).get("assignedTimestamp"))
        for key, slots in held.items()
    ]
    waiting = [
        WaitingStep(
            *key,
            since=step["enqueuedTimestamp"],
            priority=step["priority"] or 0,
            assigned=step["assignedTimestamp"],
        )
        for key, step in pending.items()
        if key not in held
    ]
    return PoolState(
        pool=row["concurrencyKey"],
        settings=PoolSettings(row["limit"]),
        from_default=bool(row["usingDefaultLimit"]) and row["limit"] is not None,
        holding=tuple(sorted(holding, key=lambda s: (s.since or 0.0, s.run_id, s.step_key))),
        waiting=tuple(
            sorted(waiting, key=lambda s: (s.assigned is None, -s.priority, s.since or 0.0))
        ),
    )


def run_of(row: Mapping[str, Any]) -> Run:
    """A run."""
    tags = {tag["key"]: tag["value"] for tag in row["tags"]}
    return Run(
        run_id=row["runId"],
        job_name=row["jobName"],
        status=row["status"],
        created=row["creationTime"],
        started=row["startTime"],
        ended=row["endTime"],
        pools=frozenset(row["allPools"] or ()),
        first_pools=None
        if row["hasUnconstrainedRootNodes"]
        else Counter(row["rootConcurrencyKeys"] or ()),
        priority=priority_of(tags),
        tags=tags,
        location=(row["repositoryOrigin"] or {}).get("repositoryLocationName"),
        assets=tuple(sorted("/".join(key["path"]) for key in row["assetSelection"] or ())),
    )


def event_row_of(event: Mapping[str, Any]) -> EventRow | None:
    """An event of a run; None for one that the history does not look at."""
    kind, said = _KINDS.get(event.get("eventType") or ""), event.get("message") or ""
    if kind is None or (kind == _ENGINE_EVENT and not says(event["stepKey"], said)):
        return None
    key, error = event.get("assetKey"), event.get("error")
    while error is not None and error.get("causes"):
        error = error["causes"][-1]
    return EventRow(
        kind,
        float(event["timestamp"]) / 1000,
        event["stepKey"],
        AssetKey(key["path"]).to_string() if key else None,
        event.get("partition"),
        error["message"].strip() if error is not None and kind in WITH_ERROR else None,
    )
