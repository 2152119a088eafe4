"""SQL in named files: one directory for each database."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Literal

Dialect = Literal["sqlite", "postgres"]

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_NEXT = re.compile(r";\n+(?=\S)")
_PART = re.compile(r"\{(\w+)\}")


@cache
def statements(dialect: Dialect) -> dict[str, str]:
    """The statements of ``statements.sql``, by the name written above each.

    ``{name}`` in a statement stands for the statement of that name.
    """
    text = (files(__package__) / dialect / "statements.sql").read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    named = {
        name: _without_comments(body).rstrip(";")
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }

    def fill(body: str) -> str:
        # Braces around anything else are a part of some pool's name.
        return _PART.sub(
            lambda match: fill(named[match[1]]) if match[1] in named else match[0], body
        )

    return {name: fill(body) for name, body in named.items()}


@cache
def script(dialect: Dialect, name: str) -> tuple[str, ...]:
    """The statements of a script without names, in order.

    Each begins at the margin. A trigger has semicolons within it, so its lines are indented.
    """
    text = (files(__package__) / dialect / f"{name}.sql").read_text(encoding="utf-8")
    return tuple(part.strip() for part in _NEXT.split(_without_comments(text).rstrip(";")))


def _without_comments(text: str) -> str:
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return "\n".join(lines).strip()


@cache
def migrations(dialect: Dialect) -> tuple[str, ...]:
    """The names of the migrations, oldest first; the n-th leads to version n."""
    names = (entry.name.removesuffix(".sql") for entry in (files(__package__) / dialect).iterdir())
    return tuple(sorted(name for name in names if name.startswith("migration_")))
