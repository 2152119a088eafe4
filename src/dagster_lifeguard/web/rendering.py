"""Templates: whole pages, and the parts of them that are kept up to date."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from dagster_lifeguard.engine.rules.pool_expressions import is_of_all_partitions
from dagster_lifeguard.web.pages.overview import CHOICES
from dagster_lifeguard.web.pictures import FILTERS

if TYPE_CHECKING:
    from dagster_lifeguard.web.site import Site

LIVE = "live"
"""What the name of a block begins with that is sent to open pages."""


class Templates:
    """The templates of this package; whatever is put into them is escaped."""

    def __init__(self) -> None:
        self.environment = _environment()

    def whole(self, name: str, page: object, site: Site) -> str:
        """A page as HTML."""
        return self.environment.get_template(f"{name}.html").render(page=page, site=site)

    def live(self, name: str, page: object, site: Site) -> dict[str, str]:
        """The live blocks of a page, by name.

        Such a block is rendered by itself: what it imports it imports within.
        """
        template = self.environment.get_template(f"{name}.html")
        return {
            block: "".join(render(template.new_context({"page": page, "site": site})))
            for block, render in template.blocks.items()
            if block.startswith(LIVE)
        }


@cache
def _environment() -> Environment:
    """One for all servers of a process: to compile the templates takes longer than to fill them."""
    made = Environment(
        loader=PackageLoader("dagster_lifeguard.web"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(FILTERS)
    made.globals["choices"] = CHOICES
    made.tests["of_all_partitions"] = is_of_all_partitions
    return made
