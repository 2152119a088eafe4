"""What ``lifeguard advise`` found, in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from dagster_lifeguard.cli.recording_options import recording_text
from dagster_lifeguard.cli.tables import Column, new_console, table_of
from dagster_lifeguard.engine.rules.shown_names import pool_text, pools_text
from dagster_lifeguard.texts import duration_text, limit_text, number, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dagster_lifeguard.cli.tables import WholeTable
    from dagster_lifeguard.insight.simulation.advice import (
        Advice,
        Blocked,
        OtherWay,
        PoolAdvice,
        Target,
    )


def print_advice(advice: Advice, deployment: str, target: Target) -> None:
    """Print the limits to set, the reason for each, what else would help, and what is unknown."""
    answer = advice.answer
    click.echo(recording_text(answer, deployment))
    if not answer.executions:
        click.echo(
            "No limit can be advised without past executions. Look further back: --since 30d"
        )
        return
    click.echo(f"Target: {_target_text(target)}.\n")
    touched = [p for p in advice.pools if p.verdict != "met" or p.wait > p.target.seconds]
    if touched:
        new_console().print(_table(touched))
        click.echo()
    alike: dict[str, list[str]] = {}
    for found in touched:
        alike.setdefault(_reason(found), []).append(found.pool)
    for reason, pools in alike.items():
        click.echo(f"- {printable(f'{pools_text(pools)}: {reason}')}")
    others = len(advice.pools) - len(touched)
    if others:
        also = "other " if touched else ""
        click.echo(
            f"- {number(others, also + 'pool')} {'meets' if others == 1 else 'meet'} the target "
            "with today's limits."
        )
    for sentence in _further(advice):
        click.echo(f"- {printable(sentence)}")
    for doubt in answer.doubts:
        if doubt.pools:
            click.secho(f"- {printable(doubt.message)}", fg="yellow")
    click.echo("How well the play fits the past, and what it cannot know: lifeguard simulate\n")


def _table(pools: list[PoolAdvice]) -> WholeTable:
    return table_of(
        pools,
        Column("pool", lambda found: pool_text(found.pool)),
        Column("limit", lambda found: limit_text(found.settings.limit), right=True),
        Column("advised", lambda found: limit_text(found.limit), right=True),
        Column("wait", lambda found: _share(found.target)),
        Column("now", lambda found: _wait_text(found.wait), right=True),
        Column("advised", lambda found: _wait_text(found.advised), right=True),
        Column("target", lambda found: "met" if found.verdict != "unmet" else "missed"),
    )


def _share(target: Target) -> str:
    return f"p{target.share * 100:.0f}"


def _target_text(target: Target) -> str:
    return f"{_share(target)} wait < {duration_text(target.seconds)}"


def _wait_text(seconds: float) -> str:
    return "never" if math.isinf(seconds) else duration_text(seconds)


def _reason(found: PoolAdvice) -> str:
    """What to do with a pool and why, without its name."""
    waited = (
        f"{found.late:,} of {number(found.executions, 'execution')} waited longer than "
        f"{duration_text(found.target.seconds)}"
    )
    if found.verdict == "unmet":
        why = " ".join(_obstacles(found.blocked)) or "More slots would not help."
        return f"the target is missed. {waited}. {why}"
    if found.verdict == "met":
        return f"keep the limit. {waited} with today's limits, but for another pool."
    used = (
        ""
        if found.utilisation is None
        else f" On average {found.utilisation:.0%} of its slots were held."
    )
    less = (
        f" With {found.limit - 1} the {_share(found.target)} wait would be "
        f"{_wait_text(found.one_less)}."
        if found.one_less is not None
        else ""
    )
    if found.verdict == "lowered":
        return f"a limit of {found.limit} is enough.{used}{less}"
    return f"raise the limit to {found.limit}. {waited}.{used}{less}"


def _obstacles(found: Sequence[Blocked]) -> Iterator[str]:
    locks = [blocked.pool for blocked in found if blocked.why == "lock"]
    if locks:
        budgets = " ".join(f'--budget "{pool_text(pool)} <= 2"' for pool in locks)
        yield f"A limit of 1 keeps two executions apart. If two may overlap, add: {budgets}"
    yield from (_obstacle(blocked) for blocked in found if blocked.why != "lock")


def _obstacle(blocked: Blocked) -> str:
    name = pool_text(blocked.pool)
    if blocked.why == "paused":
        return f"{name} is paused."
    if blocked.why == "rate":
        return f"The rate of {name} keeps steps waiting, not its limit."
    if blocked.why == "run-queue":
        return (
            "The run queue keeps runs waiting, by max_concurrent_runs or a limit by tag. Try: "
            "lifeguard simulate --max-concurrent-runs N"
        )
    return f"The budget of {name} is used up, or a larger limit within it does not help."


def _further(advice: Advice) -> Iterator[str]:
    for way in advice.other_ways:
        yield _other_way(way)
    if advice.unused:
        many = len(advice.unused) > 1
        yield (
            f"No execution asked for {pools_text(advice.unused)}: "
            f"{'these limits' if many else 'this limit'} may not be needed."
        )
    for pool, limit, most in advice.never_full:
        yield f"{pool_text(pool)} was never full: limit {limit}, at most {most} held."


def _other_way(way: OtherWay) -> str:
    name, shorter = (
        pool_text(way.pool),
        f"{_wait_text(way.after)} in place of {_wait_text(way.wait)}",
    )
    if way.kind == "fair-order":
        return (
            f"order: fair(backfill) for {name} would let runs outside of backfills wait {shorter}, "
            "with the same limit."
        )
    turns = (
        f"{number(way.runs, 'run')} of the backfill {way.backfill} took turns at {name} for "
        f"{duration_text(way.span)}. "
        if way.backfill
        else ""
    )
    return (
        f"{turns}One pool per partition in place of {name} would make the wait {shorter}. Do this "
        "only if two partitions may be written at once."
    )
