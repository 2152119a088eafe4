"""``lifeguard explain``: why something waits, behind whom, and until when."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from dagster_lifeguard.cli import completion
from dagster_lifeguard.cli.definitions_options import definitions_options
from dagster_lifeguard.cli.duration_option import duration_option
from dagster_lifeguard.cli.explain_text import explanation_lines
from dagster_lifeguard.cli.tables import new_console
from dagster_lifeguard.cli.target import deployment_options
from dagster_lifeguard.errors import LifeguardError, UnknownNameError
from dagster_lifeguard.insight.durations import Durations
from dagster_lifeguard.insight.explanation import Explanation, explain
from dagster_lifeguard.insight.subject import Subject, asset_or_run

if TYPE_CHECKING:
    from dagster_lifeguard.cli.definitions_options import DefinitionsNamed
    from dagster_lifeguard.deployment.contract import Deployment

_WHERE_LOOKED_UP = (
    "One that has never run is looked up in the project in this directory, or in the definitions "
    "that -m, -f or -w names."
)


@click.command("explain")
@click.argument("subject", metavar="ASSET|RUN_ID|RUN_ID:STEP", shell_complete=completion.assets)
@click.option(
    "--all", "show_all", is_flag=True, help="List every step of the run, and every step ahead."
)
@duration_option(
    "--window",
    "7d",
    "How far back to look for estimates, e.g. 30m, 24h, 7d. 0 skips them, which is faster.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@definitions_options
@deployment_options
def explain_command(
    deployment: Deployment,
    definitions: DefinitionsNamed,
    subject: str,
    window: float,
    *,
    show_all: bool,
    as_json: bool,
) -> None:
    """Show why a step waits, which steps are ahead, and when it may start.

    Give an asset (a/b), a run's id or the first part of it, or one step of a run. The command names
    the pool or the run queue that the step waits for, the steps that hold its slots, and the rule
    that decides the order. It estimates the start from past runs. If nothing limits the step, it
    says so.

    An asset that has never run is looked up in the definitions that -m, -f or -w names, or in the
    project in this directory. Changes nothing.

    \b
    Examples:
      lifeguard explain sales/orders
      lifeguard explain 3f2a91c4
      lifeguard explain 3f2a91c4:orders --json
      lifeguard explain orders -f definitions.py

    Exit codes: 0 shown, 2 usage error.
    """
    from dagster_lifeguard.insight.past import read_past  # noqa: PLC0415 - slow

    settings = deployment.settings()
    try:
        meant = asset_or_run(deployment, subject)
    except UnknownNameError as unknown:
        declared = _declared(subject, definitions, settings.granularity)
        if declared is None:
            raise UnknownNameError(
                unknown.message,
                remedy=" ".join(filter(None, (unknown.remedy, _WHERE_LOOKED_UP))),
                names=unknown.names,
            ) from None
        meant = Subject("asset", subject, texts=declared, never_ran=True)
    now = time.time()
    past = read_past(deployment, settings, now - window, now) if window else Durations(now, now)
    found = explain(deployment, meant, settings, past, time.time())
    if as_json:
        click.echo(json.dumps(_as_json(found, deployment.name), indent=2))
        return
    console = new_console()
    for line in explanation_lines(found, name=deployment.name, in_full=show_all):
        console.print(line)


def _declared(
    asset: str, definitions: DefinitionsNamed, granularity: str
) -> tuple[str, ...] | None:
    """What the ops of an asset have in ``op.pool``, by the definitions; None: unknown."""
    from dagster_lifeguard.inspections.check.inspection import inspect_locations  # noqa: PLC0415 - slow

    try:
        locations = inspect_locations(definitions.find(), None, granularity)
    except LifeguardError:
        if definitions.is_any:
            raise
        return None  # There is no project here that could tell.
    found = (a for location in locations for a in location.assignments if a.asset == asset)
    return next((a.current for a in found), None)


def _as_json(found: Explanation, name: str) -> dict[str, Any]:
    return {"version": 1, "deployment": name, "waiting": found.is_waiting, **asdict(found)}
