"""A release by a look and a write in one transaction, for stores that gain nothing by less."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.model import Entry, EntryKind
from dagster_lifeguard.store.contract import Changes, Scope

if TYPE_CHECKING:
    from collections.abc import Callable

    from dagster_lifeguard.model import Granted, TicketKey, View, Waiter
    from dagster_lifeguard.store.contract import Transaction


def release(
    begin: Callable[[Scope], Transaction],
    key: TicketKey,
    grant: Granted,
    session: str,
    next_up: Callable[[View], tuple[Waiter, ...]],
) -> bool:
    """See ``Store.release``; ``begin`` is the store's."""
    with begin(Scope(tuple(sorted(grant.slots)), *key)) as transaction:
        view = transaction.view
        for holding in view.holdings:
            if holding.fence == grant.fence and holding.slots.keys() == grant.slots.keys():
                seconds = view.now - holding.since
                entries = (
                    Entry(EntryKind.RELEASED, pool, *key, len(slots), grant.fence, session, seconds)
                    for pool, slots in holding.slots.items()
                )
                transaction.commit(
                    Changes(
                        drop_holdings=(holding,),
                        ledger=tuple(entries),
                        wake=next_up(view),
                    )
                )
                return True
    return False
