"""The command ``lifeguard``."""

from __future__ import annotations

import click

from dagster_lifeguard.cli.demo import demo_command


@click.group()
def main() -> None:
    """Concurrency limits for Dagster assets."""


main.add_command(demo_command)
