"""Where slots are asked for: inside a step, by its context, or in a script, by a client."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import uuid
import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster import DagsterInstance
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from dagster_lifeguard.client.asking import AskingEngine, AskingStock
from dagster_lifeguard.client.slots_held import Desk, Slots
from dagster_lifeguard.compat.contexts import step_of
from dagster_lifeguard.compat.storages import database_errors
from dagster_lifeguard.engine.forks import ProcessLock
from dagster_lifeguard.engine.rules.model import SCRIPT_RUN, TicketKey
from dagster_lifeguard.errors import ConfigError, StoreUnavailableError, first_line
from dagster_lifeguard.storage.event_log import PoolMethods

if TYPE_CHECKING:
    from typing_extensions import Self

STORAGES = "dagster_lifeguard.storage"

_desks: weakref.WeakKeyDictionary[Any, Desk] = weakref.WeakKeyDictionary()
_lock = ProcessLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_desks.clear)  # Their threads are not in a fork.


def slots(
    context: Any,
    pool: str,
    n: int = 1,
    *,
    timeout: float | None = None,
    client: LifeguardClient | None = None,
) -> Slots:
    """Hold slots of a pool during a block inside a step.

    ``with slots(context, "stripe_api"): ...`` or ``async with``. Waits until the slots are free,
    without spinning, and without blocking the event loop. The slots are released at the end of the
    block, or by the lease if the process dies. They are requested with the run's priority.

    Args:
        context: The context of an asset, op or asset check in a run, or of ``handle_output``.
        pool: The pool, or an expression of several pools, which are granted together. If a pool
            with exactly this name has a limit or a rate of its own, the text means that pool.
        n: How many slots of each pool.
        timeout: The largest number of seconds to wait; None waits for ever, 0 tries once.
        client: The client whose pools to use; None uses the pools of the step's instance.

    Raises:
        SlotsTimeoutError: The slots were not free in time.
        DeadlockError: The wait would never end, see ``deadlock``.
        ConfigError: The context belongs to no step, or the demand is not possible here.
    """
    step = step_of(context)
    if step is None:
        raise ConfigError(
            f"A {type(context).__name__} belongs to no step that Dagster executes.",
            remedy="Use the context of an asset, op or asset check in a run; in a script, a "
            "LifeguardClient.",
        )
    base = TicketKey(step.run_id, step.step_key)
    if client is not None:
        return Slots(client.desk, base, pool, n, timeout, step.priority)
    event_log = step.instance.event_log_storage
    if isinstance(event_log, PoolMethods):  # A graph asset may hold one ticket for all its steps.
        base = event_log.lifeguard.tickets.of(base)
    return Slots(_desk(event_log), base, pool, n, timeout, step.priority)


class LifeguardClient:
    """Slots for a script: ``with LifeguardClient.from_home() as client: ...``.

    Args:
        instance: Whose pools to use. It is left open.
        name: What the script is called where holders are shown; the name of its file by default.
    """

    def __init__(self, instance: DagsterInstance, name: str | None = None) -> None:
        self._instance = instance
        self._is_own = False
        run_id = f"{SCRIPT_RUN}{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self._base = TicketKey(run_id, name or Path(sys.argv[0] or "script").name)

    @classmethod
    def from_home(cls, name: str | None = None) -> Self:
        """A client of the instance in ``DAGSTER_HOME``, which is closed with it."""
        client = cls(DagsterInstance.get(), name)
        client._is_own = True
        return client

    @classmethod
    def from_url(
        cls, url: str, name: str | None = None, *, default_limit: int | None = None
    ) -> Self:
        """A client of an engine on a PostgreSQL database of its own, beside any Dagster.

        The tables are made if they are missing. Make one client for a process and keep it.

        Args:
            url: ``postgresql://user:password@host:port/database``.
            name: What a script is called where holders are shown; the name of its file by default.
            default_limit: Of the pools that have no limit of their own; None: these are unlimited.

        Raises:
            ConfigError: This is no such URL, or dagster-postgres is not installed.
            StoreUnavailableError: The database does not answer.
        """
        folder = tempfile.TemporaryDirectory(prefix="lifeguard-")
        Path(folder.name, "dagster.yaml").touch()  # Without one Dagster warns.
        config = {"postgres_url": _psycopg2_url(url)}
        storage = {"module": STORAGES, "class": "LifeguardPostgresStorage", "config": config}
        overrides: dict[str, Any] = {"storage": {"custom": storage}}
        if default_limit is not None:
            overrides["concurrency"] = {"pools": {"default_limit": default_limit}}
        try:
            instance = DagsterInstance.local_temp(folder.name, overrides=overrides)
        except database_errors() as error:
            raise StoreUnavailableError(
                f"The database of the slots did not answer: {first_line(error)}.",
                remedy="Check that it runs, that it is reachable from here, and the URL.",
            ) from error
        client = cls(instance, name)
        client._is_own = True
        weakref.finalize(client, folder.cleanup)
        return client

    @property
    def desk(self) -> Desk:
        """Where its slots are asked for."""
        return _desk(self._instance.event_log_storage)

    def slots(
        self, pool: str, n: int = 1, *, timeout: float | None = None, priority: int = 0
    ) -> Slots:
        """The same as the function ``slots``, with a priority of the script's choice."""
        return Slots(self.desk, self._base, pool, n, timeout, priority)

    def close(self) -> None:
        """Close the instance if this client opened it; what is still held is given back."""
        if self._is_own:
            self._instance.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _psycopg2_url(url: str) -> str:
    """The URL with the driver that Dagster's storage has: SQLAlchemy 2.1 would take another.

    Raises:
        ConfigError: It is none of PostgreSQL, or the storage is not installed.
    """
    try:
        found = make_url(url)
    except ArgumentError:
        found = None  # What it says may hold the password.
    if found is None or found.drivername not in ("postgresql", "postgres", "postgresql+psycopg2"):
        raise ConfigError(
            "This is no URL of a PostgreSQL database.",
            remedy="Write postgresql://user:password@host:port/database.",
        )
    if find_spec("dagster_postgres") is None:
        raise ConfigError(
            "dagster-postgres is not installed.",
            remedy="pip install 'dagster-lifeguard[postgres]'",
        )
    return found.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)


def _desk(event_log: Any) -> Desk:
    """The one desk of an event log storage in this process."""
    with _lock:
        if event_log not in _desks:
            ours = isinstance(event_log, PoolMethods)
            _desks[event_log] = Desk(AskingEngine(event_log) if ours else AskingStock(event_log))
        return _desks[event_log]
