"""The answer of ``lifeguard simulate`` as text: its fit, both plays, who gains and who loses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dagster_lifeguard.cli.recording_options import recording_text
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.texts import duration_text, limit_text, number, printable

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from dagster_lifeguard.cli.tables import WholeTable
    from dagster_lifeguard.engine.rules.pool_settings import PoolSettings
    from dagster_lifeguard.insight.simulation.answer import (
        Answer,
        PoolAnswer,
        QueueAnswer,
        Side,
        StepAnswer,
        Waits,
    )
    from dagster_lifeguard.insight.simulation.backfills import BackfillAnswer

STEPS_MAX = 10
"""So many steps that gain, and as many that lose, are shown as text; JSON has all. The same for
backfills whose time changes."""

_TRUSTS = {
    "good": "good",
    "poor": "poor",
    "too-few": "too few waits",
    "no-waits": "nothing waited",
}
_LEFT = ("pool", "settings", "step", "pools", "fit", "backfill")
"""The columns of text."""

_QUEUE = "runs, in the run queue"


def touched(answer: Answer, wanted: Collection[str]) -> list[PoolAnswer]:
    """The pools that were asked about, and those that are used in another way."""
    return [f for f in answer.pools if f.pool in wanted or f.before != f.after]


def print_answer(answer: Answer, deployment: str, wanted: Collection[str]) -> None:
    """Print how well the past can be played, then what would have been, then what is not known."""
    from dagster_lifeguard.cli.tables import new_console  # noqa: PLC0415 - slow

    console = new_console()
    click.echo(f"{recording_text(answer, deployment)}\n")
    if answer.pools or answer.queue:
        click.secho("How well the play fits what really happened", bold=True)
        console.print(_calibration_table(answer))
        click.echo()
    shown = touched(answer, wanted)
    is_queue_touched = answer.queue is not None and answer.queue.before != answer.queue.after
    if shown or is_queue_touched:
        click.secho("With what was in force, and with what was asked for", bold=True)
        console.print(_sides(shown, answer.queue if is_queue_touched else None))
        click.echo()
    for heading, steps in (("Wait less", answer.gaining), ("Wait longer", answer.losing)):
        if steps:
            click.secho(heading, bold=True)
            console.print(_steps(steps[:STEPS_MAX]))
            if len(steps) > STEPS_MAX:
                click.echo(f"and {number(len(steps) - STEPS_MAX, 'more step')}; --json lists all")
            click.echo()
    changed = [found for found in answer.backfills if found.change]
    if changed:
        click.secho("Backfills, from the first step that asked to the end of the last", bold=True)
        console.print(_backfills(changed[:STEPS_MAX]))
        if len(changed) > STEPS_MAX:
            click.echo(f"and {number(len(changed) - STEPS_MAX, 'more backfill')}; --json lists all")
        click.echo()
    if (shown or is_queue_touched) and not (answer.gaining or answer.losing):
        click.echo("No step would have waited longer or less.\n")
    for doubt in answer.doubts:
        style = {"fg": "yellow"} if doubt.pools else {"dim": True}
        click.secho(f"- {printable(doubt.message)}", **style)


def _calibration_table(answer: Answer) -> WholeTable:
    table = _table(
        "pool",
        "executions",
        "waited",
        "real wait p50",
        "p95",
        "played p50",
        "p95",
        "error p50",
        "p90",
        "fit",
    )
    fits = [(pool_text(found.pool), found.calibration) for found in answer.pools]
    if answer.queue is not None:
        fits.append((_QUEUE, answer.queue.calibration))
    for name, fit in fits:
        _add(
            table,
            name,
            f"{fit.recorded.count:,}",
            f"{fit.waited:,}",
            *_pair(fit.recorded),
            *_pair(fit.played),
            _seconds(fit.error_p50),
            _seconds(fit.error_p90),
            _TRUSTS[fit.trust],
        )
    return table


def _sides(pools: Sequence[PoolAnswer], queue: QueueAnswer | None) -> WholeTable:
    table = _table(
        "pool",
        "settings",
        "wait p50",
        "p95",
        "used",
        "most held",
        "never started",
    )
    for found in pools:
        for name, side in ((pool_text(found.pool), found.before), ("", found.after)):
            _add(
                table,
                name,
                _settings(side.settings),
                *_pair(side.waits),
                _used(side),
                f"{side.most:,}",
                f"{side.waits.never:,}" if side.waits.never else "-",
            )
    if queue is not None:
        for name, of_queue in ((_QUEUE, queue.before), ("", queue.after)):
            runs = "any number" if of_queue.runs_max < 0 else f"{of_queue.runs_max:,}"
            _add(
                table,
                name,
                f"{runs} at once",
                *_pair(of_queue.waits),
                "-",
                f"{of_queue.most:,}",
                f"{of_queue.waits.never:,}" if of_queue.waits.never else "-",
            )
    return table


def _settings(settings: PoolSettings) -> str:
    return ", ".join([limit_text(settings.limit), *settings.texts_set.values()])


def _used(side: Side) -> str:
    return "-" if side.utilisation is None else f"{side.utilisation:.0%}"


def _steps(steps: Sequence[StepAnswer]) -> WholeTable:
    table = _table("step", "pools", "executions", "mean wait before", "after", "in total")
    for step in steps:
        sign = "-" if step.change < 0 else "+"
        _add(
            table,
            step.step_key,
            ", ".join(map(pool_text, step.pools)),
            f"{step.executions:,}",
            duration_text(step.before),
            duration_text(step.after),
            f"{sign}{duration_text(abs(step.change))}",
        )
    return table


def _backfills(found: Sequence[BackfillAnswer]) -> WholeTable:
    table = _table("backfill", "runs", "executions", "took before", "after", "change")
    for one in found:
        sign = "-" if one.change < 0 else "+"
        _add(
            table,
            one.backfill,
            f"{one.runs:,}",
            f"{one.executions:,}",
            _seconds(one.before),
            _seconds(one.after),
            f"{sign}{duration_text(abs(one.change))}",
        )
    return table


def _pair(waits: Waits) -> tuple[str, str]:
    return _seconds(waits.p50), _seconds(waits.p95)


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else duration_text(seconds)


def _table(*headings: str) -> WholeTable:
    from dagster_lifeguard.cli.tables import WholeTable  # noqa: PLC0415 - slow

    table = WholeTable()
    for heading in headings:
        table.add_column(heading, right=heading not in _LEFT)
    return table


def _add(table: WholeTable, *texts: str) -> None:
    from dagster_lifeguard.cli.tables import cell  # noqa: PLC0415 - slow

    table.add_row(*map(cell, texts))
