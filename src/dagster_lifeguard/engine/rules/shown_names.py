"""Names as people are shown them: of pools, of expressions, and lists of names."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from dagster_lifeguard.engine.rules.pool_expressions import (
    ALL_PARTITIONS,
    Term,
    asked_by,
    is_expression,
    is_of_all_partitions,
    without_mark,
)
from dagster_lifeguard.engine.rules.pool_naming import safe_value
from dagster_lifeguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

_BRACES = re.compile(r"(\{[^{}]*\}|\*)")


def pool_text(pool: str) -> str:
    """A pool's name as people are shown it, its values as they are and not percent-encoded.

    An expression, as it stands in ``op.pool``, is shown as a rule writes it. Only what
    ``safe_value`` wrote is decoded, so that two such names never look alike.
    """
    if is_expression(pool):
        return _expression_text(pool)
    if is_of_all_partitions(pool):
        return f"{pool_text(pool.removeprefix(ALL_PARTITIONS))} (all partitions)"
    return "".join(part if part.startswith("{") else _decoded(part) for part in _BRACES.split(pool))


def pool_named(text: str, pools: Collection[str]) -> str | None:
    """The pool that is named, or shown, so; None if none of these is."""
    if text in pools:
        return text
    return next((name for name in pools if pool_text(name) == text), None)


def pools_text(pools: Iterable[str]) -> str:
    """List pools in a sentence, each as people are shown it; empty if there is none."""
    return enumerate_some([pool_text(pool) for pool in pools])


def terms_text(terms: Iterable[Term]) -> str:
    """An expression as people are shown it: what only the engine needs to know is left out."""
    shown = (Term(pool_text(term.name), term.slots) for term in terms)
    return "+".join(dict.fromkeys(map(str, shown)))


def _decoded(text: str) -> str:
    decoded = unquote(text, errors="surrogatepass")
    return decoded if safe_value(decoded) == text else text


def _expression_text(pool: str) -> str:
    try:
        return terms_text(asked_by(pool))
    except ConfigError:
        return without_mark(pool)


def enumerate_some(names: Sequence[str], shown_max: int = 5) -> str:
    """List names in a sentence; beyond ``shown_max``, how many more there are."""
    if len(names) > shown_max:
        return f"{', '.join(names[:shown_max])} and {len(names) - shown_max} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def nearest(name: str, known: Collection[str], count_max: int = 3) -> tuple[str, ...]:
    """The known names that are most like one that is not known, the likest first.

    Where none is like it, those that it is a part of.
    """
    lower: dict[str, str] = {}
    for candidate in sorted(known, reverse=True):
        lower[candidate.lower()] = candidate
    near = difflib.get_close_matches(name.lower(), lower, n=count_max)
    if not near and name:
        near = sorted(text for text in lower if name.lower() in text)[:count_max]
    return tuple(lower[text] for text in near)
