"""Names of pools: how an asset key becomes one, and the grammar of pool expressions.

A pool expression is what stands in ``op.pool``::

    expression = [ "{hold:asset}" ] term { "+" term }
    term       = name [ "*" slots ]

A name is any run of characters without white space, ``+``, ``*`` or braces, and may hold
templates such as ``{asset}`` or ``{metadata:KEY}``. ``{hold:asset}`` in front says that all steps
of a graph asset hold the pools together, from the first step to the last.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast
from urllib.parse import quote, unquote

from dagster_lifeguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

Naming = Literal["underscore", "path"]

SLOTS_MAX = 1_000
"""Dagster's own maximum for the limit of a pool, so no demand for more can ever be met."""

FIELDS = ("asset", "group", "kind", "owner", "io_manager", "tag", "metadata", "partition")
"""Templates a pool name may hold; ``tag`` and ``metadata`` take a key after a colon.

``asset`` may take a naming, ``{asset:path}``, which the policy's own naming is without.
"""

ALL_PARTITIONS = "%all%"
"""In place of ``{partition}``: the pool that stands for all of them.

No other name has it: in what a template is filled in with, ``%`` is written ``%25``.
"""

HOLD_ASSET = "{hold:asset}"
"""Before an expression: the pools are held across all steps of the graph asset."""

_KEYED_FIELDS = ("tag", "metadata")
_NAMINGS = ("underscore", "path")
_TEMPLATE = re.compile(r"\{([^{}:]*)(?::([^{}]*))?\}")
_TERM = re.compile(r"(?P<name>(?:[^\s+*{}]|\{[^{}]*\})+)(?:\*(?P<slots>\d+))?")
_UNSAFE_IN_UNDERSCORE = re.compile(r"[^A-Za-z0-9_.\-]")
# Everything a path, a table or a URL is written with, less what has a meaning in an expression.
_SAFE_IN_VALUE = "/.:@=,;~!$&'()?#[]|^<>\\\"`"


@dataclass(frozen=True)
class Field:
    """One template in a pool name: ``{name}`` or ``{name:key}``."""

    name: str
    key: str | None = None

    def __str__(self) -> str:
        return f"{{{self.name}}}" if self.key is None else f"{{{self.name}:{self.key}}}"


@dataclass(frozen=True)
class Term:
    """One pool of an expression and how many of its slots are asked for."""

    name: str
    slots: int = 1

    @property
    def fields(self) -> tuple[Field, ...]:
        """The templates in the name, in order."""
        return tuple(Field(m[1], m[2]) for m in _TEMPLATE.finditer(self.name))

    def fill(self, value_of: Callable[[Field], str]) -> Term:
        """Replace each template by what ``value_of`` says, which must be safe in a pool name."""
        return Term(_TEMPLATE.sub(lambda m: value_of(Field(m[1], m[2])), self.name), self.slots)

    def __str__(self) -> str:
        return self.name if self.slots == 1 else f"{self.name}*{self.slots}"


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


def parse_expression(text: str) -> tuple[Term, ...]:
    """Parse a pool expression into its terms, in the order written.

    Raises:
        ConfigError: The text is not an expression, a template is unknown, a pool is named twice,
            or slots are not between 1 and ``SLOTS_MAX``.
    """
    terms: list[Term] = []
    for part in _split_terms(text):
        match = _TERM.fullmatch(part)
        if match is None:
            raise ConfigError(
                f"{text!r} is not a pool expression.",
                remedy="Write a name, or name*slots, joined by '+'; a name has no spaces, '+', "
                "'*' or single braces.",
                names=[text],
            )
        slots = 1 if match["slots"] is None else int(match["slots"])
        if not 1 <= slots <= SLOTS_MAX:
            raise ConfigError(
                f"{part!r} asks for {slots} slots.",
                remedy=f"Ask for 1 to {SLOTS_MAX} slots.",
                names=[part],
            )
        term = Term(match["name"], slots)
        for field in term.fields:
            _check_field(field)
        if term.name in {other.name for other in terms}:
            raise ConfigError(
                f"{text!r} names the pool {term.name!r} twice.",
                remedy=f"Write it once, with its slots: {term.name}*2.",
                names=[term.name],
            )
        terms.append(term)
    return tuple(terms)


def fill_run_fields(term: Term, *, asset: Sequence[str] | None, partition: str | None) -> Term:
    """Fill in what is known when a step claims; what is None stays as it is.

    Args:
        term: A term of an expression.
        asset: The parts of an asset's key, named as the template says.
        partition: A partition, safe in a pool name.
    """

    def value_of(field: Field) -> str:
        if field.name == "asset" and asset is not None:
            return pool_name(asset, cast("Naming", field.key or "underscore"))
        if field.name == "partition" and partition is not None:
            return partition
        return str(field)

    return term.fill(value_of)


def stands_for(term: Term, name: str) -> bool:
    """Whether a term may be this name once its templates are filled in, each with any value."""
    fixed = term.fill(lambda _: "\0").name.split("\0")
    return re.fullmatch(".+".join(map(re.escape, fixed)), name) is not None


def is_of_all_partitions(pool: str) -> bool:
    """Whether a pool stands for all partitions of something."""
    return ALL_PARTITIONS in pool


def refuse_all_partitions(pools: Iterable[str]) -> None:
    """Refuse to set anything of pools that stand for all partitions.

    Raises:
        ConfigError: One of them does.
    """
    wrong = [pool for pool in pools if is_of_all_partitions(pool)]
    if wrong:
        raise ConfigError(
            f"{wrong[0]!r} stands for all partitions: it always has {SLOTS_MAX} slots.",
            remedy="To limit or pause partitions together, let their rule name one more pool, "
            "such as orders[{partition}]+orders, and set that.",
            names=wrong,
        )


def split_hold(text: str) -> tuple[bool, str]:
    """Whether the pools of an expression are held across a whole graph asset, and its terms."""
    return text.startswith(HOLD_ASSET), text.removeprefix(HOLD_ASSET)


def graph_of(step_key: str) -> str:
    """The name under which a job uses the graph that a step belongs to."""
    return step_key.partition(".")[0]


def ticket_name(step_key: str, text: str) -> str:
    """The step key of the ticket under which a step with this in ``op.pool`` asks.

    A graph that holds its pools as a whole has one for all its steps, with its own name.
    """
    return graph_of(step_key) if split_hold(text)[0] else step_key


def _split_terms(text: str) -> list[str]:
    """Split at the ``+`` that are not inside a template."""
    return re.split(r"\+(?![^{}]*\})", text)


def _check_field(field: Field) -> None:
    takes_key = field.name in _KEYED_FIELDS or (field.name == "asset" and field.key in _NAMINGS)
    if field.name not in FIELDS or takes_key != bool(field.key):
        raise ConfigError(
            f"{str(field)!r} is not a template.",
            remedy="Templates are "
            + ", ".join(
                f"{{{name}:KEY}}" if name in _KEYED_FIELDS else f"{{{name}}}" for name in FIELDS
            )
            + ".",
            names=[str(field)],
        )


def format_expression(terms: Sequence[Term]) -> str:
    """Write terms as a pool expression; the inverse of ``parse_expression``."""
    return "+".join(str(term) for term in terms)


def enumerate_some(names: Sequence[str], shown_max: int = 5) -> str:
    """List names in a sentence; beyond ``shown_max``, how many more there are."""
    if len(names) > shown_max:
        return f"{', '.join(names[:shown_max])} and {len(names) - shown_max} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


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
