"""``lifeguard simulate``: what other limits, rates or orders would have done to the past."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dagster_lifeguard.cli import completion
from dagster_lifeguard.cli.definitions_options import DefinitionsNamed, definitions_options
from dagster_lifeguard.cli.recording_options import recording_options, recording_text
from dagster_lifeguard.cli.target import deployment_options
from dagster_lifeguard.engine.rules.pool_expressions import refuse_unsettable
from dagster_lifeguard.engine.rules.pool_settings import (
    NOTHING_SET,
    PoolSettings,
    limit_in_force,
    parse_order,
    refuse_out_of_bounds,
)
from dagster_lifeguard.engine.rules.rate import Rate
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.policy.config import Config
from dagster_lifeguard.texts import duration_text, limit_text, number, printable

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from dagster_lifeguard.cli.tables import WholeTable
    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.insight.simulation.answer import (
        Answer,
        PoolAnswer,
        QueueAnswer,
        QueueSide,
        Side,
        StepAnswer,
        Waits,
    )
    from dagster_lifeguard.insight.simulation.backfills import BackfillAnswer
    from dagster_lifeguard.insight.simulation.other_rules import OtherDemands
    from dagster_lifeguard.insight.simulation.recording import Recording

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
_SETTING = re.compile(r"(?P<pool>[^=]+?)(?:\.(?P<what>limit|rate|order))?=(?P<value>.+)")
_NONE = ("none", "null")

PARTS = 240
"""Into how many parts a picture divides its window."""


@click.command("simulate")
@click.option(
    "--set",
    "texts",
    metavar="POOL=LIMIT",
    multiple=True,
    help="Play with this setting: warehouse=4, warehouse=none, stripe.rate=50/minute, "
    "reports.order=fair(backfill). Repeatable.",
)
@click.option(
    "--without",
    "without",
    metavar="POOL",
    multiple=True,
    shell_complete=completion.pools,
    help="Play without the limit and the rate of this pool. Repeatable.",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Play with the settings of all pools in this lifeguard.yaml; --set goes before it. With "
    "-m, -f or -w its rules are played too, on the assets of these definitions.",
)
@definitions_options
@click.option(
    "--max-concurrent-runs",
    "runs_max",
    type=click.IntRange(-1),
    help="Play with so many runs at once; -1: with any number.",
)
@click.option(
    "--svg",
    "svg_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a picture to this file, too: the pools as they were, and as they would have been.",
)
@recording_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@deployment_options
def simulate_command(
    deployment: Deployment,
    definitions: DefinitionsNamed,
    texts: tuple[str, ...],
    without: tuple[str, ...],
    config_path: Path | None,
    runs_max: int | None,
    svg_path: Path | None,
    since: float,
    by: Any,
    *,
    as_json: bool,
) -> None:
    """Show what other limits, rates or orders would have done to past executions.

    Plays the executions of the window twice, through the run queue and the engine's rules: with the
    settings that were in force, and with those given. First comes how well the first play fits what
    really happened. Without settings that is all. Nothing is changed.

    \b
    Examples:
      lifeguard simulate
      lifeguard simulate --set warehouse=4 --since 7d
      lifeguard simulate --set stripe.rate=50/minute --set "reports.order=fair(backfill)"
      lifeguard simulate --config other-lifeguard.yaml -m my_project.definitions
      lifeguard simulate --max-concurrent-runs 20 --svg before-and-after.svg
      lifeguard simulate --without warehouse --json | jq '.pools[0].after'

    Exit code: 0, or 2 for a mistake in what was asked.
    """
    from dagster_lifeguard.insight.simulation.answer import simulate  # noqa: PLC0415 - slow
    from dagster_lifeguard.insight.simulation.history import read_recording  # noqa: PLC0415 - slow
    from dagster_lifeguard.insight.simulation.other_rules import (  # noqa: PLC0415 - slow
        NO_OTHER_DEMANDS,
    )

    given = [_parsed(text) for text in texts]
    config = None if config_path is None else Config.from_yaml(config_path)
    now = time.time()
    recording = read_recording(deployment, since=now - since, until=now, by=by)
    other = NO_OTHER_DEMANDS
    if definitions.is_any:
        if config is None:
            raise click.UsageError("-m, -f and -w are for the rules of --config.")
        other = _under_rules(config, definitions, recording, deployment)
    wanted = {} if config is None else _declared(config, deployment, other)
    for text, what, value in given:
        wanted.setdefault(_pool(deployment, recording, text), {})[what] = value
    for text in without:
        wanted.setdefault(_pool(deployment, recording, text), {}).update(limit=None, rate=None)
    patience = deployment.settings().patience_seconds
    if runs_max is not None and recording.queue is None:
        raise ConfigError(
            f"{deployment.name} has no run queue, so nothing limits how many runs go on at once.",
            remedy="Leave out --max-concurrent-runs.",
        )
    answer = simulate(
        recording,
        wanted,
        runs_max=runs_max,
        other=other,
        patience_seconds=patience,
        parts=PARTS if svg_path else 0,
    )
    if svg_path is not None:
        _write_picture(answer, wanted, svg_path)
    if as_json:
        click.echo(json.dumps(answer_as_json(answer, deployment.name, wanted), indent=2))
    else:
        print_answer(answer, deployment.name, wanted)
        if svg_path is not None:
            click.echo(f"\nWrote {svg_path}.")


def _write_picture(answer: Answer, wanted: Collection[str], path: Path) -> None:
    from dagster_lifeguard.cli.picture import save  # noqa: PLC0415 - not for each command
    from dagster_lifeguard.cli.simulation_svg import svg  # noqa: PLC0415 - as above

    shown = _touched(answer, wanted) or answer.pools
    if not shown:
        raise ConfigError(
            "Nothing asked for a pool in this window, so there is nothing to draw.",
            remedy="Look further back with --since, or leave out --svg.",
        )
    save(path, svg(shown, answer.since, answer.until))


def _touched(answer: Answer, wanted: Collection[str]) -> list[PoolAnswer]:
    """The pools that were asked about, and those that are used in another way."""
    return [f for f in answer.pools if f.pool in wanted or f.before != f.after]


def _under_rules(
    config: Config, definitions: DefinitionsNamed, recording: Recording, deployment: Deployment
) -> OtherDemands:
    """What executions would have asked for under the rules of a file."""
    from dagster_lifeguard.insight.simulation.other_rules import under_rules  # noqa: PLC0415 - slow
    from dagster_lifeguard.inspections.check.inspection import (  # noqa: PLC0415 - slow
        inspect_locations,
    )

    granularity = deployment.settings().granularity
    texts: dict[str, str | None] = {}
    for location in inspect_locations(definitions.find(), config, granularity):
        for found in location.assignments:
            if found.steps == 1:
                texts[found.asset] = next(iter(found.pools), None)
    return under_rules(recording, texts, deployment.planned_steps)


def _declared(
    config: Config, deployment: Deployment, other: OtherDemands
) -> dict[str, dict[str, object]]:
    """The settings of the pools of a file and of its rules, with the limit that would be in force.

    A pool that only a rule names has what is set of it today.
    """
    for error in config.pools_beyond_stock():
        raise error
    default_limit = deployment.settings().default_limit
    found = {pool: spec.settings for pool, spec in config.pools.items()}
    live = deployment.pool_settings()
    for demand in other.demands.values():
        for pool in () if demand is None else demand.pools:
            found.setdefault(pool, live.get(pool, NOTHING_SET))
    return {
        pool: {
            "limit": limit_in_force(pool, settings.limit, default_limit),
            "rate": settings.rate,
            "fair_by": settings.fair_by,
        }
        for pool, settings in found.items()
    }


def _parsed(text: str) -> tuple[str, str, object]:
    """The pool, the name of the setting in ``PoolSettings``, and its value.

    Raises:
        ConfigError: The text is no setting.
    """
    found = _SETTING.fullmatch(text.strip())
    if found is None:
        raise ConfigError(
            f"{text!r} is no setting.",
            remedy="Write POOL=LIMIT, POOL.rate=50/minute or POOL.order=fair(backfill).",
            names=[text],
        )
    pool, what, value = found["pool"].strip(), found["what"] or "limit", found["value"].strip()
    if what == "rate":
        return pool, "rate", None if value in _NONE else Rate.read(value)
    if what == "order":
        return pool, "fair_by", parse_order(value)
    if value in _NONE:
        return pool, "limit", None
    try:
        limit = int(value)
    except ValueError:
        raise ConfigError(
            f"{value!r} is no limit of the pool {pool!r}.",
            remedy="Give a whole number, or none for a pool without a limit.",
            names=[pool],
        ) from None
    refuse_out_of_bounds(pool, PoolSettings(limit))
    return pool, "limit", limit


def _pool(deployment: Deployment, recording: Recording, text: str) -> str:
    from dagster_lifeguard.insight.subject import known_pool  # noqa: PLC0415 - slow

    name = known_pool(deployment, text, recording.pools | recording.settings.keys())
    refuse_unsettable([name])
    return name


# ---- text ----------------------------------------------------------------------------------------


def print_answer(answer: Answer, deployment: str, wanted: Collection[str]) -> None:
    """Print how well the past can be played, then what would have been, then what is not known."""
    from dagster_lifeguard.cli.tables import new_console  # noqa: PLC0415 - slow

    console = new_console()
    click.echo(f"{recording_text(answer, deployment)}\n")
    if answer.pools or answer.queue:
        click.secho("How well the play fits what really happened", bold=True)
        console.print(_calibration_table(answer))
        click.echo()
    touched = _touched(answer, wanted)
    is_queue_touched = answer.queue is not None and answer.queue.before != answer.queue.after
    if touched or is_queue_touched:
        click.secho("With what was in force, and with what was asked for", bold=True)
        console.print(_sides(touched, answer.queue if is_queue_touched else None))
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
    if (touched or is_queue_touched) and not (answer.gaining or answer.losing):
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


# ---- JSON ----------------------------------------------------------------------------------------


def answer_as_json(
    answer: Answer, deployment: str, wanted: dict[str, dict[str, object]]
) -> dict[str, Any]:
    """Return what ``--json`` prints; times are seconds since the epoch, waits seconds."""
    return {
        "version": 1,
        "deployment": deployment,
        "source": answer.source,
        "since": answer.since,
        "until": answer.until,
        "executions": answer.executions,
        "asked": sorted(wanted),
        "pools": [
            {
                "pool": found.pool,
                "calibration": asdict(found.calibration),
                "before": _side_as_json(found.before),
                "after": _side_as_json(found.after),
            }
            for found in answer.pools
        ],
        "queue": None
        if answer.queue is None
        else {
            "calibration": asdict(answer.queue.calibration),
            "before": _queue_side_as_json(answer.queue.before),
            "after": _queue_side_as_json(answer.queue.after),
        },
        "gaining": [_step_as_json(step) for step in answer.gaining],
        "losing": [_step_as_json(step) for step in answer.losing],
        "backfills": [{**asdict(found), "change": found.change} for found in answer.backfills],
        "doubts": [
            {"code": d.code, "message": d.message, "pools": list(d.pools)} for d in answer.doubts
        ],
    }


def _side_as_json(side: Side) -> dict[str, Any]:
    return {
        "limit": side.settings.limit,
        **side.settings.texts,
        "waits": asdict(side.waits),
        "utilisation": side.utilisation,
        "most": side.most,
    }


def _queue_side_as_json(side: QueueSide) -> dict[str, Any]:
    return {
        "max_concurrent_runs": side.runs_max,
        "waits": asdict(side.waits),
        "most": side.most,
    }


def _step_as_json(step: StepAnswer) -> dict[str, Any]:
    return {
        "step_key": step.step_key,
        "pools": list(step.pools),
        "executions": step.executions,
        "before": step.before,
        "after": step.after,
        "change": step.change,
    }
