"""Everybody who asks for runs, against a real daemon and webserver under the coordinator."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from contests import COORDINATOR, Site, site
from homes import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BACKFILL = """
mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }
"""
START_SCHEDULE = """
mutation($selector: ScheduleSelector!) { startSchedule(scheduleSelector: $selector) {
  __typename ... on PythonError { message } } }
"""
START_SENSOR = """
mutation($selector: SensorSelector!) { startSensor(sensorSelector: $selector) {
  __typename ... on PythonError { message } } }
"""
TICKS = """
query($selector: InstigationSelector!) { instigationStateOrError(instigationSelector: $selector) {
  __typename ... on InstigationState { ticks(limit: 50) { status runIds } }
  ... on PythonError { message } } }
"""


pytestmark = pytest.mark.timeout(900)  # it is all there, and the machine may be busy


@contextmanager
def _serving(request: pytest.FixtureRequest, tmp_path_factory, **ours: Any) -> Iterator[Site]:
    coordinator = {**COORDINATOR, "config": {"dequeue_interval_seconds": 1, **ours}}
    postgres = lambda: request.getfixturevalue("postgres_url")  # noqa: E731
    path = tmp_path_factory.mktemp("site")
    kind = getattr(request, "param", "sqlite")
    # The run queue of 1.10.0 launches no run of a pool that has no limit.
    limits = {"pools": {"default_limit": 10}}
    with site(kind, path, postgres, run_coordinator=coordinator, concurrency=limits) as found:
        found.serve()
        yield found


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def live(request: pytest.FixtureRequest, tmp_path_factory) -> Iterator[Site]:
    with _serving(request, tmp_path_factory) as found:
        yield found


@pytest.fixture
def lenient(request: pytest.FixtureRequest, tmp_path_factory) -> Iterator[Site]:
    """Under the coordinator that may drop the runs of backfills."""
    ours = {"ignore_tags": ["dagster/backfill"]}
    with _serving(request, tmp_path_factory, lifeguard=ours) as found:
        yield found


def started(live: Site, asset: str, run_id: str) -> None:
    eventually(lambda: run_id in live.home.begun(asset))


def runs_tagged(live: Site, tag: str, value: str | None = None) -> dict[str, str]:
    """The runs with that tag: what it says on each."""
    runs = {run.run_id: run.tags.get(tag) for run in live.instance.get_runs()}
    return {k: v for k, v in runs.items() if v is not None and value in (None, v)}


def backfill(live: Site, *partitions: str, **selector: Any) -> str:
    params = {
        "partitionNames": list(partitions),
        "assetSelection": [{"path": ["lettered"]}],
        **selector,
    }
    return str(live.ask(BACKFILL, "launchPartitionBackfill", params=params)["backfillId"])


def runs_of_backfill(live: Site, backfill_id: str) -> Mapping[str, str]:
    """The run of each partition."""
    found = runs_tagged(live, "dagster/backfill", backfill_id)
    return {live.run_of(run_id).tags["dagster/partition"]: run_id for run_id in found}


def backfill_status(live: Site, backfill_id: str) -> str:
    found = live.instance.get_backfill(backfill_id)
    assert found is not None
    return found.status.value


def test_who_asks_for_runs(live: Site):
    first = live.launch_by_web(job="once_job")
    started(live, "once", first.run_id)

    # A user, who clicks once more.
    again = live.launch_by_web(job="once_job")
    assert again.status == "CANCELED"
    assert live.duplicate_of(again.run_id) == first.run_id

    # The command line.
    before = {run.run_id for run in live.instance.get_runs()}
    live.home.run(
        "dagster", "job", "launch", "-w", str(live.home.path / "workspace.yaml"), "-j", "once_job",
    )  # fmt: skip
    (by_hand,) = (run.run_id for run in live.instance.get_runs() if run.run_id not in before)
    assert live.duplicate_of(by_hand) == first.run_id, live.run_of(by_hand)

    # A schedule, whose tick is a success and names the run that was skipped.
    common = {"repositoryName": "__repository__", "repositoryLocationName": live.location}
    selector = {**common, "scheduleName": "minutely"}
    live.ask(START_SCHEDULE, "startSchedule", selector=selector)

    # A sensor with run keys, each of which Dagster asks for once only.
    for name in ("a.key", "b.key"):
        (live.home.control / name).touch()
    live.ask(START_SENSOR, "startSensor", selector={**common, "sensorName": "keyed"})
    keyed = eventually(lambda: len(f := runs_tagged(live, "dagster/run_key")) == 2 and f)
    eventually(lambda: len(live.home.begun("once")) == 3)
    assert set(live.home.begun("once")) == {first.run_id, *keyed}

    (skipped, *_) = eventually(lambda: list(runs_tagged(live, "dagster/schedule_name")))
    eventually(lambda: live.status(skipped) == "CANCELED")
    assert live.duplicate_of(skipped) in {first.run_id, *keyed}
    instigation = {**common, "name": "minutely"}

    def told() -> bool:
        state = live.ask(TICKS, "instigationStateOrError", selector=instigation)
        return any(t == {"status": "SUCCESS", "runIds": [skipped]} for t in state["ticks"])

    eventually(told)

    for asset in ("once", "then"):
        live.home.go(asset)
    eventually(lambda: live.status(first.run_id) == "SUCCESS")
    for run_id in keyed:
        eventually(lambda run_id=run_id: live.status(run_id) == "SUCCESS")


def test_a_run_that_executes_is_terminated_in_favour_of_the_new_one(live: Site):
    old = live.launch_by_web("fresh")
    started(live, "fresh", old.run_id)
    new = live.launch_by_web("fresh")
    eventually(lambda: live.status(old.run_id) == "CANCELED")
    started(live, "fresh", new.run_id)
    assert live.duplicate_of(old.run_id) == new.run_id
    said = live.said(old.run_id)
    assert any(f"Terminated in favour of run {new.run_id}" in message for message in said), said
    live.home.go("fresh")
    eventually(lambda: live.status(new.run_id) == "SUCCESS")


def test_a_run_whose_worker_begins_is_terminated_too(live: Site):
    """Marked as canceled only, it would have executed beside the new one."""
    hold = live.home.control / "loading.wait"
    hold.touch()
    old = live.launch_by_web("fresh")
    eventually((live.home.control / "loading").exists)
    assert live.status(old.run_id) == "STARTING"
    new = live.launch_by_web("fresh")
    assert live.status(old.run_id) == "CANCELING"
    hold.unlink()
    live.home.go("fresh")
    # Dagster calls it a failure when a run worker is interrupted while it loads the code.
    eventually(lambda: live.status(old.run_id) in ("CANCELED", "FAILURE"))
    eventually(lambda: live.status(new.run_id) == "SUCCESS")
    assert live.duplicate_of(old.run_id) == new.run_id
    assert old.run_id not in live.home.begun("fresh")


def test_a_backfill_gets_all_its_runs(live: Site):
    first = live.launch_by_web("lettered", tags={"dagster/partition": "a"})
    started(live, "lettered", first.run_id)
    asked = backfill(live, "a", "b")
    runs = eventually(lambda: len(r := runs_of_backfill(live, asked)) == 2 and r)
    for run_id in runs.values():
        started(live, "lettered", run_id)
    # And a run of the backfill stands in for a user's.
    by_user = live.launch_by_web("lettered", tags={"dagster/partition": "b"})
    assert live.duplicate_of(by_user.run_id) == runs["b"]
    live.home.go("lettered")
    eventually(lambda: backfill_status(live, asked) == "COMPLETED_SUCCESS")


def test_a_backfill_whose_runs_may_be_dropped_ends_as_failed(lenient: Site):
    first = lenient.launch_by_web("lettered", tags={"dagster/partition": "a"})
    started(lenient, "lettered", first.run_id)
    asked = backfill(lenient, "a", "b")
    runs = eventually(lambda: len(r := runs_of_backfill(lenient, asked)) == 2 and r)
    eventually(lambda: lenient.duplicate_of(runs["a"]) == first.run_id)
    lenient.home.go("lettered")
    eventually(lambda: lenient.status(runs["b"]) == "SUCCESS")
    eventually(lambda: backfill_status(lenient, asked) not in ("REQUESTED", "FAILING"))
    assert backfill_status(lenient, asked) in ("COMPLETED_FAILED", "FAILED")
    assert lenient.status(first.run_id) == "SUCCESS"
