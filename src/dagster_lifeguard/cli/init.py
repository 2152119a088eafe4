"""``lifeguard init``: a first lifeguard.yaml, and the default limit in dagster.yaml."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import click

from dagster_lifeguard.cli.file_changes import (
    FILE_NAME,
    FileChange,
    agreed,
    instance_file,
    read,
    write_all,
)
from dagster_lifeguard.cli.schema import FILE_NAME as SCHEMA_NAME
from dagster_lifeguard.cli.schema import schema_text
from dagster_lifeguard.compat.components import DEFS_FOLDER_TAKES_YAML
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.limits import dagster_yaml as instance_yaml
from dagster_lifeguard.limits.old_settings import with_new_settings
from dagster_lifeguard.policy.config import Config
from dagster_lifeguard.policy.protection import (
    DEFS_YAML,
    applies_policy,
    defs_yaml,
    find_dg_project,
    how_to_apply,
    policy_lines,
)

STARTER = """\
# yaml-language-server: $schema=./lifeguard.schema.json
# Which asset gets which pools. Looked at by: lifeguard check

engine: stock            # Dagster as it ships: one static pool per op
naming: underscore       # ["my_group", "my_asset"] -> my_group_my_asset; path -> my_group/my_asset
default_limit: 1         # of every pool that has none of its own below

# The first rule that selects an asset decides. `assets` is Dagster's asset selection syntax.
rules:
  # - assets: "group:scratch"                 # unlimited
  #   pools: []
  # - assets: "kind:snowflake"                # all of them share one pool, declared below
  #   pools: ["warehouse"]
  # - assets: "group:raw"                     # one pool per table
  #   pools: ["{metadata:dagster/table_name}"]
  - assets: "*"                               # every other asset: its own pool
    pools: ["{asset}"]

# Pools with a limit of their own.
pools: {}
  # warehouse: 8
