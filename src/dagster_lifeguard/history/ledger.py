"""The engine's ledger up to now, whatever else is written meanwhile."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from dagster_lifeguard.model import Entry, EntryKind
from dagster_lifeguard.rate import Rate
from dagster_lifeguard.store.retry import retry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dagster_lifeguard.store.contract import Store

PAGE = 10_000
"""How many entries are read with one query, and so how many are in memory."""


def read_ledger(
    store: Store,
    *,
    pool: str | None = None,
    kind: EntryKind | None = None,
    since: float = 0.0,
    begun_before: float = math.inf,
) -> Iterator[Entry]:
    """Entries that were written before this was called, oldest first.

    Args:
        store: Where the ledger is.
        pool: Only this pool's.
        kind: Only these.
        since: Only what happened then or later.
        begun_before: Only what was held since before then.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    newest = retry(lambda: store.ledger(count_max=1))
    if not newest:
        return
    # Numbers are given before the commit. An entry that a page came too early for may be followed
    # by others of its pool, which are younger than the page, and so younger than this.
    until = newest[0].at
    after = 0
    while True:
        entries = partial(
            store.entries,
            pool=pool,
            kind=kind,
            since=since,
            begun_before=begun_before,
            after=after,
            count_max=PAGE,
        )
        page = retry(entries)
        older = False
        for _, entry in page:
            if entry.at <= until:
                older = True
                yield entry
        if len(page) < PAGE or not older:
            return
        after = page[-1][0]


@dataclass(frozen=True, slots=True)
class Past:
    """What the ledger tells from a moment on, and what was so at that moment.

    Attributes:
        begin: When its oldest entry was written; None if it has none.
        limits: Those in force when it begins, as far as it tells: of a pool whose limit it saw
            change, it tells the new one.
        rates: Those in force at that moment, as far as it tells.
        before: What counts of what happened before the moment: each limit, and the grants of
            those who still held then; oldest first.
        since: All that happened from that moment on, oldest first.
    """

    begin: float | None
    limits: Mapping[str, int | None]
    rates: Mapping[str, Rate]
    before: tuple[Entry, ...]
    since: Iterator[Entry]

    def __iter__(self) -> Iterator[Entry]:
        """All of it, without telling a grant twice."""
        yield from self.before
        granted = {_grant(entry) for entry in self.before if entry.kind is EntryKind.GRANTED}
        for entry in self.since:
            if not (granted and entry.kind is EntryKind.GRANTED and _grant(entry) in granted):
                yield entry


def read_past(
    store: Store,
    limits: Mapping[str, int | None],
    rates: Mapping[str, Rate] | None = None,
    *,
    since: float,
    pool: str | None = None,
) -> Past:
    """What the ledger tells since then, without reading all that was before.

    Who held at that moment gave the slots back later, with an entry that tells for how long they
    were held, or holds them now. Who had left is not told of: of several that went in over the
    limit before, and still hold, the first may seem to have been within it; the last does not.

    Args:
        store: Where the ledger is.
        limits: The limits of pools that are in force now.
        rates: And the rates.
        since: From when on; seconds since the epoch.
        pool: Only this pool.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    oldest = retry(lambda: store.entries(pool=pool, count_max=1))
    changes = tuple(read_ledger(store, pool=pool, kind=EntryKind.LIMIT))
    changed = {entry.pool for entry in changes}
    before = [entry for entry in changes if entry.at < since]
    if oldest and oldest[0][1].at < since:
        # Whoever gives slots back in between is told of twice, and never missed.
        grants = {_grant(entry): entry for entry in _held_now(store, pool) if entry.at < since}
        for kind in (EntryKind.RELEASED, EntryKind.EXPIRED):
            for end in read_ledger(store, pool=pool, kind=kind, since=since, begun_before=since):
                grants[_grant(end)] = _granted(end, end.at - (end.seconds or 0.0))
        before = sorted([*before, *grants.values()], key=lambda entry: entry.at)
    return Past(
        begin=oldest[0][1].at if oldest else None,
        limits={name: limit for name, limit in limits.items() if name not in changed},
        rates=_rates_at(since, rates or {}, read_ledger(store, pool=pool, kind=EntryKind.RATE)),
        before=tuple(before),
        since=read_ledger(store, pool=pool, since=since),
    )


def _rates_at(since: float, rates: Mapping[str, Rate], changes: Iterable[Entry]) -> dict[str, Rate]:
    """The rates in force at a moment; of a pool whose rate only changed later it is not known.

    Args:
        since: The moment.
        rates: Those in force now.
        changes: All that the ledger knows of, in the order in which they were committed.
    """
    found: dict[str, Rate | None] = {}
    for entry in changes:
        if entry.at < since:
            found[entry.pool] = Rate.read(entry.detail) if entry.detail else None
        else:
            found.setdefault(entry.pool, None)
    return {name: rate for name, rate in {**rates, **found}.items() if rate is not None}


def _held_now(store: Store, pool: str | None) -> Iterator[Entry]:
    pools = retry(lambda: store.busy_pools(with_over=True)) if pool is None else (pool,)
    for snapshot in retry(lambda: store.snapshots(pools)):
        for holding in snapshot.granted:
            yield Entry(
                EntryKind.GRANTED,
                snapshot.pool,
                holding.key.run_id,
                holding.key.step_key,
                len(holding.slots[snapshot.pool]),
                holding.fence,
                at=holding.since,
            )


def _granted(end: Entry, at: float) -> Entry:
    return replace(end, kind=EntryKind.GRANTED, at=at, seconds=None)


def _grant(entry: Entry) -> tuple[str, str, str, int]:
    """By what a grant and its end are known to be of each other."""
    return entry.pool, entry.run_id, entry.step_key, entry.fence
