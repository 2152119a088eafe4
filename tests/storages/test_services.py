"""The real command line, webserver and daemon over the storages."""

from __future__ import annotations

import pytest
from homes import DEFINITIONS, eventually, free_port, query, serve

PAGE = """
query { instance { supportsConcurrencyLimits minConcurrencyLimitValue maxConcurrencyLimitValue
  concurrencyLimits { concurrencyKey slotCount limit usingDefaultLimit
    claimedSlots { runId stepKey }
    pendingSteps { runId stepKey enqueuedTimestamp assignedTimestamp priority }
    activeSlotCount activeRunIds pendingStepCount pendingStepRunIds
    assignedStepCount assignedStepRunIds } } }
"""

LAUNCH = """
mutation($job: String!, $location: String!) { launchRun(executionParams: {
  selector: {repositoryLocationName: $location, repositoryName: "__repository__", pipelineName: $job},
  runConfigData: {}, mode: "default"}) {
  __typename ... on LaunchRunSuccess { run { runId status } }
  ... on PythonError { message } } }
"""


@pytest.fixture
def port() -> int:
    return free_port()


def page(port: int, pool: str = "orders") -> dict | None:
    limits = query(port, PAGE)["instance"]["concurrencyLimits"]
    return next((found for found in limits if found["concurrencyKey"] == pool), None)


def test_the_command_line_sets_and_gets_limits(make_home, kind):
    home = make_home(kind)
    home.run("dagster", "instance", "concurrency", "set", "orders", "2")
    with home.instance() as instance:
        instance.event_log_storage.claim_concurrency_slot("orders", "run", "step")
        assert '"orders": 1 / 2 slots occupied' in home.run(
            "dagster", "instance", "concurrency", "get", "orders"
        )


def test_the_page_of_pools_shows_and_does_what_it_says(make_home, kind, port):
    home = make_home(kind)
    serve(home, port)
    assert page(port) is None
    query(port, 'mutation { setConcurrencyLimit(concurrencyKey: "orders", limit: 1) }')
    with home.instance() as instance:
        log = instance.event_log_storage
        assert log.claim_concurrency_slot("orders", "run1", "a", 3).is_claimed
        assert not log.claim_concurrency_slot("orders", "run2", "b").is_claimed
        assert not log.claim_concurrency_slot("orders", "run3", "c").is_claimed
        shown = page(port)
        assert (shown["slotCount"], shown["limit"], shown["usingDefaultLimit"]) == (1, 1, False)
        assert shown["claimedSlots"] == [{"runId": "run1", "stepKey": "a"}]
        assert [s["runId"] for s in shown["pendingSteps"]] == ["run1", "run2", "run3"]
        assert [s["assignedTimestamp"] is None for s in shown["pendingSteps"]] == [
            False,
            True,
            True,
        ]
        assert shown["pendingSteps"][0]["priority"] == 3
        assert (shown["activeRunIds"], shown["assignedStepRunIds"]) == (["run1"], ["run1"])
        assert set(shown["pendingStepRunIds"]) == {"run2", "run3"}

        query(port, 'mutation { freeConcurrencySlots(runId: "run1", stepKey: "a") }')
        assert page(port)["activeSlotCount"] == 0
        assert eventually(lambda: log.claim_concurrency_slot("orders", "run2", "b").is_claimed)
        query(port, 'mutation { freeConcurrencySlotsForRun(runId: "run2") }')
        assert page(port)["claimedSlots"] == []
        query(port, 'mutation { setConcurrencyLimit(concurrencyKey: "orders", limit: 0) }')
        assert not log.claim_concurrency_slot("orders", "run3", "c").is_claimed
        query(port, 'mutation { deleteConcurrencyLimit(concurrencyKey: "orders") }')
        assert page(port) is None
        assert eventually(lambda: log.claim_concurrency_slot("orders", "run3", "c").is_claimed)


@pytest.mark.parametrize("granularity", ["run", "op"])
def test_the_run_queue_holds_runs_back_until_a_slot_is_free(make_home, kind, granularity, port):
    holding_back = {}
    if granularity == "op":
        holding_back = {"block_op_concurrency_limited_runs": {"enabled": True}}
    home = make_home(
        kind,
        concurrency={"pools": {"granularity": granularity, "default_limit": 1}},
        run_coordinator={
            "module": "dagster.core.run_coordinator",
            "class": "QueuedRunCoordinator",
            "config": {"dequeue_interval_seconds": 1, **holding_back},
        },
    )
    serve(home, port)
    daemon = home.start("dagster-daemon", "run", "-f", str(DEFINITIONS))
    location = query(port, "{ workspaceOrError { ... on Workspace { locationEntries { name } } } }")
    name = location["workspaceOrError"]["locationEntries"][0]["name"]
    launched = []
    for job in ("held_job", "second_job"):
        answer = query(port, LAUNCH, job=job, location=name)["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        launched.append(answer["run"]["runId"])
    assert list(home.started()) == [launched[0]]
    with home.instance() as instance:
        status = lambda run_id: instance.get_run_by_id(run_id).status.value  # noqa: E731
        blocked = f"Run {launched[1]} is blocked by global concurrency limits"
        eventually(lambda: blocked in daemon.output())
        assert status(launched[1]) == "QUEUED"
        home.go("held")
        home.go("second")
        eventually(lambda: status(launched[1]) == "SUCCESS")
        assert status(launched[0]) == "SUCCESS"
        assert instance.event_log_storage.get_concurrency_run_ids() == set()
