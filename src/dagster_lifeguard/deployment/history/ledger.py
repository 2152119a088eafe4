"""The engine's ledger up to now, whatever else is written meanwhile, and whatever the clock did.

A clock may be set back or forth at any time. So what was before and after is told by the numbers
of the entries, which of one pool are in the order of their commits. The clock only says where to
begin.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.model import Entry, EntryKind
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.engine.store.retry import retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dagster_lifeguard.engine.store.contract import Store

PAGE = 10_000
"""How many entries are read with one query, and so how many are in memory.

And within so many numbers a commit may be late: a number is given in the message that commits it.
"""


def read_ledger(
    store: Store,
    *,
    pool: str | None = None,
    kind: EntryKind | None = None,
    since: float = 0.0,
    first: int = 1,
) -> Iterator[Entry]:
    """Entries that were committed before this was called, in the order of their numbers.

    Args:
        store: Where the ledger is.
        pool: Only this pool's.
        kind: Only these.
        since: Only what the clock says happened then or later.
        first: Only from this number on.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    newest = retry(lambda: store.ledger(count_max=1))
    if not newest:
        return iter(())
    # An entry that is not committed yet has its pool locked: what follows it there gets a number
    # beyond this one. So up to here nothing is told of a pool without what was before it.
    entries = partial(store.entries, pool=pool, kind=kind, since=since)
    return _read(entries, first - 1, newest[0].number)


def _read(entries: Callable[..., tuple[Entry, ...]], after: int, last: int) -> Iterator[Entry]:
    # What may be committed meanwhile is read by one query, which sees all of a commit, or nothing.
    tail = max(last - PAGE, after)
    entries = partial(entries, count_max=PAGE)
    while after < tail:
        page = retry(partial(entries, after=after))
        yield from (entry for entry in page if entry.number <= tail)
        after = min(page[-1].number, tail) if len(page) == PAGE else tail
    page = retry(partial(entries, after=tail))
    yield from (entry for entry in page if entry.number <= last)


@dataclass(frozen=True, slots=True)
class LedgerSpan:
    """What the ledger tells from a moment on, and what was so at that moment.

    Attributes:
        begin: When its oldest entry was written; None if it has none.
        limits: Those in force when it begins, as far as it tells: of a pool whose limit it saw
            change, it tells the new one.
        rates: Those in force at that moment, as far as it tells.
        before: What counts of what happened before the moment: each limit, and the grants of
            those who still held then; of each pool in the order of their commits.
        since: All that happened from that moment on; of each pool in the order of their commits.
    """

    begin: float | None
    limits: Mapping[str, int | None]
    rates: Mapping[str, Rate]
    before: tuple[Entry, ...]
    since: Iterator[Entry]


def read_span(
    store: Store,
    limits: Mapping[str, int | None],
    rates: Mapping[str, Rate] | None = None,
    *,
    since: float,
    pool: str | None = None,
) -> LedgerSpan:
    """What the ledger tells since then, without reading all that was before.

    The moment is the first entry of which the clock says that it was written then or later: all
    entries with larger numbers are told too, whatever the clock says of them.

    Who had left before is not told of: of several that went in over the limit before, and still
    hold, the first may seem to have been within it; the last does not.

    Args:
        store: Where the ledger is.
        limits: The limits of pools that are in force now.
        rates: And the rates.
        since: From when on; seconds since the epoch, by the clock of the database.
        pool: Only this pool.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    oldest = retry(lambda: store.entries(pool=pool, count_max=1))
    young = retry(lambda: store.entries(pool=pool, since=since, count_max=1))
    newest = retry(lambda: store.ledger(count_max=1))
    first = young[0].number if young else newest[0].number + 1 if newest else 1
    # Before the rest: what is committed from here on is not among these, and alters nothing below.
    entries = read_ledger(store, pool=pool, first=first)
    changes = tuple(read_ledger(store, pool=pool, kind=EntryKind.LIMIT))
    changed = {entry.pool for entry in changes}
    held = retry(lambda: store.held_at(first, pool=pool)) if oldest else ()
    before = [*held, *(entry for entry in changes if entry.number < first)]
    return LedgerSpan(
        begin=oldest[0].at if oldest else None,
        limits={name: limit for name, limit in limits.items() if name not in changed},
        rates=_rates_at(first, rates or {}, read_ledger(store, pool=pool, kind=EntryKind.RATE)),
        before=tuple(sorted(before, key=_place)),
        since=entries,
    )


def _place(entry: Entry) -> tuple[str, int, int]:
    """Where an entry stands among the grants of its pool and the changes of its limit.

    A change has the fence of the grant before it, and the number that grants here are without.
    """
    return entry.pool, entry.fence, entry.number


def _rates_at(first: int, rates: Mapping[str, Rate], changes: Iterable[Entry]) -> dict[str, Rate]:
    """The rates in force at a moment; of a pool whose rate only changed later it is not known.

    Args:
        first: The number of the first entry after the moment.
        rates: Those in force now.
        changes: All that the ledger knows of, in the order in which they were committed.
    """
    found: dict[str, Rate | None] = {}
    for entry in changes:
        if entry.number < first:
            found[entry.pool] = Rate.read(entry.detail) if entry.detail else None
        else:
            found.setdefault(entry.pool, None)
    return {name: rate for name, rate in {**rates, **found}.items() if rate is not None}
