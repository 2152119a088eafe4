"""``lifeguard free``: give back slots that nobody works under any more."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from dagster_lifeguard.cli import completion
from dagster_lifeguard.cli.file_changes import consented
from dagster_lifeguard.cli.target import deployment_options
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.insight.freeing import Freeable, find_freeable
from dagster_lifeguard.insight.subject import pool_or_run
from dagster_lifeguard.texts import number, printable, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster_lifeguard.deployment.contract import Deployment

_LIVES = {
    True: ("alive", "green"),
    False: ("not alive", "red"),
    None: ("nobody can tell whether it is alive", "yellow"),
}


@click.command("free")
@click.argument("subject", metavar="RUN_ID|RUN_ID:STEP|POOL", shell_complete=completion.pools)
@click.option("--force", is_flag=True, help="Also free slots whose holder is alive, or may be.")
@click.option("-y", "--yes", is_flag=True, help="Free without asking.")
@click.option("--dry-run", is_flag=True, help="Show the holders, and free nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object. Asks nothing.")
@deployment_options
def free_command(
    deployment: Deployment, subject: str, *, force: bool, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Free slots whose holder is dead.

    First the command shows each holder and whether it is alive. The engine knows by sessions and
    leases. Without the engine, the run's status and the run launcher tell. A holder that is alive,
    or may be, keeps its slots: freeing them would let another step start beside it. --force frees
    them all the same. Waiting steps of the same run or step are withdrawn.

    The command checks the holder again when it frees the slots. A process that comes back while you
    are asked keeps its slots.

    \b
    Examples:
      lifeguard free 3f2a91c4
      lifeguard free 3f2a91c4:orders --dry-run
      lifeguard free warehouse --yes

    Exit codes: 0 freed, or nothing to free; 1 kept some slots, because their holder is or may be
    alive; 2 usage error.
    """
    found = find_freeable(deployment, pool_or_run(deployment, subject), time.time())
    chosen = [item for item in found if force or item.is_safe]
    kept = [item for item in found if item not in chosen]
    freed: list[Freeable] = []
    came_back: list[Freeable] = []
    if not as_json:
        _show(found)
    if chosen and not dry_run:
        if as_json and not yes:
            raise click.UsageError("Nothing was freed: say --yes with --json, which asks nothing.")
        if not consented(f"Free {number(len(chosen), 'step')}?", "Nothing was freed", yes=yes):
            return
        for item in chosen:
            judged = deployment.free(item.run_id, item.step_key or None, force=force)
            if force or judged.is_safe:
                freed.append(item)
            else:
                came_back.append(replace(item, alive=judged.alive, evidence=judged.evidence))
    if as_json:
        found = tuple({item.key: item for item in (*found, *came_back)}.values())
        click.echo(json.dumps(_as_json(found, freed, deployment.name, dry_run=dry_run), indent=2))
    else:
        _show(came_back)
        _conclude(found, chosen if dry_run else freed, [*kept, *came_back], dry_run=dry_run)
    if kept or came_back:
        raise SystemExit(1)


def _show(found: Sequence[Freeable]) -> None:
    for item in found:
        life, colour = _LIVES[item.alive]
        click.echo(f"run {short(item.run_id)} step {printable(item.step_key)}: ", nl=False)
        click.secho(life, fg=colour)
        if item.holds:
            held = ", ".join(f"{n} of {printable(pool_text(pool))}" for pool, n in item.holds)
            click.echo(f"  holds {held}")
        if item.waits:
            click.echo(
                f"  waits for {', '.join(printable(pool_text(pool)) for pool in item.waits)}"
            )
        for line in item.evidence:
            click.echo(f"  {printable(line)}")


def _conclude(
    found: Sequence[Freeable],
    chosen: Sequence[Freeable],
    kept: Sequence[Freeable],
    *,
    dry_run: bool,
) -> None:
    if not found:
        click.echo("Nothing to free: it holds nothing and waits for nothing.")
        return
    if chosen:
        done = "Would free" if dry_run else "Freed"
        click.echo(f"{done} {number(len(chosen), 'step')}.")
    if kept:
        click.echo(
            f"Kept {number(len(kept), 'step')}: alive, or it may be. Cancel the run instead, or "
            "free it all the same with --force: then another step goes in beside it.",
            err=True,
        )


def _as_json(
    found: Sequence[Freeable], freed: Sequence[Freeable], name: str, *, dry_run: bool
) -> dict[str, Any]:
    return {
        "version": 1,
        "deployment": name,
        "dry_run": dry_run,
        "steps": [{**asdict(item), "freed": item in freed} for item in found],
    }
