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

    Editors with a YAML language server use it to complete and check lifeguard.yaml. lifeguard init
    writes the schema beside a new lifeguard.yaml. Run init again after an upgrade to update it.

    \b
    Example:
      lifeguard schema > lifeguard.schema.json
    """
    click.echo(schema_text(), nl=False)
