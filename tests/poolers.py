"""PgBouncer before a test's PostgreSQL, in one of its modes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psycopg2
import sqlalchemy as db

from debian import program

if TYPE_CHECKING:
    from collections.abc import Iterator

Mode = Literal["session", "transaction", "statement"]


@contextmanager
def pooler(
    server_url: str, mode: Mode, connections_max: int = 20, *, by_turns: bool = False
) -> Iterator[str]:
    """A pooler before a server.

    Args:
        server_url: The server, at a socket of its own.
        mode: What a client keeps to itself.
        connections_max: To the server, at once.
        by_turns: Whether it lends the session that was idle for longest, and not the last one.

    Yields:
        The URL through the pooler, of the same database.
    """
    server = db.make_url(server_url)
    folder = Path(tempfile.mkdtemp(prefix="lifeguard-pooler-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"""[databases]
* = host={server.query["host"]} user={server.username}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {connections_max}
server_round_robin = {int(by_turns)}
max_client_conn = 500
"""
    )
    folder.chmod(0o755)
    # It refuses to be root. The server's socket may be in a folder of the server's user.
    owner = Path(str(server.query["host"])).owner()
    user = ["--user", owner] if os.geteuid() == 0 else []
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [program("pgbouncer", "pgbouncer"), "--quiet", *user, str(settings)],
        stdout=log,
        stderr=log,
        cwd=folder,
    )
    url = server.set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False)
    try:
        _wait_until_it_answers(url, process, folder / "log")
        yield url
    finally:
        process.kill()
        process.wait()
        log.close()
        shutil.rmtree(folder)


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    while True:
        try:
            psycopg2.connect(url).close()
        except psycopg2.OperationalError as error:
            if process.poll() is not None:
                raise AssertionError(log.read_text()) from error
            time.sleep(0.05)
        else:
            return
