"""``lifeguard advise``: the smallest limits that keep waits short enough."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dagster_lifeguard.cli.duration_option import duration
from dagster_lifeguard.cli.file_changes import FILE_NAME, FileChange, agreed, can_ask, read, show
from dagster_lifeguard.cli.progress_line import progress_line
from dagster_lifeguard.cli.recording_options import recording_options
from dagster_lifeguard.cli.target import quiet_deployment_options
from dagster_lifeguard.engine.rules.pool_expressions import refuse_unsettable
from dagster_lifeguard.engine.rules.pool_settings import (
    PoolSettings,
    own_limits,
    refuse_out_of_bounds,
)
from dagster_lifeguard.engine.rules.shown_names import pools_text
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.limits.lifeguard_yaml import with_live_limits
from dagster_lifeguard.policy.config import Config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.insight.simulation.advice import Advice, Target

DEFAULT_TARGET = "p95 wait < 10m"

_TARGET = re.compile(r"(?:(?P<pool>.+?)\s*:\s*)?p(?P<share>\d{1,2}) wait <=? ?(?P<wait>\S+)")
_BUDGET = re.compile(r"(?P<pool>.+?)\s*<=\s*(?P<limit>\d+)")


@click.command("advise")
@click.option(
    "--target",
    "target_texts",
    multiple=True,
    metavar="TARGET",
    help="Wait that is short enough, for all pools or for one: 'warehouse: p50 wait < 2m'. "
    f"Repeatable.  [default: {DEFAULT_TARGET}]",
)
@click.option(
    "--budget",
    "budget_texts",
    multiple=True,
    metavar="'POOL <= N'",
    help="Largest limit that a pool may get. A limit of 1 is raised only with one. Repeatable.",
)
@click.option(
    "--lower", is_flag=True, help="Also lower limits that are larger than the target needs."
)
@recording_options
@click.option(
    "--config", "config_path", default=FILE_NAME, show_default=True, help="File to write."
)
@click.option("-y", "--yes", is_flag=True, help="Write without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object. Asks nothing.")
@quiet_deployment_options
def advise_command(
    deployment: Deployment,
    target_texts: tuple[str, ...],
    budget_texts: tuple[str, ...],
    since: float,
    by: Any,
    config_path: str,
    *,
    lower: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Find the smallest limits that keep waits short enough.

    Plays the executions of the window again and again with other limits, as lifeguard simulate
    does. Raises a limit where executions waited too long for it, and shows what else would help: a
    fair order, one pool per partition. Then it shows the change of lifeguard.yaml, and writes it if
    you agree; lifeguard apply sets the limits. A limit of 1 protects a table, so it is raised only
    if --budget names the pool.

    \b
    Examples:
      lifeguard advise
      lifeguard advise --target "p95 wait < 10m" --budget "warehouse <= 12"
      lifeguard advise --target "p95 wait < 1h" --target "stripe: p95 wait < 2m"
      lifeguard advise --since 30d --json | jq .limits

    Exit code: 0, or 2 for a usage error.
    """
    from dagster_lifeguard.insight.simulation.advising import advise  # noqa: PLC0415 - slow
    from dagster_lifeguard.insight.simulation.history import read_recording  # noqa: PLC0415 - slow
    from dagster_lifeguard.insight.subject import known_pool  # noqa: PLC0415 - slow

    given = [_target(text) for text in target_texts]
    wanted_budgets = [_budget(text) for text in budget_texts]
    for_all = [target for pool, target in given if pool is None] or [_target(DEFAULT_TARGET)[1]]
    if len(for_all) > 1:
        raise click.UsageError("Give one --target for all pools; name the pool in the others.")
    file = Path(config_path)
    declared, old = Config(), None
    if file.exists():
        declared, old = Config.from_yaml(file), read(file)
    now = time.time()
    with progress_line() as line:
        line("reading executions")
        recording = read_recording(deployment, since=now - since, until=now, by=by)

        def named(text: str) -> str:
            return known_pool(deployment, text, recording.pools | recording.settings.keys())

        budgets = {named(pool): limit for pool, limit in wanted_budgets}
        refuse_unsettable(budgets)
        advice = advise(
            recording,
            for_all[0],
            targets={named(pool): target for pool, target in given if pool is not None},
            budgets=budgets,
            own_limits=own_limits(deployment.pool_settings()),
            lower=lower,
            patience_seconds=deployment.settings().patience_seconds,
            on_play=lambda plays: line(f"playing the past: {plays:,}"),
        )
    change, left_out = _change(file, old, declared, advice.limits)
    if as_json:
        if yes and change is not None:
            change.write()
        found = advice_as_json(advice, deployment.name)
        written = yes and change is not None
        click.echo(json.dumps({**found, "file": config_path, "written": written}, indent=2))
        return
    from dagster_lifeguard.cli.advice_text import print_advice  # noqa: PLC0415 - slow

    print_advice(advice, deployment.name, for_all[0])
    if left_out:
        click.secho(
            f"{FILE_NAME} cannot declare {pools_text(left_out)}. Set the limit by hand.",
            fg="yellow",
        )
    if change is None:
        return
    if not yes and not can_ask():
        show([change])
        click.echo(f"Nothing was written. Say --yes to write {config_path}.")
    elif agreed([change], yes=yes):
        change.write()
        click.echo(f"Wrote {config_path}. Set the limits with: lifeguard apply")


