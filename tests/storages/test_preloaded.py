"""A fork of the process that has imported Dagster is what a process of the command would be."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from preloaded import ANEW, Preloaded, python_environment

SCRIPT = """
import atexit, json, os, signal, sys, tempfile, threading
with open("told.json", "w") as file:
    json.dump(dict(
        pid=os.getpid(), group=os.getpgrp(), session=os.getsid(0), folder=os.getcwd(),
        words=sys.argv, path=sys.path[0], main=sys.modules["__main__"].__file__,
        environment=dict(os.environ), threads=threading.active_count(),
        signals=[str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        files=len(os.listdir("/proc/self/fd")), temporary=tempfile.gettempdir(),
    ), file)
print("out", flush=True)
print("err", file=sys.stderr)
atexit.register(print, "at the end")
how = sys.argv[1]
if how == "raise":
    raise ValueError("raised")
if how == "wait":
    signal.pause()
sys.exit(int(how))
"""

STARTS = """
import json, multiprocessing, os, signal, subprocess, sys, tempfile

LOOK = "import json, os, sys; print(json.dumps(dict(" \\
    "dagster='dagster' in sys.modules, parent=os.getppid(), words=sys.argv, folder=os.getcwd(), " \\
    "here=os.environ.get('HERE'), group=os.getpgrp(), read=sys.stdin.read(), " \\
    "files=len(os.listdir('/proc/self/fd'))))); sys.exit(5)"

def child(connection):
    connection.send(("dagster" in sys.modules, os.getppid(), __name__))
    connection.recv()
    os.kill(os.getpid(), signal.SIGKILL)

def look(**options):
    done = subprocess.run(
        [sys.executable, "-c", LOOK, "word"], input="in", capture_output=True, text=True, **options
    )
    return {**json.loads(done.stdout), "code": done.returncode}

if __name__ == "__main__":
    told = {"pid": os.getpid(), "plain": look()}
    told["with_options"] = look(cwd="/", env={**os.environ, "HERE": "1"}, start_new_session=True)
    told["module"] = subprocess.run(
        [sys.executable, "-m", "platform"], capture_output=True, text=True
    ).stdout
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=child, args=(theirs,))
    process.start()
    told["spawned"] = ours.recv()
    ours.send("end")
    process.join()
    told["spawned_code"] = process.exitcode
    told["anew"] = look(env={**os.environ, "PYTHONUTF8": "1"})
    for line in subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True).stdout.split("\\n")[1:-1]:
        pid, parent = map(int, line.split())
        if parent == os.getpid() and sys.argv[1:] == ["alone"]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    told["last"] = look()
    with open("told.json", "w") as file:
        json.dump(told, file)
"""


@contextmanager
def ignoring(*numbers: int):
    """What nohup does, and a shell with what it starts in the background."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.fixture(scope="module")
def source():
    with ignoring(signal.SIGINT, signal.SIGHUP):
        made = Preloaded({**os.environ, **python_environment()})
    yield made
    made.close()


@pytest.fixture
def run(source, tmp_path):
    def start(how: str, text: str = SCRIPT):
        script = tmp_path / "script.py"
        script.write_text(text)
        environment = {**os.environ, **python_environment(), "TMPDIR": str(tmp_path)}
        command = ("python", str(script), how)
        assert source.can_start(command, environment)
        with (tmp_path / "log").open("wb") as log:
            return source.start(command, environment, tmp_path, log.fileno())

    return start


def told(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "told.json").read_text())


def test_it_is_a_process_of_its_own(run, tmp_path):
    process = run("3")
    assert process.wait(60) == process.poll() == 3
    assert (tmp_path / "log").read_text().split("\n") == ["out", "err", "at the end", ""]
    found = told(tmp_path)
    script = str(tmp_path / "script.py")
    assert found["pid"] == found["group"] == found["session"] == process.pid != os.getpid()
    assert (found["folder"], found["path"]) == (str(tmp_path), str(tmp_path))
    assert (found["words"], found["main"]) == ([script, "3"], script)
    environment = {**os.environ, **python_environment(), "TMPDIR": str(tmp_path)}
    assert found["environment"] == environment
    assert found["temporary"] == str(tmp_path)
    assert found["threads"] == 1
    # The three of every process, the one it writes to, the folder it looks at, and its companion.
    assert found["files"] == 6


def tell(to) -> None:
    to.send(("dagster" in sys.modules, os.getppid()))


def test_what_the_tests_spawn_is_a_child_of_theirs_that_need_not_import_dagster():
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=tell, args=(theirs,))
    process.start()
    assert ours.recv() == (True, os.getpid())
    process.join()
    assert process.exitcode == 0


def test_what_it_raises_is_told_and_fails_it(run, tmp_path):
    assert run("raise").wait(60) == 1
    assert "ValueError: raised" in (tmp_path / "log").read_text()


def test_it_listens_to_signals_that_the_shell_of_the_tests_ignores(run, tmp_path):
    assert run("0").wait(60) == 0

    first, *others = told(tmp_path)["signals"]
    assert "default_int_handler" in first
    assert others == [str(signal.SIG_DFL)] * 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it(run, tmp_path, number):
    process = run("wait")
    while not (tmp_path / "log").read_text().endswith("err\n"):
        assert process.poll() is None
    os.killpg(process.pid, number)
    assert process.wait(60) == -number


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        (("dagster-daemon", "run"), ANEW),
        (("python", "-c", "pass"), {}),
        (("lifeguard", "status"), {"PYTHONPATH": "elsewhere"}),
        (("dagster", "--version"), {"FRESHNESS_DAEMON_INTERVAL_SECONDS": "1"}),
    ],
)
def test_what_a_fork_could_not_be_is_started_anew(source, command, variables):
    assert not source.can_start(command, {**os.environ, **python_environment(), **variables})


def test_commands_started_anew_listen_to_signals_too(make_home):
    home = make_home("sqlite")
    text = "import signal; print(signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGHUP))"
    with ignoring(signal.SIGINT, signal.SIGHUP):
        process = home.start("python", "-c", text)
        assert process.wait() == 0, process.output()
    assert "default_int_handler" in process.output()
    assert "SIG_IGN" not in process.output()


@pytest.mark.parametrize("companion", ["alive", "alone"])
def test_what_it_starts_is_its_child_and_a_fork_too(run, tmp_path, companion):
    process = run(companion, STARTS)
    assert process.wait(60) == 0, (tmp_path / "log").read_text()
    found = told(tmp_path)
    pid = found["pid"]
    usual = {"parent": pid, "words": ["-c", "word"], "read": "in", "code": 5}
    forked = {**usual, "dagster": True, "here": None, "folder": str(tmp_path), "group": pid}
    # The three of every process, the folder it looks at, and its companion.
    assert found["plain"] == {**forked, "files": 5}
    options = found["with_options"]
    assert options.pop("group") != pid
    del forked["group"]
    assert options == {**forked, "here": "1", "folder": "/", "files": 5}
    assert found["module"].startswith("Linux")
    assert found["spawned"] == [True, pid, "__mp_main__"]
    assert found["spawned_code"] == -signal.SIGKILL
    assert not found["anew"]["dagster"]
    # Whoever kills all that a process started kills its companion too.
    assert found["last"] == {
        **found["plain"],
        "dagster": companion == "alive",
        "files": 5 if companion == "alive" else 4,
    }
