"""Pages as JSON: the same dataclasses that the templates get."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from enum import Enum
from math import isfinite
from typing import Any


def encode(page: object, **more: object) -> bytes:
    """A page as one JSON object, with a version; a number that is not finite is null.

    Args:
        page: A dataclass.
        more: What else is said beside its fields.
    """
    described = {"version": 1, **more, **_plain(page)}
    return json.dumps(described, allow_nan=False, ensure_ascii=True).encode()


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(_plain, value))
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)
