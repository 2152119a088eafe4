"""How an engine is set up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dagster_lifeguard.engine.rules.admission import PATIENCE_SECONDS
from dagster_lifeguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dagster_lifeguard.engine.rules.model import TicketKey

Point = Literal["begin", "viewed", "decided", "committed"]
"""A point in a transaction: before its locks, with its view, with its verdict, after its commit."""

DUE_SECONDS = 0.002
"""If the next waiter of a pool with a rate may start within this time, it waits under the locks.

So it starts exactly on time: without a burst, a late start is lost. The locks delay no other
waiter, because none may start at this pool before it.
"""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How an engine keeps its sessions and treats its waiters. All times are seconds.

    Attributes:
        lease_seconds: How long a process is trusted without a heartbeat; a dead holder's slots
            are free after at most this long.
        patience_seconds: See ``admission``.
        look_again_seconds: How often a waiter looks again without being woken. The first waiter
            also looks when the first lease of all runs out, to take the slots of a dead holder.
        abandon_seconds: A waiting ticket that is not claimed again for this long is deleted.
        keep_ledger_seconds: How long rows of the ledger are kept.
        default_limit: The limit of a pool that has no row of its own; None is unlimited.
        on_session_joined: Called before this engine claims anything under a session that is new to
            it, to prepare whatever the engine needs while it is in use.
        on_lease_lost: Called with the tickets that this process no longer owns because it was
            silent for longer than its lease; in the heartbeat's thread or the claiming one.
    """

    lease_seconds: float = 30.0
    patience_seconds: float = PATIENCE_SECONDS
    look_again_seconds: float = 5.0
    abandon_seconds: float = 120.0
    keep_ledger_seconds: float = 30 * 86400.0
    default_limit: int | None = None
    on_session_joined: Callable[[], None] | None = None
    on_lease_lost: Callable[[tuple[TicketKey, ...]], None] | None = None

    def __post_init__(self) -> None:
        for name in ("lease_seconds", "look_again_seconds", "abandon_seconds"):
            if getattr(self, name) <= 0:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}.",
                    remedy="Give a number of seconds above 0.",
                    names=[name],
                )
