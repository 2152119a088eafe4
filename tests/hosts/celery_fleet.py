"""Celery workers on hosts, beside one Redis and one PostgreSQL on ``db``."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from homes import PATIENT_SECONDS, eventually, kill

from debian import program

if TYPE_CHECKING:
    from deployment_on_hosts import Deployment
    from homes import Process
    from network import Host

DEFINITIONS = Path(__file__).with_name("on_celery.py")
PORT = 6379


class Redis:
    """The broker, which writes down what it is given before it says so."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._folder = Path(tempfile.mkdtemp(prefix="lifeguard-redis-"))
        self.url = f"redis://{host.address}:{PORT}/0"
        self.start()

    def start(self) -> None:
        options = {
            "bind": self._host.address,
            "port": str(PORT),
            "protected-mode": "no",
            "save": "",
            "appendonly": "yes",
            "dir": str(self._folder),
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        with self._host:
            self._process = subprocess.Popen(
                [program("redis-server", "redis-server"), *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        import redis

        client = redis.Redis.from_url(self.url)
        eventually(lambda: self._answers(client))
        client.close()

    def _answers(self, client) -> bool:
        import redis

        assert self._process.poll() is None
        try:
            return bool(client.ping())
        except redis.exceptions.ConnectionError:
            return False

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENT_SECONDS)

    def delete(self) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder)


@dataclass
class Fleet:
    """Workers, run workers, and what they all share.

    Attributes:
        hosts: The deployment: database, home, marks.
        redis: The broker.
        workers: The Celery workers, by host.
    """

    hosts: Deployment
    redis: Redis
    workers: dict[str, Process] = field(default_factory=dict)

    @property
    def _environment(self) -> dict[str, str]:
        return {"MARKS": str(self.hosts.marks.path), "BROKER": self.redis.url}

    def start_worker(self, host: str, children: int) -> None:
        """Start a Celery worker, with so many child processes, and wait until it is ready."""
        config = self.hosts.home.path / "dagster_celery_config.py"
        config.write_text(f"broker_url = result_backend = {self.redis.url!r}\n")
        command = ("celery", "--app", "dagster_celery.app", "worker", "--loglevel", "info")
        with self.hosts.network[host]:
            worker = self.hosts.home.start(
                *command,
                "--queues",
                "dagster",
                "--hostname",
                host,
                "--concurrency",
                str(children),
                **self._environment,
            )
        self.workers[host] = worker

        def is_ready() -> bool:
            assert worker.popen.poll() is None, worker.output()
            return "ready." in worker.output()

        eventually(is_ready)

    def run(self, host: str, what: str, *arguments: str, **environment: str) -> Process:
        """Start a run worker on a host: of the asset, or of the job ``brief``."""
        kind = (
            ("job", "execute", "-j", what)
            if what == "brief"
            else ("asset", "materialize", "--select", what)
        )
        with self.hosts.network[host]:
            process = self.hosts.home.start(
                "dagster", *kind, "-f", str(DEFINITIONS), *arguments,
                **self._environment, **environment,
            )  # fmt: skip
        self.hosts.workers[what] = process
        return process

    def kill_worker(self, host: str) -> None:
        """End a Celery worker and its children at once."""
        self.workers[host].end()

    def cancel(self, process: Process) -> None:
        """As Dagster's run launcher does: interrupt the run worker."""
        kill(process.popen.pid, signal.SIGINT)

    def close(self) -> None:
        for worker in self.workers.values():
            worker.end()
        self.redis.delete()
