"""Where a page is: names of any characters in addresses, and back.

A name is part of the path where a path can carry it, and else in the query: ``/pools/a/b`` and
``/pools?name=..%2Fx``. The second form is understood for every name.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote, urlencode

Kind = Literal["pools", "assets", "runs"]

JSON = ".json"
"""What the address of a page's JSON ends with."""

CSV = ".csv"
"""What the address of a page's tables as CSV ends with."""


def address_of(kind: Kind, name: str, *, as_json: bool = False) -> str:
    """The address of the page of a pool, an asset (``a/b``) or a run, or of its JSON."""
    end = JSON if as_json else ""
    if _fits_a_path(name):
        return f"/{kind}/{quote(name, safe='/')}{end}"
    return f"/{kind}{end}?{urlencode({'name': name}, errors='surrogatepass')}"


def _fits_a_path(name: str) -> bool:
    """Whether browsers and proxies leave it as it is: no dot segments, no empty ones."""
    segments = name.split("/")
    return not (
        name.endswith((JSON, CSV))
        or any(segment in ("", ".", "..") for segment in segments)
        or any(character in name for character in "\\\0")
        or any(0xD800 <= ord(character) <= 0xDFFF for character in name)  # noqa: PLR2004
    )


def run_in_dagster(dagster_url: str | None, run_id: str) -> str | None:
    """The address of a run in the Dagster UI; None if that is not known."""
    return None if dagster_url is None else f"{dagster_url}/runs/{quote(run_id, safe='')}"


def asset_in_dagster(dagster_url: str | None, asset: str) -> str | None:
    """The address of an asset, ``a/b``, in the Dagster UI; None if that is not known."""
    return None if dagster_url is None else f"{dagster_url}/assets/{quote(asset, safe='/')}"
