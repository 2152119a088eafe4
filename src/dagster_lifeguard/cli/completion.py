"""Names of pools and assets for a shell that completes them: those that files here tell.

A shell waits for them at each key, so neither Dagster is imported nor a server asked, and nothing
is said of what goes wrong: it offers no names then.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_lifeguard.cli.file_changes import FILE_NAME
from dagster_lifeguard.deployment.home import home_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    import click

_COUNT_MAX = 200
_FILE_BYTES_MAX = 1_000_000


def pools(context: click.Context, parameter: click.Parameter, start: str) -> list[str]:
    """Pools that ``lifeguard.yaml`` declares, or that have a limit in ``DAGSTER_HOME``."""
    del context, parameter
    from dagster_lifeguard.compat.names_in_files import pools_in_files  # noqa: PLC0415 - not for each command

    return sorted({*_declared(start), *_in_home(pools_in_files, start)})


def assets(context: click.Context, parameter: click.Parameter, start: str) -> list[str]:
    """Assets that were materialised in ``DAGSTER_HOME``."""
    del context, parameter
    from dagster_lifeguard.compat.names_in_files import assets_in_files  # noqa: PLC0415 - not for each command

    return _in_home(assets_in_files, start)


def pools_and_assets(context: click.Context, parameter: click.Parameter, start: str) -> list[str]:
    """Both."""
    found = {*pools(context, parameter, start), *assets(context, parameter, start)}
    return sorted(found)


def _in_home(look: Callable[[Path, str, int], list[str]], start: str) -> list[str]:
    with suppress(Exception):
        return look(home_folder(os.environ["DAGSTER_HOME"]), start, _COUNT_MAX)
    return []


def _declared(start: str) -> list[str]:
    with suppress(Exception):
        from ruamel.yaml import YAML  # noqa: PLC0415 - not for each command

        file = Path(FILE_NAME)
        if file.stat().st_size <= _FILE_BYTES_MAX:
            said: Any = YAML(typ="safe").load(file.read_text())
            return [name for name in map(str, said["pools"]) if name.startswith(start)]
    return []