def _target(text: str) -> tuple[str | None, Target]:
    """The pool, if one is named, and the target.

    Raises:
        ConfigError: The text is no target.
    """
    from dagster_lifeguard.insight.simulation.advice import Target  # noqa: PLC0415 - slow

    found = _TARGET.fullmatch(" ".join(text.split()))
    seconds = None if found is None else duration(found["wait"])
    if found is None or seconds is None or int(found["share"]) == 0:
        raise ConfigError(
            f"{text!r} is no target.",
            remedy='Write "p95 wait < 10m", or "warehouse: p95 wait < 10m" for one pool.',
            names=[text],
        )
    return found["pool"], Target(int(found["share"]) / 100, seconds)


def _budget(text: str) -> tuple[str, int]:
    """The pool, and its largest limit.

    Raises:
        ConfigError: The text is no budget, or no pool can have that limit.
    """
    found = _BUDGET.fullmatch(text.strip())
    if found is None:
        raise ConfigError(
            f"{text!r} is no budget.", remedy='Write "warehouse <= 12".', names=[text]
        )
    limit = int(found["limit"])
    refuse_out_of_bounds(found["pool"], PoolSettings(limit))
    return found["pool"], limit


def _change(
    file: Path, old: str | None, declared: Config, limits: Mapping[str, int]
) -> tuple[FileChange | None, tuple[str, ...]]:
    """What lifeguard.yaml is to say, and the pools that it cannot declare."""
    if not limits:
        return None, ()
    settings = {
        pool: spec.settings
        for pool, spec in declared.pools.items()
        if spec.settings.limit is not None
    }
    settings.update({pool: PoolSettings(limit) for pool, limit in limits.items()})
    new, left_out = with_live_limits(
        old, str(file), settings, declared.default_limit, tells_all=False
    )
    return (None if new == old else FileChange(file, old, new)), left_out


def advice_as_json(advice: Advice, deployment: str) -> dict[str, Any]:
    """Return what ``--json`` prints; times are seconds since the epoch, waits seconds.

    A wait that never ends is null.
    """
    answer = advice.answer
    return {
        "version": 1,
        "deployment": deployment,
        "source": answer.source,
        "since": answer.since,
        "until": answer.until,
        "executions": answer.executions,
        "plays": advice.plays,
        "limits": advice.limits,
        "pools": [
            {
                "pool": found.pool,
                "target": {"share": found.target.share, "seconds": found.target.seconds},
                "verdict": found.verdict,
                "executions": found.executions,
                "late": found.late,
                "limit": {"now": found.settings.limit, "advised": found.limit},
                "wait": {
                    "now": _ended(found.wait),
                    "advised": _ended(found.advised),
                    "one_less": None if found.one_less is None else _ended(found.one_less),
                },
                "utilisation": found.utilisation,
                "most": found.most,
                "blocked": [{"pool": b.pool, "why": b.why} for b in found.blocked],
                "trust": trusts.get(found.pool),
            }
            for trusts in [{p.pool: p.calibration.trust for p in answer.pools}]
            for found in advice.pools
        ],
        "other_ways": [
            {
                "kind": way.kind,
                "pool": way.pool,
                "executions": way.executions,
                "wait": {"now": _ended(way.wait), "advised": _ended(way.after)},
                "backfill": way.backfill,
                "runs": way.runs,
                "span": way.span,
            }
            for way in advice.other_ways
        ],
        "unused": list(advice.unused),
        "never_full": [
            {"pool": pool, "limit": limit, "most": most} for pool, limit, most in advice.never_full
        ],
        "doubts": [
            {"code": d.code, "message": d.message, "pools": list(d.pools)} for d in answer.doubts
        ],
    }


def _ended(seconds: float) -> float | None:
    return None if math.isinf(seconds) else seconds
