"""``lifeguard engine``: switching the engine on and off in dagster.yaml, and looking at it."""

from __future__ import annotations

import dataclasses
import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dagster_lifeguard.cli.file_changes import FileChange, agreed, read
from dagster_lifeguard.compat.instance import default_limit_and_granularity
from dagster_lifeguard.deployment.open import instance_in
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.engine.store.upkeep import upkeep
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.limits import engine_yaml
from dagster_lifeguard.storage import switch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dagster import DagsterInstance

_START_AGAIN = "Start webserver, daemon and code servers again if you have not since."


@click.group("engine")
def engine_command() -> None:
    """Switch the engine on or off, or show its state.

    The engine is a storage in dagster.yaml, on the same files or database as Dagster's own storage.
    With it, the limit of a pool holds, a freed slot moves on in milliseconds, and a dead holder's
    slots are freed.
    """


def _home_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--home",
        envvar="DAGSTER_HOME",
        type=click.Path(path_type=Path),
        help="Directory of the instance.  [default: DAGSTER_HOME]",
    )(command)


@engine_command.command("status")
@_home_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status_command(home: Path | None, *, as_json: bool) -> None:
    """Show which storage is in use, the engine's processes and their versions, and the held slots.

    Changes nothing.

    \b
    Examples:
      lifeguard engine status
      lifeguard engine status --json | jq .processes

    Exit codes: 0 shown, 1 slots of Dagster's own storage do not match their limits, 2 usage error.
    """
    home = _checked(home)
    with instance_in(str(home)) as instance:
        found = switch.status(instance)
    if as_json:
        click.echo(json.dumps({"version": 1, **dataclasses.asdict(found)}, indent=2))
    else:
        for line in _lines(found):
            click.echo(line)
        if found.unmatched:
            click.secho(
                "Dagster's own storage has more or fewer slots than the limit says of: "
                f"{', '.join(found.unmatched)}. lifeguard engine enable, or disable, mends it.",
                fg="red",
            )
    click.get_current_context().exit(1 if found.unmatched else 0)


def _tables(found: switch.Status) -> str:
    version, newest = found.tables, found.tables_known
    if version is None or found.usable_from is None:
        return "none"
    if version < newest:
        return (
            f"version {version}, older than this package's {newest}: lifeguard engine enable "
            "brings them up to date, and so does the first step that claims a slot"
        )
    if found.usable_from > newest:
        return f"version {version}, newer than this package's {newest}: install a newer package"
    if version > newest:
        return f"version {version}, newer than this package's {newest}, which may use them"
    return f"version {version}"


def _lines(found: switch.Status) -> Iterator[str]:
    yield f"storage      {found.storage} ({'the engine' if found.is_ours else 'not the engine'})"
    known = f"for tables of version {found.tables_known}"
    yield f"package      dagster-lifeguard {found.package}, {known}"
    yield f"tables       {_tables(found)}"
    yield f"processes    {len(found.processes)}"
    for process in found.processes:
        left = process.seconds_left
        lease = f"{left:.0f} s of its lease left" if left > 0 else "silent, its lease has run out"
        package = f"dagster-lifeguard {process.package}, tables {process.tables}"
        yield f"  {process.label}: {package}, {lease}"
    yield f"holders      {len(found.holders)}"
    for holder in found.holders:
        slots = f"{holder.slots} slot{'s' if holder.slots > 1 else ''}"
        world = " (on Dagster's own storage)" if holder.world == "stock" else ""
        step = f"run {holder.run_id} step {holder.step_key}"
        yield f"  {pool_text(holder.pool)}: {slots}, {step}{world}"
    on_stock = f", and {found.waiting_on_stock} on Dagster's own storage"
    yield f"waiting      {found.waiting}{on_stock if found.waiting_on_stock else ''}"


@engine_command.command("enable")
@_home_option
@click.option("-y", "--yes", is_flag=True, help="Write without asking.")
@click.option("--dry-run", is_flag=True, help="Show the change, and write nothing.")
def enable_command(home: Path | None, *, yes: bool, dry_run: bool) -> None:
    """Put the engine's storage into dagster.yaml, on the same files or database.

    Runs may continue meanwhile. A slot that one of them holds counts until it is freed. Run workers
    that started before get no new slot while a step holds slots or waits under the engine.
    Afterwards restart the webserver, the daemon and the code servers.

    \b
    Examples:
      lifeguard engine enable
      lifeguard engine enable --dry-run
    """
    with _edited(_checked(home), engine_yaml.enabled, yes=yes, dry_run=dry_run) as instance:
        if instance is None:
            return
        count = switch.take_over(instance)
        default_limit, _ = default_limit_and_granularity(instance)
    click.echo("The engine is on.")
    if default_limit is None:
        click.echo(
            "dagster.yaml sets no default limit: a pool without a limit of its own is unlimited. "
            "Set one: lifeguard init."
        )
    if count:
        click.echo(f"Steps of running runs that hold slots: {count}. They count until freed.")
    click.echo(_START_AGAIN)


@engine_command.command("disable")
@_home_option
@click.option("-y", "--yes", is_flag=True, help="Write without asking.")
@click.option("--dry-run", is_flag=True, help="Show the change, and write nothing.")
def disable_command(home: Path | None, *, yes: bool, dry_run: bool) -> None:
    """Put Dagster's own storage back into dagster.yaml. No stored data is lost.

    Runs may continue meanwhile. Run workers on Dagster's own storage wait until no process uses the
    engine. Afterwards restart the webserver, the daemon and the code servers. Removing the stanza
    by hand does the same.

    \b
    Examples:
      lifeguard engine disable
      lifeguard engine disable --dry-run
    """
    with _edited(_checked(home), engine_yaml.disabled, yes=yes, dry_run=dry_run) as instance:
        if instance is None:
            return
        count = switch.give_back(instance)
    click.echo("The engine is off.")
    if count:
        click.echo(f"Processes that still use it: {count}. Run workers started now wait for them.")
    click.echo(_START_AGAIN)


@contextmanager
def _edited(
    home: Path, edit: Callable[[str, str], str], *, yes: bool, dry_run: bool
) -> Iterator[DagsterInstance | None]:
    """The instance with its dagster.yaml edited, or None when that is not wanted.

    A file that the block fails on is put back.
    """
    change = _change(home, edit)
    wanted = change is None or agreed([change], yes=yes, dry_run=dry_run)
    if dry_run or not wanted:
        yield None
        return
    if change is not None:
        change.write()
        click.echo(f"Wrote {change.path}.")
    try:
        with instance_in(str(home)) as instance, upkeep(allowed=True):
            yield instance
    except BaseException:
        if change is not None:
            change.undo()
            click.echo(f"Put {change.path} back.", err=True)
        raise


def _checked(home: Path | None) -> Path:
    if home is None or not home.expanduser().is_dir():
        raise ConfigError(
            "There is no instance: DAGSTER_HOME is "
            + ("not set." if home is None else f"{home}, which is not a directory."),
            remedy="Set DAGSTER_HOME, or name the directory with --home.",
            names=[] if home is None else [str(home)],
        )
    return home.expanduser()


def _change(home: Path, edit: Callable[[str, str], str]) -> FileChange | None:
    file = home / "dagster.yaml"
    old = read(file) if file.exists() else None
    new = edit(old or "", str(file))
    return None if new == (old or "") else FileChange(file, old, new)
