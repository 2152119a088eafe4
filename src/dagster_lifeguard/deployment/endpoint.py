"""The deployment behind a webserver: Dagster's own, or Dagster+."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from dagster import AssetKey, DagsterEventType
from ruamel.yaml import YAML

from dagster_lifeguard.compat.events import WITH_ERROR, EventRow, says
from dagster_lifeguard.compat.health import Daemon, RunQueue, tag_limit
from dagster_lifeguard.compat.ops import CONCURRENCY_KEY_TAG
from dagster_lifeguard.compat.plans import StepPlan
from dagster_lifeguard.deployment.contract import (
    UNFINISHED,
    HoldingStep,
    Judgement,
    LifeSign,
    PlannedStep,
    PoolState,
    Run,
    Settings,
    WaitingStep,
    limits_alone,
    temporary_needs_engine,
)
from dagster_lifeguard.deployment.history.executions import READ, put_together
from dagster_lifeguard.deployment.instance_pools import with_runs
from dagster_lifeguard.deployment.judgement import judge
from dagster_lifeguard.engine.rules.duplicates import DUPLICATE_TAG, NO_DUPLICATE
from dagster_lifeguard.engine.rules.launch_order import IN_PROGRESS, OVER, priority_of
from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
from dagster_lifeguard.errors import DeploymentError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from dagster_lifeguard.deployment.history import RunExecution
    from dagster_lifeguard.deployment.webserver import Webserver

_POOLS_ASKED_ONE_BY_ONE = 10
_RUNS_AT_ONCE = 200
_EVENTS_AT_ONCE = 1000
_JOBS_KEPT = 200
_RUN_IDS_LOOKED_AT = 10_000
_RUN_ID_LENGTH = 36
_OVER = {"statuses": OVER}
_PERMISSION = "edit_concurrency_limit"
_KINDS = {kind.name: kind.value for kind in READ}
"""What the schema calls the types of events, and what they are stored as."""
_ENGINE_EVENT = DagsterEventType.ENGINE_EVENT.value


class EndpointDeployment:
    """What a webserver tells and does.

    Since when a slot is held is told by when it was assigned. Whether the engine admits steps
    cannot be seen, and neither can its fences.

    Args:
        webserver: Where to ask; closed with the deployment.
    """

    is_atomic = False

    def __init__(self, webserver: Webserver) -> None:
        self._webserver = webserver
        self.name = webserver.name
        self._pools_by_handle = lru_cache(_JOBS_KEPT)(self._ask_pools_by_handle)

    def settings(self) -> Settings:
        found = self._webserver.ask("settings")
        instance = found["instance"]
        if not instance["supportsConcurrencyLimits"]:
            raise DeploymentError(
                f"{self.name}: its database is older than pools.",
                remedy="Run there: dagster instance migrate",
                names=[self.name],
            )
        pools = instance["poolConfig"] or {}
        return Settings(
            dagster_version=found["version"],
            engine=None,
            default_limit=pools.get("defaultPoolLimit"),
            granularity=pools.get("poolGranularity") or "op",
            limit_min=instance["minConcurrencyLimitValue"],
            limit_max=instance["maxConcurrencyLimitValue"],
        )

    def daemons(self) -> tuple[Daemon, ...]:
        """As the webserver knows them; one that tells nothing and is called healthy is left out."""
        found = self._webserver.ask("health")["instance"]["daemonHealth"]["allDaemonStatuses"]
        return tuple(
            Daemon(
                row["daemonType"],
                row["lastHeartbeatTime"],
                tuple(error["message"] for error in row["lastHeartbeatErrors"]),
            )
            for row in found
            # Dagster+ has daemons without heartbeats.
            if row["required"] and not (row["healthy"] and row["lastHeartbeatTime"] is None)
        )

    def run_queue(self) -> RunQueue | None:
        instance = self._webserver.ask("health")["instance"]
        found = instance["runQueueConfig"]
        if found is None:
            return None
        limits = YAML(typ="safe").load(found["tagConcurrencyLimitsYaml"] or "[]")
        return RunQueue(
            found["maxConcurrentRuns"],
            tuple(map(tag_limit, limits)),
            bool(found["isOpConcurrencyAware"]),
            (instance["poolConfig"] or {}).get("opGranularityRunBuffer") or 0,
        )

    # ---- pools ---------------------------------------------------------------------------------

    def pools(self, names: Collection[str] | None = None) -> tuple[PoolState, ...]:
        settings = self.settings()
        if names is not None and len(names) <= _POOLS_ASKED_ONE_BY_ONE:
            asked = [self._webserver.ask("pools", all=False, pool=pool) for pool in sorted(names)]
            found = [_state(answer["instance"]["concurrencyLimit"]) for answer in asked]
        else:
            rows = self._webserver.ask("pools", all=True)["instance"]["concurrencyLimits"]
            states = {state.pool: state for state in map(_state, rows)}
            default = settings.default_limit
            found = [
                states.get(pool, PoolState(pool, PoolSettings(default), default is not None))
                for pool in (states if names is None else set(names))
            ]
        if settings.granularity == "run":
            found = with_runs(found, self.unfinished_runs(), names, settings.default_limit)
        return tuple(sorted(found, key=lambda state: state.pool))

    def pool_settings(self) -> Mapping[str, PoolSettings]:
        """The limits: GraphQL does not tell what else is set."""
        rows = self._webserver.ask("limits")["instance"]["concurrencyLimits"]
        return {
            row["concurrencyKey"]: PoolSettings(row["limit"])
            for row in rows
            if not row["usingDefaultLimit"]
        }

    def set_limit(self, pool: str, limit: int | None, until: float | None = None) -> None:
        if until is not None:
            raise temporary_needs_engine(pool)
        list(self._set_limits({pool: limit}))

    def set_pools(self, settings: Mapping[str, PoolSettings | None]) -> Iterator[str]:
        return self._set_limits(limits_alone(settings))

    def _set_limits(self, limits: Mapping[str, int | None]) -> Iterator[str]:
        self.settings().refuse(limits)
        self._refuse_without_permission()
        for pool, limit in limits.items():
            if limit is None:
                self._webserver.change("delete_limit", pool=pool)
            else:
                self._webserver.change("set_limit", pool=pool, limit=limit)
            yield pool

    def free(self, run_id: str, step_key: str | None = None, *, force: bool = False) -> Judgement:
        self._refuse_without_permission()
        run = next(iter(self.runs([run_id])), None)
        found = judge(run, self.life_signs(run_id, step_key), time.time())
        if force or found.is_safe:
            self._webserver.change("free", runId=run_id, stepKey=step_key)
        return found

    def _refuse_without_permission(self) -> None:
        """Ask first: the answer to what is not permitted does not say that it is not."""
        found = self._webserver.ask("permissions")["permissions"]
        if not any(row["permission"] == _PERMISSION and row["value"] for row in found):
            raise DeploymentError(
                f"{self.name} does not permit to change limits or to free slots.",
                remedy="Use the token of a user who may edit concurrency limits, or a webserver "
                "that is not read-only.",
                names=[self.name],
            )

    # ---- runs ----------------------------------------------------------------------------------

    def unfinished_runs(self, statuses: Collection[str] = UNFINISHED) -> tuple[Run, ...]:
        return tuple(reversed(list(self._runs({"statuses": list(statuses)}))))

    def runs(self, run_ids: Collection[str]) -> tuple[Run, ...]:
        asked = list(dict.fromkeys(run_ids))
        found: list[Run] = []
        for start in range(0, len(asked), _RUNS_AT_ONCE):
            found += self._runs({"runIds": asked[start : start + _RUNS_AT_ONCE]})
        found.reverse()  # They came newest first; two of one moment keep their order.
        found.sort(key=lambda run: run.created)
        return tuple(found)

    def find_runs(self, prefix: str, count_max: int) -> tuple[Run, ...]:
        """As far as they are among the newest 10,000, unless the id is whole."""
        if len(prefix) >= _RUN_ID_LENGTH:
            return self.runs([prefix])
        found: list[Run] = []
        for number, run in enumerate(self._runs({})):
            if run.run_id.startswith(prefix):
                found.append(run)
            if len(found) == count_max or number == _RUN_IDS_LOOKED_AT:
                break
        return tuple(found)

    def _runs(self, filters: Mapping[str, object]) -> Iterator[Run]:
        """Runs, newest first, asked for page by page."""
        cursor: str | None = None
        while True:
            answer = self._webserver.ask(
                "runs", filter=filters, cursor=cursor, limit=_RUNS_AT_ONCE
            )["runsOrError"]
            yield from map(_run, answer["results"])
            if len(answer["results"]) < _RUNS_AT_ONCE:
                return
            cursor = answer["results"][-1]["runId"]

    def planned_steps(self, run_id: str) -> tuple[PlannedStep, ...]:
        run = self._webserver.ask("plan", runId=run_id)["runOrError"]
        if run["__typename"] != "Run":
            raise UnknownNameError(
                f"There is no run {run_id} in {self.name}.",
                remedy="Give the id that the page of the run shows.",
                names=[run_id],
            )
        if not run["executionPlan"] or not run["pipelineSnapshotId"]:
            return ()
        pools = self._pools_by_handle(run["pipelineSnapshotId"])
        assets = self._assets_by_op((run["repositoryOrigin"] or {}).get("repositoryLocationName"))
        steps = run["executionPlan"]["steps"]
        handles = {step["key"]: step["solidHandleID"] for step in steps}
        # A step whose op has no pool may have one from the use of the op.
        of_uses = {step["key"]: _tag(step, CONCURRENCY_KEY_TAG) for step in steps}
        return tuple(
            PlannedStep(key, pools.get(handles[key]) or of_uses[key], _assets(assets, handles[key]))
            for key in run["stepKeysToExecute"] or handles
            if key in handles
        )

    def _ask_pools_by_handle(self, snapshot_id: str) -> dict[str, str | None]:
        found = self._webserver.ask("job_snapshot", snapshotId=snapshot_id)
        handles = found["pipelineSnapshotOrError"].get("solidHandles", ())
        return {h["handleID"]: h["solid"]["definition"].get("pool") for h in handles}

    def _assets_by_op(self, location: str | None) -> dict[str, tuple[str, ...]]:
        """The assets of each op, and of each graph, by the name of its node."""
        found: dict[str, list[str]] = defaultdict(list)
        for node in self._webserver.ask("assets")["assetNodes"]:
            if location in (None, node["repository"]["location"]["name"]):
                for name in {node["graphName"] or next(iter(node["opNames"]), "")}:
                    found[name].append("/".join(node["assetKey"]["path"]))
        return {name: tuple(sorted(assets)) for name, assets in found.items()}

    def assets(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, set[str]] = defaultdict(set)
        for node in self._webserver.ask("assets")["assetNodes"]:
            found["/".join(node["assetKey"]["path"])].update(node["pools"])
        return {asset: tuple(sorted(pools)) for asset, pools in sorted(found.items())}

    # ---- history -------------------------------------------------------------------------------

    def history(
        self,
        since: float,
        until: float | None = None,
        *,
        latest: int | None = None,
        queued: bool = True,
    ) -> Iterator[RunExecution]:
        """A webserver tells runs by when they were created: ``latest`` are those created last."""
        for run in self._runs_between(since, until, latest, queued=queued):
            yield self._execution(run)

    def runs_between(self, since: float, until: float | None = None) -> tuple[Run, ...]:
        return tuple(self._runs_between(since, until, None))

    def dropped_runs(self, since: float, count_max: int) -> tuple[Run, ...]:
        """A webserver finds no runs by the name of a tag alone: the canceled runs are read."""
        canceled = self._runs({"statuses": ["CANCELED"], "updatedAfter": since})
        found = (
            run
            for run in canceled
            if run.tags.get(DUPLICATE_TAG, NO_DUPLICATE) != NO_DUPLICATE
            and run.ended is not None
            and run.ended >= since
        )
        return tuple(islice(found, count_max))[::-1]

    def _runs_between(
        self, since: float, until: float | None, latest: int | None, *, queued: bool = True
    ) -> list[Run]:
        of_time = {} if until is None else {"createdBefore": until}
        all_wanted = latest is None and queued
        over = {"updatedAfter": since} if all_wanted else {**_OVER, "updatedAfter": since}
        going = {"statuses": _statuses_going(latest, queued=queued)}
        found = {
            run.run_id: run
            for filters in (over, going)
            for run in islice(self._runs({**of_time, **filters}), latest)
            if run.ended is None or run.ended >= since
        }
        return sorted(found.values(), key=lambda run: (run.created, run.run_id))

    def asset_groups(self) -> Mapping[str, str]:
        nodes = self._webserver.ask("assets")["assetNodes"]
        return {"/".join(n["assetKey"]["path"]): n["groupName"] for n in nodes if n["groupName"]}

    def executions(self, run_ids: Collection[str]) -> tuple[RunExecution, ...]:
        return tuple(map(self._execution, self.runs(run_ids)))

    def _execution(self, run: Run) -> RunExecution:
        snapshot_id: str | None = None
        rows: list[EventRow] = []
        for found in self._event_pages(run.run_id):
            snapshot_id = found["pipelineSnapshotId"]
            rows += filter(None, map(_event_row, found["eventConnection"]["events"]))
        plan = None if snapshot_id is None else self._plan(snapshot_id, run.pools or frozenset())
        return put_together(run.run_id, run.job_name, run.status, rows, plan)

    def _plan(self, snapshot_id: str, pools: frozenset[str]) -> list[StepPlan]:
        """The steps of a job that have a pool; a run may have selected some of these steps."""
        return [
            StepPlan(handle, pool, ())
            for handle, pool in self._pools_by_handle(snapshot_id).items()
            if pool is not None and (not pools or pool in pools)
        ]

    def life_signs(
        self,
        run_id: str,
        step_key: str | None = None,
    ) -> tuple[LifeSign, ...]:
        """A webserver tells nothing of processes."""
        del run_id, step_key
        return ()

    def _event_pages(self, run_id: str) -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        while True:
            answer = self._webserver.ask(
                "events", runId=run_id, cursor=cursor, limit=_EVENTS_AT_ONCE
            )["runOrError"]
            if answer["__typename"] != "Run":
                return  # Deleted in the meantime.
            yield answer
            page = answer["eventConnection"]
            if not page["hasMore"]:
                return
            cursor = page["cursor"]

    # ---- the connection ------------------------------------------------------------------------

    def close(self) -> None:
        self._webserver.close()


def _tag(step: Mapping[str, Any], name: str) -> str | None:
    """A tag of a step, which a webserver tells among the metadata of its plan."""
    return next((item["value"] for item in step["metadata"] if item["key"] == name), None)


def _state(row: Mapping[str, Any]) -> PoolState:
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


def _run(row: Mapping[str, Any]) -> Run:
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


def _assets(by_op: Mapping[str, tuple[str, ...]], handle: str) -> tuple[str, ...]:
    return by_op.get(handle.partition(".")[0], ())


def _statuses_going(latest: int | None, *, queued: bool) -> tuple[str, ...]:
    if latest is not None:
        return tuple(IN_PROGRESS)
    return tuple(status for status in UNFINISHED if queued or status != "QUEUED")


def _event_row(event: Mapping[str, Any]) -> EventRow | None:
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
