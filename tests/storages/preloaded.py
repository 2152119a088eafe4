"""Commands in processes of their own that need not import Dagster: forks of one that has.

An import costs more than most of what a test has a process do. A fork is as much a process as any
other: it has an id, a group, an environment and signals of its own, and it ends as Python does.

Run as a script, this is the process that forks. It has one thread and has used nothing yet.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import os
import pickle
import runpy
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path

BIN = Path(sys.executable).parent
MODULES = (
    "dagster._cli",
    "dagster._grpc.server",
    "dagster_lifeguard.cli",
    "dagster_lifeguard.cli.check",
    "dagster_lifeguard.storage",
    "dagster_postgres",
    "dagster_webserver.cli",
)
COMMANDS = ("dagster", "dagster-webserver", "lifeguard", "python")
"""Not ``dagster-daemon``, which ``lifeguard doctor`` knows by the command line it was started with."""
NETWORK = Path("/proc/thread-self/ns/net")
_LENGTH = struct.Struct("!I")


class Forked:
    """As much of ``subprocess.Popen`` as a test needs."""

    def __init__(self, args: list[str], pid: int, preloaded: Preloaded) -> None:
        self.args = args
        self.pid = pid
        self.returncode: int | None = None
        self._preloaded = preloaded

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._preloaded.ask(("status", self.pid))
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.01)
        return self.returncode


class Preloaded:
    """The process that forks, as seen from the tests."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._asking = threading.Lock()
        self._fixed = _what_is_fixed(environment)
        self._mounts, self._network = _namespace("mnt"), _namespace("net")
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        atexit.register(self.close)

    def can_start(self, command: tuple[str, ...], environment: dict[str, str]) -> bool:
        """Whether a fork would be the same as a process of this command."""
        return (
            Path(command[0]).name in COMMANDS
            and not (Path(command[0]).name == "python" and command[1].startswith("-"))
            and _what_is_fixed(environment) == self._fixed
            and _namespace("mnt") == self._mounts
        )

    def start(
        self, command: tuple[str, ...], environment: dict[str, str], folder: Path, output: int
    ) -> Forked:
        words = [str(BIN / command[0]), *command[1:]]
        if Path(command[0]).name == "python":
            words = words[1:]
        question = ("start", words, environment, str(folder))
        if _namespace("net") == self._network:
            return Forked(words, self.ask(question, output), self)
        with NETWORK.open("rb") as network:
            return Forked(words, self.ask(question, output, network.fileno()), self)

    def ask(self, question: tuple, *descriptors: int):
        with self._asking:
            _send(self._socket, question, descriptors)
            return _receive(self._socket)[0]

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


@cache
def preloaded(owner: int) -> Preloaded:
    """The one of this process, whose id this is: a fork of it needs its own."""
    return Preloaded({**os.environ, **python_environment()})


def python_environment() -> dict[str, str]:
    """What Python reads when a process begins: the modules of the tests, and no warnings."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return {"PYTHONPATH": paths, "PYTHONWARNINGS": "ignore"}


def usual_signals() -> None:
    """Listen again to what a shell told the tests to ignore: in the background, or under nohup."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _what_is_fixed(environment: dict[str, str]) -> dict[str, str]:
    """The variables that Python and Dagster read before the first line of a command."""
    names = ("PYTHON", "LD_", "DAGSTER_EVENT_LOG_CONSUMER", "FRESHNESS_DAEMON")
    return {name: value for name, value in environment.items() if name.startswith(names)}


def _namespace(kind: str) -> str:
    """The mounts or the network that a process of this thread is born into."""
    link = NETWORK.with_name(kind)
    return str(link.readlink()) if link.exists() else ""


def _send(to: socket.socket, value: object, descriptors: tuple[int, ...] = ()) -> None:
    text = pickle.dumps(value)
    length = _LENGTH.pack(len(text))
    if descriptors:
        socket.send_fds(to, [length], list(descriptors))
    else:
        to.sendall(length)
    to.sendall(text)


def _receive(source: socket.socket) -> tuple:
    """What was sent, and the descriptors with it. Raises ``EOFError`` when the other end is gone."""
    head, descriptors, _, _ = socket.recv_fds(source, _LENGTH.size, 2)
    if not head:
        raise EOFError
    head += _read(source, _LENGTH.size - len(head))
    return pickle.loads(_read(source, *_LENGTH.unpack(head))), descriptors


def _read(source: socket.socket, length: int) -> bytes:
    text = bytearray()
    while len(text) < length:
        more = source.recv(length - len(text))
        if not more:
            raise EOFError
        text += more
    return bytes(text)


def _serve(asked: socket.socket) -> str | None:
    """Fork when asked to. Returns in each fork the script to run, and at the end nothing."""
    while True:
        try:
            (what, *rest), descriptors = _receive(asked)
        except (EOFError, ConnectionError):
            return None
        if what == "status":
            pid, status = os.waitpid(rest[0], os.WNOHANG)
            _send(asked, os.waitstatus_to_exitcode(status) if pid else None)
            continue
        pid = os.fork()
        if pid == 0:
            asked.close()
            return _become(*rest, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        _send(asked, pid)


def _become(
    words: list[str],
    environment: dict[str, str],
    folder: str,
    output: int,
    network: int | None = None,
) -> str:
    """What ``exec`` would have done."""
    os.setsid()
    if network is not None:
        if ctypes.CDLL(None, use_errno=True).setns(network, 0):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(network)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.argv = words
    sys.path[0] = str(Path(words[0]).parent)
    return words[0]


def main(descriptor: str) -> None:
    usual_signals()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # As Python does when it begins.
    for name in MODULES:
        importlib.import_module(name)
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()
    script = _serve(socket.socket(fileno=int(descriptor)))
    if script is not None:
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
