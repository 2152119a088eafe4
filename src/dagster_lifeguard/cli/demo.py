"""``lifeguard demo``: three runs at once on real data, without protection and with it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import tempfile
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import dagster
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dagster_lifeguard.cli.bars import ASCII, UNICODE, Marks, draw
from dagster_lifeguard.cli.flights import acts as demo
from dagster_lifeguard.cli.flights.processes import NotedSignals
from dagster_lifeguard.insight.timeline import Phase, bar_of_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dagster_lifeguard.cli.flights.acts import Act, DemoHome, Evidence
    from dagster_lifeguard.deployment.history import StepExecution

WIDTH = 80
MARGIN_SECONDS = 1.0
INTRODUCTION = f"""\
Eight assets load the flights out of New York in 2013 into one DuckDB file, and
DuckDB lets only one process at a time write a file. Now {demo.RUNS} runs come at once:
first as Dagster ships, then with one line more in the project,

    defs = apply_per_asset_concurrency(defs)

Both times with real Dagster processes, the same full run queue and the same
dagster.yaml: pools have limit 1 and granularity "run", so a run leaves the
queue when every pool it needs is free. It takes about a minute.
"""
NEXT_STEPS = """\
In your own project:

    from dagster_lifeguard import apply_per_asset_concurrency
    defs = apply_per_asset_concurrency(defs)

    lifeguard init     write lifeguard.yaml and the stanza for dagster.yaml
    lifeguard check    see which asset gets which pool, and what to look at
"""


@click.command("demo")
@click.option(
    "--keep", is_flag=True, help="Keep the Dagster home, so that dagster dev can open it."
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object.")
@click.pass_context
def demo_command(context: click.Context, *, keep: bool, as_json: bool) -> None:
    """Run three runs at once on real data, without pools and with them.

    \b
    Exit codes:
      0  damage without pools, and none with them
      1  a run was damaged with pools, or none was damaged without them
      2  the demo could not run
    """
    began = time.monotonic()
    stage = Stage(Console(highlight=False, quiet=as_json))
    with _demo_home(keep=keep) as home:
        stage.introduce()
        home.prepare()
        first = stage.play(1, demo.UNPROTECTED, home)
        second = stage.play(2, demo.PROTECTED, home)
    if as_json:
        report = as_json_object(first, second)
        report["seconds"] = round(time.monotonic() - began, 1)
        report["home"] = str(home.directory) if keep else None
        click.echo(json.dumps(report, indent=2))
    stage.judge(first, second)
    stage.leave(home if keep else None)
    context.exit(0 if first.damaged and second.intact else 1)


class Stage:
    """Where the demo is shown: a terminal, or plain text that fits one."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
        self.marks = UNICODE if console.encoding.lower().startswith("utf") else ASCII

    def introduce(self) -> None:
        """Say what is about to happen."""
        self.console.print(INTRODUCTION)

    def play(self, number: int, act: Act, home: DemoHome) -> Evidence:
        """Play an act while showing its progress, and then its timeline."""
        self.console.print(Text(f"{number}. Three runs, {act.name}", style="bold"))
        began = time.monotonic()
        with self.console.status("waiting for Dagster", spinner="line"):

            def progress(text: str) -> None:
                self.console.print(f"   {time.monotonic() - began:4.1f} s  {text}")

            evidence = home.play(act, progress)
        self.console.print()
        for line in act_timeline(evidence, self.width, self.marks):
            self._print_bar(line)
        self.console.print()
        return evidence

    def judge(self, first: Evidence, second: Evidence) -> None:
        """Show the facts of both acts side by side, and what follows from them."""
        table = Table(box=box.SIMPLE_HEAD, width=self.width, pad_edge=False, show_edge=False)
        table.add_column("")
        for evidence in (first, second):
            table.add_column(evidence.act.name, justify="right")
        for row in verdict_rows(first, second):
            table.add_row(*row)
        self.console.print(table)
        self.console.print()
        if first.failures:
            said = textwrap.wrap(f"The failures said: {gist(first.failures[0])}", self.width)
            self.console.print(Text("\n".join(said), style="dim"))
            self.console.print()
        right = first.damaged and second.intact
        for sentence in verdict(first, second):
            text = textwrap.fill(sentence, self.width)
            self.console.print(Text(text, style="bold green" if right else "bold red"))

    def leave(self, home: DemoHome | None) -> None:
        """Say what to do next, and how to open the home if it was kept."""
        self.console.print()
        self.console.print(Text(NEXT_STEPS))
        if home is not None:
            self.console.print("The Dagster home was kept. Open it, and see the six runs, with:")
            self.console.print()
            self.console.print(Text(f"    {dev_command(home)}"), soft_wrap=True)

    def _print_bar(self, line: str) -> None:
        text = Text(line)
        text.highlight_regex(re.escape(self.marks.failed), "bold red")
        text.highlight_regex(f"{re.escape(self.marks.executing)}+", "cyan")
        text.highlight_regex(r"failure$", "red")
        text.highlight_regex(r"success$", "green")
        self.console.print(text, soft_wrap=True)


