"""Pools as tables: all of them, and one with its holders and its queue."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from dagster_lifeguard.cli.tables import Column, Facts, WholeTable, table_of
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.insight.wording import (
    MISSING,
    reason_text,
    record_text,
    short_blockage,
    short_estimate,
    spread_text,
)
from dagster_lifeguard.texts import (
    clock_text,
    duration_text,
    number,
    printable,
    short,
    temporary_text,
    until_text,
    window_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import RenderableType

    from dagster_lifeguard.deployment.contract import Settings
    from dagster_lifeguard.insight.durations import Spread
    from dagster_lifeguard.insight.overview import Overview, PoolSummary
    from dagster_lifeguard.insight.pools import Holder, Pool, Waiter
    from dagster_lifeguard.insight.run_queue import Queued, QueuedRun
    from dagster_lifeguard.insight.simulation.track_record import TrackRecord

ROWS_MAX = 50
"""Of holders and of a queue only so many are listed, unless --all asks for each."""

QUEUED_MAX = 10
"""The same of runs in the run queue."""

_WIDE = 110
_BAR = 10


def overview_table(
    found: Overview,
    pools: Sequence[PoolSummary],
    *,
    name: str,
    width: int,
    rows_max: int | None = None,
    hint: str = "",
) -> Iterator[RenderableType]:
    """All pools in outline.

    Args:
        found: What there is.
        pools: Those of it to list.
        name: What to call the deployment.
        width: Columns of the terminal.
        rows_max: List no more of them, and say how many are left; None: all.
        hint: What to say beside that.
    """
    yield Text(printable(name), style="dim")
    if pools:
        yield _summaries(pools[:rows_max], found, wide=width >= _WIDE)
        left = len(pools) - len(pools[:rows_max])
        yield Text(f"and {left:,} more{hint}" if left else "", style="dim")
    yield from _sums(found, len(pools))


def _summaries(pools: Sequence[PoolSummary], found: Overview, *, wide: bool) -> WholeTable:
    has_past = bool(found.window)
    return table_of(
        pools,
        Column("pool", lambda pool: pool_text(pool.pool)),
        Column("", _bar, shown=wide),
        Column("held", lambda pool: _held(pool) + Text(_until(pool, found.at)), right=True),
        Column("waiting", lambda pool: _count(pool.waiting), right=True),
        Column(
            "queued",
            lambda pool: _count(pool.queued),
            right=True,
            shown=any(pool.queued for pool in pools),
        ),
        Column("oldest", lambda pool: _or_dash(pool.oldest_wait), right=True),
        Column("p50 wait", lambda pool: _p50(pool.waits), right=True, shown=has_past),
        Column("p95 wait", lambda pool: _p95(pool.waits), right=True, shown=has_past),
    )


def _count(count: int) -> str:
    return f"{count:,}" if count else "-"


def _bar(pool: PoolSummary) -> Text:
    if pool.limit is None:
        return Text("unlimited", style="dim")
    if pool.limit == 0:
        return Text("paused", style="yellow")
    filled = min(_BAR, -(-pool.held * _BAR // pool.limit))
    return Text.assemble(("#" * filled, _colour(pool)), ("." * (_BAR - filled), "dim"))


def _held(pool: PoolSummary) -> Text:
    if pool.limit is None:
        return Text(f"{pool.held:,}, no limit")
    if pool.limit == 0:
        return Text(f"{pool.held:,}, paused" if pool.held else "paused", style="yellow")
    return Text(f"{pool.held:,} of {pool.limit:,}", style=_colour(pool))


def _until(pool: PoolSummary, now: float) -> str:
    return "" if pool.fall_back is None else f" until {until_text(pool.fall_back.at, now)}"


def _colour(pool: PoolSummary) -> str:
    if pool.limit is not None and pool.held > pool.limit:
        return "red"
    return "yellow" if pool.waiting else "green" if pool.held else ""


def _sums(found: Overview, listed: int) -> Iterator[Text]:
    yield Text(_sum(found) if found.pools else _no_pools(found))
    if found.in_queue:
        are = "is" if found.in_queue == 1 else "are"
        text = f"{number(found.in_queue, 'run')} {are} in Dagster's run queue"
        if found.queued:
            text += "; the column queued counts those that wait for the pool"
        yield Text(f"{text}.")
    idle = [pool for pool in found.pools if pool.is_idle]
    if idle and listed < len(found.pools):
        yield Text(f"{number(len(idle), 'idle pool')}{_by_limit(idle)}.", style="dim")
    if found.window and found.pools:
        yield Text(
            f"p50 and p95: waits of the last {window_text(found.window)}, in the run queue"
            + ("." if found.granularity == "run" else " and at the pool."),
            style="dim",
        )


def _sum(found: Overview) -> str:
    busy = len(found.busy)
    line = f"{number(len(found.pools), 'pool')}, {busy:,} in use: "
    if found.granularity == "run":  # A run counts in each of its pools.
        line += f"{number(found.waiting, 'run')} wait{'' if found.waiting != 1 else 's'}"
    else:
        line += f"{number(found.held, 'slot')} held, {_waiting(found)} "
        line += "waits" if found.waiting == 1 else "wait"
    if found.oldest_wait is not None:
        line += f", the longest for {duration_text(found.oldest_wait)}"
    return f"{line}."


def _no_pools(found: Overview) -> str:
    limit = found.default_limit
    others = "is unlimited" if limit is None else f"has the default limit {limit:,}"
    return (
        "No pool is in use or has a limit of its own. Every pool of your assets "
        f"{others}; lifeguard check lists them."
    )


def _waiting(found: Overview) -> str:
    """How many wait, as steps and as runs."""
    steps = found.waiting - found.queued
    parts = [number(steps, "step")] if steps or not found.queued else []
    if found.queued:
        parts.append(number(found.queued, "run"))
    return " and ".join(parts)


def _by_limit(idle: Iterable[PoolSummary]) -> str:
    counts = Counter(pool.limit for pool in idle)
    most = [
        f"limit {'none' if limit is None else limit}: {count:,}"
        for limit, count in counts.most_common(3)
    ]
    rest = sum(counts.values()) - sum(count for _, count in counts.most_common(3))
    return f" ({', '.join(most)}{f', others: {rest:,}' if rest else ''})"


def pool_report(
    pool: Pool,
    queued: Queued,
    *,
    name: str,
    now: float,
    window: float,
    settings: Settings,
    rows_max: int | None,
    record: TrackRecord | None = None,
) -> RenderableType:
    """One pool with everyone in it.

    Args:
        pool: The pool.
        queued: The runs in Dagster's run queue that will ask for it.
        name: What to call the deployment.
        now: When it was looked at.
        window: Seconds of the past that durations are of.
        settings: Of the deployment.
        rows_max: How many holders, and how many of the queue, to list; None for all.
        record: How well estimates fitted; None if that was not looked at.
    """
    summary = pool.summary
    by_run = settings.granularity == "run"
    parts: list[RenderableType] = [Text(printable(name), style="dim"), _head(summary)]
    facts = [("limit", _limit(summary, now))]
    facts += summary.settings.items()
    if window:
        last = window_text(window)
        facts.append(("waits", f"{spread_text(summary.waits)} in the last {last}"))
        if summary.queue_waits is not None and summary.queue_waits.p95 and not by_run:
            of_that = summary.queue_waits
            told = f"p50 {duration_text(of_that.p50)}, p95 {duration_text(of_that.p95)}"
            facts.append(("of that", f"{told} in the run queue"))
        facts.append(("holds", f"{spread_text(pool.holds)} in the last {last}"))
    if record is not None:
        facts.append(("estimates", record_text(record)))
    parts += [Facts(facts), Text()]
    if pool.holders:
        parts += _listed(_holders(pool.holders[:rows_max], now, by_run=by_run),
                         len(pool.holders), rows_max)  # fmt: skip
    else:
        parts.append(Text(f"No {'run' if by_run else 'step'} holds a slot."))
    parts.append(Text())
    if pool.queue:
        parts += _listed(_queue(pool.queue[:rows_max], settings), len(pool.queue), rows_max)
        missing = dict.fromkeys(w.estimate.missing for w in pool.queue[:rows_max])
        parts += [
            Text(f"No estimate: {MISSING[reason]}.", style="dim") for reason in missing if reason
        ]
    elif summary.queued:
        parts.append(Text("No step waits at the pool."))
    else:
        parts.append(Text(f"No {'run' if by_run else 'step'} waits."))
    if queued.count:
        parts += [Text(), _in_queue(queued)]
        left = queued.count - len(queued.first)
        if left:
            parts.append(Text(f"and {left:,} more; list them with --all", style="dim"))
    return Group(*parts)


def _head(summary: PoolSummary) -> Text:
    head = Text.assemble((printable(pool_text(summary.pool)), "bold"), "  ", _held(summary))
    head.append(" held" if summary.limit else "")
    head.append(f", {summary.waiting:,} waiting")
    if summary.queued:
        head.append(f" ({summary.queued:,} in the run queue)")
    if summary.oldest_wait is not None:
        head.append(f", the longest for {duration_text(summary.oldest_wait)}")
    return head


def _limit(summary: PoolSummary, now: float) -> str:
    if summary.fall_back is not None:
        return temporary_text(summary.limit, summary.fall_back.at, summary.fall_back.limit, now)
    if summary.limit is None:
        return "none: unlimited"
    return f"{summary.limit:,}" + (" (the default)" if summary.from_default else "")


def _listed(table: WholeTable, count: int, rows_max: int | None) -> list[RenderableType]:
    if rows_max is None or count <= rows_max:
        return [table]
    return [table, Text(f"and {count - rows_max:,} more; list them with --all", style="dim")]


def _holders(holders: Sequence[Holder], now: float, *, by_run: bool) -> WholeTable:
    return table_of(
        holders,
        Column("run", lambda holder: short(holder.run_id)),
        Column(
            "job" if by_run else "step", lambda holder: holder.step_key or holder.job_name or "-"
        ),
        Column("run status", _holder_status),
        Column("slots", lambda holder: str(holder.slots), right=True, shown=_have_slots(holders)),
        Column("group", lambda holder: holder.group or "-", shown=_have_groups(holders)),
        Column(
            "since", lambda holder: "-" if holder.since is None else clock_text(holder.since, now)
        ),
        Column("held for", lambda holder: _or_dash(holder.elapsed), right=True),
        Column("typically", lambda holder: _p50(holder.typical), right=True),
    )


def _holder_status(holder: Holder) -> Text:
    lost = Text("" if holder.lost is None else ", step dead", style="red")
    return run_status(holder.run_status, leaked=holder.is_leaked) + lost


def _queue(queue: Sequence[Waiter], settings: Settings) -> WholeTable:
    by_run = settings.granularity == "run"
    return table_of(
        queue,
        Column("#", lambda waiter: str(waiter.position), right=True),
        Column("run", lambda waiter: short(waiter.run_id)),
        Column(
            "job" if by_run else "step", lambda waiter: waiter.step_key or waiter.job_name or "-"
        ),
        Column("slots", lambda waiter: str(waiter.slots), right=True, shown=_have_slots(queue)),
        Column(
            "priority",
            lambda waiter: str(waiter.priority),
            right=True,
            shown=any(waiter.priority for waiter in queue),
        ),
        Column("group", lambda waiter: waiter.group or "-", shown=_have_groups(queue)),
        Column("waiting for", lambda waiter: _or_dash(waiter.waited), right=True),
        Column("starts in", lambda waiter: short_estimate(waiter.estimate)),
        Column(
            "because",
            lambda waiter: reason_text(waiter.reason, engine=settings.engine),
            prose=True,
        ),
    )


def _have_slots(steps: Sequence[Holder | Waiter]) -> bool:
    return any(step.slots != 1 for step in steps)


def _have_groups(steps: Sequence[Holder | Waiter]) -> bool:
    return any(step.group is not None for step in steps)


def _in_queue(queued: Queued) -> WholeTable:
    return table_of(
        queued.first,
        Column("#", lambda run: str(run.place.position), right=True),
        Column("run in the queue", lambda run: short(run.run_id)),
        Column("queued for", lambda run: duration_text(run.waited), right=True),
        Column("launched in", _launched_in),
        Column(
            "because",
            lambda run: ", ".join(map(short_blockage, run.place.blockages)) or "-",
            prose=True,
        ),
    )


def _launched_in(run: QueuedRun) -> str:
    return "next look" if run.place.estimate is None else short_estimate(run.place.estimate)


def run_status(status: str | None, *, leaked: bool) -> Text:
    """The status of a run; a holder whose run is over stands out."""
    text = "unknown" if status is None else status.lower()
    return Text(f"{text} (over)" if leaked and status else text, style="red" if leaked else "")


def _or_dash(seconds: float | None) -> str:
    return "-" if seconds is None else duration_text(seconds)


def _p50(spread: Spread | None) -> str:
    return "-" if spread is None else duration_text(spread.p50)


def _p95(spread: Spread | None) -> str:
    return "-" if spread is None else duration_text(spread.p95)
