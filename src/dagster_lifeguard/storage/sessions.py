"""The engine's sessions, read from their rows: live processes, and the owners of holdings."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as db

_SESSIONS = """
SELECT session, label, lease_until, package, tables FROM lifeguard_sessions ORDER BY started_at
"""
_OWNERS = """
SELECT s.session, s.label, s.lease_until, s.package, s.tables
FROM lifeguard_owners o JOIN lifeguard_sessions s ON s.session = o.session
WHERE o.run_id = :run_id AND (o.step_key = :step_key OR :step_key IS NULL)
UNION
SELECT s.session, s.label, s.lease_until, s.package, s.tables
FROM lifeguard_tickets t JOIN lifeguard_sessions s ON s.session = t.session
WHERE t.run_id = :run_id AND (t.step_key = :step_key OR :step_key IS NULL)
ORDER BY 2
"""


@dataclass(frozen=True)
class Process:
    """A process that holds or waits.

    Attributes:
        session: Its session.
        label: Host and process id.
        seconds_left: Of its lease; negative when it has run out.
        package: The version of its package.
        tables: The version of the tables that it knows.
    """

    session: str
    label: str
    seconds_left: float
    package: str
    tables: int


def processes(event_log: Any) -> tuple[Process, ...]:
    """The processes with a session, oldest first."""
    return _processes(event_log, _SESSIONS)


def owners(event_log: Any, run_id: str, step_key: str | None) -> tuple[Process, ...]:
    """The sessions that own holdings or waits of a run, or of one of its steps."""
    return _processes(event_log, _OWNERS, run_id=run_id, step_key=step_key)


def _processes(event_log: Any, question: str, **parameters: str | None) -> tuple[Process, ...]:
    with event_log.index_connection() as connection:
        now = time.time()
        if connection.dialect.name == "postgresql":
            (now,) = connection.execute(
                db.text("SELECT extract(epoch FROM clock_timestamp())::double precision")
            ).fetchone()
        bound = [db.bindparam(name, type_=db.String) for name in parameters]
        found = connection.execute(db.text(question).bindparams(*bound), parameters).fetchall()
    return tuple(Process(session, label, until - now, *of) for session, label, until, *of in found)
