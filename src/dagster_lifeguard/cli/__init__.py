"""The command ``lifeguard``.

Exit codes, for every command: 0 done and nothing found, 1 something found, 2 a mistake in what was
asked, with one line that says what and a remedy.
"""

from __future__ import annotations

import click

from dagster_lifeguard.cli.group import CommandGroup

__all__ = ["main"]

COMMANDS = {
    "Give assets their pools": {
        "init": "Write a lifeguard.yaml to start from, and give pools a default limit.",
        "check": "Show which asset gets which pool by which rule, and what is wrong.",
        "schema": "Print the JSON schema of lifeguard.yaml, for editors.",
        "demo": "Load real data with three runs at once, without pools and with them.",
    },
    "Set limits as code": {
        "plan": "Show declared and live limits, rates and orders, what apply would do, and who is "
        "affected.",
        "apply": "Set the limits, rates and orders that lifeguard.yaml declares, after showing the "
        "change.",
        "pull": "Write the live limits, rates and orders into lifeguard.yaml.",
    },
    "Operate": {
        "status": "Show which pools are held, who waits, and for how long.",
        "explain": "Show why a step waits, behind whom, and when it is likely to go in.",
        "free": "Free slots that are held by nobody who lives.",
        "doctor": "Find out why a pool does not work, and what to do about it.",
        "timeline": "Show what executed and waited when: runs, a pool or an asset.",
        "serve": "Serve a live web page of pools, and metrics.",
        "simulate": "Show what other limits, rates or orders would have done to past executions.",
        "audit": "Prove from history that no limit or rate was exceeded, or list where one was.",
    },
    "Make the limits hold": {
        "engine": "Switch the engine on or off, or see what it does.",
    },
}
"""For each heading its commands, and what each does; see ``Deferred`` for where they are."""


@click.group(
    cls=CommandGroup,
    headings=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="dagster-lifeguard", prog_name="lifeguard")
def main() -> None:
    """Concurrency limits for Dagster assets.

    Protect a project in one line of its definitions, apply_per_asset_concurrency(defs), then give
    pools a limit with lifeguard init and see with lifeguard check what is protected.

    Exit codes: 0 nothing found, 1 something found, 2 a mistake in what was asked.
    """
