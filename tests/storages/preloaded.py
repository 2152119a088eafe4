"""Commands in processes of their own that need not import Dagster: forks of one that has.

An import costs more than most of what a test has a process do. A fork is as much a process as any
other: it has an id, a group, an environment and signals of its own, and it ends as Python does, but for
the taking to pieces of all modules.

Run as a script, this is the process that forks. It has one thread and has used nothing yet. What is
forked starts processes itself: run workers, steps, servers of code. Each therefore has a companion, a
fork of its first moment, which forks these in its name.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import gc
import importlib
import multiprocessing.util
import os
import pickle
import pkgutil
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

BIN = Path(sys.executable).parent
MODULES = (
    "dagster._api.snapshot_repository",
    "dagster._cli",
    "dagster._core.definitions.antlr_asset_selection.antlr_asset_selection",
    "dagster._core.executor.child_process_executor",
    "dagster._core.executor.in_process",
    "dagster._core.instance.factory",
    "dagster._core.instance.runs.run_domain",
    "dagster._core.storage.migration.utils",
    "dagster._core.storage.noop_compute_log_manager",
    "dagster._core.storage.root",
    "dagster._daemon.cli",
    "dagster._daemon.daemon",
    "dagster._grpc.client",
    "dagster._grpc.server",
    "dagster_postgres",
    "dagster_webserver.cli",
    "multiprocessing.popen_spawn_posix",
    "multiprocessing.synchronize",
    "upath.implementations.local",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.h11_impl",
    "uvicorn.protocols.http.httptools_impl",
)
"""What commands import while they run, beside all modules of this package."""
COMMANDS = ("dagster", "dagster-daemon", "dagster-webserver", "lifeguard", "python")
ANEW = {"STARTED_ANEW": "1"}
"""The environment of a command that is started, with all that it starts, where a fork would differ.

The kernel tells of forks the command line and the environment of what forked them.
"""
NETWORK = Path("/proc/thread-self/ns/net")
_LENGTH = struct.Struct("!I")
_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER
_KERNEL = ctypes.CDLL(None, use_errno=True)


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
        if self.poll() is None:
            # The id is not yet another's: who forked it has not waited for it.
            ended = os.pidfd_open(self.pid)
            try:
                if not select.select([ended], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired(self.args, timeout)
            finally:
                os.close(ended)
        while self.poll() is None:
            time.sleep(0.001)
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
        self,
        command: tuple[str, ...],
        environment: dict[str, str],
        folder: Path,
        output: int,
        errors: int | None = None,
    ) -> Forked:
        words = [str(BIN / command[0]), *command[1:]]
        if Path(command[0]).name == "python":
            words = words[1:]
        start = {
            "words": words,
            "environment": environment,
            "folder": str(folder),
            "leads": True,
            "numbers": (1, 2),
        }
        streams = (output, output if errors is None else errors)
        if _namespace("net") == self._network:
            return Forked(words, self.ask(("start", start), *streams), self)
        with NETWORK.open("rb") as network:
            start["network"] = True
            question = ("start", start)
            return Forked(words, self.ask(question, *streams, network.fileno()), self)

    def output_of(self, words: list[str]) -> tuple[str, int]:
        """What ``python`` prints when it runs these words here, and its exit code."""
        environment = {**os.environ, **self._fixed}
        with tempfile.TemporaryFile() as printed:
            process = self.start(("python", *words), environment, Path.cwd(), printed.fileno())
            code = process.wait()
            printed.seek(0)
            return printed.read().decode(), code

    def spawn(self, words: list[str], numbers: tuple[int, ...]) -> int:
        """Start a child of this process, as ``multiprocessing`` does. Returns its id."""
        start = {
            "words": words,
            "environment": {**os.environ, **python_environment()},
            "folder": str(Path.cwd()),
            "leads": False,
            "numbers": numbers,
        }
        with _adopting_orphans():
            return self.ask(("start for who asks", start), *numbers)

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


def fork_what_is_spawned() -> None:
    """Let ``multiprocessing`` spawn forks of a process that has imported Dagster."""
    spawn = multiprocessing.util.spawnv_passfds

    def spawned(path: bytes | str, args: list, descriptors: list[int]) -> int:
        source = preloaded(os.getpid())
        words = [os.fsdecode(word) for word in args[1:]]
        if not source.can_start(("python", "spawned"), {**os.environ, **python_environment()}):
            return spawn(path, args, descriptors)
        return source.spawn(_without_flags(words), tuple({0, 1, 2, *map(int, descriptors)}))

    multiprocessing.util.spawnv_passfds = spawned


def python_environment() -> dict[str, str]:
    """What Python reads when a process begins: the modules of the tests, and no warnings."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return {"PYTHONPATH": paths, "PYTHONWARNINGS": "ignore"}


