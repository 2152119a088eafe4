"""Whether a PostgreSQL session is this process's own, or lent by a pooler for each transaction.

The engine needs its own: prepared statements, wake-ups and settings belong to a session. To a
client, a pooler looks like the server until another client meets what was left in the session.
"""

from __future__ import annotations

import select
import time
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

from dagster_lifeguard.errors import PoolerError

if TYPE_CHECKING:
    from collections.abc import Callable

_ROUNDS = 5
"""How many rounds are enough to detect a shared session nearly always."""

_WAKE_UP_SECONDS = 10.0
"""How long a wake-up may take through a pooler. It takes milliseconds, or never comes."""


def refused() -> PoolerError:
    """What to say where it does not."""
    return PoolerError(
        "The engine's connection goes through a pooler (PgBouncer in transaction or statement "
        "mode, or one like it) that gives its session of the server to other clients, too.",
        remedy="In the storage's configuration in dagster.yaml, set direct_url under lifeguard to "
        "the URL of the PostgreSQL server itself; or set the pooler to session mode. Nothing was "
        "granted.",
    )


def owned_server_process(raw: Any, connect: Callable[[], Any]) -> int | None:
    """Find out, behind a pooler, whether a connection keeps its session of the server.

    It does not if it is answered by several sessions, or by one that answers another connection,
    too. It does if a wake-up reaches it while it asks nothing: a pooler that shares sessions has
    lent it none then. Nothing is left in the session.

    Args:
        raw: A psycopg2 connection, on which nothing was set yet.
        connect: Opens another like it.

    Returns:
        The process id of the server's session; None if others may use it.
    """
    with closing(connect()) as other, raw.cursor() as cursor, other.cursor() as other_cursor:
        other.autocommit = True
        server_process = _server_process(cursor)
        for _ in range(_ROUNDS):
            others = _server_process(other_cursor)
            if others == server_process or _server_process(cursor) != server_process:
                return None
        channel = f"lifeguard_{uuid.uuid4().hex}"
        cursor.execute(f'LISTEN "{channel}"')
        other_cursor.execute(f'NOTIFY "{channel}"')
        is_owned = _is_woken(raw, time.monotonic() + _WAKE_UP_SECONDS)
        cursor.execute(f'UNLISTEN "{channel}"')
        raw.notifies.clear()
        return server_process if is_owned else None


def _server_process(cursor: Any) -> int:
    cursor.execute("SELECT pg_backend_pid()")
    return int(cursor.fetchone()[0])


def _is_woken(raw: Any, deadline: float) -> bool:
    ready = select.poll()
    ready.register(raw.fileno(), select.POLLIN)
    while not raw.notifies:
        left = deadline - time.monotonic()
        if left <= 0 or not ready.poll(left * 1000):
            return False
        raw.poll()
    return True
