"""The grammar of pool expressions.

What stands in ``op.pool`` is the name of one pool, whatever it looks like, unless it begins with a
mark. A policy writes the mark; a name that a user chooses does not begin so by accident::

    op.pool    = name | mark expression
    mark       = "{hold:step}" | "{hold:asset}"
    expression = term { "+" term }
    term       = [ members ] [ keys ] name [ "*" slots ]

A name in an expression is any run of characters without white space, ``+``, ``*`` or braces, and
may hold templates such as ``{asset}`` or ``{metadata:KEY}``. ``{hold:asset}`` says that all steps
of a graph asset hold the pools together, from the first step to the last; ``{hold:step}`` that
each step holds them by itself.

An op may make several assets, of which a run selects some. A step asks for a term with ``members``
only if it makes, or checks, at least one of these assets: ``{of:marts/*}warehouse*2``; see the
module ``members``. ``{asset}`` in such a term is each of these that the step makes or checks. What
comes out as one pool is asked for once, with the most slots that a term says.

``{partition}`` is the partition for which a step executes, ``{partition:%Y-%m}`` the start of its
time window, written so, and ``{partition.region}`` one dimension of it. A term with either of the
last two says in ``keys`` how the partition keys are written; see the module ``partition_keys``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from dagster_lifeguard.engine.rules.members import Members
from dagster_lifeguard.engine.rules.partition_keys import PartitionKeys, problem_of_format
from dagster_lifeguard.engine.rules.pool_naming import Naming, pool_name
from dagster_lifeguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

SLOTS_MAX = 1_000
"""Dagster's own maximum for the limit of a pool, so no demand for more can ever be met."""

FIELDS = (
    "asset",
    "group",
    "kind",
    "owner",
    "io_manager",
    "resource",
    "tag",
    "metadata",
    "partition",
)
"""Templates a pool name may hold; ``tag`` and ``metadata`` take a key after a colon.

``asset`` may take a naming, ``{asset:path}``, which the policy's own naming is without.
``partition`` may name a dimension after a dot and take a time format: ``{partition.date:%Y-%m}``.
"""

ALL_PARTITIONS = "{all}"
"""How the name of a pool begins that stands for all partitions: ``{all}orders[*]``."""

HOLD_STEP = "{hold:step}"
"""The mark of an expression whose pools each step holds by itself."""

HOLD_ASSET = "{hold:asset}"
"""The mark of an expression whose pools are held across all steps of the graph asset."""

OPERATORS = frozenset("+*{}")
"""A text without any of these is no expression but the name of one pool."""

_MARKS = (HOLD_STEP, HOLD_ASSET)

_KEYED_FIELDS = ("tag", "metadata")
_NAMINGS = ("underscore", "path")
_TEMPLATE = re.compile(r"\{([^{}:]*)(?::([^{}]*))?\}")
_TERM = re.compile(
    r"(?P<members>\{(?:of|but):[^{}]*\})?(?P<keys>\{keys:[^{}]*\})?"
    r"(?P<name>(?:[^\s+*{}]|\{[^{}]*\})+)(?:\*(?P<slots>\d+))?"
)


@dataclass(frozen=True)
class Field:
    """One template in a pool name: ``{name}`` or ``{name:key}``."""

    name: str
    key: str | None = None

    @property
    def is_of_partition(self) -> bool:
        """Whether it stands for a partition, or for a part of its key."""
        return self.name.partition(".")[0] == "partition"

    @property
    def dimension(self) -> str | None:
        """The dimension of a partition for which it stands; None for the whole key."""
        return self.name.partition(".")[2] or None

    @property
    def needs_keys(self) -> bool:
        """Whether only a part of a partition's key is taken."""
        return self.is_of_partition and self != Field("partition")

    def __str__(self) -> str:
        return f"{{{self.name}}}" if self.key is None else f"{{{self.name}:{self.key}}}"


