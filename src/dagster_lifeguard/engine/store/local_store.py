"""What stores in this process share: they gain nothing by deciding without a look at the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.model import Entry, EntryKind
from dagster_lifeguard.engine.store.contract import Changes, Scope

if TYPE_CHECKING:
    from collections.abc import Callable

    from dagster_lifeguard.engine.rules.model import Granted, QueuedTicket, TicketKey, View
    from dagster_lifeguard.engine.store.contract import Transaction


class LocalStore:
    """A store in this process: it looks at the rows before each grant and each release."""

    grant_unseen: None = None
    """See ``Store.grant_unseen``."""

    def begin(self, scope: Scope) -> Transaction:
        """See ``Store.begin``."""
        raise NotImplementedError

    def release(
        self,
        key: TicketKey,
        grant: Granted,
        session: str,
        next_up: Callable[[View], tuple[QueuedTicket, ...]],
    ) -> bool:
        """See ``Store.release``; the wake-ups are committed with the rest."""
        with self.begin(Scope(tuple(sorted(grant.slots)), *key)) as transaction:
            view = transaction.view
            for holding in view.holdings:
                if holding.fence != grant.fence or holding.slots.keys() != grant.slots.keys():
                    continue
                seconds = view.now - holding.since
                entries = (
                    Entry(
                        EntryKind.RELEASED,
                        pool,
                        *key,
                        len(slots),
                        grant.fence,
                        session,
                        seconds,
                        at=view.now,
                    )
                    for pool, slots in holding.slots.items()
                )
                transaction.commit(
                    Changes(drop_holdings=(holding,), ledger=tuple(entries), wake=next_up(view))
                )
                return True
        return False
