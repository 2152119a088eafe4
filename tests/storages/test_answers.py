"""``lifeguard status``, ``explain`` and ``free`` over real instances, stock and with the engine."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from click.testing import CliRunner, Result
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from homes import Home, eventually, limit
from preloaded import usual_signals

from dagster_lifeguard.cli import main
from dagster_lifeguard.deployment.open import open_deployment
from pool_values import set_limits

try:
    from dagster._core.remote_origin import (
        InProcessCodeLocationOrigin,
        RemoteJobOrigin,
        RemoteRepositoryOrigin,
    )
except ImportError:  # before 1.11
    from dagster._core.remote_representation.origin import (
        InProcessCodeLocationOrigin,
        RemoteJobOrigin,
        RemoteRepositoryOrigin,
    )

if TYPE_CHECKING:
    from collections.abc import Callable

ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(InProcessCodeLocationOrigin(LoadableTargetOrigin()), "repository"), "job"
)
"""Dagster queues only a run that it could launch."""


@pytest.fixture(params=["stock", "engine"])
def world(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def new_home(make_home, kind, world, monkeypatch) -> Callable[..., Home]:
    def make(**settings) -> Home:
        home = make_home(kind, stock=world == "stock", **settings)
        monkeypatch.setenv("DAGSTER_HOME", str(home.path))
        return home

    return make


def lifeguard(*arguments: str, **more) -> Result:
    return CliRunner().invoke(main, arguments, **more)


def told(*arguments: str) -> dict:
    result = lifeguard(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def waiting_steps() -> int:
    return told("status", "--window", "0")["waiting"]


def test_a_real_queue_is_told_and_moves_on(new_home, world):
    """Two processes materialise one asset: one executes, and the other waits for it."""
    home = new_home()
    limit(home)
    first = home.materialize("held")
    (holder,) = home.started()
    second = home.materialize("held")
    eventually(lambda: waiting_steps() == 1)

    (pool,) = told("status")["pools"]
    assert (pool["pool"], pool["limit"], pool["held"], pool["waiting"]) == ("orders", 1, 1, 1)
    assert pool["oldest_wait"] > 0
    shown = lifeguard("status").stdout
    assert "orders" in shown
    assert "1 slot held, 1 step waits" in shown

    found = told("status", "orders")
    (by,) = found["holders"]
    assert (by["run_id"], by["step_key"], by["run_status"]) == (holder, "held", "STARTED")
    (behind,) = found["queue"]
    assert (behind["position"], behind["reason"], behind["step_key"]) == (1, "full", "held")
    last = behind["run_id"]

    why = told("explain", f"{last[:13]}:held")
    (step,) = why["steps"]
    assert (why["waiting"], step["state"], step["assets"]) == (True, "waiting", ["held"])
    (asked,) = step["pools"]
    assert (asked["waiter"]["position"], asked["ahead"]) == (1, [])
    assert [h["run_id"] for h in asked["holders"]] == [holder]
    assert step["estimate"]["missing"] == "no-history"

    shown = lifeguard("explain", "held").stdout
    assert "held waits in 1 run" in shown
    assert f"run {holder[:8]}" in shown
    assert ("patience" in shown) == (world == "engine")

    kept = lifeguard("free", holder[:13], "--yes")
    assert (kept.exit_code, "Kept 1 step" in kept.output) == (1, True)
    # Only under the engine the process itself is heard of.
    assert ("s of its lease left" in kept.output) == (world == "engine")

    home.go()
    assert [process.wait() for process in (first, second)] == [0, 0]
    found = told("status", "orders")
    assert (found["summary"]["held"], found["queue"]) == (0, [])
    assert (found["summary"]["waits"]["count"], found["holds"]["count"]) == (2, 2)
    assert found["summary"]["waits"]["p95"] > 0
    assert "does not wait: no unfinished run executes it" in lifeguard("explain", "held").stdout
    assert "does not wait: it is done" in lifeguard("explain", holder).stdout


def test_what_lives_is_kept_and_what_is_dead_is_freed(make_home, world, monkeypatch):
    home = make_home("sqlite", stock=world == "stock", lease_seconds=3600)
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))
    limit(home)
    process = home.materialize("held")
    ((run_id, pid),) = home.started().items()

    shown = json.loads(lifeguard("free", run_id, "--yes", "--json").stdout)
    (step,) = shown["steps"]
    assert (step["holds"], step["freed"]) == ([["orders", 1]], False)
    assert step["alive"] is (True if world == "engine" else None)
    assert told("status", "orders")["summary"]["held"] == 1

    os.kill(pid, signal.SIGKILL)
    process.wait()
    with home.instance() as instance:  # As Dagster's run monitoring marks it, sooner or later.
        run = instance.get_run_by_id(run_id)
        instance.report_run_failed(run)
    if world == "engine":  # Its lease of an hour runs on: nobody knows that it is dead.
        assert lifeguard("free", run_id, "--yes").exit_code == 1
        freed = lifeguard("free", run_id, "--yes", "--force")
    else:
        freed = lifeguard("free", f"{run_id}:held", "--yes")
        assert "The run is FAILURE" in freed.output
    assert (freed.exit_code, "Freed 1 step" in freed.output) == (0, True)
    found = told("status", "orders")
    assert found["summary"]["held"] == 0
    again = lifeguard("free", "orders")
    assert (again.exit_code, "Nothing to free" in again.output) == (0, True)


def claim(home: Home, run_id: str, step: str = "step", pool: str = "orders") -> None:
    with home.instance() as instance:
        instance.event_log_storage.claim_concurrency_slot(pool, run_id, step)


class TestFree:
    @pytest.fixture
    def leaked(self, make_home, monkeypatch) -> Home:
        """A slot held for a run that is over, and another step behind it."""
        home = make_home("sqlite", stock=True)
        monkeypatch.setenv("DAGSTER_HOME", str(home.path))
        limit(home)
        with home.instance() as instance:
            over = dg.DagsterRunStatus.FAILURE
            instance.add_run(dg.DagsterRun(job_name="job", run_id="gone", status=over))
        claim(home, "gone")
        claim(home, "next")
        return home

    def test_it_asks_on_a_terminal_and_wants_yes_elsewhere(self, leaked, monkeypatch):
        refused = lifeguard("free", "orders")
        assert (refused.exit_code, "say --yes" in refused.output) == (2, True)
        assert told("status", "orders")["summary"]["held"] == 1
        monkeypatch.setattr("dagster_lifeguard.cli.file_changes.can_ask", lambda: True)
        assert "Nothing was freed" in lifeguard("free", "orders", input="n\n").output
        assert told("status", "orders")["summary"]["held"] == 1
        assert "Freed 1 step" in lifeguard("free", "orders", input="y\n").output
        assert told("status", "orders")["summary"]["held"] == 0

    def test_a_dry_run_changes_nothing(self, leaked):
        result = lifeguard("free", "orders", "--dry-run")
        assert (result.exit_code, "Would free 1 step" in result.output) == (0, True)
        assert "The run is FAILURE" in result.output
        assert told("status", "orders")["summary"]["held"] == 1

    def test_a_leaked_slot_is_shown(self, leaked):
        (holder,) = told("status", "orders")["holders"]
        assert (holder["is_leaked"], holder["run_status"]) == (True, "FAILURE")
        assert "may never release its slot" in lifeguard("status", "orders").stdout


class TestMistakes:
    @pytest.mark.parametrize("command", [["status"], ["explain", "held"], ["free", "orders"]])
    def test_an_instance_older_than_pools_is_told(self, make_home, monkeypatch, command):
        home = make_home("sqlite", stock=True)
        monkeypatch.setenv("DAGSTER_HOME", str(home.path))
        with home.instance() as instance:
            path = instance.event_log_storage.path_for_shard("index")
            instance.event_log_storage.get_concurrency_keys()
        with closing(sqlite3.connect(path)) as file:
            file.execute("DROP TABLE concurrency_slots")
        result = lifeguard(*command)
        assert result.exit_code == 2
        assert "Error: The instance's database is older than pools." in result.output
        assert "Run: dagster instance migrate" in result.output

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["status", "order"], "Did you mean orders?"),
            (["status", "orders", "--select", "x"], "not both"),
            (["status", "--window", "soon"], "no duration"),
            (["explain", "hold"], "knows no asset and no run 'hold'"),
            (["explain", "orders"], "lifeguard status orders"),
            (["free", "ordres"], "Did you mean orders?"),
        ],
    )
    def test_exit_code_2_and_what_to_do(self, make_home, monkeypatch, arguments, said):
        home = make_home("sqlite", stock=True)
        monkeypatch.setenv("DAGSTER_HOME", str(home.path))
        limit(home)
        result = lifeguard(*arguments)
        assert result.exit_code == 2
        assert said in " ".join(result.output.split())


class TestManyPools:
    @pytest.mark.parametrize(
        ("concurrency", "others"),
        [({}, "is unlimited"), ({"pools": {"default_limit": 3}}, "has the default limit 3")],
    )
    def test_without_any_pool_the_limit_of_all_others_is_told(
        self, make_home, monkeypatch, concurrency, others
    ):
        home = make_home("sqlite", stock=True, concurrency=concurrency)
        monkeypatch.setenv("DAGSTER_HOME", str(home.path))
        shown = " ".join(lifeguard("status").stdout.split())
        assert "No pool is in use or has a limit of its own." in shown
        assert f"Every pool of your assets {others}; lifeguard check lists them." in shown

    def test_idle_pools_are_summed_up(self, make_home, monkeypatch):
        home = make_home("sqlite", stock=True)
        monkeypatch.setenv("DAGSTER_HOME", str(home.path))
        with closing(open_deployment()) as deployment:
            set_limits(deployment, {f"pool{n:02}": 1 + n % 2 for n in range(60)})
        claim(home, "a", pool="pool07")
        shown = lifeguard("status").stdout
        assert "pool07" in shown
        assert "pool08" not in shown
        assert "60 pools, 1 in use" in shown
        assert "59 idle pools (limit 1: 30, limit 2: 29)" in shown
        assert lifeguard("status", "--select", "POOL1").stdout.count("pool1") == 10
        assert lifeguard("status", "--all").stdout.count("\npool") == 1 + 60


class TestWatch:
    def test_beside_a_terminal_only_changes_are_printed(self, make_home, monkeypatch):
        home = make_home("sqlite", stock=True)
        monkeypatch.setenv("DAGSTER_HOME", str(home.path))
        limit(home)
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster_lifeguard", "status", "--json", "--watch",
             "--interval", "0.1s", "--window", "0"],
            env=home.environment, stdout=subprocess.PIPE, text=True,
            preexec_fn=usual_signals,  # noqa: PLW1509
        )  # fmt: skip
        try:
            assert json.loads(process.stdout.readline())["held"] == 0
            claim(home, "a")
            # It may be seen before that as waiting, to which a slot is promised.
            assert any(json.loads(line)["held"] == 1 for line in process.stdout)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()


def test_runs_in_the_queue_are_told_at_their_pools(make_home, monkeypatch):
    """Granularity op, without a daemon: the runs stay where they are put."""
    home = make_home("sqlite", concurrency={"pools": {"default_limit": 1}})
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))

    @dg.asset(pool="orders")
    def held() -> None: ...

    @dg.asset
    def free() -> None: ...

    job = dg.Definitions(assets=[held, free]).get_repository_def().get_job("__ASSET_JOB")
    with home.instance() as instance:

        def queue(*names: str) -> str:
            run = instance.create_run_for_job(
                job,
                status=dg.DagsterRunStatus.QUEUED,
                remote_job_origin=ORIGIN,
                asset_selection=frozenset(map(dg.AssetKey, names)),
            )
            return run.run_id

        first, second, also = queue("held"), queue("held"), queue("held", "free")

    # The first is launched at the next look, and the last may begin with another step.
    found = told("status")
    assert (found["waiting"], found["queued"], found["in_queue"]) == (1, 1, 3)
    assert [(p["pool"], p["waiting"], p["queued"]) for p in found["pools"]] == [("orders", 1, 1)]
    shown = lifeguard("status").stdout
    assert "0 slots held, 1 run waits" in shown
    assert "3 runs are in Dagster's run queue" in shown
    (line,) = (line for line in shown.splitlines() if line.startswith("orders"))
    assert line.split()[4:6] == ["1", "1"]

    found = told("status", "orders")["queued"]
    assert (found["count"], [r["run_id"] for r in found["first"]]) == (3, [first, second, also])
    kept = [[(b["name"], b["taken"], b["promised"]) for b in r["place"]["blockages"]]
            for r in found["first"]]  # fmt: skip
    # The first is launched at the next look and counts for the second; "free" may begin at once.
    assert kept == [[], [("orders", 0, 1)], []]
    shown = lifeguard("status", "orders").stdout
    assert [line.split()[:2] for line in shown.splitlines()[-3:]] == [
        [str(place), run_id[:8]] for place, run_id in enumerate((first, second, also), start=1)
    ]
    assert "orders is full" in shown


def test_a_run_in_the_queue_is_told_what_keeps_it_there(make_home, monkeypatch):
    """Granularity run, without a daemon: the runs stay where they are put."""
    pools = {"granularity": "run", "default_limit": 1}
    runs = {"max_concurrent_runs": 2, "tag_concurrency_limits": [{"key": "team", "limit": 1}]}
    home = make_home("sqlite", stock=True, concurrency={"pools": pools, "runs": runs})
    monkeypatch.setenv("DAGSTER_HOME", str(home.path))

    @dg.asset(pool="orders")
    def held() -> None: ...

    job = dg.Definitions(assets=[held]).get_repository_def().get_job("__ASSET_JOB")
    with home.instance() as instance:

        def new(status: dg.DagsterRunStatus, **tags: str) -> str:
            run = instance.create_run_for_job(
                job, status=status, tags=tags, remote_job_origin=ORIGIN
            )
            return run.run_id

        going_on = new(dg.DagsterRunStatus.STARTED, team="sales")
        tagged = new(dg.DagsterRunStatus.QUEUED, team="ops")
        plain = new(dg.DagsterRunStatus.QUEUED)

    def blockages(run_id: str) -> list[tuple[str, str, int, int]]:
        (step,) = told("explain", run_id)["steps"]
        assert step["state"] == "queued"
        place = step["queue_place"]
        return [(b["obstacle"], b["name"], b["limit"], b["taken"]) for b in place["blockages"]]

    assert blockages(tagged) == [("tag-limit", "team", 1, 1), ("pool", "orders", 1, 1)]
    assert blockages(plain) == [("pool", "orders", 1, 1)]
    found = told("explain", plain)["steps"][0]["queue_place"]
    assert (found["position"], found["length"]) == (2, 2)
    assert [b["run_id"] for b in found["blockages"][0]["behind"]] == [going_on]

    found = told("status", "orders")
    assert [h["run_id"] for h in found["holders"]] == [going_on]
    assert [w["run_id"] for w in found["queue"]] == [tagged, plain]
    shown = " ".join(lifeguard("explain", "held").stdout.split())
    assert "the pool orders is full: 1 of 1 held" in shown
    assert "tag team are" not in shown
    assert "tag_concurrency_limits" in shown
    refused = lifeguard("free", "orders", "--yes")
    assert (refused.exit_code, "cancel the run" in refused.output) == (2, True)

    with home.instance() as instance:
        new(dg.DagsterRunStatus.STARTED)
    assert blockages(plain)[0] == ("max-concurrent-runs", "", 2, 2)


def test_an_asset_that_never_ran_is_looked_up_in_the_project_here(
    new_home, world, tmp_path, monkeypatch
):
    home = new_home()
    with home.instance() as instance:

        @dg.asset
        def orderz() -> None: ...

        assert dg.materialize([orderz], instance=instance).success
    (tmp_path / "pyproject.toml").write_text('[tool.dagster]\nmodule_name = "never_ran_defs"\n')
    (tmp_path / "never_ran_defs.py").write_text(
        "import dagster as dg\n\n@dg.asset(pool='warehouse')\ndef orders(): ...\n\n"
        "defs = dg.Definitions(assets=[orders])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    refused = lifeguard("explain", "orders")  # From elsewhere nothing tells of it.
    assert refused.exit_code == 2
    assert "or in the definitions that -m, -f or -w names" in " ".join(refused.output.split())
    named = lifeguard("explain", "orders", "-f", str(tmp_path / "never_ran_defs.py"))
    assert "its pool  warehouse: no limit" in named.stdout, named.output
    missing = lifeguard("explain", "orders", "-f", str(tmp_path / "missing.py"))
    assert (missing.exit_code, "missing.py is not a file" in missing.output) == (2, True)
    monkeypatch.chdir(tmp_path)
    shown = lifeguard("explain", "orders")
    assert shown.exit_code == 0, shown.output
    assert "orders does not wait: it has never run here, no run has planned it" in shown.stdout
    assert "its pool  warehouse: no limit" in shown.stdout
    assert "Did you mean" not in shown.output
    found = told("explain", "orders")
    assert (found["never_ran"], found["steps"]) == (True, [])
    assert [pool["pool"] for pool in found["pools"]] == ["warehouse"]
    assert not told("explain", "orderz")["never_ran"]
    assert lifeguard("explain", "ordersss").exit_code == 2
