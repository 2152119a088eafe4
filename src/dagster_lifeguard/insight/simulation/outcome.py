"""The outcome of a play: when each execution started, and how pools were used."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Use:
    """How a pool was used within the window.

    Attributes:
        held: Slots held, in slot-seconds; for an unlimited pool, slots asked for.
        offered: Slots that the limit offered, in slot-seconds; None if it was ever unlimited.
        most: The most slots held at once, within the window or outside of it.
    """

    held: float
    offered: float | None
    most: int

    @property
    def share(self) -> float | None:
        """The part of what was offered that was held; None if that is not known."""
        return self.held / self.offered if self.offered else None


@dataclass(slots=True)
class Play:
    """The result of a simulation.

    Attributes:
        asked: When each asked; None if it never did.
        granted: When each went in; None if it never did.
        order: The places of the arrivals in the order in which they went in.
        fences: The fence of each; 0 where all its pools are unlimited.
        queued: How long the run of each was in the run queue, if its run began with it; else 0.
        use: By pool.
        stood: For how many seconds an arrival stood in the queue of a pool, by its place and the
            pool; without those that never waited. Until the window ended, if it never started. The
            time that the run queue held it back is told of the pools that were full, and else of
            ``RUN_QUEUE``.
        launched: When each run was launched; None if it never was.
        runs_most: The most runs in progress at once.
        awaited: The places of the arrivals that are awaited and have not started.
        awaited_runs: The places of the runs that are awaited and have not been launched.
    """

    asked: list[float | None]
    granted: list[float | None]
    order: list[int] = field(default_factory=list)
    fences: list[int] = field(default_factory=list)
    queued: list[float] = field(default_factory=list)
    use: dict[str, Use] = field(default_factory=dict)
    stood: dict[int, dict[str, float]] = field(default_factory=dict)
    launched: list[float | None] = field(default_factory=list)
    runs_most: int = 0
    awaited: set[int] = field(default_factory=set)
    awaited_runs: set[int] = field(default_factory=set)

    def waited(self, place: int) -> float | None:
        """How long an arrival waited, in the run queue and at its pools; None: it never started."""
        asked, granted = self.asked[place], self.granted[place]
        if asked is None or granted is None:
            return None
        return self.queued[place] + granted - asked


RUN_QUEUE = "(run queue)"
"""Stands in ``Play.stood`` for what holds runs back besides pools: limits of all runs and by tag,
and the pause between two looks of the daemon."""
