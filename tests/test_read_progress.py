"""What a command tells while it reads."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from dagster_lifeguard.cli.watched_deployment import WatchedDeployment


@pytest.fixture
def told():
    """What was written, and an event that is set when something is."""
    texts, told = [], threading.Event()

    def tell(text):
        texts.append(text)
        told.set()

    return SimpleNamespace(texts=texts, event=told, tell=tell)


def reading(told, **methods):
    names = ("pools", "run_queue", "unfinished_runs", "runs", "find_runs", "assets")
    names += ("runs_between", "history", "executions", "life_signs")
    deployment = SimpleNamespace(**dict.fromkeys(names, lambda: iter(())) | methods)
    return WatchedDeployment(deployment, told.tell, after_seconds=0.01)


def test_a_read_that_takes_long_is_told_and_wiped(told):
    deployment = reading(told, pools=lambda: told.event.wait(60) and "found")

    assert deployment.pools() == "found"
    assert told.texts[0].startswith("\r\x1b[2KReading the pools ... ")
    assert told.texts[-1] == "\r\x1b[2K"


def test_runs_that_are_read_one_by_one_are_counted(told):
    def history():
        yield "first"
        yield "second"
        told.event.clear()
        told.event.wait(60)

    assert list(reading(told, history=history).history()) == ["first", "second"]
    assert "Reading past runs, 2 so far ... " in told.texts[-2]
    assert told.texts[-1] == "\r\x1b[2K"


def test_a_read_by_another_one_is_told_once(told):
    def assets():
        return deployment.pools()

    deployment = reading(told, assets=assets, pools=lambda: told.event.wait(60))
    assert deployment.assets()
    assert {"the assets" in text for text in told.texts[:-1]} == {True}


def test_a_read_that_fails_wipes_its_line(told):
    def fail():
        told.event.wait(60)
        raise ValueError("it fails")

    with pytest.raises(ValueError, match="it fails"):
        reading(told, runs=fail).runs()
    assert told.texts[-1] == "\r\x1b[2K"


SCRIPT = """
import time
from types import SimpleNamespace
from dagster_lifeguard.cli import watched_deployment
deployment = SimpleNamespace(**{name: lambda: time.sleep(0.5) for name in watched_deployment._READS})
deployment = watched_deployment.with_progress(deployment, after_seconds=0.01)
deployment.pools()
print("found")
"""


@pytest.mark.parametrize("piped", ["stdout", "stderr", None])
def test_it_is_told_where_both_outputs_are_a_terminal(piped):
    ours, theirs = pty.openpty()
    outputs = {name: theirs for name in ("stdout", "stderr") if name != piped}
    if piped is not None:
        outputs[piped] = subprocess.PIPE
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, **outputs)
    os.write(theirs, b"end")
    written = b""
    while not written.endswith(b"end"):
        written += os.read(ours, 100_000)
    os.close(theirs)
    os.close(ours)
    assert (b"Reading the pools" in written) == (piped is None)
    assert written.endswith(b"end" if piped == "stdout" else b"found\r\nend")
