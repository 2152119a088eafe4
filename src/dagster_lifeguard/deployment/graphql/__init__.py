"""GraphQL documents in named files."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def document(name: str) -> str:
    """The document ``NAME.graphql``."""
    return (files(__package__) / f"{name}.graphql").read_text(encoding="utf-8")
