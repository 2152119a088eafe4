"""What an audit finds, and what it cannot tell."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

Source = Literal["ledger", "event-logs"]


class Lane(NamedTuple):
    """Where executions take turns: a pool, or an asset that two runs should not make at once.

    Attributes:
        kind: ``pool`` or ``asset``.
        name: The pool, or the asset as ``a/b``.
        partition: Of the asset; empty if it has none.
    """

    kind: Literal["pool", "asset"]
    name: str
    partition: str = ""


class Occupant(NamedTuple):
    """Who was in a lane.

    Attributes:
        step_key: Empty where a whole run counts, at granularity ``run``.
        started: When it went in.
    """

    run_id: str
    step_key: str
    started: float
    slots: int = 1


@dataclass(frozen=True, slots=True)
class Excess:
    """One execution went in although the lane was full.

    Attributes:
        limit: In force when it went in.
        held: Slots that were held then, its own with them.
        started: When it went in.
        ended: When it left, or enough others had left; None if that did not happen yet.
        occupants: Who was in, itself last.
    """

    lane: Lane
    limit: int
    held: int
    started: float
    ended: float | None
    occupants: tuple[Occupant, ...]


@dataclass(frozen=True, slots=True)
class EarlyStart:
    """One execution started before the rate of its pool allowed.

    Attributes:
        rate: In force when it started.
        seconds: By how much it was too early.
        occupant: What started, and when.
    """

    pool: str
    rate: str
    seconds: float
    occupant: Occupant


@dataclass(frozen=True, slots=True, order=True)
class Wait:
    """An execution, or a run in the run queue, that waited for its turn.

    Attributes:
        name: The pool; what stands in ``op.pool`` where no more is known.
        step_key: Empty for a run in the run queue.
        ended: When its turn came.
    """

    seconds: float
    name: str
    run_id: str
    step_key: str
    ended: float


class Caveat(str, Enum):
    """What could not be judged, or only with reserve; the value is its code in JSON."""

    LIMITS_OF_TODAY = "limits-of-today"
    CLOCKS = "clocks"
    CLOCKS_DISAGREE = "clocks-disagree"
    UNLIMITED = "unlimited"
    POOL_UNKNOWN = "pool-unknown"
    UNFINISHED = "unfinished"
    DOUBTFUL = "doubtful"
    LEDGER_SHORT = "ledger-short"
    LIMIT_UNKNOWN = "limit-unknown"
    BEGAN_BEFORE = "began-before"
    EXPIRED = "expired"
    RATES_BY_LEDGER = "rates-by-ledger"
    STARTS_UNWRITTEN = "starts-unwritten"

    def sentence(self, count: int) -> str:
        """Say it of so many executions."""
        them = "1 execution" if count == 1 else f"{count:,} executions"
        return _SENTENCES[self].format(them=them)


_SENTENCES = {
    Caveat.LIMITS_OF_TODAY: "Measured by the limits of today: event logs do not tell which were "
    "in force before.",
    Caveat.CLOCKS: "Times are the clocks of the machines that executed. What overlaps by less than "
    "these disagree cannot be told.",
    Caveat.CLOCKS_DISAGREE: "{them} with the end before the start, by clocks that disagree: "
    "not judged.",
    Caveat.UNLIMITED: "{them} of pools without a limit: nothing to judge.",
    Caveat.POOL_UNKNOWN: "{them} whose pool is not known: not judged.",
    Caveat.UNFINISHED: "{them} without an end (killed, or still at work): taken to last until "
    "the end of the run, or until now.",
    Caveat.DOUBTFUL: "{them} started beside one without an end: perhaps too many, perhaps not.",
    Caveat.LEDGER_SHORT: "The ledger begins later than asked for.",
    Caveat.LIMIT_UNKNOWN: "{them} let in before the ledger says which limit was in force: not "
    "judged.",
    Caveat.BEGAN_BEFORE: "{them} had begun before the ledger does: not counted beside others.",
    Caveat.EXPIRED: "{them} lost the slots with the lease: the ledger does not tell whether the "
    "work went on.",
    Caveat.RATES_BY_LEDGER: "Rates are judged by the engine's ledger alone: not judged.",
    Caveat.STARTS_UNWRITTEN: "Of pools with a rate and without a limit the ledger does not tell "
    "what started: not judged.",
}


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit looked at and what it found.

    Attributes:
        source: What it was read from.
        since: From when on it was judged.
        until: Until when.
        executions: How many were judged.
        pools: Of how many pools.
        excesses: Where a pool's limit was exceeded, by time; the first ``KEPT_MAX``.
        excess_count: How often that was, in all.
        rated_pools: Of how many pools it was judged whether starts kept a rate.
        early: Starts before the rate of a pool allowed; the first ``KEPT_MAX``.
        early_count: How many there were, in all.
        duplicates: Where two runs made one partition of one asset at once; the first.
        duplicate_count: How often that was, in all.
        waits: The longest, longest first.
        wait_count: How many waited at least as long as was asked for.
        caveats: What could not be judged, and how often.
    """

    source: Source
    since: float
    until: float
    executions: int
    pools: int
    excesses: tuple[Excess, ...] = ()
    excess_count: int = 0
    rated_pools: int = 0
    early: tuple[EarlyStart, ...] = ()
    early_count: int = 0
    duplicates: tuple[Excess, ...] = ()
    duplicate_count: int = 0
    waits: tuple[Wait, ...] = ()
    wait_count: int = 0
    caveats: Mapping[Caveat, int] = field(default_factory=Counter)


KEPT_MAX = 1000
"""How many excesses are told one by one; beyond that they are counted."""