@dataclass(frozen=True)
class Term:
    """One pool and how many of its slots are asked for.

    Attributes:
        name: The pool, or what is known of its name while it has templates.
        slots: How many slots.
        fields: The templates in the name, in order. A plain name has none, whatever it looks like.
        members: The assets for which it is asked; None: whichever the step makes.
        keys: How partition keys are written, for templates that take a part of one.
    """

    name: str
    slots: int = 1
    fields: tuple[Field, ...] = ()
    members: Members | None = None
    keys: PartitionKeys | None = None

    @classmethod
    def written(
        cls,
        name: str,
        slots: int = 1,
        members: Members | None = None,
        keys: PartitionKeys | None = None,
    ) -> Term:
        """The term of an expression, in whose name braces are templates."""
        fields = tuple(Field(m[1], m[2]) for m in _TEMPLATE.finditer(name))
        return cls(name, slots, fields, members, keys)

    @property
    def is_deferred(self) -> bool:
        """Whether what it asks for is known only once a step claims."""
        return bool(self.fields) or self.members is not None

    def has(self, field: str) -> bool:
        """Whether the name holds a template of this name."""
        return any(found.name == field for found in self.fields)

    @property
    def is_by_partition(self) -> bool:
        """Whether its name depends on the partition for which a step executes."""
        return any(field.is_of_partition for field in self.fields)

    def fill(self, value_of: Callable[[Field], str]) -> Term:
        """Replace each template by what ``value_of`` says, which must be safe in a pool name."""
        if not self.fields:
            return self
        filled = _TEMPLATE.sub(lambda m: value_of(Field(m[1], m[2])), self.name)
        return Term.written(filled, self.slots, self.members, self.keys)

    def __str__(self) -> str:
        before = "".join(str(part) for part in (self.members, self.keys) if part is not None)
        return f"{before}{self.name}" + ("" if self.slots == 1 else f"*{self.slots}")


def parse_expression(text: str, *, with_members: bool = False) -> tuple[Term, ...]:
    """Parse a pool expression into its terms, in the order written.

    Args:
        text: The expression.
        with_members: Whether a term may be restricted to some assets, and may say how partition
            keys are written, as in ``op.pool``.

    Raises:
        ConfigError: The text is not an expression, a template is unknown, a pool is named twice
            for the same assets, or slots are not between 1 and ``SLOTS_MAX``.
    """
    terms: list[Term] = []
    seen: set[tuple[str, Members | None, PartitionKeys | None]] = set()
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
        members = None if match["members"] is None else Members.parse(match["members"])
        keys = None if match["keys"] is None else PartitionKeys.parse(match["keys"])
        for written, read in ((match["members"], members), (match["keys"], keys)):
            if written is not None and (read is None or not with_members):
                _check_field(Field(*written[1:-1].split(":", 1)))
        term = Term.written(match["name"], slots, members, keys)
        for field in term.fields:
            _check_field(field)
        if with_members and keys is None and any(field.needs_keys for field in term.fields):
            raise ConfigError(
                f"{part!r} takes a part of a partition's key, and says not how keys are written.",
                remedy="Say so before the name, such as {keys:=%Y-%m-%d}, or let a policy do it.",
                names=[part],
            )
        if (term.name, members, keys) in seen:
            raise ConfigError(
                f"{text!r} names the pool {term.name!r} twice.",
                remedy=f"Write it once, with its slots: {term.name}*2.",
                names=[term.name],
            )
        seen.add((term.name, members, keys))
        terms.append(term)
    return tuple(terms)


def of_assets(terms: Iterable[Term], assets: Iterable[Sequence[str]]) -> Iterator[Term]:
    """What a step asks for that makes or checks these assets; partitions are not filled in.

    Args:
        terms: The terms of its expression.
        assets: The parts of each asset's key.

    Yields:
        Terms for whichever asset; two may come out as one pool, of which the most slots count.
    """
    keys = {pool_name(key, "path"): key for key in assets}
    for term in terms:
        whole = term if term.members is None else replace(term, members=None)
        names = [name for name in keys if term.members is None or name in term.members]
        if term.has("asset"):
            for name in names:
                yield fill_asset(whole, keys[name])
        elif names or term.members is None:
            yield whole


def fill_asset(term: Term, asset: Sequence[str]) -> Term:
    """Fill in an asset, by the parts of its key, named as the template says."""

    def value_of(field: Field) -> str:
        if field.name == "asset":
            return pool_name(asset, cast("Naming", field.key or "underscore"))
        return str(field)

    return term.fill(value_of)


