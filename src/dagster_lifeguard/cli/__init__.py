"""The command ``lifeguard``.

Exit codes, for every command: 0 done and nothing found, 1 something found, 2 a mistake in what was
asked, with one line that says what and a remedy.
"""

from __future__ import annotations

import warnings
from typing import Any

import click

from dagster_lifeguard.cli.check import check_command
from dagster_lifeguard.cli.demo import demo_command
from dagster_lifeguard.cli.engine import engine_command
from dagster_lifeguard.cli.init import init_command
from dagster_lifeguard.compat.definitions import UNSTABLE_API_WARNINGS
from dagster_lifeguard.errors import LifeguardError

__all__ = ["main"]


class _Commands(click.Group):
    """Turns the errors that a user can mend into a line and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings():
                # They concern Dagster's API in the user's code, which is not what was asked for.
                for category in UNSTABLE_API_WARNINGS:
                    warnings.simplefilter("ignore", category)
                return super().invoke(ctx)
        except LifeguardError as error:
            click.echo(f"{click.style('Error', fg='red')}: {error.message}", err=True)
            if error.remedy:
                click.echo(f"       {error.remedy}", err=True)
            ctx.exit(2)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dagster-lifeguard", prog_name="lifeguard")
def main() -> None:
    """Concurrency limits for Dagster assets.

    Protect a project in one line of its definitions, apply_per_asset_concurrency(defs), then:

    \b
      lifeguard init     write lifeguard.yaml and set a default limit in dagster.yaml
      lifeguard check    see which asset gets which pool, and what is wrong
      lifeguard engine   make the limits of pools hold: a storage to switch on
      lifeguard demo     see on real data what happens without pools, and with them

    Exit codes: 0 nothing found, 1 something found, 2 a mistake in what was asked.
    """


main.add_command(init_command)
main.add_command(check_command)
main.add_command(demo_command)
main.add_command(engine_command)
