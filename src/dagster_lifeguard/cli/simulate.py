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
from dagster_lifeguard.cli.recording_options import recording_options
from dagster_lifeguard.cli.simulate_text import print_answer, touched
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
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.policy.config import Config

if TYPE_CHECKING:
    from collections.abc import Collection

    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.insight.simulation.answer import (
        Answer,
        QueueSide,
        Side,
        StepAnswer,
    )
    from dagster_lifeguard.insight.simulation.other_rules import OtherDemands
    from dagster_lifeguard.insight.simulation.recording import Recording

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

    shown = touched(answer, wanted) or answer.pools
    if not shown:
        raise ConfigError(
            "Nothing asked for a pool in this window, so there is nothing to draw.",
            remedy="Look further back with --since, or leave out --svg.",
        )
    save(path, svg(shown, answer.since, answer.until))


def _under_rules(
    config: Config, definitions: DefinitionsNamed, recording: Recording, deployment: Deployment
) -> OtherDemands:
    """What executions would have asked for under the rules of a file."""
    from dagster_lifeguard.insight.simulation.other_rules import (  # noqa: PLC0415 - slow
        Texts,
        under_rules,
    )
    from dagster_lifeguard.inspections.check.inspection import (  # noqa: PLC0415 - slow
        inspect_locations,
    )

    granularity = deployment.settings().granularity
    locations = inspect_locations(definitions.find(), config, granularity)
    texts = Texts.given(found for location in locations for found in location.assignments)
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
