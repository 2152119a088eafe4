"""How an asset key becomes the name of a pool, and any text a part of one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Sequence

Naming = Literal["underscore", "path"]

_UNSAFE_IN_UNDERSCORE = re.compile(r"[^A-Za-z0-9_.\-]")
# Everything a path, a table or a URL is written with, less what has a meaning in an expression.
_SAFE_IN_VALUE = "/.:@=,;~!$&'()?#[]|^<>\\\"`"


def pool_name(key: Sequence[str], naming: Naming) -> str:
    """Name the pool of the asset with this key.

    ``underscore`` joins the parts with ``_`` and is easy to read, but two keys may get one name
    (``a_b/c`` and ``a/b_c``). ``path`` joins them with ``/`` after percent-encoding what could be
    mistaken (RFC 3986), so that different keys always get different names.

    Raises:
        ValueError: The key has no parts.
    """
    if not key:
        raise ValueError("an asset key has at least one part")
    if naming == "underscore":
        return _UNSAFE_IN_UNDERSCORE.sub("_", "_".join(key)) or "_"
    return "/".join(_encode_part(part) for part in key)


def asset_key_parts(pool: str) -> tuple[str, ...]:
    """Invert ``pool_name(key, "path")``."""
    return tuple(
        "" if part == "%" else unquote(part, errors="surrogatepass") for part in pool.split("/")
    )


def _encode_part(part: str) -> str:
    # A lone "%" is never the start of an escape, so it can stand for the empty part.
    # surrogatepass: an asset key is any Python string, and losing one would break injectivity.
    return quote(part, safe="", errors="surrogatepass") or "%"


def safe_value(value: str) -> str:
    """Percent-encode what has a meaning in a pool expression, and white space."""
    return quote(value, safe=_SAFE_IN_VALUE, errors="surrogatepass")
