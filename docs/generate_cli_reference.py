"""Write docs/reference/cli.md from the real ``--help`` of the command; --check only compares."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.testing import CliRunner

from dagster_lifeguard.cli import main
from dagster_lifeguard.cli.group import CommandGroup

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parent / "reference" / "cli.md"
INTRODUCTION = """\
# The command `lifeguard`

This page is generated from `--help` by `docs/generate_cli_reference.py`. `python -m
dagster_lifeguard` is the same command.

Exit codes of every command: 0 done and no findings, 1 findings, 2 usage error. Codes of findings
and errors: [Findings and errors](findings.md).

Add one line to your shell's start file, and the shell completes commands, options, pools and
assets. It offers the pools that `lifeguard.yaml` declares. If the instance in `DAGSTER_HOME` is on
SQLite, it also offers the pools with a limit and the materialised assets. It asks no server.

| Shell | File | Line |
|---|---|---|
| bash | `~/.bashrc` | `eval "$(_LIFEGUARD_COMPLETE=bash_source lifeguard)"` |
| zsh | `~/.zshrc` | `eval "$(_LIFEGUARD_COMPLETE=zsh_source lifeguard)"` |
| fish | `~/.config/fish/config.fish` | `_LIFEGUARD_COMPLETE=fish_source lifeguard \\| source` |
"""


def page() -> str:
    """Return the page: a section for each command, in the order of the names."""
    return "\n".join([INTRODUCTION, *_sections(main)])


def _sections(command: click.Command, *words: str) -> Iterator[str]:
    done = CliRunner(env={"COLUMNS": "80"}).invoke(main, [*words, "--help"], prog_name="lifeguard")
    yield f"## `{' '.join(['lifeguard', *words])}`\n\n```text\n{done.stdout}```\n"
    if isinstance(command, click.Group):
        commands = command.loaded() if isinstance(command, CommandGroup) else command.commands
        for name, subcommand in sorted(commands.items()):
            yield from _sections(subcommand, *words, name)


if __name__ == "__main__":
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.exit(f"{PAGE.name} is not as generated; run: python docs/generate_cli_reference.py")
