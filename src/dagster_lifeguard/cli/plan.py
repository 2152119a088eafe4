"""``lifeguard plan``: the limits that are declared, beside those that are live."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from dagster_lifeguard.cli.limits import plan_as_json, plan_options, print_plan, read_plan
from dagster_lifeguard.cli.target import deployment_options

if TYPE_CHECKING:
    from dagster_lifeguard.deployment.contract import Deployment


@click.command("plan")
@plan_options
@click.option("--check", is_flag=True, help="Exit with code 1 when anything is not as declared.")
@click.option("--all", "show_all", is_flag=True, help="Also show the pools that stay as they are.")
@deployment_options
def plan_command(
    deployment: Deployment,
    names: tuple[str, ...],
    config_path: str,
    *,
    prune: bool,
    as_json: bool,
    check: bool,
    show_all: bool,
) -> None:
    """Show declared and live limits, rates and orders, what apply would do, and who is affected.

    The limits that lifeguard.yaml declares are those of its pools, and the default limit for each
    pool that a rule names. They are compared with the instance in DAGSTER_HOME, or with the
    deployment behind --url. Nothing is changed. With POOL, only these pools.

    \b
    Examples:
      lifeguard plan
      lifeguard plan --check                      # in CI: exit code 1 on drift
      lifeguard plan warehouse stripe_api
      lifeguard plan --url https://my-org.dagster.cloud/prod --json

    Exit code: 0 shown, 1 drift found by --check, 2 a mistake in what was asked.
    """
    plan = read_plan(config_path, deployment, names, prune=prune)
    if as_json:
        click.echo(json.dumps(plan_as_json(plan, deployment.name), indent=2))
    else:
        print_plan(plan, source=config_path, deployment=deployment.name, show_all=show_all)
    if check and plan.has_drift:
        if not as_json:
            click.secho("Drift: what is live is not as declared.", fg="red")
        raise SystemExit(1)
