"""Where a project takes its policy: the ``defs.yaml`` or the line of Python that applies it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli

from dagster_lifeguard.compat.components import DEFS_FOLDER_TAKES_YAML
from dagster_lifeguard.errors import ConfigError, first_line

DEFS_YAML = """\
# Gives each asset in this folder the pools that a rule of {config} says: dagster-lifeguard.
type: dagster.DefsFolderComponent
template_vars_module: dagster_lifeguard.policy.components
post_processing:
  assets: "{{{{ pools_from('{config}') }}}}"
"""


@dataclass(frozen=True)
class DgProject:
    """A project of Dagster's ``dg`` kind.

    Attributes:
        root: The directory of its ``pyproject.toml`` or ``dg.toml``.
        defs_folder: The folder of its definitions.
        definitions: The file that loads them; None if Dagster does (``autoload_defs``).
    """

    root: Path
    defs_folder: Path
    definitions: Path | None


def find_dg_project(root: Path) -> DgProject | None:
    """Return the ``dg`` project in a directory, by its files; None if there is none.

    Raises:
        ConfigError: Its configuration is not TOML.
    """
    settings = _settings(root)
    root_module = settings.get("root_module")
    if not isinstance(root_module, str):
        return None
    defs_module = settings.get("defs_module") or f"{root_module}.defs"
    target = settings.get("code_location_target_module") or f"{root_module}.definitions"
    for source in (root / "src", root):
        folder = source.joinpath(*str(defs_module).split("."))
        if folder.is_dir():
            file = source.joinpath(*str(target).split(".")).with_suffix(".py")
            return DgProject(root, folder, None if settings.get("autoload_defs") else file)
    return None


def _settings(root: Path) -> dict[str, Any]:
    for name, path in (("dg.toml", ()), ("pyproject.toml", ("tool", "dg"))):
        file = root / name
        if file.is_file():
            try:
                found: Any = tomli.loads(file.read_text(encoding="utf-8"))
            except (OSError, tomli.TOMLDecodeError, UnicodeDecodeError) as error:
                raise ConfigError(
                    f"{file}: {first_line(error)}.", remedy="Mend it first.", names=[str(file)]
                ) from error
            for key in (*path, "project"):
                found = found.get(key, {}) if isinstance(found, dict) else {}
            if isinstance(found, dict) and found:
                return found
    return {}


def how_to_apply(
    python_file: Path | None, defs_folder: Path | None, config_file: Path | None
) -> str:
    """Say what applies a policy to definitions that lack it, for this project.

    Args:
        python_file: The file that makes the definitions; None if Dagster does.
        defs_folder: The folder that they are loaded from; None if they are from no such folder.
        config_file: The ``lifeguard.yaml`` of the policy. None: every asset has its own pool.
    """
    ends_with = python_file
    if ends_with is None and defs_folder is not None:
        ends_with = defs_folder.parent / "definitions.py"
    imports, line = policy_lines(ends_with, config_file)
    by_python = f"End {_shown(ends_with)} with: {line} (needs: {'; '.join(imports)})"
    if defs_folder is None or (python_file is not None and not DEFS_FOLDER_TAKES_YAML):
        return by_python
    if not DEFS_FOLDER_TAKES_YAML:
        return (
            "Dagster before 1.13.8 has no place for rules where it loads the folder itself. "
            f"Upgrade it; or take out autoload_defs, and let {_shown(ends_with)} load the folder. "
            f"{by_python}"
        )
    file = defs_yaml(defs_folder)
    if not file.is_file():
        return (
            f"Run lifeguard init in the project's directory: it writes {_shown(file)}, which gives "
            "each asset in that folder its pools."
        )
    if applies_policy(file):
        return (
            f"{_shown(file)} reaches what is in its folder, by the rules of the file it names. "
            f"Move the rest there, and name the file that was looked at. Or: {by_python}"
        )
    name = config_file.name if config_file else "lifeguard.yaml"
    return (
        f"Say in {_shown(file)}: template_vars_module: dagster_lifeguard.policy.components, and "
        f"post_processing: {{assets: \"{{{{ pools_from('{name}') }}}}\"}}. Or, where it has such "
        f"settings already: {by_python}"
    )


def defs_yaml(defs_folder: Path) -> Path:
    """Return the file that configures a folder of definitions, whether it is there or not."""
    other = defs_folder / "defs.yml"
    return other if other.is_file() else defs_folder / "defs.yaml"


def applies_policy(file: Path) -> bool:
    """Return whether a ``defs.yaml`` says that it applies a policy."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    return any("pools_from" in line.partition("#")[0] for line in lines)


def policy_lines(python_file: Path | None, config_file: Path | None) -> tuple[list[str], str]:
    """Return the imports and the line of Python that apply a policy to ``defs``."""
    if config_file is None:
        imports = ["from dagster_lifeguard import apply_per_asset_concurrency"]
        return imports, "defs = apply_per_asset_concurrency(defs)"
    path = _path_in(python_file, config_file)
    imports = ["from pathlib import Path"] if path.startswith("Path(") else []
    return (
        [*imports, "from dagster_lifeguard import Policy"],
        f"defs = Policy.from_yaml({path}).apply(defs)",
    )


def _path_in(python_file: Path | None, config_file: Path) -> str:
    """Write in Python where a file is, from the file that the line stands in."""
    folder, name = config_file.resolve().parent, config_file.name
    parents = list(python_file.resolve().parents) if python_file is not None else [folder]
    if folder == parents[0]:
        return f'Path(__file__).with_name("{name}")'
    if folder in parents:
        return f'Path(__file__).parents[{parents.index(folder)}] / "{name}"'
    return f'"{config_file.resolve().as_posix()}"'


def _shown(path: Path | None) -> str:
    """Name a file as briefly as it can be found from here."""
    if path is None:
        return "the file with the definitions"
    resolved, here = path.resolve(), Path.cwd()
    return str(resolved.relative_to(here) if resolved.is_relative_to(here) else resolved)
