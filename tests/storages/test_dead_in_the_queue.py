"""The run queue of a real daemon, in front of a pool of which a holder or a waiter was killed."""

from __future__ import annotations

import pytest
from homes import DEFINITIONS, eventually, free_port, limit, query, serve, waiters
from test_services import LAUNCH

LEASE_SECONDS = 3


@pytest.fixture
def home(make_home, kind):
    """A home whose queue holds runs back whose pools are full; nothing else frees slots."""
    return make_home(
        kind,
        lease_seconds=LEASE_SECONDS,
        concurrency={"pools": {"granularity": "op"}},
        run_monitoring={"enabled": False},
        run_coordinator={
            "module": "dagster.core.run_coordinator",
            "class": "QueuedRunCoordinator",
            "config": {
                "dequeue_interval_seconds": 1,
                "block_op_concurrency_limited_runs": {"enabled": True},
            },
        },
    )


@pytest.fixture
def launch(home):
    """Puts a run of a job into the queue, which a daemon reads."""
    port = free_port()
    serve(home, port)
    home.start("dagster-daemon", "run", "-f", str(DEFINITIONS))
    found = query(port, "{ workspaceOrError { ... on Workspace { locationEntries { name } } } }")
    (location,) = [entry["name"] for entry in found["workspaceOrError"]["locationEntries"]]

    def launch(job: str) -> str:
        answer = query(port, LAUNCH, job=job, location=location)["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return answer["run"]["runId"]

    return launch


def is_held_back(home, run_id: str) -> bool:
    said = f"Run {run_id} is blocked by global concurrency limits"
    return any(said in process.output() for process in home.processes)


def test_the_queue_launches_a_run_after_the_lease_of_a_killed_holder(home, launch):
    limit(home)
    holder = home.materialize("held")
    home.started()
    queued = launch("second_job")
    eventually(lambda: is_held_back(home, queued))
    home.go("second")
    with home.instance() as instance:
        assert instance.get_run_by_id(queued).status.value == "QUEUED"

        holder.end()  # With kill -9. Its run is STARTED for ever, and nobody claims.

        eventually(lambda: instance.get_run_by_id(queued).status.value == "SUCCESS")


def test_the_queue_launches_a_run_after_the_lease_of_a_killed_waiter(home, launch):
    limit(home)
    holder = home.materialize("held")
    home.started()
    waiter = home.materialize("quick")
    with home.instance() as instance:
        eventually(lambda: waiters(instance))
        queued = launch("second_job")
        eventually(lambda: is_held_back(home, queued))
        home.go("second")

        waiter.end()
        home.go("held")
        assert holder.wait() == 0, holder.output()

        # The slot is free, and the only one who asked for it is dead.
        eventually(lambda: instance.get_run_by_id(queued).status.value == "SUCCESS")
        assert waiters(instance) == []
