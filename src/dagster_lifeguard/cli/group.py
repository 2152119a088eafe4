"""A group of commands that imports a command's module only when that command is chosen.

To import Dagster takes seconds, and help, completion and a mistyped name should not wait for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import click

from dagster_lifeguard.engine.store.upkeep import upkeep
from dagster_lifeguard.errors import LifeguardError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Deferred(click.Command):
    """Stands for a command in lists and in completion until somebody chooses it.

    Args:
        name: The command ``NAME`` is ``NAME_command`` in ``dagster_lifeguard.cli.NAME``, with
            ``_`` for ``-``.
        short_help: What its own help begins with; a test compares them.
    """

    def load(self) -> click.Command:
        """Import the command itself."""
        noun = cast("str", self.name).replace("-", "_")
        module = import_module(f"dagster_lifeguard.cli.{noun}")
        return cast("click.Command", getattr(module, f"{noun}_command"))


class CommandGroup(click.Group):
    """Commands under headings; turns errors that a user can mend into a line and exit code 2."""

    def __init__(
        self, *args: Any, headings: Mapping[str, Mapping[str, str]], **kwargs: Any
    ) -> None:
        """Take, for each heading, the names of its commands and what each does."""
        super().__init__(*args, **kwargs)
        self._headings = {heading: tuple(names) for heading, names in headings.items()}
        for names in headings.values():
            for name, short_help in names.items():
                self.add_command(Deferred(name, short_help=short_help))

    def loaded(self) -> dict[str, click.Command]:
        """All commands themselves, imported, by name."""
        return {name: _loaded(command) for name, command in sorted(self.commands.items())}

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is meant, and import it."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, _loaded(command), rest

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002
        formatter: click.HelpFormatter,
    ) -> None:
        """List the commands under their headings, in the order given."""
        width = max(map(len, self.commands))
        limit = formatter.width - 6 - width
        for heading, names in self._headings.items():
            with formatter.section(heading):
                lines = [(n, self.commands[n].get_short_help_str(limit)) for n in names]
                # As wide everywhere, so that the sections read as one list.
                formatter.write_dl([(name.ljust(width), line) for name, line in lines])

    def invoke(self, ctx: click.Context) -> Any:
        """Do what the chosen command does."""
        try:
            with upkeep(allowed=False):  # A command that looks changes nothing.
                return super().invoke(ctx)
        except LifeguardError as error:
            click.echo(f"{click.style('Error', fg='red')}: {error.message}", err=True)
            if error.remedy:
                click.echo(f"       {error.remedy}", err=True)
            ctx.exit(2)


def _loaded(command: Any) -> Any:
    return command.load() if isinstance(command, Deferred) else command
