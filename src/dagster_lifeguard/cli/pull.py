"""``lifeguard pull``: a lifeguard.yaml of what is live."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dagster_lifeguard.cli.changes import Change, agreed, read
from dagster_lifeguard.cli.target import deployment_options
from dagster_lifeguard.config import FILE_NAME, Config
from dagster_lifeguard.limits_yaml import with_live_limits

if TYPE_CHECKING:
    from dagster_lifeguard.deployment.contract import Deployment


@click.command("pull")
@click.option(
    "--config", "config_path", default=FILE_NAME, show_default=True, help="The file to write."
)
@click.option("-y", "--yes", is_flag=True, help="Write without asking.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and stop.")
@deployment_options
def pull_command(deployment: Deployment, config_path: str, *, yes: bool, dry_run: bool) -> None:
    """Write the live limits, rates and orders into lifeguard.yaml.

    A new file gets the deployment's default limit and the pools that have a limit of their own.
    In a file that is there the pools become what is live; its rules, comments and everything else
    stay. The change is shown first and not made without consent. Afterwards lifeguard plan finds
    no drift in these pools.

    \b
    Examples:
      lifeguard pull
      lifeguard pull --dry-run
      lifeguard pull --url https://my-org.dagster.cloud/prod --yes

    Exit code: 0 written, or nothing to write, 1 some limits cannot be declared, 2 a mistake in
    what was asked.
    """
    file = Path(config_path)
    old = None
    if file.exists():
        Config.from_yaml(file)  # Of a size that can be read, and valid.
        old = read(file)
    new, left_out = with_live_limits(
        old,
        config_path,
        deployment.limits(),
        deployment.settings().default_limit,
        deployment.rates(),
        deployment.orders(),
    )
    if new == old:
        click.echo(f"{config_path} is as {deployment.name} is.")
    else:
        change = Change(file, old, new)
        if not agreed([change], yes=yes, dry_run=dry_run):
            return
        change.write()
        click.echo(f"Wrote {config_path}.")
    if left_out:
        click.secho(
            f"Not a pool that {FILE_NAME} can declare, by its name or its limit, or by a rate or "
            f"order that needs engine: lifeguard: {', '.join(left_out)}.",
            fg="yellow",
            err=True,
        )
        raise SystemExit(1)