def act_timeline(evidence: Evidence, width: int, marks: Marks) -> list[str]:
    """The runs of an act as bars, from just before the first one left the queue."""
    until = evidence.ended + MARGIN_SECONDS
    lines = draw(
        [bar_of_run(run, until) for run in evidence.runs],
        [f"run {number}" for number, _ in enumerate(evidence.runs, start=1)],
        since=evidence.dequeued - MARGIN_SECONDS,
        until=until,
        width=width - 3,
        marks=marks,
    )
    legend = marks.legend(Phase.QUEUED, Phase.STARTING, Phase.EXECUTING)
    return [f"   {line}" for line in [*lines, legend]]


def verdict_rows(first: Evidence, second: Evidence) -> list[tuple[str, str, str]]:
    """What was found in both acts: a fact, and how it was in the first and in the second."""

    def row(fact: str, tell: Callable[[Evidence], str]) -> tuple[str, str, str]:
        return fact, tell(first), tell(second)

    flights = demo.EXPECTED_ROWS["flights"]
    return [
        row("runs that succeeded", lambda e: f"{len(e.succeeded)} of {len(e.runs)}"),
        row("overlaps (two runs in one asset)", lambda e: str(len(e.overlaps))),
        row("longest overlap", _longest_overlap),
        row("failed steps", lambda e: str(len(e.failures))),
        row("of them, DuckDB file locked", lambda e: str(len(e.lock_failures))),
        row("rows in flights", lambda e: f"{e.rows.get('flights', 0):,} of {flights:,}"),
        row(
            "tables with the right rows",
            lambda e: f"{len(e.right_tables)} of {len(demo.EXPECTED_ROWS)}",
        ),
        row("first start to last end", lambda e: f"{e.ended - e.dequeued:.1f} s"),
    ]


def verdict(first: Evidence, second: Evidence) -> list[str]:
    """What follows from the facts, one sentence each."""
    sentences = []
    if not first.damaged:
        sentences.append("No damage as Dagster ships, so this demo proves nothing. Run it again.")
    if second.intact:
        sentences.append(
            "With the one line the runs took turns: no overlap, no failure, no row missing."
        )
    else:
        sentences.append("Protection failed: with the one line, runs still went wrong.")
    return sentences


def gist(step: StepExecution) -> str:
    """The message of a failed step without directories and without advice."""
    message = (step.error or "no message").split(". See also")[0]
    return re.sub(r"(?:/[^/\s\"]+)+/", "", message)


def dev_command(home: DemoHome) -> str:
    """The command line that opens the home in Dagster's web page."""
    directory, project, python = (
        shlex.quote(str(path)) for path in (home.directory, home.project, sys.executable)
    )
    module = demo.PROTECTED.module
    return f"DAGSTER_HOME={directory} {python} -m dagster dev -m {module} -d {project}"


def as_json_object(first: Evidence, second: Evidence) -> dict[str, Any]:
    """The evidence of both acts and the verdict, for a program to read; times in seconds."""
    return {
        "dagster": dagster.__version__,
        "acts": [_act_as_json(evidence) for evidence in (first, second)],
        "damage_without_pools": first.damaged,
        "protected_with_pools": second.intact,
    }


def _act_as_json(evidence: Evidence) -> dict[str, Any]:
    return {
        "name": evidence.act.name,
        "module": evidence.act.module,
        "runs": [
            {
                "run_id": run.run_id,
                "status": run.status,
                "enqueued": run.enqueued,
                "dequeued": run.dequeued,
                "started": run.started,
                "ended": run.ended,
                "steps": [_step_as_json(step) for step in run.steps],
            }
            for run in evidence.runs
        ],
        "overlaps": [
            {
                "asset": overlap.asset_key.to_user_string(),
                "runs": [overlap.first.run_id, overlap.second.run_id],
                "started": overlap.started,
                "seconds": overlap.seconds,
            }
            for overlap in evidence.overlaps
        ],
        "failed_steps": len(evidence.failures),
        "lock_failures": len(evidence.lock_failures),
        "rows": dict(evidence.rows),
        "expected_rows": dict(demo.EXPECTED_ROWS),
    }


def _step_as_json(step: StepExecution) -> dict[str, Any]:
    return {
        "step_key": step.step_key,
        "assets": [key.to_user_string() for key in step.asset_keys],
        "started": step.started,
        "ended": step.ended,
        "outcome": step.outcome.value,
        "error": step.error,
    }


def _longest_overlap(evidence: Evidence) -> str:
    longest = max((overlap.seconds for overlap in evidence.overlaps), default=None)
    return "-" if longest is None else f"{longest:.2f} s"


@contextmanager
def _demo_home(*, keep: bool) -> Iterator[DemoHome]:
    """A temporary home, removed at the end, also when a signal ends the demo."""
    with NotedSignals() as signals:
        directory = Path(tempfile.mkdtemp(prefix="lifeguard-demo-"))
        try:
            yield demo.DemoHome(directory, signals.raise_noted)
        finally:
            if not keep:
                shutil.rmtree(directory, ignore_errors=True)
