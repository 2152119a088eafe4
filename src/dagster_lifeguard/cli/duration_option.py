"""Durations as people write them in options."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

C = TypeVar("C", bound="Callable[..., object]")

_SIZES = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION_MAX = 10 * 365 * 86400.0
"""Ten years; longer ago there was no Dagster to look back on."""

_WRITTEN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")


def duration_option(name: str, default: str, text: str) -> Callable[[C], C]:
    """An option that takes a duration and hands the command its seconds."""
    return click.option(name, default=default, show_default=True, callback=read_duration, help=text)


def read_duration(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """The seconds that an option says as ``90s``, ``30m``, ``24h``, ``7d`` or ``2w``; ``0``: none.

    Raises:
        BadParameter: It says something else.
    """
    seconds = duration(value)
    if seconds is None:
        message = f"{value!r} is no duration. Write 90s, 30m, 24h or 7d."
        raise click.BadParameter(message, ctx, param)
    if seconds > _DURATION_MAX:
        raise click.BadParameter(f"{value!r} is longer than 3650d.", ctx, param)
    return seconds


def duration(text: str) -> float | None:
    """The seconds of a duration such as ``90s``, ``30m``, ``24h`` or ``0``; None if it is none."""
    found = _WRITTEN.fullmatch(text.strip().lower())
    if found is not None:
        return float(found[1]) * _SIZES[found[2]]
    return 0.0 if text.strip() == "0" else None
