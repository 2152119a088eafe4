"""The engine's ledger from its begin to now, whatever else is written meanwhile."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dagster_lifeguard.model import EntryKind
from dagster_lifeguard.store.retry import retry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dagster_lifeguard.model import Entry
    from dagster_lifeguard.store.contract import Store

PAGE = 10_000
"""How many entries are read with one query, and so how many are in memory."""


def read_ledger(
    store: Store,
    *,
    pool: str | None = None,
    kind: EntryKind | None = None,
    since: float = 0.0,
) -> Iterator[Entry]:
    """Entries that were written before this was called, oldest first.

    Args:
        store: Where the ledger is.
        pool: Only this pool's.
        kind: Only these.
        since: Only what happened then or later.

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
            store.entries, pool=pool, kind=kind, since=since, after=after, count_max=PAGE
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


def limits_at_begin(store: Store, now: Mapping[str, int | None]) -> dict[str, int | None]:
    """The limits that were in force when the ledger begins, as far as it tells.

    A pool whose limit it saw change is left out: it tells the new limit, not the old one.

    Args:
        store: Where the ledger is.
        now: The limits in force now.
    """
    changed = {entry.pool for entry in read_ledger(store, kind=EntryKind.LIMIT)}
    return {pool: limit for pool, limit in now.items() if pool not in changed}
