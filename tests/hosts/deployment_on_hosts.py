"""Workers on hosts, beside one server, and what a test wants to know of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg2
from homes import eventually, limit, waiters
from marks import fences_grow, overlaps

if TYPE_CHECKING:
    from database import HostServer
    from homes import Home, Process
    from marks import Execution, Marks
    from network import Network

WORKERS = Path(__file__).with_name("on_hosts.py")
POOL = "orders"


@dataclass
class Deployment:
    """Workers on hosts, beside one server on ``db``, with one pool of limit 1.

    Attributes:
        network: The hosts.
        server: The server.
        home: What all workers read; its database is reached over the network alone.
        marks: What executions leave.
        workers: The processes that were started, by name.
    """

    network: Network
    server: HostServer
    home: Home
    marks: Marks
    workers: dict[str, Process] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limit(self.home, 1, POOL)

    def run(self, host: str, name: str, executor: str = "in_process", **environment: str) -> None:
        """Start a run of the asset ``name`` on a host."""
        with self.network[host]:
            self.workers[name] = self.home.materialize(
                name, WORKERS, EXECUTOR=executor, **self._environment, **environment
            )

    def script(self, host: str, *arguments: str, **environment: str) -> None:
        """Start a script on a host; see ``on_hosts.py``."""
        with self.network[host]:
            self.workers[arguments[1]] = self.home.start(
                "python", str(WORKERS), *arguments, **self._environment, **environment
            )

    def begin(self, kind: str, host: str, name: str, **environment: str) -> None:
        """Start whoever asks for the slot and then holds it until ``go``.

        Args:
            kind: ``script``, or the executor of a run, or ``talking`` for a run whose step writes
                to Dagster's event log all the time.
            host: Where.
            name: ``first`` or ``next``.
            environment: More variables of its environment.
        """
        if kind == "script":
            self.script(host, "hold", name, **environment)
        elif kind == "talking":
            self.run(host, name, "multiprocess", TALKS="1", GRACE_SECONDS="1", **environment)
        else:
            self.run(host, name, kind, **environment)

    @property
    def _environment(self) -> dict[str, str]:
        return {"MARKS": str(self.marks.path)}

    def go(self, name: str) -> None:
        self.home.go(name)

    def executes(self, name: str) -> Execution:
        """Wait until user code of this name executes."""

        def look() -> list[Execution]:
            self.watch(name)
            return self.marks.executions(name)

        return eventually(look)[-1]

    def waits(self, name: str) -> None:
        """Wait until it waits for the slot."""
        with self.home.instance() as instance:
            eventually(lambda: self.watch(name) or waiters(instance, POOL))

    def watch(self, name: str) -> None:
        process = self.workers[name]
        assert process.popen.poll() is None, process.output()

    def stops(self, name: str) -> Execution:
        """Wait until user code that began is over: ended, interrupted, or gone with its process."""

        def look() -> Execution | None:
            execution = self.marks.executions(name)[-1]
            if execution.how == "work" and _exists(execution.pid):
                return None
            return self.marks.executions(name)[-1]

        return eventually(look)

    def ends(self, name: str, *, well: bool = True) -> None:
        """Wait for the process to end, well or not."""
        process = self.workers[name]
        assert (process.wait() == 0) == well, process.output()

    def beats(self, pid: int, count: int = 1) -> None:
        """Wait until heartbeats of a process were answered, after any that was by now."""
        for _ in range(count):
            before = self._lease_until(pid)
            eventually(lambda before=before: self._lease_until(pid) > before)

    def _lease_until(self, pid: int) -> float:
        found = self.sql(
            f"SELECT max(lease_until) FROM lifeguard_sessions WHERE label LIKE '%:{pid}'"
        )
        assert found[0][0] is not None, f"process {pid} has no session"
        return found[0][0]

    def sql(self, text: str) -> list[tuple]:
        connection = psycopg2.connect(self.url)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(text)
                return cursor.fetchall()
        finally:
            connection.close()

    @property
    def url(self) -> str:
        ((_, config),) = self.home.stock.items()
        return config["postgres_url"].replace("+psycopg2", "")

    def assert_one_at_a_time(self) -> None:
        """By what the executions left: never two at once, and fences grow."""
        executions = self.marks.executions()
        beside = overlaps(executions)
        assert not beside, "; ".join(beside)
        assert fences_grow(executions), executions


def _exists(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
