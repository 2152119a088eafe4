"""Upgrades of the engine's tables: through which versions, and which processes may go on."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, NamedTuple

from dagster_lifeguard.engine.store.sql import newest_version, usable_from
from dagster_lifeguard.errors import OldProcessesError, OldTablesError, SchemaError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dagster_lifeguard.engine.store.sql import Dialect

_is_allowed = True


@contextmanager
def upkeep(*, allowed: bool) -> Iterator[None]:
    """Allow or forbid this process to upgrade older tables, until the end of the block.

    By default it is allowed, because a run worker has to go on after an upgrade of the package. A
    command that only reads forbids it.
    """
    global _is_allowed  # noqa: PLW0603 - the threads of a web page have to know it, too
    before = _is_allowed
    _is_allowed = allowed
    try:
        yield
    finally:
        _is_allowed = before


class Tables(NamedTuple):
    """The version of the tables, as they record it.

    Attributes:
        version: The version; 0 if there are no tables.
        usable_from: A package may use the tables if it knows this version or a later one.
    """

    version: int
    usable_from: int


NO_TABLES = Tables(0, 0)


@cache
def package_version() -> str:
    """The version of this package."""
    return metadata.version("dagster-lifeguard")


def versions_after(found: Tables, dialect: Dialect, place: str) -> range:
    """The versions that an upgrade passes through; empty if the tables are new enough.

    Args:
        found: The tables that are there.
        dialect: The kind of the database.
        place: The name of the tables in messages.

    Raises:
        SchemaError: The tables are newer, and this package must not use them.
        OldTablesError: The tables are older, and this process may not change them.
    """
    newest = newest_version(dialect)
    if found.usable_from > newest:
        raise SchemaError(
            f"{place} have version {found.version}, for packages that know version "
            f"{found.usable_from} or later; this package knows {newest}.",
            remedy="Install a newer dagster-lifeguard.",
            names=[place],
        )
    if 0 < found.version < newest and not _is_allowed:
        raise OldTablesError(
            f"{place} have version {found.version}, this package reads {newest}.",
            remedy="Bring them up to date: lifeguard engine enable. A step that claims a slot does "
            "so, too.",
            names=[place],
        )
    return range(found.version + 1, newest + 1)


def needs_old_processes_gone(found: Tables, dialect: Dialect) -> int | None:
    """The oldest version of the tables that all live processes must know before an upgrade.

    None: every process that can use the present tables can use the newest ones.
    """
    needed = usable_from(dialect, newest_version(dialect))
    return needed if found.version and needed > found.version else None


def refuse_old_processes(labels: Sequence[str], found: Tables, place: str) -> None:
    """Refuse an upgrade while processes are alive that could not use the newer tables.

    Args:
        labels: The names of these processes.
        found: The tables that are there.
        place: The name of the tables in messages.

    Raises:
        OldProcessesError: There is such a process.
    """
    if labels:
        raise OldProcessesError(
            f"{place} have version {found.version}, which this package does not use, and processes "
            f"of an older package hold or wait: {', '.join(labels)}.",
            remedy="Let their runs end first: stop the daemon, and try again when lifeguard engine "
            "status shows no process. Nothing was changed.",
            names=list(labels),
        )
