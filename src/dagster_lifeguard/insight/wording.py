"""Estimates, reasons and spreads in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.model import WaitReason
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.insight.estimate import Estimate, NoEstimate
from dagster_lifeguard.insight.queue_look import Obstacle
from dagster_lifeguard.texts import duration_text, number

if TYPE_CHECKING:
    from dagster_lifeguard.insight.durations import Spread
    from dagster_lifeguard.insight.run_queue import Blockage
    from dagster_lifeguard.insight.simulation.track_record import TrackRecord

MISSING = {
    NoEstimate.NO_HISTORY: "too little history for the holders or for the steps ahead",
    NoEstimate.OUTLASTED: "the holder has already run longer than nearly every past run",
    NoEstimate.LEAKED: "the holder's run is over, so it may never release its slot",
    NoEstimate.PAUSED: "the limit is 0",
    NoEstimate.TOO_LARGE: "it asks for more slots than the limit",
    NoEstimate.TOO_FAR: "too many steps are ahead",
}
"""Why there is no estimate."""

REASONS = {
    WaitReason.PAUSED: "paused: the limit is 0",
    WaitReason.TOO_LARGE: "asks for more slots than the limit",
    WaitReason.FULL: "the pool is full",
    WaitReason.BEHIND: "the free slots are for the steps ahead",
    WaitReason.PROMISED: "a slot is reserved for it; it takes the slot at its next look",
    WaitReason.NEXT: "a slot is free, and it is next",
    WaitReason.RATE: "a slot is free; the rate delays its start",
}
"""Why a step waits."""


def lost_text(process: str) -> str:
    """That the step's own process is dead, while another keeps its slots."""
    return (
        f"the step's own process {process} is dead or silent; its slots stay held while its run "
        "worker lives"
    )


def reason_text(reason: WaitReason, *, engine: bool | None) -> str:
    """Why a step waits, as far as it is told.

    Args:
        reason: As found.
        engine: Whether the engine admits steps; None where that cannot be seen, nor a rate.
    """
    if reason is WaitReason.NEXT and engine is None:
        return f"{REASONS[reason]}, unless a rate holds it up, which a webserver does not tell"
    return REASONS[reason]


def estimate_text(estimate: Estimate) -> str:
    """An estimate as a sentence part: ``in about 8m (2m to 15m)``."""
    if estimate.missing is not None:
        return f"no estimate: {MISSING[estimate.missing]}"
    assert estimate.typical is not None
    if estimate.latest is not None and estimate.latest < 1.0:
        return "any moment"
    return f"in about {duration_text(estimate.typical)} ({_range(estimate)})"


def record_text(record: TrackRecord) -> str:
    """How well estimates fitted: ``of 200 waits of the last week, 78 % started within ...``."""
    if record.share is None:
        return "none of the last week can be judged: too few waits, or too little before them"
    text = (
        f"of {number(record.waits, 'wait')} of the last week, {100 * record.share:.0f} % started "
        "within the estimated range"
    )
    if record.error is not None:
        text += f"; half of them within {100 * record.error:.0f} % of its middle"
    return text


def short_estimate(estimate: Estimate) -> str:
    """An estimate in a cell of a table: ``8m (2m to 15m)``, or ``-``."""
    if estimate.missing is not None or estimate.typical is None:
        return "-"
    if estimate.latest is not None and estimate.latest < 1.0:
        return "any moment"
    return f"{duration_text(estimate.typical)} ({_range(estimate)})"


def _range(estimate: Estimate) -> str:
    soonest = duration_text(estimate.soonest or 0.0)
    if estimate.latest is None:
        return f"{soonest} to unknown"
    return f"{soonest} to {duration_text(estimate.latest)}"


def spread_text(spread: Spread | None) -> str:
    """How durations are spread, in one line."""
    if spread is None:
        return "none known"
    return (
        f"p50 {duration_text(spread.p50)}, p95 {duration_text(spread.p95)} "
        f"({spread.count:,} execution{'s' if spread.count != 1 else ''})"
    )


def blockage_text(blockage: Blockage) -> str:
    """What keeps a run in the queue."""
    if blockage.obstacle is Obstacle.RUNS_MAX:
        return (
            f"{blockage.taken:,} runs are in progress and max_concurrent_runs is {blockage.limit:,}"
        )
    if blockage.obstacle is Obstacle.TAG:
        return (
            f"{number(blockage.taken, 'run')} with the tag {blockage.name} "
            f"{'is' if blockage.taken == 1 else 'are'} in progress and its limit is "
            f"{blockage.limit:,} (tag_concurrency_limits)"
        )
    if blockage.limit == 0:
        return f"the pool {pool_text(blockage.name)} is paused: its limit is 0"
    text = f"the pool {pool_text(blockage.name)} is full: "
    text += f"{blockage.taken:,} of {blockage.limit:,} held"
    if blockage.promised:
        text += f", {blockage.promised:,} more counted for steps that wait and runs that begin"
    return text


def short_blockage(blockage: Blockage) -> str:
    """What keeps a run in the queue, in a cell of a table: ``warehouse is full``."""
    if blockage.obstacle is Obstacle.RUNS_MAX:
        return f"{blockage.taken:,} of {blockage.limit:,} runs in progress"
    if blockage.obstacle is Obstacle.TAG:
        return f"{blockage.taken:,} of {blockage.limit:,} with {blockage.name}"
    return f"{pool_text(blockage.name)} is {'full' if blockage.limit else 'paused'}"
