"""The command ``lifeguard``.

Exit codes of every command: 0 done and no findings, 1 findings, 2 usage error, with one line that
names the error and a remedy.
"""

from __future__ import annotations

import click

from dagster_lifeguard.cli.group import CommandGroup

__all__ = ["main"]

COMMANDS = {
    "Give assets their pools": {
        "init": "Write a first lifeguard.yaml, and give pools a default limit.",
        "check": "Show the pool and the limit of each asset, and what is wrong.",
        "schema": "Print the JSON schema of lifeguard.yaml, for editors.",
        "demo": "Run three runs at once on real data, without pools and with them.",
    },
    "Set limits as code": {
        "plan": "Show what apply would change, and which steps that affects.",
        "apply": "Set the limits, rates and orders that lifeguard.yaml declares.",
        "pull": "Write the live limits, rates and orders into lifeguard.yaml.",
    },
    "Operate": {
        "status": "Show which pools are full, which steps wait, and for how long.",
        "explain": "Show why a step waits, which steps are ahead, and when it may start.",
        "limit": "Set the limit of a pool, for good or until a time.",
        "free": "Free slots whose holder is dead.",
        "doctor": "Find out why a pool does not work, and how to fix it.",
        "timeline": "Draw when steps executed and when they waited.",
        "serve": "Show pools live in a browser, and serve metrics.",
        "simulate": "Show what other limits, rates or orders would have done to past executions.",
        "advise": "Find the smallest limits that keep waits short enough.",
        "audit": "Check past runs: was any limit or rate exceeded?",
    },
    "Make the limits hold": {
        "engine": "Switch the engine on or off, or show its state.",
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

    \b
    Protect a project in three steps:
      1. End its definitions with: defs = apply_per_asset_concurrency(defs)
      2. Give its pools a limit:   lifeguard init
      3. See what is protected:    lifeguard check

    Exit codes: 0 no findings, 1 findings, 2 usage error.
    """
