"""Which steps bring the engine's tables up to date, and who may take them or use the tables."""

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
    """Let this process bring older tables up to date, or not, until the end of the block.

    It is allowed unless something says otherwise: a run worker has to go on after an upgrade, while
    a command that only looks is to change nothing.
    """
    global _is_allowed  # noqa: PLW0603 - the threads of a web page have to know it, too
    before = _is_allowed
    _is_allowed = allowed
    try:
        yield
    finally:
        _is_allowed = before


class Tables(NamedTuple):
    """What the tables say of themselves.

    Attributes:
        version: Their version; 0 if there are none.
        usable_from: The oldest version that a package must know to use them.
    """

    version: int
    usable_from: int


NO_TABLES = Tables(0, 0)


@cache
def package_version() -> str:
    """The version of this package."""
    return metadata.version("dagster-lifeguard")


def versions_after(found: Tables, dialect: Dialect, place: str) -> range:
    """The versions through which the tables are brought up to date; none if they are newer.

    Args:
        found: The tables that are there.
        dialect: Of the database.
        place: What to call the tables in messages.

    Raises:
        SchemaError: They are newer than this package, which must not use them.
        OldTablesError: They are older, and this process may not change them.
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
    """The oldest version that live processes must know before the tables are brought up to date.

    None: whoever uses the tables that are there can use the newest ones.
    """
    needed = usable_from(dialect, newest_version(dialect))
    return needed if found.version and needed > found.version else None


def refuse_old_processes(labels: Sequence[str], found: Tables, place: str) -> None:
    """Refuse to change the tables while processes that could not use them then are alive.

    Args:
        labels: These processes.
        found: The tables that are there.
        place: What to call the tables in messages.

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
