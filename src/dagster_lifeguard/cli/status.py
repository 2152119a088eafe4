"""``lifeguard status``: who holds and who waits, in all pools or in one."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from dagster_lifeguard.cli import completion
from dagster_lifeguard.cli.duration_option import duration_option
from dagster_lifeguard.cli.pool_tables import QUEUED_MAX, ROWS_MAX, overview_table, pool_report
from dagster_lifeguard.cli.tables import new_console
from dagster_lifeguard.cli.target import deployment_options
from dagster_lifeguard.engine.rules.shown_names import pool_text
from dagster_lifeguard.insight.durations import Durations, read_durations
from dagster_lifeguard.insight.outlook import read_outlook
from dagster_lifeguard.insight.overview import overview
from dagster_lifeguard.insight.pools import find_pool, look_into, runs_in
from dagster_lifeguard.insight.queue_look import IN_QUEUE_OR_PROGRESS
from dagster_lifeguard.insight.run_queue import queued_for
from dagster_lifeguard.insight.subject import known_pool
from dagster_lifeguard.insight.waits import read_held_back

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.insight.simulation.track_record import TrackRecord

_AROUND_ROWS = 10
"""Lines of a screen that pools are not listed in: the rest of the table, sums, long names."""

_IDLE_LISTED_MAX = 20
"""Idle pools are listed like others where there are no more pools in all."""

_LISTED_MAX = 100
"""Of all pools only so many are listed, unless --all asks for each."""

_PAST_AGAIN_SECONDS = 60.0
"""While watching, percentiles are read anew so often: it costs more than to look at the pools."""

_RECORD_WORK = 25_000
"""How much is played to see how well estimates fitted: at most about a second."""

_INTERVAL_MIN = 0.1


@click.command("status")
@click.argument("pool", required=False, shell_complete=completion.pools)
@click.option("--select", "pattern", help="Show only pools whose name contains this text.")
@click.option("--all", "show_all", is_flag=True, help="List every pool and every waiting step.")
@duration_option(
    "--window",
    "24h",
    "How far back to look for waits, e.g. 30m, 24h, 7d. 0 skips them, which is faster.",
)
@click.option("--watch", is_flag=True, help="Update the output until Ctrl-C.")
@duration_option("--interval", "1s", "Time between two updates of --watch.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object. With --watch, one per line."
)
@deployment_options
def status_command(
    deployment: Deployment,
    pool: str | None,
    pattern: str | None,
    window: float,
    interval: float,
    *,
    show_all: bool,
    watch: bool,
    as_json: bool,
) -> None:
    """Show which pools are full, which steps wait, and for how long.

    Lists the pools under most pressure first; of more than 20 pools, sums up the idle ones. With
    POOL, shows its holders, its queue, and when each waiting step is likely to start. Changes
    nothing.

    \b
    Examples:
      lifeguard status
      lifeguard status warehouse
      lifeguard status --select stripe --watch
      lifeguard status --json | jq '.pools[] | select(.waiting > 0)'

    Exit codes: 0 shown, 2 usage error.
    """
    if pool is not None and pattern is not None:
        raise click.UsageError("Give a POOL or --select, not both.")
    look = _Look(deployment, window)
    if pool is None:

        def see() -> _Sight:
            on_screen = watch and not as_json
            return look.at_all(pattern, show_all=show_all, on_screen=on_screen)
    else:
        name = known_pool(deployment, pool)

        def see() -> _Sight:
            return look.at_one(name, show_all=show_all)

    if watch:
        _watch(see, max(interval, _INTERVAL_MIN), as_json=as_json)
    elif as_json:
        click.echo(json.dumps(see().as_json(), indent=2))
    else:
        new_console().print(see().as_text)


@dataclass(frozen=True)
class _Sight:
    """What was seen in one look.

    Attributes:
        as_text: To be printed.
        as_json: For ``--json``.
        states: What has to change for anybody to be told again.
    """

    as_text: RenderableType
    as_json: Callable[[], dict[str, Any]]
    states: object


class _Look:
    """Looks again and again, and at the past only now and then."""

    def __init__(self, deployment: Deployment, window: float) -> None:
        self._deployment = deployment
        self._window = window
        self._settings = deployment.settings()
        self._past = Durations(0.0, 0.0)
        self._record: TrackRecord | None = None

    def at_all(self, pattern: str | None, *, show_all: bool, on_screen: bool) -> _Sight:
        states, now = self._deployment.pools(), time.time()
        held_back = read_held_back(self._deployment, self._settings, states, now)
        found = overview(states, held_back, self._settings, self._past_until(now), now)
        selected = [pool for pool in found.pools if _matches(pool.pool, pattern or "")]
        list_idle = show_all or pattern is not None or len(found.pools) <= _IDLE_LISTED_MAX
        listed = [p for p in selected if list_idle or not p.is_idle]
        console = new_console()
        fits = on_screen and console.is_terminal  # What is below the screen's end is not seen.
        rows_max = None if show_all else _LISTED_MAX
        if fits:
            rows_max = max(1, console.height - _AROUND_ROWS)
        text = overview_table(
            found,
            listed,
            name=self._deployment.name,
            width=console.width,
            rows_max=rows_max,
            hint="" if fits else "; --all lists them",
        )

        def described() -> dict[str, Any]:
            return self._named(
                asdict(replace(found, pools=())) | {"pools": [asdict(pool) for pool in selected]}
            )

        return _Sight(Group(*text), described, (states, held_back))

    def at_one(self, name: str, *, show_all: bool) -> _Sight:
        state, now = find_pool(self._deployment, name), time.time()
        runs = runs_in(self._deployment, [state])
        past = self._past_until(now, name)
        settings = self._settings
        line = self._deployment.unfinished_runs(IN_QUEUE_OR_PROGRESS)
        held_back = read_held_back(self._deployment, settings, [state], now, line)
        outlook = read_outlook(self._deployment, settings, [state], past, now, line)
        found = look_into(state, held_back, runs, past, now, outlook)
        queued_max = None if show_all else QUEUED_MAX
        queued = queued_for(self._deployment, name, settings, now, queued_max, line, outlook)
        text = pool_report(
            found,
            queued,
            name=self._deployment.name,
            now=now,
            window=past.until - past.since,
            settings=self._settings,
            rows_max=None if show_all else ROWS_MAX,
            record=self._record,
        )
        record = None if self._record is None else asdict(self._record)
        seen = {
            "at": now,
            "granularity": self._settings.granularity,
            "engine": self._settings.engine,
            "window": past.until - past.since,
        }

        def described() -> dict[str, Any]:
            more = {"queued": asdict(queued), "record": record}
            return self._named(seen | asdict(found) | more)

        return _Sight(text, described, (state, [run.run_id for run in queued.first]))

    def _past_until(self, now: float, pool: str | None = None) -> Durations:
        from dagster_lifeguard.insight.past import read_past_and_record  # noqa: PLC0415 - slow

        if self._window and now - self._past.until > _PAST_AGAIN_SECONDS:
            since = now - self._window
            if pool is None:
                self._past = read_durations(self._deployment, self._settings, since, now)
            else:
                self._past, self._record = read_past_and_record(
                    self._deployment, self._settings, since, now, pool, _RECORD_WORK
                )
        return self._past

    def _named(self, found: dict[str, Any]) -> dict[str, Any]:
        return {"version": 1, "deployment": self._deployment.name, **found}


def _matches(pool: str, pattern: str) -> bool:
    return pattern.lower() in f"{pool} {pool_text(pool)}".lower()


def _watch(see: Callable[[], _Sight], interval: float, *, as_json: bool) -> None:
    """Show what is seen until somebody interrupts; beside a terminal, only what changed."""
    console = new_console()
    try:
        if console.is_terminal and not as_json:
            with Live(console=console, screen=True, auto_refresh=False) as live:
                while True:
                    live.update(see().as_text, refresh=True)
                    time.sleep(interval)
        last: object = None
        while True:
            sight = see()
            if sight.states != last:
                if as_json:
                    click.echo(json.dumps(sight.as_json()))
                else:
                    console.print(Text(time.strftime("%Y-%m-%d %H:%M:%S")), sight.as_text, "")
                sys.stdout.flush()
            last = sight.states
            time.sleep(interval)
    except KeyboardInterrupt:
        return
