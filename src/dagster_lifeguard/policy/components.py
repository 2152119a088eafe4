"""The template that gives each asset in a folder of definitions its pools, in its ``defs.yaml``.

.. code-block:: yaml

    type: dagster.DefsFolderComponent
    template_vars_module: dagster_lifeguard.policy.components
    post_processing:
      assets: "{{ pools_from('lifeguard.yaml') }}"

Why this is not a component: Dagster merges the definitions of components, so a component can add
definitions but not change those of others. And Dagster builds the folder with its own class, even
if the file names a subclass. A function in the folder's ``post_processing`` gets the definitions of
the whole folder and returns them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from dagster_lifeguard.compat.components import DEFS_FOLDER_TAKES_YAML, as_its_parts_made_them
from dagster_lifeguard.errors import UnsupportedDefinitionsError
from dagster_lifeguard.policy.apply import Policy
from dagster_lifeguard.policy.protection import how_to_apply

if TYPE_CHECKING:
    from collections.abc import Callable


@dg.template_var
def pools_from(
    context: dg.ComponentLoadContext,
) -> Callable[[str], list[Callable[[dg.Definitions], dg.Definitions]]]:
    """Return the template ``pools_from(file)``: rules for all definitions of the defs folder.

    ``file`` is a ``lifeguard.yaml``, by its path from the project's root, where its
    ``pyproject.toml`` or ``dg.toml`` is. While Dagster builds the definitions, these are raised:

    Raises:
        UnsupportedDefinitionsError: The ``defs.yaml`` is not that of the whole defs folder, or
            this Dagster takes none there.
        LifeguardError: The file says what is not allowed, or a rule cannot be honoured.
    """
    folder, root = context.path, context.project_root
    is_whole = folder == context.defs_module_path

    def rules(file: str) -> list[Callable[[dg.Definitions], dg.Definitions]]:
        def with_pools(defs: dg.Definitions) -> dg.Definitions:
            if not is_whole:
                raise UnsupportedDefinitionsError(
                    f"{folder / 'defs.yaml'}: pools_from would reach only what is in this folder.",
                    remedy=f"Move it to {context.defs_module_path / 'defs.yaml'}.",
                    names=[str(folder)],
                )
            if not DEFS_FOLDER_TAKES_YAML:
                raise UnsupportedDefinitionsError(
                    f"{folder / 'defs.yaml'}: Dagster {dg.__version__} cannot serve a project with "
                    "a defs.yaml in the defs folder itself; 1.13.8 can.",
                    remedy="Upgrade Dagster, or remove the file. Then: "
                    + how_to_apply(folder.parent / "definitions.py", folder, root / file),
                    names=[str(folder)],
                )
            return Policy.from_yaml(root / file).apply(as_its_parts_made_them(context, defs))

        return [with_pools]

    return rules
