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
from dagster_lifeguard.cli.recording_options import recording_options, recording_text
from dagster_lifeguard.cli.target import quiet_deployment_options
from dagster_lifeguard.engine.rules.pool_expressions import refuse_unsettable
from dagster_lifeguard.engine.rules.pool_settings import (
    PoolSettings,
    own_limits,
    refuse_out_of_bounds,
)
from dagster_lifeguard.engine.rules.shown_names import pool_text, pools_text
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.limits.lifeguard_yaml import with_live_limits
from dagster_lifeguard.policy.config import Config
from dagster_lifeguard.texts import duration_text, limit_text, number, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dagster_lifeguard.cli.tables import WholeTable
    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.insight.simulation.advice import (
        Advice,
        Blocked,
        OtherWay,
        PoolAdvice,
        Target,
    )

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


# ---- text ----------------------------------------------------------------------------------------


def print_advice(advice: Advice, deployment: str, target: Target) -> None:
    """Print the limits to set, the reason for each, what else would help, and what is unknown."""
    from dagster_lifeguard.cli.tables import new_console  # noqa: PLC0415 - slow

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
    from dagster_lifeguard.cli.tables import WholeTable, cell  # noqa: PLC0415 - slow

    table = WholeTable()
    for heading in ("pool", "limit", "advised", "wait", "now", "advised", "target"):
        table.add_column(heading, right=heading not in ("pool", "wait", "target"))
    for found in pools:
        texts = (
            pool_text(found.pool),
            limit_text(found.settings.limit),
            limit_text(found.limit),
            _share(found.target),
            _wait_text(found.wait),
            _wait_text(found.advised),
            "met" if found.verdict != "unmet" else "missed",
        )
        table.add_row(*map(cell, texts))
    return table


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


# ---- JSON ----------------------------------------------------------------------------------------


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
