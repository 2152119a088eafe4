"""``lifeguard check``: which asset gets which pools, and what is wrong with that."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dagster_lifeguard.cli.check_report import ROWS_MAX, SORT_KEYS, print_report, report_as_json
from dagster_lifeguard.cli.definitions_options import definitions_options
from dagster_lifeguard.cli.file_changes import FILE_NAME
from dagster_lifeguard.compat.instance import InstancePoolSettings
from dagster_lifeguard.inspections.check.codes import CODES
from dagster_lifeguard.inspections.check.inspection import inspect_locations
from dagster_lifeguard.inspections.check.instance import look_at_instance
from dagster_lifeguard.inspections.check.places import pool_places
from dagster_lifeguard.inspections.check.report import report_on
from dagster_lifeguard.policy.config import Config

if TYPE_CHECKING:
    from dagster_lifeguard.cli.definitions_options import DefinitionsNamed
    from dagster_lifeguard.policy.assignments import Assignment


@click.command("check")
@definitions_options
@click.option(
    "--config",
    "config_path",
    help=f"Policy to compare the definitions with.  [default: ./{FILE_NAME}, or else the policy "
    "that the definitions apply]",
)
@click.option(
    "--no-instance",
    is_flag=True,
    help="Check the definitions only, without an instance, such as in CI.",
)
@click.option(
    "--select", "pattern", help="Show only assets whose key, group or pool contains this text."
)
@click.option(
    "--sort",
    type=click.Choice(list(SORT_KEYS)),
    default="asset",
    show_default=True,
    help="Sort the table by this column.",
)
@click.option(
    "--all",
    "show_all",
    is_flag=True,
    help=f"List every asset, even if there are more than {ROWS_MAX}.",
)
@click.option("--summary", is_flag=True, help="Show only the sums by rule, and the findings.")
@click.option(
    "--ignore",
    multiple=True,
    type=click.Choice(sorted(CODES)),
    metavar="CODE",
    help="Leave out findings with this code. Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def check_command(
    definitions: DefinitionsNamed,
    config_path: str | None,
    pattern: str | None,
    sort: str,
    *,
    no_instance: bool,
    show_all: bool,
    summary: bool,
    ignore: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show the pool and the limit of each asset, and what is wrong.

    Without -m, -f or -w, the command checks the project in this directory: its pyproject.toml
    (tool.dagster or tool.dg), or else its workspace.yaml. It imports the code and executes nothing.

    Limits belong to the instance in DAGSTER_HOME. Without an instance, no limit is known: the
    column limit shows "?", and that is an error. Use --no-instance where this is intended, such as
    in CI; the granularity is then taken to be op.

    \b
    Examples:
      lifeguard check -m my_project.definitions
      lifeguard check -w workspace.yaml --config lifeguard.yaml
      lifeguard check --no-instance
      lifeguard check --select snowflake --sort pool
      lifeguard check --json | jq '.errors'

    Exit codes: 0 no findings, 1 errors or warnings, 2 usage error.
    """
    config_file = _config_file(config_path)
    config = None if config_file is None else Config.from_yaml(config_file)
    origins = definitions.find()
    instance = None
    if not no_instance:
        instance = look_at_instance(os.getenv("DAGSTER_HOME"), Path.cwd())
    granularity = instance.granularity if isinstance(instance, InstancePoolSettings) else "op"
    locations = inspect_locations(origins, config, granularity, config_file)
    places = {} if config_file is None else pool_places(str(config_file))
    found = report_on(locations, config, instance, places)
    shown = [f for f in found.findings if f.code not in ignore]
    rows = [
        (location, assignment)
        for location in found.locations
        for assignment in location.assignments
        if pattern is None or _matches(assignment, pattern)
    ]
    rows.sort(key=SORT_KEYS[sort])
    if as_json:
        click.echo(json.dumps(report_as_json(found, rows, shown), indent=2))
    else:
        print_report(
            found, rows, shown, in_full=not summary and (show_all or len(rows) <= ROWS_MAX)
        )
    if shown:
        raise SystemExit(1)


def _config_file(path: str | None) -> Path | None:
    file = Path(FILE_NAME if path is None else path)
    return file if path is not None or file.exists() else None


def _matches(assignment: Assignment, pattern: str) -> bool:
    return any(
        pattern.lower() in text.lower()
        for text in (assignment.asset, assignment.group or "", assignment.text)
    )
