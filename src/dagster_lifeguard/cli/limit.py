"""``lifeguard limit``: set the limit of one pool, for good or until a time."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from dagster_lifeguard.cli import completion
from dagster_lifeguard.cli.file_changes import consented
from dagster_lifeguard.cli.target import deployment_options
from dagster_lifeguard.engine.rules.pool_settings import NOTHING_SET
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.limits.effects import consequences
from dagster_lifeguard.limits.plan import plan_limit
from dagster_lifeguard.limits.until import read_until
from dagster_lifeguard.texts import printable

if TYPE_CHECKING:
    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.limits.plan import PoolPlan


@click.command("limit")
@click.argument("pool", shell_complete=completion.pools)
@click.argument("limit", type=click.IntRange(min=0), required=False)
@click.option(
    "--until",
    "until_text",
    metavar="WHEN",
    help="When the limit falls back by itself to the present one: 06:00, 2026-12-01 06:00, 45m or "
    "2h.  [default: it lasts]",
)
@click.option("--back", is_flag=True, help="End a temporary limit now.")
@click.option("-y", "--yes", is_flag=True, help="Set the limit without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@deployment_options
def limit_command(
    deployment: Deployment,
    pool: str,
    limit: int | None,
    until_text: str | None,
    *,
    back: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Set the limit of a pool, for good or until a time.

    Shows which steps that affects and asks first. LIMIT 0 pauses the pool. No step loses its slot:
    if the new limit is below the number of held slots, the next step starts once enough slots are
    released.

    A limit with --until falls back by itself, even if no process of Lifeguard runs at that time.
    The clock of the database decides. It needs the engine. A limit without --until lasts, and ends
    a temporary one. lifeguard apply leaves a temporary limit alone.

    \b
    Examples:
      lifeguard limit warehouse 12 --until 06:00
      lifeguard limit warehouse 0 --until 45m     # pause it
      lifeguard limit warehouse --back
      lifeguard limit warehouse 8 --yes

    Exit codes: 0 set, or nothing to set; 2 usage error.
    """
    if back == (limit is not None):
        raise click.UsageError("Give a limit, or --back.")
    if back and until_text is not None:
        raise click.UsageError("--back ends a temporary limit now: leave out --until.")
    if as_json and not yes:
        raise click.UsageError("Nothing was changed: say --yes with --json, which does not ask.")
    now = time.time()
    until = None if until_text is None else read_until(until_text, now)
    if back:
        limit = deployment.pool_settings().get(pool, NOTHING_SET).lasting_limit
    plan = plan_limit(deployment, pool, limit, until)
    lines = consequences(plan, now)
    if back and plan.fall_back is None:
        lines = (f"{pool_text(pool)} has no temporary limit.",)
    if not as_json:
        for line in lines:
            click.echo(printable(line))
    question = f"Change the limit in {deployment.name}?"
    if plan.action == "none" or not consented(question, "Nothing was changed", yes=yes):
        if as_json:
            click.echo(json.dumps(_as_json(plan, deployment.name, changed=False), indent=2))
        return
    if until is None:
        deployment.set_limit(pool, limit)
    else:
        deployment.set_limit(pool, limit, until)
    if as_json:
        click.echo(json.dumps(_as_json(plan, deployment.name, changed=True), indent=2))
    else:
        click.echo(f"Changed 1 limit in {deployment.name}.")


def _as_json(plan: PoolPlan, deployment: str, *, changed: bool) -> dict[str, Any]:
    return {
        "version": 1,
        "deployment": deployment,
        "pool": plan.pool,
        "changed": changed,
        "before": plan.live,
        "limit": plan.after,
        "until": plan.until,
        "then": None if plan.until is None else plan.lasting,
        "drains": plan.drains,
        "lets_in": plan.lets_in,
    }
