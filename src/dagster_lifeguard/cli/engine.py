"""``lifeguard engine``: switching the engine on and off in dagster.yaml, and looking at it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from dagster import DagsterInstance

from dagster_lifeguard import storage_yaml
from dagster_lifeguard.cli.changes import Change, agreed, read
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.storage import switch

if TYPE_CHECKING:
    from collections.abc import Callable


@click.group("engine")
def engine_command() -> None:
    """Switch the engine on or off, or see what it does.

    The engine is a storage in dagster.yaml, on the same files or database as Dagster's own, under
    which the limit of a pool holds, slots are handed over in milliseconds, and are freed when
    their holder dies.
    """


def _home_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--home",
        envvar="DAGSTER_HOME",
        type=click.Path(path_type=Path),
        help="The instance's directory.  [default: DAGSTER_HOME]",
    )(command)


@engine_command.command("status")
@_home_option
def status_command(home: Path | None) -> None:
    """See which storage is in use, its processes, and who holds slots.

    Changes nothing. Exit code 1 when the storage and its tables do not go together.
    """
    home = _checked(home)
    with DagsterInstance.from_config(str(home)) as instance:
        found = switch.status(instance)
    click.echo(f"storage      {found.storage}{'' if found.is_ours else ' (not the engine)'}")
    version = "none" if found.version is None else f"version {found.version}"
    click.echo(f"tables       {version}")
    click.echo(f"stock slots  {'closed' if found.stock_is_closed else 'open'}")
    click.echo(f"processes    {len(found.processes)}")
    for process in found.processes:
        left = process.seconds_left
        lease = (
            f"{left:.0f} s of its lease left" if left > 0 else f"silent, lease over {-left:.0f} s"
        )
        click.echo(f"  {process.label}: {lease}")
    click.echo(f"holders      {len(found.holders)}")
    for holder in found.holders:
        slots = f"{holder.slots} slot{'s' if holder.slots > 1 else ''}"
        world = " (on the stock storage)" if holder.world == "stock" else ""
        click.echo(f"  {holder.pool}: {slots}, run {holder.run_id} step {holder.step_key}{world}")
    click.echo(f"waiting      {found.waiting}")
    if found.problem:
        click.secho(found.problem, fg="red")
        click.get_current_context().exit(1)


@engine_command.command("enable")
@_home_option
@click.option("-y", "--yes", is_flag=True, help="Write without asking.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and stop.")
def enable_command(home: Path | None, *, yes: bool, dry_run: bool) -> None:
    """Put the engine's storage into dagster.yaml, on the same files or database.

    Runs may go on executing: a slot that one of them holds counts as held until it is freed. Steps
    that wait for a slot at this moment, in run workers that were started before, get none until
    their run is started again. Start webserver, daemon and code servers again afterwards.

    \b
    Examples:
      lifeguard engine enable
      lifeguard engine enable --dry-run
    """
    home = _checked(home)
    change = _change(home, storage_yaml.enabled)
    if change is not None:
        if not agreed([change], yes=yes, dry_run=dry_run):
            return
        change.write()
        click.echo(f"Wrote {change.path}.")
    elif dry_run:
        return
    try:
        with DagsterInstance.from_config(str(home)) as instance:
            count = switch.take_over(instance)
    except BaseException:
        if change is not None:
            change.undo()
            click.echo(f"Put {change.path} back.", err=True)
        raise
    click.echo("The engine is on.")
    if count:
        click.echo(f"{count} steps of running runs hold slots, which count until they are freed.")
    if change is not None:
        click.echo("Start webserver, daemon and code servers again.")


@engine_command.command("disable")
@_home_option
@click.option("-y", "--yes", is_flag=True, help="Write without asking.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and stop.")
@click.option("--force", is_flag=True, help="Give away the slots that steps still hold.")
def disable_command(home: Path | None, *, yes: bool, dry_run: bool, force: bool) -> None:
    """Put Dagster's own storage back into dagster.yaml. Nothing that it stores is lost.

    Refuses while steps hold slots or wait for some. Start webserver, daemon and code servers again
    afterwards, before runs are launched. Also opens the slots of the stock storage when the
    engine's stanza was taken out by hand.
    """
    home = _checked(home)
    change = _change(home, storage_yaml.disabled)
    with DagsterInstance.from_config(str(home)) as instance:
        if not force:
            switch.refuse_while_busy(instance)
        if change is not None:
            if not agreed([change], yes=yes, dry_run=dry_run):
                return
            change.write()
            click.echo(f"Wrote {change.path}.")
        elif dry_run:
            return
        try:
            if not force:  # Somebody may have claimed before the file was written.
                switch.refuse_while_busy(instance)
            switch.give_back(instance)
        except BaseException:
            if change is not None:
                change.undo()
                click.echo(f"Put {change.path} back.", err=True)
            raise
    click.echo("The engine is off.")
    if change is not None:
        click.echo("Start webserver, daemon and code servers again.")


def _checked(home: Path | None) -> Path:
    if home is None or not home.is_dir():
        raise ConfigError(
            "There is no instance: DAGSTER_HOME is "
            + ("not set." if home is None else f"{home}, which is not a directory."),
            remedy="Set DAGSTER_HOME, or name the directory with --home.",
            names=[] if home is None else [str(home)],
        )
    return home


def _change(home: Path, edit: Callable[[str, str], str]) -> Change | None:
    file = home / "dagster.yaml"
    old = read(file) if file.exists() else None
    new = edit(old or "", str(file))
    return None if new == (old or "") else Change(file, old, new)
