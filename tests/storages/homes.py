"""A DAGSTER_HOME on the storages, definitions that a test steers, and real Dagster processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
import yaml
from preloaded import BIN, Forked, preloaded, python_environment, usual_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dagster_lifeguard.engine.rules.model import PoolSnapshot, TicketKey

PATIENT_SECONDS = 300.0
DEFINITIONS = Path(__file__).with_name("deployed.py")


def eventually(condition: Callable[[], Any], seconds: float = PATIENT_SECONDS) -> Any:
    """Wait for a condition, and give back what made it true.

    Most of the time is left to the processes that are to make it true: the longer it takes, the
    less often is looked.
    """
    begun = time.monotonic()
    while True:
        looked = time.monotonic()
        found = condition()
        if found:
            return found
        now = time.monotonic()
        assert now < begun + seconds, f"still not: {condition}"
        time.sleep(max(0.05, 3 * (now - looked), min(1.0, (now - begun) / 10)))


@dataclass
class Process:
    """A process that a test started; whatever it started goes with it."""

    popen: subprocess.Popen | Forked
    log: Path

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, seconds: float = PATIENT_SECONDS) -> int:
        return self.popen.wait(seconds)

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


@dataclass
class Home:
    """A DAGSTER_HOME.

    Attributes:
        path: The directory.
        stock: The stanza of the stock storage.
        kind: ``sqlite`` or ``postgres``.
        lease_seconds: Of the engine.
        settings: More settings of ``dagster.yaml``.
        on_lease_lost: Of the engine.
    """

    path: Path
    kind: str
    stock: dict[str, Any]
    lease_seconds: float = 30.0
    settings: dict[str, Any] = field(default_factory=dict)
    on_lease_lost: str = "terminate"
    processes: list[Process] = field(default_factory=list)

    def storage(self) -> dict[str, Any]:
        ((_, config),) = self.stock.items()
        options = {
            "lease_seconds": float(self.lease_seconds),
            "on_lease_lost": self.on_lease_lost,
        }
        return {
            "custom": {
                "module": "dagster_lifeguard.storage",
                "class": f"Lifeguard{self.kind.capitalize()}Storage",
                "config": {**config, "lifeguard": options},
            }
        }

    def write(self, *, stock: bool = False) -> None:
        text = {
            "telemetry": {"enabled": False},
            "storage": self.stock if stock else self.storage(),
            # Else what a run prints passes through a `tail` that Dagster ends with the run, whether
            # or not it has read the last lines (dagster issue 23336).
            "compute_logs": {
                "module": "dagster._core.storage.noop_compute_log_manager",
                "class": "NoOpComputeLogManager",
            },
            **self.settings,
        }
        (self.path / "dagster.yaml").write_text(yaml.safe_dump(text))

    @property
    def control(self) -> Path:
        """Where a test and the steps of ``deployed.py`` leave each other files."""
        path = self.path / "control"
        path.mkdir(exist_ok=True)
        return path

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "DAGSTER_HOME": str(self.path),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "CONTROL": str(self.control),
            **python_environment(),
        }

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        with dg.DagsterInstance.from_config(str(self.path)) as instance:
            yield instance

    def start(self, *command: str, **environment: str) -> Process:
        log = self.path / f"process{len(self.processes)}.log"
        whole = {**self.environment, **environment}
        source = preloaded(os.getpid())
        with log.open("wb") as stream:
            if source.can_start(command, whole):
                popen = source.start(command, whole, self.path, stream.fileno())
            else:
                popen = subprocess.Popen(
                    [str(BIN / command[0]), *command[1:]],
                    env=whole,
                    cwd=self.path,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=usual_signals,  # noqa: PLW1509
                )
        process = Process(popen, log)
        self.processes.append(process)
        return process

    def run(self, *command: str) -> str:
        process = self.start(*command)
        assert process.wait() == 0, process.output()
        return process.output()

    def materialize(
        self, asset: str, definitions: Path = DEFINITIONS, **environment: str
    ) -> Process:
        return self.start(
            "dagster", "asset", "materialize", "-f", str(definitions), "--select", asset,
            **environment,
        )  # fmt: skip

    def started(self, count: int = 1, asset: str = "held") -> dict[str, int]:
        """Wait until so many steps execute: run ids and the processes of the steps."""

        def look() -> dict[str, int]:
            found = self.begun(asset)
            return found if len(found) >= count else {}

        return eventually(look)

    def begun(self, asset: str = "held") -> dict[str, int]:
        """The steps that began so far: run ids and the processes of the steps."""
        paths = self.control.glob(f"{asset}.*.started")
        return {path.name.split(".")[1]: int(path.read_text()) for path in paths}

    def go(self, asset: str = "held") -> None:
        """Let the asset's steps end, those that began and those that will."""
        (self.control / f"{asset}.go").touch()

    def close(self) -> None:
        for process in self.processes:
            process.end()


def limit(home: Home, slots: int = 1, pool: str = "orders") -> None:
    with home.instance() as instance:
        instance.event_log_storage.set_concurrency_slots(pool, slots)


def holders(instance: dg.DagsterInstance, pool: str = "orders") -> list[TicketKey]:
    """Who holds, the run and the step of each."""
    return [holding.key for holding in _snapshot(instance, pool).holdings]


def waiters(instance: dg.DagsterInstance, pool: str = "orders") -> list[TicketKey]:
    """Who waits, the run and the step of each."""
    return [ticket.key for ticket in _snapshot(instance, pool).waiting]


def owners(instance: dg.DagsterInstance, run_id: str, step_key: str = "held") -> frozenset[str]:
    """The owners of the run's holding, once another process has claimed."""
    engine = cast("Any", instance.event_log_storage).lifeguard.engine
    engine.reap()
    holding = engine.ticket(run_id, step_key)
    return holding.owners if holding is not None else frozenset()


@contextmanager
def stopped(
    instance: dg.DagsterInstance, run_id: str, step_key: str, pids: set[int]
) -> Iterator[None]:
    """Processes of a step, all of which own its slots, stopped for the length of a block."""
    eventually(lambda: len(owners(instance, run_id, step_key)) == len(pids))
    for pid in pids:
        kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            kill(pid, signal.SIGCONT)


def _snapshot(instance: dg.DagsterInstance, pool: str) -> PoolSnapshot:
    return cast("Any", instance.event_log_storage).lifeguard.engine.snapshot(pool)


def kill(pid: int, sign: int = signal.SIGKILL) -> None:
    os.kill(pid, sign)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def serve(home: Home, port: int, *options: str) -> None:
    """Start a webserver, and wait until it answers."""
    command = ("dagster-webserver", "-f", str(DEFINITIONS), "-p", str(port), "-h", "127.0.0.1")
    process = home.start(*command, *options)

    def up() -> bool:
        assert process.popen.poll() is None, process.output()
        try:
            return bool(query(port, "{ version }"))
        except OSError:
            return False

    eventually(up)


def query(port: int, text: str, **variables: Any) -> dict[str, Any]:
    """Ask a webserver."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": text, "variables": variables}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=300) as response:
        answer = json.load(response)
    assert "errors" not in answer, answer
    return answer["data"]
