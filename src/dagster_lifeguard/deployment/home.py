"""DAGSTER_HOME: whether it names a directory in which Dagster has an instance."""

from __future__ import annotations

from pathlib import Path


def home_folder(home: str) -> Path:
    """Return the directory that a DAGSTER_HOME names, which may begin with ``~``, as in Dagster."""
    return Path(home).expanduser()


def home_problem(home: str | None) -> str | None:
    """Return why Dagster would take no instance from this DAGSTER_HOME; None if it would."""
    if not home:
        return "DAGSTER_HOME is not set"
    folder = home_folder(home)
    if not folder.is_absolute():
        return f"DAGSTER_HOME is {home}, a relative path, which Dagster refuses"
    if not folder.is_dir():
        return f"DAGSTER_HOME is {home}, which is not a directory"
    return None
