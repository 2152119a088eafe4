"""Writing live limits into a lifeguard.yaml, with everything else in it kept as it is."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from ruamel.yaml.comments import CommentedMap

from dagster_lifeguard.config import LIMIT_MAX, Config
from dagster_lifeguard.instance_yaml import new_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADER = """\
# The limits of pools. Shown beside the live ones by lifeguard plan, set by lifeguard apply.
"""


def with_live_limits(
    text: str | None, source: str, limits: Mapping[str, int], default_limit: int | None
) -> tuple[str, tuple[str, ...]]:
    """Return a lifeguard.yaml that declares what is live, and the pools that it cannot declare.

    Comments, rules and everything else stay. A declared pool that has no limit of its own any
    more goes, unless it is declared to have the default one.

    Args:
        text: The file as it is; None for a new one.
        source: What to call it in messages.
        limits: The live limits of pools that have one of their own.
        default_limit: Of the deployment; written to a new file, or where the file states one.

    Raises:
        ConfigError: The file says something that is not allowed.
    """
    yaml = new_yaml()
    before = Config.from_text(text or "", source)
    document: Any = yaml.load(text) if text is not None else None
    if not isinstance(document, CommentedMap):
        document = CommentedMap()
    if text is None or "default_limit" in document:
        _put(document, "default_limit", default_limit)
    pools = document.get("pools")
    if not pools:  # Missing, null or {}: what is put there gets a line for each pool.
        pools = CommentedMap()
        if limits:
            document["pools"] = pools
    for pool in list(pools):
        declared = before.pools[pool].limit
        if pool not in limits and declared is not None and declared != default_limit:
            del pools[pool]
    left_out = []
    for pool, limit in sorted(limits.items()):
        if not _is_declarable(pool, limit):
            left_out.append(pool)
        elif isinstance(pools.get(pool), CommentedMap):
            _put(pools[pool], "limit", limit)
        else:
            _put(pools, pool, limit)
    stream = io.StringIO()
    yaml.dump(document, stream)
    written = stream.getvalue() if text is not None else HEADER + stream.getvalue()
    if "\r\n" in (text or ""):
        written = written.replace("\r\n", "\n").replace("\n", "\r\n")
    if Config.from_text(written, source) == before and text is not None:
        return text, tuple(left_out)  # Nothing to say: keep it to the byte.
    return written, tuple(left_out)


def _put(mapping: CommentedMap, key: str, value: int | None) -> None:
    """Set a value only if it is another, so that what is written as 0x8 stays so."""
    if key not in mapping or mapping[key] != value:
        mapping[key] = value


def _is_declarable(pool: str, limit: int) -> bool:
    if limit > LIMIT_MAX:
        return False
    try:
        Config.model_validate({"pools": {pool: limit}})
    except ValueError:
        return False
    return True
