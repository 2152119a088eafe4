"""What axe, a checker of accessibility, finds on a page in both of its colour schemes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

_SCRIPT = Path(__file__).with_name("vendor") / "axe.min.js"
_RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")
_RULES_ON_COLOURS = ("color-contrast", "link-in-text-block")
"""The rules that look at colours. For all others the dark page is the light page."""

_SUM_OF_COLOURS = """getComputedStyle(document.body).backgroundColor
    .match(/\\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b)"""


def violations(page: Page, *, preload: bool = True) -> list[tuple[str, str, str]]:
    """Check an open page in light and in dark colours. Leaves it in dark ones.

    Args:
        page: Its own policy must let scripts be added.
        preload: Whether axe may fetch the style sheets again.

    Returns:
        The scheme, the rule, and the begin of the element.
    """
    page.add_script_tag(path=_SCRIPT)
    found = []
    for scheme, rules in (("light", _RULES), ("dark", _RULES_ON_COLOURS)):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(
            f"light => ({_SUM_OF_COLOURS} > 3 * 128) === light", arg=scheme == "light"
        )
        page.evaluate("Promise.all(document.getAnimations().map(each => each.finished))")
        options = {"runOnly": list(rules), "preload": preload, "resultTypes": ["violations"]}
        result = page.evaluate("options => axe.run(document, options)", options)
        found += [
            (scheme, each["id"], node["html"][:200])
            for each in result["violations"]
            for node in each["nodes"]
        ]
    return found
