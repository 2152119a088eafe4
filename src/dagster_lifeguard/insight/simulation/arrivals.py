"""What is played: runs in the run queue, executions that ask for slots, and changes of pools."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from dagster_lifeguard.engine.rules.model import Demand, TicketKey
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings

PARTITION_TAG = "dagster/partition"
"""The tag with the partition of a run."""

_NO_TAGS: Mapping[str, str] = {}
_NO_RATES: Mapping[str, int] = {}


class Submission(NamedTuple):
    """A run that is submitted, waits in the run queue and is launched.

    Attributes:
        run_id: The run.
        at: When it is submitted, in seconds since the epoch.
        starts: In how many seconds after its launch its process starts.
        rest: For how many seconds it goes on after the end of its last arrival; without arrivals,
            after its launch.
        priority: The higher is launched first.
        tags: For limits by tag, and groups of fair orders.
        pools: The pools for which its steps will ask; None where that is not known.
        first_pools: The slots for which its first steps will ask, by pool; None where that is not
            known, or where one of these steps asks for none.
        is_queued: Whether it goes through the queue; else it is launched at once.
        launching: For how many seconds its launch keeps the daemon from launching others.
    """

    run_id: str
    at: float
    starts: float
    rest: float
    priority: int = 0
    tags: Mapping[str, str] = _NO_TAGS
    pools: frozenset[str] | None = None
    first_pools: Mapping[str, int] | None = None
    is_queued: bool = True
    launching: float = 0.0


class Arrival(NamedTuple):
    """An execution that asks for slots, holds them and gives them back.

    Attributes:
        key: The step of the run.
        at: When it asks: in seconds after the end of ``after``, else in seconds after the launch of
            ``run``, else in seconds since the epoch.
        demand: What it asks for.
        seconds: How long it holds.
        priority: The higher goes first.
        tags: Of its run: the groups of fair orders.
        after: The place, among the arrivals, of an earlier arrival that has to end before.
        run: The place, among the submissions, of its run; None if its launch is not played.
    """

    key: TicketKey
    at: float
    demand: Demand
    seconds: float
    priority: int = 0
    tags: Mapping[str, str] = _NO_TAGS
    after: int | None = None
    run: int | None = None


class Change(NamedTuple):
    """Settings of a pool from a moment on; the limit is the one in force."""

    at: float
    pool: str
    settings: PoolSettings


class Start(NamedTuple):
    """A moment in the middle, from which a play goes on.

    Attributes:
        at: When, in seconds since the epoch.
        holding: The places of the arrivals that hold then. Each holds for ``seconds`` from then on;
            infinite: for ever.
        waiting: The places of the arrivals that wait then, in the order in which they asked, and
            since when each waits.
        due_ns: The state of the rate of each pool that has one; see ``rate``.
        phase: The daemon looks at the run queue at multiples of its interval plus this.
        awaited: The play ends when these have started.
        awaited_runs: And when these have been launched, by their places among the submissions.
    """

    at: float
    holding: Sequence[int] = ()
    waiting: Sequence[tuple[int, float]] = ()
    due_ns: Mapping[str, int] = _NO_RATES
    phase: float = 0.0
    awaited: Collection[int] = ()
    awaited_runs: Collection[int] = ()

    @property
    def placed(self) -> set[int]:
        """The places of the arrivals that hold or wait then."""
        return {*self.holding, *(place for place, _ in self.waiting)}
