"""Rows of the overview: a pool, or all pools of the partitions of one thing, in groups."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.pool_expressions import is_of_all_partitions
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.insight.durations import Sample
from dagster_lifeguard.insight.standing import Standing, standing_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dagster_lifeguard.insight.durations import Durations, Spread
    from dagster_lifeguard.insight.overview import PoolSummary

_OF_PARTITION = re.compile(r"(?P<stem>.+)\[[^\[\]]*\]")
_PREFIX = re.compile(r"[^/_.:\-]+")
_STANDINGS = tuple(Standing)

OTHERS = "other pools"
"""The group of the pools that belong to no other group."""


@dataclass(frozen=True, slots=True)
class PoolRow:
    """A row.

    Attributes:
        pool: What is shown of it. For pools of partitions, their sums, by the name ``orders[…]``;
            its ``waits`` are left out until ``with_waits``.
        pools: The names of the pools: one, or those of the partitions.
        standing: The state of the pool; of several, the first in the order of ``Standing``.
        standings: Of several: how many pools are in each state.
        stem: Of pools of partitions, what their names begin with; empty for one pool.
        group: The group; empty where rows are not grouped.
    """

    pool: PoolSummary
    pools: tuple[str, ...]
    standing: Standing
    standings: Mapping[str, int]
    stem: str = ""
    group: str = ""

    def with_waits(self, past: Durations) -> PoolRow:
        """The row with the waits of all its pools."""
        if not self.stem:
            return self
        waits, queue_waits = past.waits, past.queue_waits
        return replace(
            self,
            pool=replace(
                self.pool,
                waits=_spread(waits, self.pools),
                queue_waits=_spread(queue_waits, self.pools),
            ),
        )


@dataclass(frozen=True, slots=True)
class PoolGroup:
    """The sums of a group of rows, on all pages.

    Attributes:
        name: What the pools have in common.
        count: How many pools there are.
        held: Slots held.
        waiting: Steps and runs that wait; one that waits for several pools counts for each.
    """

    name: str
    count: int
    held: int
    waiting: int


def partitions_stem(pool: str) -> str:
    """What the name of the pool of a partition begins with; empty for any other pool."""
    if not pool.endswith("]") or is_of_all_partitions(pool):
        return ""
    found = _OF_PARTITION.fullmatch(pool)
    return "" if found is None else found["stem"]


def prefix_of(pool: str) -> str:
    """A name up to the first of ``/ _ . : -``."""
    found = _PREFIX.match(pool)
    return pool if found is None else found[0]


def rows_of(pools: Iterable[PoolSummary], *, fold: bool) -> list[PoolRow]:
    """A row for each pool, in their order; pools of partitions in the place of their first.

    Args:
        pools: The pools.
        fold: Whether the pools of the partitions of one thing are one row.
    """
    pools = list(pools)
    by_stem: dict[str, list[PoolSummary]] = defaultdict(list)
    if fold:
        for pool in pools:
            stem = partitions_stem(pool.pool)
            if stem:
                by_stem[stem].append(pool)
    rows = []
    done = set()
    for pool in pools:
        stem = partitions_stem(pool.pool) if by_stem else ""
        if len(by_stem.get(stem, ())) < 2:  # noqa: PLR2004 - one pool is no fold
            standing = standing_of(pool)
            rows.append(PoolRow(pool, (pool.pool,), standing, {standing.value: 1}))
        elif stem not in done:
            done.add(stem)
            rows.append(_folded(stem, by_stem[stem]))
    return rows


def _folded(stem: str, pools: Sequence[PoolSummary]) -> PoolRow:
    found = Counter(standing_of(pool) for pool in pools)
    limits = [pool.limit for pool in pools]
    waits = [pool.oldest_wait for pool in pools if pool.oldest_wait is not None]
    queued = [pool.oldest_queued for pool in pools if pool.oldest_queued is not None]
    limit = None if None in limits else sum(limit or 0 for limit in limits)
    held = sum(pool.held for pool in pools)
    first = pools[0]
    together = replace(
        first,
        pool=f"{stem}[…]",
        limit=limit,
        from_default=all(pool.from_default for pool in pools),
        held=held,
        waiting=sum(pool.waiting for pool in pools),
        queued=sum(pool.queued for pool in pools),
        wanted=sum(pool.wanted for pool in pools),
        oldest_wait=max(waits, default=None),
        oldest_queued=max(queued, default=None),
        utilisation=held / limit if limit else None,
        waits=None,
        queue_waits=None,
        settings=first.settings if all(p.settings == first.settings for p in pools) else {},
    )
    standing = min(found, key=_STANDINGS.index)
    counts = {s.value: found[s] for s in _STANDINGS if s in found}
    return PoolRow(together, tuple(sorted(p.pool for p in pools)), standing, counts, stem)


def grouped(
    rows: Sequence[PoolRow], groups: Mapping[str, str] | None
) -> tuple[list[PoolRow], dict[str, PoolGroup]]:
    """Rows by their groups, each group in the place of its first row.

    Args:
        rows: The rows.
        groups: The group of each pool, as far as it has one; None to go by the names: pools whose
            names begin alike are a group.
    """
    named = [_group(row, groups) for row in rows]
    if groups is None:
        sizes = Counter(named)
        named = [name if sizes[name] > 1 else OTHERS for name in named]
    ranks = {name: rank for rank, name in enumerate(dict.fromkeys(named))}
    if OTHERS in ranks:
        ranks[OTHERS] = len(ranks)
    found = [replace(row, group=name) for row, name in zip(rows, named, strict=True)]
    found.sort(key=lambda row: ranks[row.group])
    sums: dict[str, PoolGroup] = {}
    for row in found:
        before = sums.get(row.group, PoolGroup(row.group, 0, 0, 0))
        sums[row.group] = PoolGroup(
            row.group,
            before.count + len(row.pools),
            before.held + row.pool.held,
            before.waiting + row.pool.waiting,
        )
    return found, sums


def _group(row: PoolRow, groups: Mapping[str, str] | None) -> str:
    if groups is None:
        return prefix_of(pool_text(row.pools[0]))
    return groups.get(row.pools[0], OTHERS)


def _spread(samples: Mapping[str, Sample], pools: Iterable[str]) -> Spread | None:
    found = [samples[pool].seconds for pool in pools if pool in samples]
    return Sample.of(seconds for each in found for seconds in each).spread()
