"""When a waiting step or a queued run is likely to start: a range, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

PLAYS = (199, 99, 49, 19, 9)
"""How many plays an estimate may come from: one more than these is a multiple of ten, for the
reason in ``simulation.estimating``."""

WORK = 15_000
"""So many tickets and runs are played for estimates, or a little more, in about half a second."""


class NoEstimate(str, Enum):
    """Why there is no estimate."""

    NO_HISTORY = "no-history"
    """Too few past executions are known for a holder, or for a step ahead."""
    OUTLASTED = "outlasted"
    """A holder has already run longer than nearly every known execution."""
    LEAKED = "leaked"
    """The run of a holder is over, so its slots may never be released."""
    PAUSED = "paused"
    """The limit is 0."""
    TOO_LARGE = "too-large"
    """The step asks for more slots than the limit."""
    TOO_FAR = "too-far"
    """Too many steps are ahead."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """In how many seconds a step is likely to start.

    Attributes:
        soonest: One simulated wait in ten ended by then.
        typical: Half of the simulated waits ended by then.
        latest: Nine simulated waits in ten ended by then; None if the wait may be longer than any
            that is known.
        samples: How many past executions the durations were drawn from.
        plays: How often the wait was simulated. Fewer where more steps and runs are ahead.
        missing: Why there is no estimate.
    """

    soonest: float | None = None
    typical: float | None = None
    latest: float | None = None
    samples: int = 0
    plays: int = 0
    missing: NoEstimate | None = None
