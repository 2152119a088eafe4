"""``lifeguard plan``: the limits that are declared, beside those that are live."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from dagster_lifeguard.cli.plan_text import plan_as_json, plan_options, print_plan, read_plan
from dagster_lifeguard.cli.target import deployment_options

if TYPE_CHECKING:
    from dagster_lifeguard.deployment.contract import Deployment


@click.command("plan")
@plan_options
@click.option("--check", is_flag=True, help="Exit with code 1 if a pool is not as declared.")
@click.option("--all", "show_all", is_flag=True, help="Also show pools that would not change.")
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
    """Show what apply would change, and which steps that affects.

    Compares lifeguard.yaml with the instance in DAGSTER_HOME, or with the deployment at --url.
    lifeguard.yaml declares the settings of its pools, and the default limit for each pool that a
    rule names. Changes nothing. With POOL, shows only these pools.

    \b
    Examples:
      lifeguard plan
      lifeguard plan --check                      # in CI: exit code 1 on drift
      lifeguard plan warehouse stripe_api
      lifeguard plan --url https://my-org.dagster.cloud/prod --json

    Exit codes: 0 shown, 1 --check found drift, 2 usage error.
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
