"""Child processes end with their block, whenever a signal comes."""

import os
import signal
import subprocess
import sys

import pytest

from dagster_lifeguard.cli.flights.processes import ChildProcess, NotedSignals


class StartedAndStruck(subprocess.Popen):
    """A signal comes when the child runs and nobody has remembered it yet."""

    pids: list[int]
    number: signal.Signals

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.pids.append(self.pid)
        signal.raise_signal(self.number)


@pytest.fixture
def handlers():
    """The usual ones: a suite in the background of a shell ignores Ctrl-C.

    Once Dagster has run something in this process, SIGTERM does there what Ctrl-C does.
    """
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def child(tmp_path):
    wait_for_ever = (
        sys.executable,
        "-c",
        "import sys; sys.stdin.close(); import signal; signal.pause()",
    )
    return ChildProcess(wait_for_ever, tmp_path, dict(os.environ), tmp_path / "log")


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_during_the_start_of_a_child_ends_the_child(tmp_path, monkeypatch, number, raised):
    monkeypatch.setattr(StartedAndStruck, "pids", [], raising=False)
    monkeypatch.setattr(StartedAndStruck, "number", number, raising=False)
    monkeypatch.setattr(subprocess, "Popen", StartedAndStruck)

    def start_and_ask():
        with NotedSignals() as signals, child(tmp_path):
            signals.raise_noted()
            pytest.fail("the signal was not noted")

    with pytest.raises(raised):
        start_and_ask()
    (pid,) = StartedAndStruck.pids
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.usefixtures("handlers")
def test_what_was_noted_last_is_raised_at_the_end_of_the_block():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as raised, NotedSignals():
        signal.raise_signal(signal.SIGTERM)
    assert raised.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.usefixtures("handlers")
def test_a_second_signal_raises_at_once():
    def ask_twice():
        with NotedSignals():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("somebody asked twice")

    with pytest.raises(KeyboardInterrupt):
        ask_twice()


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with NotedSignals() as signals:
            signal.raise_signal(signal.SIGINT)
            signals.raise_noted()
    finally:
        signal.signal(signal.SIGINT, before)
