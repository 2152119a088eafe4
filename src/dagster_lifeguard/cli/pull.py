"""``lifeguard pull``: a lifeguard.yaml of what is live."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dagster_lifeguard.cli.changes import FILE_NAME, Change, agreed, read
from dagster_lifeguard.cli.target import deployment_options
from dagster_lifeguard.engine.rules.names import pool_text
from dagster_lifeguard.engine.rules.order import format_order
from dagster_lifeguard.limits.lifeguard_yaml import with_live_limits
from dagster_lifeguard.policy.config import Config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster_lifeguard.deployment.contract import Deployment


@click.command("pull")
@click.option(
    "--config", "config_path", default=FILE_NAME, show_default=True, help="The file to write."
)
@click.option("-y", "--yes", is_flag=True, help="Write without asking.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; asks nothing.")
@deployment_options
def pull_command(
    deployment: Deployment, config_path: str, *, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Write the live limits, rates and orders into lifeguard.yaml.

    A new file gets the deployment's default limit and the pools that have a limit of their own.
    In a file that is there the pools become what is live; its rules, comments and everything else
    stay. The change is shown first and not made without consent. Afterwards lifeguard plan finds
    no drift in these pools.

    \b
    Examples:
      lifeguard pull
      lifeguard pull --dry-run
      lifeguard pull --yes --json
      lifeguard pull --url https://my-org.dagster.cloud/prod --yes

    Exit code: 0 written, or nothing to write, 1 some limits cannot be declared, 2 a mistake in
    what was asked.
    """
    file = Path(config_path)
    old, declared = None, Config()
    if file.exists():
        declared = Config.from_yaml(file)  # Of a size that can be read, and valid.
        old = read(file)
    limits, default_limit = deployment.limits(), deployment.settings().default_limit
    rates, orders = deployment.rates(), deployment.orders()
    new, left_out = with_live_limits(old, config_path, limits, default_limit, rates, orders)
    has_some = any(spec.starts or spec.fair_by for spec in declared.pools.values())
    keeps_file = has_some and (rates is None or orders is None)
    change = Change(file, old, new)
    if as_json and new != old and not (yes or dry_run):
        raise click.UsageError("Nothing was written: say --yes with --json, which does not ask.")
    if as_json:
        written = new != old and not dry_run
        if written:
            change.write()
        pools = {
            pool: {
                "limit": limits.get(pool),
                "rate": str(rates[pool]) if rates and pool in rates else None,
                "order": None if orders is None else format_order(orders.get(pool)),
            }
            for pool in sorted({*limits, *(rates or {}), *(orders or {})})
        }
        found = {
            "version": 1,
            "deployment": deployment.name,
            "file": str(change.path),
            "differs": change.new != change.old,
            "written": written,
            "default_limit": default_limit,
            "pools": {pool: told for pool, told in pools.items() if pool not in left_out},
            "left_out": {pool: told for pool, told in pools.items() if pool in left_out},
        }
        click.echo(json.dumps(found, indent=2))
    elif new == old:
        click.echo(f"{config_path} is as {deployment.name} is.")
    elif not agreed([change], yes=yes, dry_run=dry_run):
        return
    else:
        change.write()
        click.echo(f"Wrote {config_path}.")
    if keeps_file and not as_json:
        click.secho(
            "A webserver does not tell rates and orders: those in the file stay as they are.",
            fg="yellow",
            err=True,
        )
    if left_out:
        if not as_json:
            _warn(left_out)
        raise SystemExit(1)


def _warn(left_out: Sequence[str]) -> None:
    click.secho(
        f"Not a pool that {FILE_NAME} can declare, by its name or its limit, or by a rate or "
        f"order that needs engine: lifeguard: {', '.join(map(pool_text, left_out))}.",
        fg="yellow",
        err=True,
    )
