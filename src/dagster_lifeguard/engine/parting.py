"""How a session gives up its ownership of holdings without releasing their slots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.engine import bookkeeping
from dagster_lifeguard.engine.store.contract import Changes, Scope

if TYPE_CHECKING:
    from dagster_lifeguard.engine.rules.model import TicketKey
    from dagster_lifeguard.engine.store.contract import Store

_LOOKS_MAX = 20


def disown(store: Store, key: TicketKey, session: str, heir: str | None) -> bool:
    """End a session's ownership of what a ticket holds.

    Args:
        store: The store of the sessions.
        key: The ticket.
        session: The session.
        heir: The session that owns it instead, if no other session does.

    Returns:
        False, with nothing changed, if no other session owns it and there is no heir.

    Raises:
        TryAgainError: The database did not answer.
    """
    for _ in range(_LOOKS_MAX):
        pools = store.pools_of(*key, ())
        with store.begin(Scope(pools, *key, session=heir or "")) as transaction:
            view = transaction.view
            if not bookkeeping.is_covered(view):
                continue
            owned = [holding for holding in view.holdings if session in holding.owners]
            if not owned:
                return True
            if owned[0].owners > {session}:
                transaction.commit(Changes(disown=(key, session)))
                return True
            if heir is None:
                return False
            transaction.commit(Changes(session=heir, adopt=key, disown=(key, session)))
            return True
    raise AssertionError(f"{key} found no stable view in {_LOOKS_MAX} looks")


def end_unused(store: Store, session: str) -> bool:
    """End a session that is the only owner of nothing, and waits for nothing.

    Returns:
        False, with nothing changed, when it is needed: something was granted meanwhile.

    Raises:
        TryAgainError: The database did not answer.
    """
    with store.begin(Scope((), ended=(session,), expired_only=False)) as transaction:
        view = transaction.view
        if view.tickets or any(holding.owners <= {session} for holding in view.holdings):
            return False
        if view.sessions:
            transaction.commit(Changes(drop_sessions=view.sessions))
        return True