"""

SCHEMA_LINE, *_ = STARTER.splitlines()
"""By this, as its first line, editors find the schema of a YAML file."""

_NAMED_SCHEMA = re.compile(r"^# *yaml-language-server: *\$schema=(\S+)", re.MULTILINE)


@click.command("init")
@click.option(
    "--config", "config_path", default=FILE_NAME, show_default=True, help="File to write."
)
@click.option(
    "--dagster-yaml",
    help="dagster.yaml of the instance.  [default: the one in DAGSTER_HOME, or else ./dagster.yaml "
    "if it exists]",
)
@click.option("-y", "--yes", is_flag=True, help="Write without asking.")
@click.option("--dry-run", is_flag=True, help="Show the changes, and write nothing.")
def init_command(config_path: str, dagster_yaml: str | None, *, yes: bool, dry_run: bool) -> None:
    """Write a first lifeguard.yaml, and give pools a default limit.

    In Dagster a pool without a limit is unlimited, so dagster.yaml gets a default limit of 1. It
    also gets run monitoring, which frees the slots of runs that crashed or were cancelled. Some
    older settings clash with a default limit: those of run_queue and of the run coordinator. They
    move to their new place, with their comments. Everything else in both files stays as it is.

    The command shows every change and asks before it writes. Set DAGSTER_HOME first: without it,
    dagster.yaml is left alone and the command says so.

    A dg project also gets a defs.yaml in its defs folder, which gives each asset there its pools.
    Editors get the JSON schema beside lifeguard.yaml.

    \b
    Examples:
      lifeguard init
      lifeguard init --dry-run
      lifeguard init --dagster-yaml /opt/dagster/dagster.yaml --yes
    """
    if dagster_yaml is not None and Path(dagster_yaml).resolve() == Path(config_path).resolve():
        raise click.UsageError("--config and --dagster-yaml name the same file.")
    config = _config_change(config_path)
    schema = _schema_change(config, config_path)
    folder, next_step = _project_change(config_path)
    found = (config, folder, _instance_change(dagster_yaml))
    shown = [change for change in found if change]
    changes = [*shown, *([schema] if schema else [])]
    left = _left_undone(dagster_yaml)
    if schema is not None:
        click.echo(
            f"With {config_path} comes {schema.path}, by which editors complete and check it."
        )
    if changes and agreed(shown, yes=yes, dry_run=dry_run):
        write_all(changes)
        for change in changes:
            click.echo(f"Wrote {change.path}.")
        click.echo(next_step)
    if not changes and left is None:
        click.echo("Nothing to change.")
    if left is not None:
        click.echo(left, err=True)


def _config_change(path: str) -> FileChange | None:
    file = Path(path)
    if file.exists():
        Config.from_yaml(file)  # what is kept must at least be valid
        click.echo(f"{path} exists and is kept.")
        return None
    if not file.parent.is_dir():
        raise ConfigError(
            f"{file.parent} is not a directory.", remedy="Create it first.", names=[path]
        )
    return FileChange(file, None, STARTER)


def _schema_change(config: FileChange | None, path: str) -> FileChange | None:
    """The schema that the file names to editors; says how to name it, if it names none."""
    named = _NAMED_SCHEMA.search(read(Path(path)) if config is None else config.new)
    if named is None:
        click.echo(
            f"For editors to complete and check {path}, begin it with this line and run this again:"
            f"\n    {SCHEMA_LINE}"
        )
        return None
    if Path(named[1]) != Path(SCHEMA_NAME):
        return None  # Another one, or elsewhere: not ours to write.
    file = Path(path).parent / SCHEMA_NAME
    old = read(file) if file.exists() else None
    return None if old == schema_text() else FileChange(file, old, schema_text())


def _project_change(config_path: str) -> tuple[FileChange | None, str]:
    """Return the defs.yaml that applies the policy to a dg project, and what is to do next."""
    project, config = find_dg_project(Path()), Path(config_path)
    if project is None and config.exists():
        return None, "Next: lifeguard check"  # It says how to apply the policy, if none is.
    if project is None:
        imports, line = policy_lines(None, config.resolve())
        lines = "".join(f"    {one}\n" for one in (*imports, line))
        return None, (
            "Next, end the file with the definitions, beside it, with:\n"
            f"{lines}then: lifeguard check"
        )
    file = defs_yaml(project.defs_folder)
    if file.is_file() and applies_policy(file):
        return None, "Next: lifeguard check"
    if DEFS_FOLDER_TAKES_YAML and not file.exists():
        name = Path(os.path.relpath(config, project.root)).as_posix()
        return FileChange(file, None, DEFS_YAML.format(config=name)), "Next: lifeguard check"
    remedy = how_to_apply(project.definitions, project.defs_folder, config)
    return None, f"Next: {remedy}\nthen: lifeguard check"


def _instance_change(path: str | None) -> FileChange | None:
    file = instance_file(path)
    if file is None:
        return None
    old = read(file) if file.exists() else None
    moved, moves = with_new_settings(old or "", str(file))
    new, kept = instance_yaml.with_pool_settings(moved, str(file))
    for move in moves:
        click.echo(f"{file}: {move}.")
    for setting in kept:
        click.echo(f"{file}: {setting} is kept.")
    return None if new == (old or "") else FileChange(file, old, new)


def _left_undone(path: str | None) -> str | None:
    """Return what cannot be done without a DAGSTER_HOME; None if nothing is left to do."""
    if path is not None or os.getenv("DAGSTER_HOME"):
        return None
    file = instance_file(path)
    if file is None:
        return (
            "Pools get no default limit and stay unlimited: DAGSTER_HOME is not set, and there is "
            "no ./dagster.yaml.\n"
            "Set DAGSTER_HOME to the instance's directory and run lifeguard init again, or name "
            "the file with --dagster-yaml."
        )
    return (
        f"DAGSTER_HOME is not set, so only Dagster commands started here read {file}.\n"
        "Set it for webserver, daemon and this shell: "
        f"export DAGSTER_HOME={shlex.quote(str(Path.cwd()))}"
    )
