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
"""Where a transaction is: before its locks, with its view, with its verdict, after its commit."""

DUE_SECONDS = 0.002
"""Who is next at a pool with a rate, and may start so soon, waits for that with the locks in hand.

So it is not late, which would be lost for good where no burst makes up for it. Nobody else could
start there before it.
"""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How an engine keeps its sessions and treats its waiters. All times are seconds.

    Attributes:
        lease_seconds: How long a process is trusted without a heartbeat; a dead holder's slots
            are free after at most this long.
        patience_seconds: See ``admission``.
        look_again_seconds: How often a waiter looks again although nothing woke it. The first in
            line looks also when the first lease of all runs out, so that a dead holder's slots are
            taken then.
        abandon_seconds: A waiting ticket that nobody claims again for so long is withdrawn.
        keep_ledger_seconds: How long rows of the ledger are kept.
        default_limit: The limit of a pool that has no row of its own; None is unlimited.
        on_session_joined: Called before this engine claims anything under a session that is new to
            it: what must be true as long as the engine is in use can be made true here.
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
