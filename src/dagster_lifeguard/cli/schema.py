"""``lifeguard schema``: the JSON schema of lifeguard.yaml, for editors."""

from __future__ import annotations

from importlib.resources import files

import click

FILE_NAME = "lifeguard.schema.json"
"""What the schema is called in the wheel, and beside a lifeguard.yaml."""


def schema_text() -> str:
    """Return the JSON schema as it is shipped."""
    return files("dagster_lifeguard.policy").joinpath(FILE_NAME).read_text(encoding="utf-8")


@click.command("schema")
def schema_command() -> None:
    """Print the JSON schema of lifeguard.yaml, for editors.

    Editors with the YAML language server complete and check the file by it.

    lifeguard init writes it beside a new lifeguard.yaml, whose first line names it to editors, and
    writes it anew after an upgrade of dagster-lifeguard.

    \b
    Example:
      lifeguard schema > lifeguard.schema.json
    """
    click.echo(schema_text(), nl=False)
