"""What a change of a limit does to running and waiting steps, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.texts import limit_text, number, temporary_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dagster_lifeguard.deployment.contract import HoldingStep, WaitingStep
    from dagster_lifeguard.limits.plan import PoolPlan

_STEPS_SHOWN = 3
_ID_SHOWN = 8


def consequences(plan: PoolPlan, now: float) -> tuple[str, ...]:
    """What it would do to set one limit, in sentences."""
    if plan.action == "none":
        return (f"{pool_text(plan.pool)} has this limit already.",)
    before, after = limit_text(plan.live), limit_text(plan.after)
    if plan.fall_back is not None:
        before = temporary_text(plan.live, plan.fall_back.at, plan.lasting, now)
    if plan.until is not None:
        after = temporary_text(plan.after, plan.until, plan.lasting, now)
    first = f"{pool_text(plan.pool)}: limit {before} becomes {after}."
    pause = (
        ("No step starts while the limit is 0; running steps continue.",) if not plan.after else ()
    )
    return (first, *pause, *affected(plan))


def affected(row: PoolPlan) -> Iterator[str]:
    """Who is affected by a change of a pool, a line for each way."""
    if row.drains:
        freed = row.held - (row.after or 0) + (1 if row.after else 0)
        then = (
            f"The next step starts once {freed} of them are released."
            if row.after
            else "No step starts after that."
        )
        yield (
            f"{pool_text(row.pool)}: {number(row.held, 'slot')} "
            f"{'stays' if row.held == 1 else 'stay'} held until the steps end: "
            f"{_names(row.holding)}. {then}"
        )
    elif row.lets_in:
        yield (
            f"{pool_text(row.pool)}: {row.lets_in} of {number(len(row.waiting), 'waiting step')} "
            f"will start: {_names(row.waiting[: row.lets_in])}."
        )
    elif row.action in ("set", "delete") and row.waiting:
        yield f"{pool_text(row.pool)}: no waiting step will start: {_names(row.waiting)}."


def _names(steps: Sequence[HoldingStep | WaitingStep]) -> str:
    shown = [
        step.run_id[:_ID_SHOWN] + (f":{step.step_key}" if step.step_key else "")
        for step in steps[:_STEPS_SHOWN]
    ]
    more = len(steps) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
