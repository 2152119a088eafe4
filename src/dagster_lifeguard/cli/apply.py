"""``lifeguard apply``: the limits that are declared become live."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from dagster_lifeguard.cli.file_changes import consented
from dagster_lifeguard.cli.plan_text import plan_as_json, plan_options, print_plan, read_plan
from dagster_lifeguard.cli.target import deployment_options
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.errors import LifeguardError
from dagster_lifeguard.texts import number

if TYPE_CHECKING:
    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.limits.plan import LimitsPlan


@click.command("apply")
@plan_options
@click.option("-y", "--yes", is_flag=True, help="Apply without asking.")
@deployment_options
def apply_command(
    deployment: Deployment,
    names: tuple[str, ...],
    config_path: str,
    *,
    prune: bool,
    as_json: bool,
    yes: bool,
) -> None:
    """Set the limits, rates and orders that lifeguard.yaml declares.

    Shows the changes and asks first. Pools that are already as declared stay as they are, so you
    can repeat the command. No step loses its slot: if a new limit is below the number of held
    slots, the next step starts once enough slots are released.

    The instance in DAGSTER_HOME takes all changes or none. A webserver (--url) takes them one by
    one; if one fails, the command lists which changes were made and which were not.

    \b
    Examples:
      lifeguard apply
      lifeguard apply --yes                       # in scripts
      lifeguard apply --prune                     # also delete undeclared limits
      lifeguard apply warehouse --url http://localhost:3000

    Exit codes: 0 all is as declared, 1 a declared setting cannot be set, 2 usage error or an
    incomplete change.
    """
    plan = read_plan(config_path, deployment, names, prune=prune)
    if not as_json:
        print_plan(plan, source=config_path, deployment=deployment.name, show_all=False)
    if plan.touched and as_json and not yes:
        raise click.UsageError("Nothing was changed: say --yes with --json, which does not ask.")
    what = "limit" if plan.is_of_limits else "pool"
    question = f"Change {number(len(plan.touched), what)} in {deployment.name}?"
    if plan.touched and not consented(question, "Nothing was changed", yes=yes):
        return
    done, error = _do(plan, deployment)
    left = [pool for pool in plan.touched if pool not in done]
    if as_json:
        click.echo(json.dumps(_as_json(plan, deployment.name, done, left, error), indent=2))
    if error is not None:
        if done and not as_json:
            click.echo(
                f"Done: {', '.join(map(pool_text, done))}.\n"
                f"Not done: {', '.join(map(pool_text, left))}.",
                err=True,
            )
        raise error
    if not as_json and done:
        click.echo(f"Changed {number(len(done), what)} in {deployment.name}.")
    impossible = any(row.action == "impossible" for row in plan.pools)
    if plan.default_drifts or impossible or plan.needing_engine:
        raise SystemExit(1)


def _do(plan: LimitsPlan, deployment: Deployment) -> tuple[list[str], LifeguardError | None]:
    """Apply the plan: the pools that are done, and what went wrong with the next one."""
    done: list[str] = []
    try:
        done.extend(plan.apply(deployment))
    except LifeguardError as error:
        return done, error
    return done, None


def _as_json(
    plan: LimitsPlan,
    deployment: str,
    done: list[str],
    left: list[str],
    error: LifeguardError | None,
) -> dict[str, Any]:
    return {
        **plan_as_json(plan, deployment),
        "done": done,
        "not_done": left,
        "error": None if error is None else {"code": error.code, "message": error.message},
    }