def read_revisions_once() -> None:
    """Keep the versions of Dagster's tables, all files of which it reads whenever it opens them."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from dagster._core.storage.sql import ALEMBIC_SCRIPTS_LOCATION

    read, known = ScriptDirectory.from_config, {}

    def read_once(config: Config) -> ScriptDirectory:
        location = config.get_main_option("script_location")
        if location not in known:
            known[location] = read(config)
        return known[location]

    ScriptDirectory.from_config = read_once
    dagster = Config()
    dagster.set_main_option("script_location", ALEMBIC_SCRIPTS_LOCATION)
    read_once(dagster).get_heads()


def usual_signals() -> None:
    """Listen again to what a shell told the tests to ignore: in the background, or under nohup."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _what_is_fixed(environment: dict[str, str]) -> dict[str, str]:
    """The variables that Python and Dagster read before the first line of a command."""
    names = ("PYTHON", "LD_", "DAGSTER_EVENT_LOG_CONSUMER", "FRESHNESS_DAEMON", *ANEW)
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
    head, descriptors, _, _ = socket.recv_fds(source, _LENGTH.size, 64)
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


def _serve(asked: socket.socket, *, for_parent: bool = False) -> list[str] | None:
    """Fork when asked to. Returns in each fork the words to run, and at the end nothing.

    Args:
        asked: Where questions come from.
        for_parent: Whether the forks are to be children of the process that asks.
    """
    while True:
        try:
            (what, about), descriptors = _receive(asked)
        except (EOFError, ConnectionError):
            return None
        if what == "status":
            pid, status = os.waitpid(about, os.WNOHANG)
            _send(asked, os.waitstatus_to_exitcode(status) if pid else None)
            continue
        pid = _fork_orphan() if for_parent or what == "start for who asks" else os.fork()
        if pid == 0:
            asked.close()
            return _become(about, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        _send(asked, pid)


@contextmanager
def _adopting_orphans() -> Iterator[None]:
    """Make this process the parent of what is forked as an orphan meanwhile."""
    _KERNEL.prctl(_ADOPT_ORPHANS, 1, 0, 0, 0)
    try:
        yield
    finally:
        _KERNEL.prctl(_ADOPT_ORPHANS, 0, 0, 0, 0)


def _without_flags(words: list[str]) -> list[str]:
    """The words of a command after the flags that this Python was started with."""
    same = subprocess._args_from_interpreter_flags()
    return words[len(same) :] if words[: len(same)] == same else words


def _fork_orphan() -> int:
    """Fork a process whose parent has ended: then it is a child of who adopts orphans."""
    reading, writing = os.pipe()
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        os.close(writing)
        (pid,) = _LENGTH.unpack(os.read(reading, _LENGTH.size))
        os.close(reading)
        return pid
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.write(writing, _LENGTH.pack(pid))
        os._exit(0)
    while os.getppid() == parent:
        os.sched_yield()
    os.close(reading)
    os.close(writing)
    return 0


def _become(start: dict[str, Any], descriptors: list[int]) -> list[str] | None:
    """What ``exec`` would have done. Returns the words to run."""
    if start["leads"]:
        os.setsid()
    if start.get("network"):
        network = descriptors.pop()
        if _KERNEL.setns(network, 0):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(network)
    # Above the numbers that they are to have, of which some may be taken by others of them.
    free = max(start["numbers"]) + 1
    copies = [fcntl.fcntl(number, fcntl.F_DUPFD, free) for number in descriptors]
    for number in descriptors:
        os.close(number)
    for copy, number in zip(copies, start["numbers"], strict=True):
        os.dup2(copy, number)
        os.close(copy)
    os.chdir(start["folder"])
    os.environ.clear()
    os.environ.update(start["environment"])
    time.tzset()
    return _with_companion(start["words"], start["numbers"])


def _with_companion(words: list[str], numbers: tuple[int, ...]) -> list[str] | None:
    """Fork what forks in the name of this process. Returns the words to run, in its forks too."""
    ours, theirs = socket.socketpair()
    if os.fork():
        theirs.close()
        Companion(ours).start_what_this_process_starts()
        return words
    try:
        ours.close()
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in {0, 1, 2, *numbers}:
            os.dup2(nothing, number)
            if number > 2:
                os.close(number)
        os.close(nothing)
        words = _serve(theirs, for_parent=True)
    except BaseException:  # noqa: BLE001
        os._exit(1)
    if words is None:
        os._exit(0)
    return words


class Companion:
    """What forks in the name of this process, as this process sees it."""

    def __init__(self, asking: socket.socket) -> None:
        self._asking, self._owner = asking, os.getpid()
        self._one_at_a_time = threading.Lock()
        self._fixed = _what_is_fixed(dict(os.environ))

    def start_what_this_process_starts(self) -> None:
        """Take the place of ``exec`` in ``subprocess`` and in ``multiprocessing``."""
        spawn, execute = multiprocessing.util.spawnv_passfds, subprocess.Popen._execute_child

        def spawned(path: bytes | str, args: list, descriptors: list[int]) -> int:
            words = [os.fsdecode(word) for word in args[1:]]
            numbers = dict.fromkeys((0, 1, 2, *map(int, descriptors)))
            environment = dict(os.environ)
            pid = os.fsdecode(path) == sys.executable and self.start(
                words, environment, str(Path.cwd()), {number: number for number in numbers}
            )
            return pid or spawn(path, args, descriptors)

        def executed(
            popen, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo,
            flags, shell, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite,
            restore_signals, gid, gids, uid, umask, start_new_session, *group,
        ) -> None:  # fmt: skip
            usual = (
                isinstance(args, list | tuple)
                and args[0] == sys.executable
                and (executable, preexec_fn, gid, gids, uid) == (None,) * 5
                and (close_fds, bool(shell), umask, group)
                in [(True, False, -1, g) for g in ((), (-1,))]
            )
            pipes = (p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
            numbers = {number: number for number in pass_fds}
            for number, end in enumerate((p2cread, c2pwrite, errwrite)):
                numbers[number] = number if end == -1 else end
            pid = usual and self.start(
                [os.fsdecode(word) for word in args[1:]],
                dict(os.environ if env is None else env),
                os.fsdecode(cwd or Path.cwd()),
                numbers,
                leads=start_new_session,
            )
            if not pid:
                execute(
                    popen, args, executable, preexec_fn, close_fds, pass_fds, cwd, env,
                    startupinfo, flags, shell, *pipes,
                    restore_signals, gid, gids, uid, umask, start_new_session, *group,
                )  # fmt: skip
                return
            popen.pid, popen._child_created = pid, True
            popen._close_pipe_fds(*pipes)

        multiprocessing.util.spawnv_passfds = spawned
        subprocess.Popen._execute_child = executed

    def start(
        self,
        words: list[str],
        environment: dict[str, str],
        folder: str,
        numbers: dict[int, int],
        *,
        leads: bool = False,
    ) -> int | None:
        """Start a child of this process that runs Python. Returns its id, or nothing."""
        words = _without_flags(words)
        known = words and (words[0] in ("-c", "-m") or not words[0].startswith("-"))
        if not known or os.getpid() != self._owner or _what_is_fixed(environment) != self._fixed:
            return None
        start = {
            "words": words,
            "environment": environment,
            "folder": folder,
            "leads": leads,
            "numbers": tuple(numbers),
        }
        with self._one_at_a_time, suppress(OSError, EOFError), _adopting_orphans():
            _send(self._asking, ("start", start), tuple(numbers.values()))
            return _receive(self._asking)[0]
        return None


def _run(words: list[str]) -> None:
    """What ``python`` does with these words."""
    first, *rest = words
    if first == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.path[0] = ""
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        sys.argv = rest
        sys.path[0] = str(Path.cwd())
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path[0] = str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")


def main(descriptor: str) -> None:
    for name in (*MODULES, *_own_modules()):
        with suppress(ModuleNotFoundError):  # Not every Dagster has all of them.
            importlib.import_module(name)
    read_revisions_once()
    _let_steps_pause()
    _let_backfills_begin_soon()
    _execute_once()
    _compile_templates()
    usual_signals()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # As Python does when it begins.
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()
    words = _serve(socket.socket(fileno=int(descriptor)))
    if words is not None:
        try:
            _run(words)
        except SystemExit as end:
            if not isinstance(end.code, int | None):
                raise
            _end(end.code or 0)
        _end(0)


def _own_modules() -> Iterator[str]:
    package = importlib.import_module("dagster_lifeguard")
    for found in pkgutil.walk_packages(package.__path__, "dagster_lifeguard."):
        if not found.name.endswith("__main__"):
            yield found.name


def _let_steps_pause() -> None:
    """Keep steps that wait for Dagster's own slots from asking all the time whether to ask again."""
    from dagster._core.execution.plan import instance_concurrency_context as module

    def interval(self: Any) -> float:
        until_next = min(self._pending_timeouts.values(), default=0.0) - time.time()
        return min(0.05, max(0.0, until_next))

    module.InstanceConcurrencyContext.interval_to_next_pending_claim_check = interval


def _let_backfills_begin_soon() -> None:
    """Let the daemon look for backfills every two seconds, not every thirty."""
    from dagster._daemon import controller

    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 2


def _execute_once() -> None:
    """Fill what Dagster keeps from its first execution on."""
    import dagster as dg

    @dg.asset(pool="once")
    def once() -> None: ...

    quiet = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([once], instance=instance, run_config=quiet)
    tempfile.tempdir = None  # Each fork looks into its own environment.


def _compile_templates() -> None:
    """Fill what the page keeps from the first visit on."""
    from dagster_lifeguard.web.rendering import Templates

    environment = Templates().environment
    for name in environment.list_templates(extensions=["html"]):
        environment.get_template(name)


def _end(code: int) -> None:
    """End as Python does, but leave it to the kernel to take all modules to pieces.

    A fork would first have to copy each of their pages.
    """
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    main(*sys.argv[1:])
