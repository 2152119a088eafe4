"""The names of pools and assets that an instance's files tell, without importing Dagster.

To import Dagster takes seconds, and a shell that completes a name should not wait for it.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

_BUSY_SECONDS = 0.1


def pools_in_files(home: Path, start: str, count_max: int) -> list[str]:
    """The pools with a limit whose names begin with this text, on SQLite; else none.

    Raises:
        Exception: Whatever the files and the database of the instance may raise.

    Relies on: ``concurrency_limits`` in the shard named ``index`` (1.10.0).
    """
    query = (
        "SELECT concurrency_key FROM concurrency_limits "
        "WHERE substr(concurrency_key, 1, length(?1)) = ?1 ORDER BY 1 LIMIT ?2"
    )
    return [name for (name,) in _rows(home, query, start, count_max)]


def assets_in_files(home: Path, start: str, count_max: int) -> list[str]:
    """The assets that were ever materialised whose keys, as ``a/b``, begin so; else as above.

    Relies on: ``asset_keys`` in the shard named ``index``, where a key is a JSON list (1.10.0).
    """
    rows = _rows(home, "SELECT asset_key FROM asset_keys ORDER BY 1 LIMIT ?", 100_000)
    keys = ("/".join(json.loads(text)) for (text,) in rows)
    return [key for key in keys if key.startswith(start)][:count_max]


def _rows(home: Path, query: str, *arguments: object) -> list[Any]:
    path = _base_directory(home) / "history" / "runs" / "index.db"
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS)) as file:
        return file.execute(query, arguments).fetchall()


def _base_directory(home: Path) -> Path:
    """Where the storage has its files.

    Relies on: ``storage.sqlite.base_dir``, and the same of ``storage.custom.config`` (1.10.0).
    """
    file = home / "dagster.yaml"
    said: Any = (YAML(typ="safe").load(file.read_text()) if file.exists() else None) or {}
    storage = said.get("storage") or {}
    config = storage.get("sqlite") or (storage.get("custom") or {}).get("config") or {}
    base = config.get("base_dir", home)
    return Path(os.environ[base["env"]] if isinstance(base, dict) else base)