def stands_for(term: Term, name: str) -> bool:
    """Whether a term may be this name once its templates are filled in, each with any value."""
    fixed = term.fill(lambda _: "\0").name.split("\0")
    return re.fullmatch(".+".join(map(re.escape, fixed)), name) is not None


def is_of_all_partitions(pool: str) -> bool:
    """Whether a pool stands for all partitions of something."""
    return pool.startswith(ALL_PARTITIONS)


def is_expression(pool: str) -> bool:
    """Whether what stands in ``op.pool`` is an expression, and not the name of one pool."""
    return pool.startswith(_MARKS)


def without_mark(pool: str) -> str:
    """What stands in ``op.pool``, as people are shown it."""
    return next((pool.removeprefix(mark) for mark in _MARKS if pool.startswith(mark)), pool)


def is_held_by_asset(pool: str) -> bool:
    """Whether the steps of a graph asset with this in ``op.pool`` hold their pools together."""
    return pool.startswith(HOLD_ASSET)


@lru_cache(maxsize=1_000)
def asked_by(pool: str) -> tuple[Term, ...]:
    """The pools and slots that a step with this in ``op.pool`` asks for.

    Raises:
        ConfigError: It has the mark of an expression and is none, or is a name that only pools of
            all partitions have. Better a run that fails with a word than one that goes unlimited.
    """
    if is_expression(pool):
        return parse_expression(without_mark(pool), with_members=True)
    if is_of_all_partitions(pool):
        raise ConfigError(
            f"The pool {pool!r} begins with {ALL_PARTITIONS}, as only pools of all partitions do.",
            remedy="Give it another name.",
            names=[pool],
        )
    return (Term(pool),)


def op_pool(terms: Sequence[Term], *, hold_asset: bool = False) -> str:
    """What is to stand in ``op.pool`` of a step that asks for these terms: see ``asked_by``."""
    text = format_expression(terms)
    if hold_asset:
        return HOLD_ASSET + text
    is_name = len(terms) == 1 and terms[0].slots == 1 and not terms[0].is_deferred
    return text if is_name else HOLD_STEP + text


def is_reserved(pool: str) -> bool:
    """Whether only a policy or the engine names a pool so: nothing is set of such a name."""
    return is_expression(pool) or is_of_all_partitions(pool)


def refuse_unsettable(pools: Iterable[str]) -> None:
    """Refuse to set anything of expressions, and of pools that stand for all partitions.

    Raises:
        ConfigError: One of them is an expression, or stands for all partitions.
    """
    for pool in pools:
        if is_expression(pool):
            raise ConfigError(
                f"{pool!r} is a pool expression and has neither a limit nor a rate of its own.",
                remedy=f"Set those of its pools: {', '.join(_pools_in(pool))}.",
                names=[pool],
            )
        if is_of_all_partitions(pool):
            raise ConfigError(
                f"{pool!r} stands for all partitions: it always has {SLOTS_MAX} slots.",
                remedy="To limit or pause partitions together, let their rule name one more pool, "
                "such as orders[{partition}]+orders, and set that.",
                names=[pool],
            )


def _pools_in(pool: str) -> Iterable[str]:
    """The names in an expression; of a malformed one its text."""
    try:
        return dict.fromkeys(term.name for term in asked_by(pool))
    except ConfigError:
        return [without_mark(pool)]


def graph_of(step_key: str) -> str:
    """The name under which a job uses the graph that a step belongs to."""
    return step_key.partition(".")[0]


def ticket_name(step_key: str, text: str) -> str:
    """The step key of the ticket under which a step with this in ``op.pool`` asks.

    A graph that holds its pools as a whole has one for all its steps, with its own name.
    """
    return graph_of(step_key) if is_held_by_asset(text) else step_key


def _split_terms(text: str) -> list[str]:
    """Split at the ``+`` that are not inside a template."""
    return re.split(r"\+(?![^{}]*\})", text)


def _check_field(field: Field) -> None:
    if field.is_of_partition:
        is_whole = "." not in field.name
        problem = None if field.key is None else problem_of_format(field.key)
        if problem is not None:
            raise ConfigError(
                f"{str(field)!r} is not a template: {problem}.",
                remedy="Write a time format of numbers, such as {partition:%Y-%m}.",
                names=[str(field)],
            )
        if is_whole or (field.dimension and not re.search(r"\s", field.name)):
            return
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
