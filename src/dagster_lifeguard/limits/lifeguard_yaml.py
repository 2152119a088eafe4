"""Writing live limits into a lifeguard.yaml, with everything else in it kept as it is."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from ruamel.yaml.comments import CommentedMap

from dagster_lifeguard.engine.rules.pool_settings import (
    NOTHING_SET,
    PoolSettings,
    format_order,
    own_limits,
)
from dagster_lifeguard.limits.dagster_yaml import new_yaml
from dagster_lifeguard.policy.config import LIMIT_MAX, Config, PoolSpec

if TYPE_CHECKING:
    from collections.abc import Mapping


HEADER = """\
# The limits of pools. Shown beside the live ones by lifeguard plan, set by lifeguard apply.
"""


def with_live_limits(
    text: str | None,
    source: str,
    live: Mapping[str, PoolSettings],
    default_limit: int | None,
    *,
    tells_all: bool,
) -> tuple[str, tuple[str, ...]]:
    """Return a lifeguard.yaml that declares what is live, and the pools that it cannot declare.

    Comments, rules and everything else stay. A declared pool that has no limit of its own any
    more goes, unless it is declared to have the default one.

    Args:
        text: The file as it is; None for a new one.
        source: What to call it in messages.
        live: What is set of pools; of a temporary limit, what is in force after it. All but limits
            is left out of a file whose engine is the stock one, which cannot declare it.
        default_limit: Of the deployment; written to a new file, or where the file states one.
        tells_all: Whether more than limits is told; else what the file says of that stays.

    Raises:
        ConfigError: The file says something that is not allowed.
    """
    yaml = new_yaml()
    before = Config.from_text(text or "", source)
    live = {pool: found.lasting for pool, found in live.items()}
    limits = own_limits(live)
    of_file = {pool: spec.settings for pool, spec in before.pools.items()}
    kept = {pool: s for pool, s in (live if tells_all else of_file).items() if s.texts_set}
    document: Any = yaml.load(text) if text is not None else None
    says_nothing = document is None
    if says_nothing:
        document = CommentedMap()
    if text is None and kept:
        document["engine"] = "lifeguard"
    if text is None or "default_limit" in document:
        _put(document, "default_limit", default_limit)
    pools = document.get("pools")
    if not pools:  # Missing, null or {}: what is put there gets a line for each pool.
        pools = CommentedMap()
        if limits or kept:
            document["pools"] = pools
    for pool, found in list(pools.items()):
        if isinstance(found, CommentedMap) and (found.anchor.value or found.merge):
            pools[pool] = CommentedMap(found)  # Shared with others, which stay as they are.
        declared = before.pools[pool].limit
        if pool in limits or declared is None or declared == default_limit:
            continue
        if pool in kept and isinstance(pools[pool], CommentedMap):
            pools[pool].pop("limit", None)
        else:
            del pools[pool]
    left_out = []
    for pool, limit in sorted(limits.items()):
        if not _is_declarable(pool, limit):
            left_out.append(pool)
        elif isinstance(pools.get(pool), CommentedMap):
            _put(pools[pool], "limit", limit)
        else:
            _put(pools, pool, limit)
    keeps = text is None or before.engine == "lifeguard"
    left_out += sorted(kept.keys() - {*left_out}) if not keeps else []
    for pool in sorted({*pools, *kept} - {*left_out}) if keeps else ():
        _put_kept(pools, pool, kept.get(pool, NOTHING_SET))
    stream = io.StringIO()
    yaml.dump(document, stream)
    written = stream.getvalue() if text is not None else HEADER + stream.getvalue()
    if "\r\n" in (text or ""):
        written = written.replace("\r\n", "\n").replace("\n", "\r\n")
    if text and says_nothing:  # Its comments belong to no setting.
        written = f"{text.rstrip()}\n{written}" if document else text
    after = Config.from_text(written, source)
    meant = {pool: limit for pool, limit in limits.items() if pool not in left_out}
    assert {pool: after.pools[pool].limit for pool in meant} == meant
    if after == before and text is not None:
        return text, tuple(left_out)  # Nothing to say: keep it to the byte.
    return written, tuple(left_out)


def _put_kept(pools: CommentedMap, pool: str, live: PoolSettings) -> None:
    """Write what is set of a pool besides its limit; what says the same already stays as it is."""
    found = pools.get(pool)
    spec = PoolSpec.model_validate(found) if isinstance(found, CommentedMap) else PoolSpec()
    told = spec.settings
    if told.texts == live.texts:
        return
    if not isinstance(found, CommentedMap):
        found = CommentedMap({} if found is None else {"limit": found})
        found.fa.set_flow_style()
        pools[pool] = found
    wanted: dict[str, str | int | None] = {}
    rate = live.rate
    if told.rate != rate:
        wanted["rate"] = None if rate is None else rate.text
        wanted["burst"] = rate.burst if rate is not None and rate.burst > 1 else None
    if told.fair_by != live.fair_by:
        wanted["order"] = None if live.fair_by is None else format_order(live.fair_by)
    for key, value in wanted.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = value


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
