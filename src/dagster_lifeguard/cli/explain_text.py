"""What ``lifeguard explain`` found, in words."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING

from rich.text import Text

from dagster_lifeguard.cli.tables import Facts
from dagster_lifeguard.engine.rules.model import WaitReason
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.insight.deadline import deadline_text
from dagster_lifeguard.insight.estimate import PLAYS
from dagster_lifeguard.insight.step_answer import State
from dagster_lifeguard.insight.wording import (
    blockage_text,
    estimate_text,
    lost_text,
    reason_text,
)
from dagster_lifeguard.texts import (
    clock_text,
    duration_text,
    number,
    printable,
    short,
    temporary_text,
    window_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import RenderableType

    from dagster_lifeguard.insight.estimate import Estimate
    from dagster_lifeguard.insight.explanation import Explanation
    from dagster_lifeguard.insight.overview import PoolSummary
    from dagster_lifeguard.insight.pools import Holder, Waiter
    from dagster_lifeguard.insight.run_queue import QueuePlace
    from dagster_lifeguard.insight.step_answer import AskedPool, StepAnswer

SHOWN_MAX = 5
"""Of those who hold or are ahead only so many are listed, unless --all asks for each."""

ORDER_STOCK = (
    "higher priority, then first come, first served. Dagster reserves a free slot for the first in "
    "line, which takes it at its next look: after 1 s at first, after up to 15 s later on"
)
ORDER_ENGINE = (
    "higher priority, then first come, first served. Later steps pass a step that waits for "
    "another pool, until its patience is over (patience_seconds, by default 5 min)"
)
ORDER_RUN = (
    "the run queue looks at runs with a higher dagster/priority first, then at older ones, and "
    "skips a run whose pools or tag limits are full"
)

FAIR_POOL = (
    " A slot of {} goes to the group that holds the fewest of its slots, and within the group to "
    "the step that came first."
)
FAIR_RUN = (
    " Among the runs that will ask for {}, the group whose runs in progress hold the fewest slots "
    "is first, whatever their age."
)

_TOLD = (State.HOLDING, State.EXECUTING, State.WAITING, State.QUEUED)
"""What is told step by step; other steps are counted."""

_STATES = {
    State.DONE: "done",
    State.EXECUTING: "executing",
    State.PENDING: "not begun",
    State.NOT_EXECUTED: "not executed",
    State.HOLDING: "holding",
    State.WAITING: "waiting",
    State.QUEUED: "queued",
}


_DOING = {
    State.DONE: "is done",
    State.EXECUTING: "executes",
    State.PENDING: "has not begun",
    State.NOT_EXECUTED: "was not executed",
    State.HOLDING: "holds and executes",
    State.WAITING: "waits",
}


def explanation_lines(found: Explanation, *, name: str, in_full: bool) -> Iterator[RenderableType]:
    """What was found, from top to bottom.

    Args:
        found: The explanation.
        name: What to call the deployment.
        in_full: Whether everybody who holds or is ahead is listed.
    """
    shown_max = None if in_full else SHOWN_MAX
    yield Text(printable(name), style="dim")
    yield _head(found)
    if found.duplicate_of is not None:
        yield Text(f"  It was dropped: run {printable(found.duplicate_of)} does the same work.")
    if found.deadline is not None:
        yield Text(f"  {deadline_text(found.deadline)}")
    for pool_name in found.lease_over:
        yield Text(
            f"  The lease of its process is over, and {printable(pool_text(pool_name))} is not "
            "blocked: the next claim takes back what it has there."
        )
    own = [("its pool", _pool(pool)) for pool in found.pools]
    own += [
        ("its pool", f"{printable(pool_text(name))}: depends on the partition")
        for name in found.pools_by_partition
    ]
    if own:
        yield _facts(own)
    if found.kind == "asset" and not (found.pools or found.pools_by_partition):
        yield Text("  It has no pool, so nothing limits it: any number of runs may execute it.")
    shown = [step for step in found.steps if found.kind == "step" or step.state in _TOLD]
    for _, answers in groupby(shown, key=lambda step: (step.run_id, step.state)):
        yield Text()
        yield from _block(tuple(answers), found, shown_max)
    if len(shown) < len(found.steps):
        yield Text()
        yield _rest([step for step in found.steps if step not in shown], found)
    yield from _order(found)
    if found.runs_unseen:
        yield Text(
            f"Not looked at: {number(found.runs_unseen, 'more unfinished run')}.", style="dim"
        )
    if any(step.state is State.QUEUED for step in found.steps):
        yield Text(
            "If a run stays in the queue although nothing keeps it there: lifeguard doctor",
            style="dim",
        )


def _head(found: Explanation) -> Text:
    name = printable(found.name if found.step_key is None else f"{found.name}:{found.step_key}")
    head = Text.assemble((name, "bold"), " ")
    states = {step.state for step in found.steps}
    if found.is_waiting:
        count = len({s.run_id for s in found.steps if s.state in (State.WAITING, State.QUEUED)})
        runs = f" in {number(count, 'run')}" if found.kind == "asset" else ""
        head.append(f"waits{runs}", style="yellow")
    elif found.never_ran:
        head.append("does not wait: it has never run here, no run has planned it", style="green")
    elif found.kind == "asset" and not found.steps:
        head.append("does not wait: no unfinished run executes it", style="green")
    elif State.HOLDING in states and found.run_over is not None:
        head.append(f"does not wait: its run is {_status(found)}, and still holds", style="yellow")
    elif states & {State.HOLDING, State.EXECUTING}:
        head.append("does not wait: it executes", style="green")
    elif not states:
        head.append("has no known step", style="yellow")
    elif states <= {State.DONE, State.NOT_EXECUTED}:
        done = "is done" if State.DONE in states else "was not executed"
        head.append(f"does not wait: it {done}, its run is {_status(found)}", style="green")
    else:
        head.append("does not wait for a pool: its run has not reached it yet", style="green")
    return head


def _status(found: Explanation) -> str:
    status = ", ".join(sorted({step.run_status.lower() for step in found.steps}))
    if found.run_ended is None:
        return status
    return f"{status} since {duration_text(max(0.0, found.at - found.run_ended))}"


def _block(
    answers: Sequence[StepAnswer], found: Explanation, shown_max: int | None
) -> Iterator[RenderableType]:
    """Steps of one run that are in one state."""
    first = answers[0]
    run = f"run {short(first.run_id)} of {printable(first.job_name)}"
    if first.queue_place is not None:
        yield _line(f"{run} is in the run queue", first)
        yield _facts(_of_queue(first.queue_place, found, shown_max))
        return
    if first.state is State.QUEUED:
        yield _line(f"{run} is {first.run_status.lower()}: it was not launched yet", first)
        return
    for answer in answers:
        yield _line(f"{run}, step {printable(answer.step_key)}, {_DOING[answer.state]}", answer)
        yield _facts(_of_step(answer, found, shown_max))


def _rest(answers: Sequence[StepAnswer], found: Explanation) -> Text:
    counts = Counter(answer.state for answer in answers)
    parts = ", ".join(f"{count:,} {_STATES[state]}" for state, count in counts.items())
    return Text(f"{'Other steps' if len(answers) < len(found.steps) else 'Steps'}: {parts}.")


def _order(found: Explanation) -> Iterator[Text]:
    at_pools = ORDER_STOCK if found.engine is False else ORDER_ENGINE
    waiting = [step for step in found.steps if step.state is State.WAITING]
    queued = [step for step in found.steps if step.queue_place is not None]
    for steps, order, fair in ((waiting, at_pools, FAIR_POOL), (queued, ORDER_RUN, FAIR_RUN)):
        if steps:
            yield Text()
            yield Text(f"Order: {order}." + "".join(map(fair.format, _fair(steps))))


def _fair(steps: Iterable[StepAnswer]) -> Iterator[str]:
    """The pools of these steps whose slots are shared fairly, in words, if there are some."""
    asked = {asked.pool.pool: asked.pool for step in steps for asked in step.pools}
    fair = [name for name, pool in asked.items() if "order" in pool.settings and pool.limit]
    if fair:
        yield ", ".join(printable(pool_text(name)) for name in sorted(fair))


def _line(text: str, answer: StepAnswer) -> Text:
    lasting = (State.WAITING, State.QUEUED, State.HOLDING, State.EXECUTING)
    if answer.seconds is None or answer.state not in lasting:
        return Text(text)
    return Text(f"{text} for {duration_text(answer.seconds)}")


def _of_queue(
    place: QueuePlace, found: Explanation, shown_max: int | None
) -> Iterator[tuple[str, str]]:
    priority = f", priority {place.priority}" if place.priority else ""
    yield "position", f"{place.position:,} of {place.length:,}{priority}"
    if not place.blockages:
        yield "because", "nothing keeps it there: the daemon launches it when it looks next"
    for blockage in place.blockages:
        yield "because", blockage_text(blockage)
        runs = blockage.behind[:shown_max]
        told = [f"{short(r.run_id)} of {r.job_name}, {duration_text(r.elapsed)}" for r in runs]
        yield from _several("behind", told, len(blockage.behind))
    if place.estimate is not None:
        yield "estimate", _drawn(place.estimate, found)


def _of_step(
    answer: StepAnswer, found: Explanation, shown_max: int | None
) -> Iterator[tuple[str, str]]:
    if found.kind != "asset" and answer.assets:
        yield "makes", ", ".join(answer.assets)
    if not answer.pools:
        yield "pool", "none: nothing limits it"
        return
    for asked in answer.pools:
        yield from _of_pool(asked, answer, found, shown_max)
    if not answer.is_limited:
        yield "limit", "none: its pools are unlimited, so nothing limits it"
    if answer.state is State.WAITING and answer.estimate is not None:
        yield "estimate", _drawn(answer.estimate, found)


def _of_pool(
    asked: AskedPool, answer: StepAnswer, found: Explanation, shown_max: int | None
) -> Iterator[tuple[str, str]]:
    slots = f"{asked.slots} slots of " if asked.slots != 1 else ""
    yield "pool", f"{slots}{_pool(asked.pool)}"
    fall_back = asked.pool.fall_back
    if fall_back is not None:
        text = temporary_text(asked.pool.limit, fall_back.at, fall_back.limit, found.at)
        yield "limit", text
    for holder in asked.holders:
        if holder.lost is not None and (holder.run_id, holder.step_key) == answer.key:
            yield "dead", lost_text(holder.lost)
    waiter = asked.waiter
    if waiter is None or answer.state is not State.WAITING:
        return
    priority = f", priority {waiter.priority}" if waiter.priority else ""
    yield "position", f"{waiter.position:,} of {asked.pool.waiting - asked.pool.queued:,}{priority}"
    reasons = {other.waiter.reason for other in answer.pools if other.waiter is not None}
    if waiter.reason is WaitReason.NEXT and reasons != {WaitReason.NEXT}:
        yield "because", "another of its pools blocks it, not this one"
    else:
        yield "because", reason_text(waiter.reason, engine=found.engine)
    told = [_holder(holder, found.at) for holder in asked.holders[:shown_max]]
    yield from _several("behind", told, len(asked.holders))
    # Who is next ahead of it tells most, so the end of the line is shown.
    ahead = asked.ahead if shown_max is None else asked.ahead[-shown_max:]
    yield from _several("ahead", [_waiter(other) for other in ahead], len(asked.ahead))


def _pool(pool: PoolSummary) -> str:
    rate = f", {pool.settings['rate']}" if "rate" in pool.settings else ""
    if pool.limit is None:
        return f"{pool_text(pool.pool)}: no limit{rate}, {pool.held:,} held"
    limit = "paused, " if pool.limit == 0 else ""
    default = " (the default limit)" if pool.from_default else ""
    waiting = f", {pool.waiting:,} waiting" if pool.waiting else ""
    if pool.queued:
        waiting += f" ({pool.queued:,} in the run queue)"
    held = f"{pool.held:,} of {pool.limit:,} held"
    return f"{pool_text(pool.pool)}: {limit}{held}{default}{rate}{waiting}"


def _holder(holder: Holder, now: float) -> str:
    text = f"{short(holder.run_id)} {holder.step_key or holder.job_name or ''}".rstrip()
    if holder.since is not None and holder.elapsed is not None:
        text += f", since {clock_text(holder.since, now)} ({duration_text(holder.elapsed)})"
    if holder.typical is not None:
        text += f", typically {duration_text(holder.typical.p50)}"
    if holder.lost is not None:
        text += f"; {lost_text(holder.lost)}"
    if holder.is_leaked:
        status = (holder.run_status or "unknown").lower()
        text += f"; its run is {status}: see lifeguard free {short(holder.run_id)}"
    return text


def _waiter(waiter: Waiter) -> str:
    text = f"{waiter.position}. {short(waiter.run_id)} {waiter.step_key or waiter.job_name or ''}"
    return text if waiter.waited is None else f"{text}, waits {duration_text(waiter.waited)}"


def _several(word: str, told: Iterable[str], count: int) -> Iterator[tuple[str, str]]:
    told = list(told)
    for text in told:
        yield word, text
        word = ""
    if count > len(told):
        yield word, f"and {count - len(told):,} more; --all lists them"


def _drawn(estimate: Estimate, found: Explanation) -> str:
    text = estimate_text(estimate)
    if estimate.missing is None and estimate.samples:
        executions = number(estimate.samples, "execution")
        text += f", drawn from {executions} of the last {window_text(found.window)}"
    if 0 < estimate.plays < PLAYS[0]:
        text += f"; simulated only {estimate.plays} times, as much is ahead"
    return text


def _facts(rows: Iterable[tuple[str, str]]) -> Facts:
    return Facts(rows, indent=2)
