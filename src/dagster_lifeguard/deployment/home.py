"""DAGSTER_HOME: whether it names a directory in which Dagster has an instance."""

from __future__ import annotations

from pathlib import Path


def home_problem(home: str | None) -> str | None:
    """Return why Dagster would take no instance from this DAGSTER_HOME; None if it would."""
    if not home:
        return "DAGSTER_HOME is not set"
    folder = Path(home).expanduser()  # as Dagster does
    if not folder.is_absolute():
        return f"DAGSTER_HOME is {home}, a relative path, which Dagster refuses"
    if not folder.is_dir():
        return f"DAGSTER_HOME is {home}, which is not a directory"
    return None
