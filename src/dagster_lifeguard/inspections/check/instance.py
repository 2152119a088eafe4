"""The instance whose limits are in force, or why there is none to look at."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from dagster_lifeguard.compat.instance import InstancePoolSettings, instance_pool_settings
from dagster_lifeguard.deployment.home import home_folder, home_problem
from dagster_lifeguard.deployment.open import unopened
from dagster_lifeguard.errors import LoadError, OldTablesError
from dagster_lifeguard.inspections.finding import Finding

if TYPE_CHECKING:
    from pathlib import Path


def look_at_instance(home: str | None, here: Path) -> InstancePoolSettings | Finding:
    """Return the settings of the instance in a directory, or the finding that there is none.

    A directory without a ``dagster.yaml`` is taken for a mistyped one: Dagster opens it, and makes
    an instance there without any limit.

    Args:
        home: What DAGSTER_HOME says; None if it is not set.
        here: The working directory.

    Raises:
        LoadError: There is an instance, and it cannot be opened.
    """
    problem = home_problem(home)
    if problem is None:
        assert home is not None
        folder = home_folder(home)
        if (folder / "dagster.yaml").is_file():
            return _opened(folder)
        problem = f"DAGSTER_HOME is {home}, which has no dagster.yaml"
    commands: tuple[str, ...] = ()
    if (here / "dagster.yaml").is_file():
        commands = (f"export DAGSTER_HOME={shlex.quote(str(here))}",)
    elif not home:
        commands = ('mkdir -p "$HOME/dagster_home"', 'export DAGSTER_HOME="$HOME/dagster_home"')
    return Finding(
        "no-instance",
        "error",
        f"{problem}, so no instance was looked at: whether the pools have a limit is not known.",
        "Set DAGSTER_HOME to the directory of the instance's dagster.yaml; lifeguard init writes "
        "a new one there. To look at the definitions alone, as in CI, say --no-instance.",
        (home,) if home else (),
        commands=commands,
    )


def _opened(folder: Path) -> InstancePoolSettings:
    try:
        return instance_pool_settings(str(folder))
    except OldTablesError:
        raise
    except Exception as error:
        refused = unopened(error, str(folder))
        remedy = f"{refused.remedy} To look at the definitions alone, say --no-instance."
        raise LoadError(refused.message, remedy=remedy, names=refused.names) from error
