"""Real runs, real processes, every executor: never two executions of one asset at once."""

from __future__ import annotations

import os
import time

import pytest
from homes import eventually, holders, limit, waiters

from dagster_lifeguard.deployment import history

TORTURE = "LIFEGUARD_TORTURE" in os.environ
LINKS = [f"link{n}" for n in range(5 if TORTURE else 2)]


@pytest.mark.parametrize(
    ("count", "executor"),
    [
        (2, "multiprocess"),
        (2, "step_delegating"),
        (8, "in_process"),
        (8 if TORTURE else 4, "multiprocess"),
    ],
)
def test_materializations_at_once_take_turns(make_home, kind, count, executor):
    home = make_home(kind)
    limit(home)
    processes = [home.materialize("quick", EXECUTOR=executor) for _ in range(count)]
    for process in processes:
        assert process.wait() == 0, process.output()
    with home.instance() as instance:
        runs = history.read_runs(instance)
        assert [run.status for run in runs] == ["SUCCESS"] * count
        assert [len(run.steps) for run in runs] == [1] * count
        assert history.find_overlaps(runs, until=time.time()) == ()
        assert holders(instance) == waiters(instance) == []


@pytest.mark.parametrize("executor", ["in_process", "multiprocess", "step_delegating"])
def test_a_step_that_waits_holds_up_no_other_step_of_its_run(make_home, kind, executor):
    home = make_home(kind)
    limit(home)
    holder = home.materialize("held")
    home.started()
    run = home.materialize(",".join(["second", *LINKS]), EXECUTOR=executor)
    with home.instance() as instance:
        ((run_id, _),) = eventually(lambda: waiters(instance))
        eventually(lambda: LINKS[-1] in steps_ended(instance, run_id))
        # Only now may the holder end, so all links ended while the step waited.
        assert waiters(instance) == [(run_id, "second")]
        assert home.begun("second") == {}
        home.go("held")
        home.go("second")
        assert holder.wait() == 0, holder.output()
        assert run.wait() == 0, run.output()
        assert steps_ended(instance, run_id) == {*LINKS, "second"}


def steps_ended(instance, run_id: str) -> set[str]:
    (run,) = history.read_runs(instance, run_ids=[run_id])
    return {step.step_key for step in run.steps if step.outcome is history.Outcome.SUCCESS}


def test_a_retry_gives_back_and_claims_again(make_home, kind):
    home = make_home(kind)
    limit(home)
    process = home.materialize("stubborn")
    assert process.wait() == 0, process.output()
    with home.instance() as instance:
        ledger = instance.event_log_storage.lifeguard.engine.store.ledger()
        kinds = [entry.kind.value for entry in reversed(ledger) if entry.kind.value != "limit"]
        assert kinds == ["granted", "released"] * 3
        assert len({entry.fence for entry in ledger if entry.kind.value == "granted"}) == 3
