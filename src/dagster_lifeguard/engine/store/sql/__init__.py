"""SQL in named files: one directory for each database."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Literal

from dagster_lifeguard.engine.rules.model import WAITERS_SEEN_MAX
from dagster_lifeguard.engine.rules.pool_expressions import ALL_PARTITIONS, SLOTS_MAX

Dialect = Literal["sqlite", "postgres"]

ENDING_TICKETS_MAX = 100
"""Of a session that ends, so many waiting tickets are seen at once."""

FOLDER = files(__package__)
"""Where the files are: a directory for each database."""

_NUMBERS = {
    "waiters_read": str(WAITERS_SEEN_MAX + 1),  # One more, which tells that there are more.
    "slots_max": str(SLOTS_MAX),
    "all_partitions": f"'{ALL_PARTITIONS}'",
    "ending_tickets": str(ENDING_TICKETS_MAX),
}

_HEAD = re.compile(r"^-- (name|part): (\w+)$", re.MULTILINE)
_NEXT = re.compile(r";\n+(?=\S)")
_PART = re.compile(r"\{(\w+)\}")
_USABLE_FROM = re.compile(r"^-- usable from: (\d+)$", re.MULTILINE)


@cache
def statements(dialect: Dialect) -> dict[str, str]:
    """The statements of ``statements.sql``, by the name written above each.

    ``{name}`` in a statement stands for the part of that name, or for a number of the rules.
    """
    text = (FOLDER / dialect / "statements.sql").read_text(encoding="utf-8")
    _, *found = _HEAD.split(text)
    kinds = dict(zip(found[1::3], found[::3], strict=True))
    bodies = dict(zip(found[1::3], map(_without_comments, found[2::3]), strict=True))

    def fill(body: str) -> str:
        return _PART.sub(lambda match: _NUMBERS.get(match[1]) or fill(bodies[match[1]]), body)

    return {name: fill(body).rstrip(";") for name, body in bodies.items() if kinds[name] == "name"}


@cache
def script(dialect: Dialect, version: int) -> tuple[str, ...]:
    """The statements that bring the tables from the version before to this one, in order.

    Each begins at the margin. A trigger has semicolons within it, so its lines are indented.
    """
    text = _script_text(dialect, version)
    return tuple(part.strip() for part in _NEXT.split(_without_comments(text).rstrip(";")))


@cache
def usable_from(dialect: Dialect, version: int) -> int:
    """The oldest version that a package must know to use tables of this version.

    A script of which older packages need not know begins with ``-- usable from: N``: it may add
    tables, indexes, and columns that have a default. Packages that know only versions before N,
    or before that of a script without such a line, must be gone before it.
    """
    found = [_USABLE_FROM.search(_script_text(dialect, step)) for step in range(1, version + 1)]
    return max(int(line[1]) if line else step for step, line in enumerate(found, start=1))


@cache
def newest_version(dialect: Dialect) -> int:
    """The version of the tables that this package makes."""
    names = [entry.name for entry in (FOLDER / dialect).iterdir()]
    return sum(name.startswith("version_") for name in names)


def _script_text(dialect: Dialect, version: int) -> str:
    return (FOLDER / dialect / f"version_{version}.sql").read_text(encoding="utf-8")


def _without_comments(text: str) -> str:
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return "\n".join(lines).strip().rstrip(";")
