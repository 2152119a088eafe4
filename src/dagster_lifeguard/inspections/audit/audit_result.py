"""What an audit finds, and what it cannot tell."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, NamedTuple, get_args

from dagster_lifeguard.texts import number

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

    @property
    def seconds(self) -> float | None:
        """How long it lasted; None if it goes on, or if a clock that stepped back hides that."""
        if self.ended is None or self.ended < self.started:
            return None
        return self.ended - self.started


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


@dataclass(frozen=True, slots=True)
class StaleFence:
    """A grant whose fence was not larger than one that its pool had given before.

    The sink of the earlier holder cannot tell it from the later one, or refuses the later one.

    Attributes:
        fence: Of the grant.
        largest: The fence that had been given before; the same one, if it was given twice.
        first: Who was granted that.
        occupant: Who was granted this, and when.
    """

    pool: str
    fence: int
    largest: int
    first: Occupant
    occupant: Occupant


@dataclass(frozen=True, slots=True)
class Outlived:
    """A step that went on although its slots had been taken back, as its lease was over.

    Attributes:
        pools: Those of which it had held slots.
        granted: When it got them.
        expired: When they were taken back.
        event: The type of the last event that it wrote after that, such as ``STEP_SUCCESS``.
        wrote: When, by the clock of its machine.
        seconds: How long after the slots were taken back, at least, whatever that clock says.
    """

    pools: tuple[str, ...]
    run_id: str
    step_key: str
    fence: int
    granted: float
    expired: float
    event: str
    wrote: float
    seconds: float


@dataclass(frozen=True, slots=True, order=True)
class LongWait:
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


Subject = Literal["limits", "rates", "fences", "leases", "duplicates", "waits"]
"""What is judged, each by itself."""

SUBJECTS: tuple[Subject, ...] = get_args(Subject)


class Caveat(str, Enum):
    """What could not be judged, or only with reserve; the value is its code in JSON."""

    LIMITS_OF_TODAY = "limits-of-today"
    CLOCKS = "clocks"
    CLOCKS_DISAGREE = "clocks-disagree"
    CLOCK_STEPPED = "clock-stepped"
    UNLIMITED = "unlimited"
    POOL_UNKNOWN = "pool-unknown"
    UNFINISHED = "unfinished"
    DOUBTFUL = "doubtful"
    LEDGER_SHORT = "ledger-short"
    LEDGER_ONLY = "ledger-only"
    LIMIT_UNKNOWN = "limit-unknown"
    BEGAN_BEFORE = "began-before"
    EXPIRED = "expired"
    RATES_BY_CLOCK = "rates-by-clock"
    STARTS_UNWRITTEN = "starts-unwritten"

    def sentence(self, count: int) -> str:
        """Say it of so many executions, or of so many pools where it is about pools."""
        return _SENTENCES[self].format(them=number(count, "execution"), pools=number(count, "pool"))


_SENTENCES = {
    Caveat.LIMITS_OF_TODAY: "Measured by the limits of today: event logs do not tell which were "
    "in force before.",
    Caveat.CLOCKS: "Times are the clocks of the machines that executed. What overlaps by less than "
    "these disagree cannot be told.",
    Caveat.CLOCKS_DISAGREE: "{them} with the end before the start, by clocks that disagree: "
    "not judged.",
    Caveat.CLOCK_STEPPED: "The clock of the database stepped back while {pools} were in use. The "
    "order is that of the commits all the same; times and durations around it are not exact.",
    Caveat.UNLIMITED: "{them} of pools without a limit: nothing to judge.",
    Caveat.POOL_UNKNOWN: "{them} whose pool is not known: not judged.",
    Caveat.UNFINISHED: "{them} without an end (killed, or still at work): taken to last until "
    "the end of the run, or until now.",
    Caveat.DOUBTFUL: "{them} started beside one without an end: perhaps too many, perhaps not.",
    Caveat.LEDGER_SHORT: "The ledger begins later than asked for.",
    Caveat.LEDGER_ONLY: "Only the engine's ledger tells this: not judged.",
    Caveat.LIMIT_UNKNOWN: "{them} let in before the ledger says which limit was in force: not "
    "judged.",
    Caveat.BEGAN_BEFORE: "{them} had begun before the ledger does: not counted beside others.",
    Caveat.EXPIRED: "{them} lost the slots with the lease, and no event of the step proves that it "
    "went on. Work that leaves no event is not seen.",
    Caveat.RATES_BY_CLOCK: "The clock of the database stepped back while {pools} with a rate were "
    "in use. Starts are judged by that clock; by true time, more or fewer started in a span.",
    Caveat.STARTS_UNWRITTEN: "Of {pools} with a rate and without a limit the ledger does not tell "
    "what started: not judged.",
}


Caveats = dict[Subject, Counter[Caveat]]
"""How often each caveat stands by what is judged."""


def no_caveats() -> Caveats:
    """None by any."""
    return {subject: Counter() for subject in SUBJECTS}


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
        stale: Fences that did not grow; the first ``KEPT_MAX``.
        stale_count: How many there were, in all.
        outlived: Steps that went on after their lease; the first ``KEPT_MAX``.
        outlived_count: How many there were, in all.
        duplicates: Where two runs made one partition of one asset at once; the first.
        duplicate_count: How often that was, in all.
        waits: The longest, longest first.
        wait_count: How many waited at least as long as was asked for.
        caveats: By what is judged: what could not be, and how often.
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
    stale: tuple[StaleFence, ...] = ()
    stale_count: int = 0
    outlived: tuple[Outlived, ...] = ()
    outlived_count: int = 0
    duplicates: tuple[Excess, ...] = ()
    duplicate_count: int = 0
    waits: tuple[LongWait, ...] = ()
    wait_count: int = 0
    caveats: Caveats = field(default_factory=no_caveats)


KEPT_MAX = 1000
"""How many of what is found are told one by one; beyond that they are counted."""
