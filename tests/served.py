"""What Dagster serves of a repository to its UI, as plain data."""

from __future__ import annotations

import importlib
import json
from typing import Any

import dagster as dg
from dagster._serdes import serialize_value

POOL_FIELDS = {"pool", "pools"}
POOL_TAGS = ("tags.dagster/concurrency_key", "tags.lifeguard/pool_of_use")
"""On one use of an op that has no pool itself."""


def served(defs: dg.Definitions) -> dict[str, Any]:
    """Serialise a repository with all its jobs, the way a code server sends it."""
    data: Any = importlib.import_module("dagster._core.remote_representation.external_data")
    snapshot = data.RepositorySnap.from_def(defs.get_repository_def(), defer_snapshots=False)
    return json.loads(serialize_value(snapshot))


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Return the paths at which two pieces of plain data differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            difference
            for key in sorted(before.keys() | after.keys())
            for difference in differences(before.get(key), after.get(key), f"{path}.{key}")
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            difference
            for index, pair in enumerate(zip(before, after, strict=True))
            for difference in differences(*pair, f"{path}[{index}]")
        ]
    return [] if before == after else [f"{path}: {before!r} -> {after!r}"]


def in_pool_fields(path: str) -> bool:
    """Whether a path of ``differences`` lies in a pool field, or in a tag that gives a pool."""
    place = path.split(":", maxsplit=1)[0]
    return place.endswith(POOL_TAGS) or any(
        part.split("[")[0] in POOL_FIELDS for part in place.split(".")
    )
