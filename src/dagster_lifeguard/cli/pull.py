"""``lifeguard pull``: a lifeguard.yaml of what is live."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dagster_lifeguard.cli.file_changes import FILE_NAME, FileChange, agreed, read
from dagster_lifeguard.cli.target import deployment_options
from dagster_lifeguard.engine.rules.pool_settings import NOTHING_SET
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.limits.lifeguard_yaml import with_live_limits
from dagster_lifeguard.policy.config import Config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster_lifeguard.deployment.contract import Deployment


@click.command("pull")
@click.option(
    "--config", "config_path", default=FILE_NAME, show_default=True, help="File to write."
)
@click.option("-y", "--yes", is_flag=True, help="Write without asking.")
@click.option("--dry-run", is_flag=True, help="Show the change, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object. Asks nothing.")
@deployment_options
def pull_command(
    deployment: Deployment, config_path: str, *, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Write the live limits, rates and orders into lifeguard.yaml.

    A new file gets the deployment's default limit, and every pool with a limit of its own. In an
    existing file the command updates only the pools; rules and comments stay. It shows the change
    and asks first. Afterwards lifeguard plan finds no drift in these pools.

    \b
    Examples:
      lifeguard pull
      lifeguard pull --dry-run
      lifeguard pull --yes --json
      lifeguard pull --url https://my-org.dagster.cloud/prod --yes

    Exit codes: 0 written, or nothing to write; 1 some limits cannot be declared; 2 usage error.
    """
    file = Path(config_path)
    old, declared = None, Config()
    if file.exists():
        declared = Config.from_yaml(file)  # Of a size that can be read, and valid.
        old = read(file)
    live, settings = deployment.pool_settings(), deployment.settings()
    default_limit, tells_all = settings.default_limit, settings.engine is not None
    new, left_out = with_live_limits(old, config_path, live, default_limit, tells_all=tells_all)
    has_more = any(spec.settings.texts_set for spec in declared.pools.values())
    keeps_file = has_more and not tells_all
    change = FileChange(file, old, new)
    if as_json and new != old and not (yes or dry_run):
        raise click.UsageError("Nothing was written: say --yes with --json, which does not ask.")
    if as_json:
        written = new != old and not dry_run
        if written:
            change.write()
        unseen = dict.fromkeys(NOTHING_SET.texts)
        pools = {
            pool: {"limit": of_pool.lasting_limit, **(of_pool.texts if tells_all else unseen)}
            for pool, of_pool in sorted(live.items())
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
