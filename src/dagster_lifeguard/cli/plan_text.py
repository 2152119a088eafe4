"""Plans of limits as text and as JSON, and the options that ask for one."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from dagster_lifeguard.cli import completion
from dagster_lifeguard.cli.file_changes import FILE_NAME
from dagster_lifeguard.cli.tables import Column, WholeTable, cell, new_console, table_of
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.texts import limit_text, printable, until_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dagster_lifeguard.deployment.contract import Deployment, HoldingStep, WaitingStep
    from dagster_lifeguard.limits.plan import KeptSetting, LimitsPlan, PoolPlan


def plan_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command what says which plan is meant."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option(
            "--prune",
            is_flag=True,
            help="Also delete the limits of pools that lifeguard.yaml does not declare.",
        ),
        click.option(
            "--config",
            "config_path",
            default=FILE_NAME,
            show_default=True,
            help="File that declares the limits.",
        ),
        click.argument("names", metavar="[POOL]...", nargs=-1, shell_complete=completion.pools),
    ):
        command = option(command)
    return command


def read_plan(
    config_path: str, deployment: Deployment, names: Sequence[str], *, prune: bool
) -> LimitsPlan:
    """The plan of the limits that a file declares, for these pools or for all.

    Raises:
        LifeguardError: The file is wrong, a pool is unknown, or the deployment cannot be read.
    """
    # A shell that completes the name of a pool waits for neither.
    from dagster_lifeguard.limits.plan import make_plan  # noqa: PLC0415
    from dagster_lifeguard.policy.config import Config  # noqa: PLC0415

    return make_plan(Config.from_yaml(config_path), deployment, names or None, prune=prune)


# ---- JSON ----------------------------------------------------------------------------------------


def plan_as_json(plan: LimitsPlan, deployment: str) -> dict[str, Any]:
    """What ``--json`` prints of a plan."""
    return {
        "version": 1,
        "deployment": deployment,
        "dagster_version": plan.settings.dagster_version,
        "drift": plan.has_drift,
        "default_limit": {
            "stated": plan.default_stated,
            "declared": plan.default_declared,
            "live": plan.settings.default_limit,
            "drift": plan.default_drifts,
        },
        "pools": [
            {
                "pool": row.pool,
                "origin": row.origin,
                "declared": row.declared,
                "live": row.live,
                "own": row.own,
                "action": row.action,
                "after": row.after,
                "held": row.held,
                "temporary": None
                if row.fall_back is None
                else {"limit": row.live, "until": row.fall_back.at, "then": row.fall_back.limit},
                "drains": row.drains,
                "lets_in": row.lets_in,
                **{name: asdict(kept) for name, kept in row.kept.items()},
                "holding": [_step(step) for step in row.holding],
                "waiting": [_step(step) for step in row.waiting],
            }
            for row in plan.pools
        ],
    }


def _step(step: HoldingStep | WaitingStep) -> dict[str, Any]:
    return {
        "run_id": step.run_id,
        "step_key": step.step_key or None,
        "slots": step.slots,
        "since": step.since,
    }


# ---- text ----------------------------------------------------------------------------------------


def print_plan(plan: LimitsPlan, *, source: str, deployment: str, show_all: bool) -> None:
    """Print a plan: the pools that are not as declared, or all, and who is affected.

    Args:
        plan: The plan.
        source: The file.
        deployment: What it is compared with.
        show_all: Also the pools that stay as they are.
    """
    from dagster_lifeguard.limits.effects import affected  # noqa: PLC0415 - as above

    settings = plan.settings
    click.echo(
        f"{source} beside {deployment}: Dagster {settings.dagster_version}, "
        f"default limit {limit_text(settings.default_limit)}, granularity {settings.granularity}\n"
    )
    rows = [row for row in plan.pools if show_all or row.fall_back or not row.is_as_declared]
    if rows:
        new_console().print(_table(rows))
        click.echo()
    for row in rows:
        for line in affected(row):
            click.echo(printable(line))
    for line in _remarks(plan):
        click.secho(printable(line), fg="yellow")
    click.echo(_sums(plan))


def _table(rows: Sequence[PoolPlan]) -> WholeTable:
    styles = {"set": "green", "delete": "red", "impossible": "yellow"}
    return table_of(
        rows,
        Column("pool", lambda row: pool_text(row.pool)),
        Column("declared", _declared, right=True),
        Column("live", _live, right=True),
        Column("held", lambda row: str(row.held or "-"), right=True),
        Column("waiting", lambda row: str(len(row.waiting) or "-"), right=True),
        Column("to do", lambda row: cell(_to_do(row), styles.get(row.action, "")), prose=True),
    )


def _declared(row: PoolPlan) -> str:
    return "-" if row.origin == "undeclared" else limit_text(row.declared)


def _live(row: PoolPlan) -> str:
    by_default = row.own is None and row.lasting is not None
    text = limit_text(row.lasting) + (" (default)" if by_default else "")
    if row.fall_back is None:
        return text
    return f"{text}, temporarily {row.live} until {until_text(row.fall_back.at, time.time())}"


def _to_do(row: PoolPlan) -> str:
    more = [_about_kept(name, kept) for name, kept in row.kept.items() if kept.action != "none"]
    of_limit = [] if more and row.action == "none" else [_to_do_about_limit(row)]
    return "; ".join((*of_limit, *more))


def _about_kept(name: str, kept: KeptSetting) -> str:
    what = f"{name} {kept.live if kept.action == 'delete' else kept.declared}"
    return f"{what} needs the engine" if kept.action == "needs-engine" else f"{kept.action} {what}"


def _to_do_about_limit(row: PoolPlan) -> str:
    if row.action == "set":
        return f"set {row.declared}{' (paused)' if row.declared == 0 else ''}"
    if row.action == "delete":
        return f"delete, then {limit_text(row.after)}"
    if row.action == "impossible":
        return "cannot be unlimited"
    return "not declared" if row.origin == "undeclared" else "as declared"


def _remarks(plan: LimitsPlan) -> Iterator[str]:
    if plan.default_drifts:
        yield (
            f"The default limit is declared {limit_text(plan.default_declared)} and is "
            f"{limit_text(plan.settings.default_limit)}. It is a setting of the instance: change "
            "concurrency.pools.default_limit in its dagster.yaml (lifeguard init adds one), or "
            "the deployment settings of Dagster+."
        )
    later = [row.pool for row in plan.pools if row.is_later and row.action in ("set", "delete")]
    if later:
        yield (
            f"The new limit is in force once the temporary limit ends: {', '.join(later)}. "
            "apply leaves a temporary limit alone; lifeguard limit POOL --back ends it."
        )
    impossible = [row.pool for row in plan.pools if row.action == "impossible"]
    if impossible:
        yield (
            f"Declared unlimited, which the default limit {plan.settings.default_limit} forbids: "
            f"{', '.join(impossible)}. Declare a number for each."
        )
    if plan.needing_engine:
        here = (
            "cannot be seen over a webserver"
            if plan.settings.engine is None
            else "the storage here does not keep them"
        )
        yield (
            f"Rates and orders need the engine, and {here}: {', '.join(plan.needing_engine)}. "
            "Use DAGSTER_HOME, with the engine in its dagster.yaml (lifeguard engine enable)."
        )


def _sums(plan: LimitsPlan) -> str:
    count = dict.fromkeys(("none", "set", "delete", "impossible"), 0)
    undeclared = 0
    for row in plan.pools:
        if row.origin == "undeclared" and row.is_as_declared:
            undeclared += 1
        elif row.action == "none" and not row.is_as_declared:
            action = next(action for action in row.kept_actions if action != "none")
            count["impossible" if action == "needs-engine" else action] += 1
        else:
            count[row.action] += 1
    parts = [
        f"{count['set']} to set",
        f"{count['delete']} to delete",
        f"{count['none']} as declared",
    ]
    if undeclared:
        parts.append(f"{undeclared} not declared (--prune deletes their limits)")
    return ", ".join(parts) + "."
