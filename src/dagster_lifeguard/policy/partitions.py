"""The pools that a term names for the partitions of a run, for all of them, and for none."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from dagster_lifeguard.engine.rules.pool_expressions import ALL_PARTITIONS, Term
from dagster_lifeguard.engine.rules.pool_naming import safe_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dagster_lifeguard.engine.rules.partition_keys import PartitionKeys
    from dagster_lifeguard.engine.rules.pool_expressions import Field

_BRACKETED = re.compile(r"\[(?:[^\[\]{}]|\{[^{}]*\})*\]")


def of_partitions(term: Term, partitions: Sequence[str]) -> tuple[Term, ...]:
    """The pools of some partitions, each once, in the order of their first partition.

    Args:
        term: A term that is by partition.
        partitions: Their keys.

    Raises:
        ValueError: A key is not written as the term says.
    """
    fields = tuple(field for field in term.fields if field.is_of_partition)
    whole = replace(term, keys=None)
    return tuple(
        whole.fill(lambda field, found=values: found.get(field, str(field)))  # type: ignore[misc]
        for values in _values(fields, term.keys, tuple(partitions))
    )


@lru_cache(maxsize=64)
def _values(
    fields: tuple[Field, ...], keys: PartitionKeys | None, partitions: tuple[str, ...]
) -> tuple[Mapping[Field, str], ...]:
    """What templates stand for in each partition, without repetition."""
    found: dict[tuple[str, ...], None] = {}
    for partition in partitions:
        values = (
            keys.value(partition, field.dimension, field.key)
            if keys is not None and field.needs_keys
            else partition
            for field in fields
        )
        found[tuple(map(safe_value, values))] = None
    return tuple(dict(zip(fields, values, strict=True)) for values in found)


def without_partition(term: Term) -> Term:
    """The term of an asset without partitions: less each bracket that holds one.

    Of ``{asset}[{partition}]`` that leaves ``{asset}``. A bracket goes with all that is in it; a
    template of a partition that stands in no bracket stays.
    """

    def left(found: re.Match[str]) -> str:
        return "" if Term.written(found[0]).is_by_partition else found[0]

    return Term.written(_BRACKETED.sub(left, term.name), term.slots, term.members)


def all_partitions(term: Term) -> Term:
    """The pool that stands for all partitions of a term that is by partition.

    No two terms get one name: no name in an expression has a ``*``.
    """
    whole = term.fill(lambda field: "*" if field.is_of_partition else str(field))
    return Term(ALL_PARTITIONS + whole.name, whole.slots)
