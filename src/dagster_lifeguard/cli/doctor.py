"""``lifeguard doctor``: why a pool does not work, and the fixes that are safe."""

from __future__ import annotations

import json
import os
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from dagster_lifeguard.cli.file_changes import FileChange, consented, read, show
from dagster_lifeguard.cli.findings import (
    finding_as_json,
    print_finding,
    print_indented,
    verdict,
)
from dagster_lifeguard.cli.tables import new_console
from dagster_lifeguard.cli.target import target_options
from dagster_lifeguard.cli.watched_deployment import with_progress
from dagster_lifeguard.deployment.open import open_deployment
from dagster_lifeguard.errors import LifeguardError
from dagster_lifeguard.inspections.doctor.examination import CHECKS, Examination, examine
from dagster_lifeguard.inspections.doctor.examined import Examined, Machine, examine_instance
from dagster_lifeguard.inspections.doctor.fixes import Fix, fixes
from dagster_lifeguard.limits import dagster_yaml as instance_yaml
from dagster_lifeguard.texts import number, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dagster_lifeguard.deployment.webserver import TokenKind


@click.command("doctor")
@target_options
@click.option("--fix", is_flag=True, help="Offer the safe fixes, then check again.")
@click.option("-y", "--yes", is_flag=True, help="Fix without asking.")
@click.option(
    "--ignore",
    multiple=True,
    type=click.Choice(sorted(CHECKS)),
    metavar="CODE",
    help="Skip the check with this code. Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def doctor_command(
    url: str | None,
    token: str | None,
    token_kind: TokenKind | None,
    ignore: tuple[str, ...],
    *,
    fix: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Find out why a pool does not work, and how to fix it.

    Checks DAGSTER_HOME, dagster.yaml, the daemon, the storage, limits, slots, names, the run queue
    and executors. Some checks need the machine of the instance; with --url they are listed as not
    visible. Changes nothing without --fix.

    --fix shows each fix and asks. It frees the slots of runs that have ended, wakes steps that wait
    beside a free slot, and adds run monitoring to dagster.yaml. It never frees a slot of a run that
    may be alive.

    \b
    Examples:
      lifeguard doctor
      lifeguard doctor --fix
      lifeguard doctor --ignore monitoring-off --json | jq '.findings[].code'
      lifeguard doctor --url http://localhost:3000

    Exit codes: 0 no findings, or only notes; 1 errors or warnings; 2 usage error.
    """
    if yes and not fix:
        raise click.UsageError("--yes goes with --fix.")
    if fix and as_json and not yes:
        raise click.UsageError("With --json nobody is asked: say --fix --yes.")
    done: list[dict[str, str]] = []
    with _subject(url, token, token_kind, is_quiet=as_json) as subject:
        found = examine(subject, ignore)
        if not as_json:
            _print(found)
        is_changed = fix and _fix(subject, found, done, yes=yes, is_quiet=as_json)
    if is_changed:
        with _subject(url, token, token_kind, is_quiet=as_json) as subject:
            found = examine(subject, ignore)
        if not as_json:
            click.echo("\nAfter that:")
            _print(found)
    if as_json:
        click.echo(json.dumps(_as_json(found, done), indent=2))
    click.get_current_context().exit(0 if found.is_well else 1)


@contextmanager
def _subject(
    url: str | None, token: str | None, token_kind: TokenKind | None, *, is_quiet: bool
) -> Iterator[Examined]:
    with _opened(url, token, token_kind) as subject:
        if not is_quiet:
            subject.ask_through(with_progress)
        yield subject


@contextmanager
def _opened(url: str | None, token: str | None, token_kind: TokenKind | None) -> Iterator[Examined]:
    if url is None:
        machine = Machine(os.getenv("DAGSTER_HOME") or None, Path.cwd())
        with examine_instance(machine) as subject:
            yield subject
    else:
        with closing(open_deployment(url, token, token_kind)) as deployment:
            subject = Examined(deployment.name, deployment=deployment)
            assert subject.settings  # One that does not answer is an error, not a finding.
            yield subject


# --- fixes ----------------------------------------------------------------------------------------


def _fix(
    subject: Examined,
    found: Examination,
    done: list[dict[str, str]],
    *,
    yes: bool,
    is_quiet: bool,
) -> bool:
    """Offer what can be fixed and, with consent, do it; whether anything was done or tried."""
    codes = {finding.code for finding in found.findings}
    change = _monitoring(subject) if "monitoring-off" in codes else None
    offered = fixes(subject, codes)
    if not offered and change is None:
        if not is_quiet:
            click.echo("\nThere is nothing that --fix can do.")
        return False
    if not is_quiet:
        click.echo("\nTo fix:")
        for offer in offered:
            click.echo(f"  {printable(offer.action)}")
        if change is not None:
            click.echo(f"  Add run monitoring to {printable(str(change.path))}:")
            show([change])
    if not consented("Do this?", "Nothing was changed", yes=yes):
        return False
    outcomes = [_apply(offer) for offer in offered]
    if change is not None:
        change.write()
        text = f"wrote {change.path}; start the daemon again for it to take effect"
        outcomes.append({"code": "monitoring-off", "outcome": "done", "text": text})
    done.extend(outcomes)
    if not is_quiet:
        for outcome in outcomes:
            click.echo(f"{outcome['outcome']}: {printable(outcome['text'])}")
    return True


def _apply(fix: Fix) -> dict[str, str]:
    try:
        outcome, text = fix.apply()
    except LifeguardError as error:
        return {"code": fix.code, "outcome": "failed", "text": error.message}
    return {"code": fix.code, "outcome": outcome, "text": text}


def _monitoring(subject: Examined) -> FileChange | None:
    """The change to dagster.yaml that adds run monitoring; None if the file says otherwise."""
    old = read(subject.file) if subject.file.exists() else None
    new, kept = instance_yaml.with_pool_settings(
        old or "", str(subject.file), instance_yaml.MONITORING
    )
    for setting in kept:
        if setting.endswith((": false", ": 0")):
            click.echo(f"{subject.file}: {setting} is kept; change it by hand.", err=True)
            return None
    return None if new == old else FileChange(subject.file, old, new)


# --- the report -----------------------------------------------------------------------------------


def _print(found: Examination) -> None:
    console = new_console()
    for group, findings in found.by_group().items():
        console.print(Text(group, style="bold"))
        for finding in findings:
            print_finding(console, finding)
            console.print()
    for reason, codes in found.unanswered().items():
        console.print(Text(printable(_sentence(reason)), style="bold"))
        print_indented(console, "", ", ".join(codes), style="dim")
        console.print()
    counts = [f"{found.count('clear')} clear"]
    counts += [f"{n} {kind}" for kind in ("unanswered", "ignored") if (n := found.count(kind))]
    console.print(
        Text(f"{number(len(found.answers), 'check')} of {printable(found.subject)}: ")
        + Text(", ".join(counts) + ".")
    )
    console.print(Text(verdict(found.findings), style="bold"))


def _sentence(reason: str) -> str:
    return f"{reason[:1].upper()}{reason[1:]}".rstrip(".") + ". Not answered:"


def _as_json(found: Examination, done: Sequence[dict[str, str]]) -> dict[str, Any]:
    return {
        "version": 1,
        "subject": found.subject,
        "findings": [
            {"severity": finding.severity, "group": answer.group, **finding_as_json(finding)}
            for answer in sorted(found.answers, key=lambda answer: answer.group)
            for finding in answer.findings
        ],
        "checks": [
            {
                "code": answer.check.code,
                "group": answer.group,
                "outcome": answer.outcome,
                "reason": answer.reason or None,
            }
            for answer in found.answers
        ],
        "fixes": list(done),
    }
