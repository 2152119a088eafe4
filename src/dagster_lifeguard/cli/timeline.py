"""``lifeguard timeline``: what executed and waited when, as bars."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dagster_lifeguard.cli import completion
from dagster_lifeguard.cli.duration_option import duration_option
from dagster_lifeguard.cli.target import deployment_options
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.insight.subject import known_pool, pool_or_asset
from dagster_lifeguard.texts import printable

if TYPE_CHECKING:
    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.insight.timeline import Bar, Timeline

_RUN_ID_LETTERS = 8


@click.command("timeline")
@click.argument(
    "subject", required=False, metavar="[POOL | ASSET]", shell_complete=completion.pools_and_assets
)
@duration_option("--since", "1h", "How far back to look, e.g. 30m, 24h, 7d.")
@click.option(
    "--rows",
    type=click.IntRange(1, 10_000),
    default=40,
    show_default=True,
    help="Show only the newest rows, at most this many.",
)
@click.option(
    "--svg",
    "svg_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write an SVG picture to this file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@deployment_options
def timeline_command(
    deployment: Deployment,
    subject: str | None,
    since: float,
    rows: int,
    svg_path: Path | None,
    *,
    as_json: bool,
) -> None:
    """Draw when steps executed and when they waited.

    Draws all runs, or one pool or asset. It reads Dagster's own history, so it also knows runs from
    before this package was installed. A name that a pool and an asset share means the asset.

    \b
    Examples:
      lifeguard timeline
      lifeguard timeline warehouse --since 30m
      lifeguard timeline orders --since 24h --svg orders.svg

    Exit codes: 0 shown, 2 usage error.
    """
    from dagster_lifeguard.insight import timeline  # noqa: PLC0415 - a shell that completes needs none

    until = time.time()
    window = {"since": until - since, "until": until}
    if subject is None:
        found = timeline.timeline_of_runs(deployment, **window, count_max=rows)
        title = "Runs"
    elif pool_or_asset(deployment, subject) == "asset":
        found = timeline.timeline_of_asset(deployment, subject, **window, count_max=rows)
        title = f"Asset {subject}"
    else:
        subject = known_pool(deployment, subject)
        found = timeline.timeline_of_pool(deployment, subject, **window, count_max=rows)
        title = f"Pool {pool_text(subject)}"
    if as_json:
        click.echo(
            json.dumps({"version": 1, "subject": subject, **dataclasses.asdict(found)}, indent=2)
        )
    elif svg_path is not None:
        _write_picture(found, title, svg_path)
    else:
        _print(found, title)


def _write_picture(found: Timeline, title: str, path: Path) -> None:
    from dagster_lifeguard.cli.picture import moments, save  # noqa: PLC0415 - not for each command
    from dagster_lifeguard.cli.timeline_svg import svg  # noqa: PLC0415 - as above

    text = svg(
        found,
        f"{title}, {_moment(found.since)} to {_moment(found.until)}",
        [_label(bar) for bar in found.bars],
        moments(found.since, found.until),
    )
    save(path, text)
    click.echo(f"Wrote {path}.")


def _print(found: Timeline, title: str) -> None:
    from dagster_lifeguard.cli.bars import ASCII, UNICODE, draw  # noqa: PLC0415 - as above
    from dagster_lifeguard.insight.timeline import Phase  # noqa: PLC0415 - as above

    click.secho(title, bold=True)
    if not found.bars:
        click.echo(f"Nothing from {_moment(found.since)} to {_moment(found.until)}.")
        return
    encoding = sys.stdout.encoding or "ascii"
    marks = UNICODE if encoding.lower().replace("-", "") == "utf8" else ASCII
    lines = draw(
        found.bars,
        [_label(bar) for bar in found.bars],
        since=found.since,
        until=found.until,
        width=shutil.get_terminal_size().columns,
        marks=marks,
        edges=(_moment(found.since), _moment(found.until)),
    )
    for line in lines:
        click.echo(line)
    shown = {span.phase for bar in found.bars for span in bar.spans}
    click.secho(marks.legend(*(phase for phase in Phase if phase in shown)), dim=True)
    if found.left_out:
        click.echo(f"{found.left_out:,} older ones are not shown; --rows shows more.")


def _label(bar: Bar) -> str:
    run = bar.run_id[:_RUN_ID_LETTERS]
    step = f" {bar.step_key}" if bar.step_key else ""
    again = f" (try {bar.attempt})" if bar.attempt > 1 else ""
    return printable(f"{run}{step}{again}")


def _moment(at: float) -> str:
    return time.strftime("%m-%d %H:%M:%S", time.localtime(at))
