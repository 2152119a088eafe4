"""Pools as tables: all of them, and one with its holders and its queue."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from dagster_lifeguard.cli.tables import Facts, WholeTable, cell
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
    from dagster_lifeguard.insight.run_queue import Queued
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
    table = WholeTable()
    table.add_column("pool")
    if wide:
        table.add_column("")
    table.add_column("held", right=True)
    table.add_column("waiting", right=True)
    has_queued = any(pool.queued for pool in pools)
    if has_queued:
        table.add_column("queued", right=True)
    table.add_column("oldest", right=True)
    if found.window:
        table.add_column("p50 wait", right=True)
        table.add_column("p95 wait", right=True)
    for pool in pools:
        cells = [cell(pool_text(pool.pool))]
        if wide:
            cells.append(_bar(pool))
        cells.append(_held(pool) + Text(_until(pool, found.at)))
        cells.append(_count(pool.waiting))
        if has_queued:
            cells.append(_count(pool.queued))
        cells.append(Text(_or_dash(pool.oldest_wait)))
        if found.window:
            cells += [Text(_p50(pool.waits)), Text(_p95(pool.waits))]
        table.add_row(*cells)
    return table


def _count(count: int) -> Text:
    return Text(f"{count:,}" if count else "-")


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
    table = WholeTable()
    table.add_column("run")
    table.add_column("job" if by_run else "step")
    table.add_column("run status")
    slotted = any(holder.slots != 1 for holder in holders)
    grouped = any(holder.group is not None for holder in holders)
    if slotted:
        table.add_column("slots", right=True)
    if grouped:
        table.add_column("group")
    table.add_column("since")
    table.add_column("held for", right=True)
    table.add_column("typically", right=True)
    for holder in holders:
        cells = [
            Text(short(holder.run_id)),
            cell(holder.step_key or holder.job_name or "-"),
            run_status(holder.run_status, leaked=holder.is_leaked)
            + Text("" if holder.lost is None else ", step dead", style="red"),
            *([Text(str(holder.slots))] if slotted else []),
            *([cell(holder.group or "-")] if grouped else []),
            Text("-" if holder.since is None else clock_text(holder.since, now)),
            Text(_or_dash(holder.elapsed)),
            Text(_p50(holder.typical)),
        ]
        table.add_row(*cells)
    return table


def _queue(queue: Sequence[Waiter], settings: Settings) -> WholeTable:
    table = WholeTable()
    by_run = settings.granularity == "run"
    table.add_column("#", right=True)
    table.add_column("run")
    table.add_column("job" if by_run else "step")
    slotted = any(waiter.slots != 1 for waiter in queue)
    ranked = any(waiter.priority for waiter in queue)
    grouped = any(waiter.group is not None for waiter in queue)
    if slotted:
        table.add_column("slots", right=True)
    if ranked:
        table.add_column("priority", right=True)
    if grouped:
        table.add_column("group")
    table.add_column("waiting for", right=True)
    table.add_column("starts in")
    table.add_column("because", prose=True)
    for waiter in queue:
        cells = [
            Text(str(waiter.position)),
            Text(short(waiter.run_id)),
            cell(waiter.step_key or waiter.job_name or "-"),
            *([Text(str(waiter.slots))] if slotted else []),
            *([Text(str(waiter.priority))] if ranked else []),
            *([cell(waiter.group or "-")] if grouped else []),
            Text(_or_dash(waiter.waited)),
            Text(short_estimate(waiter.estimate)),
            Text(reason_text(waiter.reason, engine=settings.engine)),
        ]
        table.add_row(*cells)
    return table


def _in_queue(queued: Queued) -> WholeTable:
    table = WholeTable()
    table.add_column("#", right=True)
    table.add_column("run in the queue")
    table.add_column("queued for", right=True)
    table.add_column("launched in")
    table.add_column("because", prose=True)
    for run in queued.first:
        place = run.place
        because = ", ".join(map(short_blockage, place.blockages))
        table.add_row(
            Text(str(place.position)),
            Text(short(run.run_id)),
            Text(duration_text(run.waited)),
            Text("next look" if place.estimate is None else short_estimate(place.estimate)),
            Text(printable(because or "-")),
        )
    return table


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
