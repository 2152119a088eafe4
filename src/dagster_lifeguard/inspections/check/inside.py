"""Slots that assets take inside, as far as they say so: whether they can ever have them.

What an asset does inside is its own code, which nothing here reads. So it says in the metadata
``lifeguard/slots`` what it asks for: a pool expression for each block, and ``>`` between blocks
that are inside each other::

    block = expression { ">" expression }
    value = block | [ block, ... ]
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster import AssetKey

from dagster_lifeguard.compat.definitions import metadata_values
from dagster_lifeguard.engine.rules.names import (
    Term,
    enumerate_some,
    of_assets,
    parse_expression,
    pool_text,
    pools_text,
    terms_text,
)
from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.findings import Finding, number
from dagster_lifeguard.inspections.check.circles import MANY, Ask, blocks_itself, circles

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dagster_lifeguard.policy.assignments import Assignment
    from dagster_lifeguard.policy.config import Config
    from dagster_lifeguard.policy.executables import AssetItem

SLOTS_METADATA = "lifeguard/slots"
"""Metadata by which an asset says which slots it takes inside."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """What one asset says that it takes inside.

    Attributes:
        assignment: What the policy gives the asset.
        nested: For each block the expressions that are inside each other, outermost first.
    """

    assignment: Assignment
    nested: tuple[tuple[tuple[Term, ...], ...], ...]

    @property
    def terms(self) -> Iterator[Term]:
        """All pools that it takes slots of inside."""
        return (term for block in self.nested for terms in block for term in terms)


def read_blocks(
    items: Sequence[AssetItem], assignments: Sequence[Assignment], problems: list[Finding]
) -> tuple[Blocks, ...]:
    """Read what assets say that they take inside.

    Args:
        items: The assets.
        assignments: What a policy gives them; of others nothing is read.
        problems: Gets what cannot be read.
    """
    by_asset = {a.asset: a for a in assignments if a.kind not in ("external", "check")}
    found = []
    for asset, value in metadata_values(items, SLOTS_METADATA):
        if asset not in by_asset:
            continue
        try:
            found.append(Blocks(by_asset[asset], _parse(value)))
        except ConfigError as error:
            problems.append(
                Finding(
                    "slots-unreadable",
                    "error",
                    f"The metadata {SLOTS_METADATA} of {asset} says {value!r}: {error.message}",
                    'Write a pool expression, such as "warehouse*2", or a list of them; '
                    '"a > b" for b inside a.',
                    (asset,),
                )
            )
    return tuple(found)


def _parse(value: object) -> tuple[tuple[tuple[Term, ...], ...], ...]:
    """Parse the value of the metadata.

    Raises:
        ConfigError: It is no block and no list of blocks.
    """
    texts = list(value) if isinstance(value, list | tuple) else [value]
    blocks = []
    for text in texts:
        if not isinstance(text, str):
            raise ConfigError(f"{text!r} is no text.", remedy="Write text.", names=[str(text)])
        # A name may hold the character too, but not between two spaces.
        blocks.append(tuple(parse_expression(part.strip()) for part in text.split(" > ")))
    return tuple(blocks)


def asks_of(found: Iterable[Blocks], policy: Config, granularity: str) -> tuple[Ask, ...]:
    """Return each ask for slots inside an asset, with what the asset holds meanwhile."""
    return tuple(
        Ask(blocks.assignment.asset, held, _slots(wanted), at_once_max)
        for blocks in found
        for own in [_held_by_step(blocks.assignment, granularity)]
        for at_once_max in [_at_once_max(blocks.assignment, policy)]
        for block in blocks.nested
        for held, wanted in _nested(own, block)
    )


def _nested(
    own: Mapping[str, int], block: Sequence[tuple[Term, ...]]
) -> Iterator[tuple[Mapping[str, int], tuple[Term, ...]]]:
    held = Counter(own)
    for wanted in block:
        yield dict(held), wanted
        held.update(_slots(wanted))


def _held_by_step(assignment: Assignment, granularity: str) -> Mapping[str, int]:
    """The slots that every step of an asset holds, as far as they are known before it executes."""
    # By run, the run queue counts the pools of a run, and no step of it holds any. Which of several
    # ops of a graph takes the slots is not known, and each holds only its own pool.
    if granularity == "run" or len(assignment.pools) != 1:
        return {}
    return _slots(_filled(assignment))


def _filled(assignment: Assignment) -> Iterator[Term]:
    """The pools of an asset, with those of all that it is executed with."""
    together = (assignment.asset, *assignment.executed_with)
    keys = [AssetKey.from_user_string(asset).path for asset in together]
    return of_assets(assignment.terms, keys)


def _at_once_max(assignment: Assignment, policy: Config) -> int:
    """How many executions of an asset its pools let in at once."""
    if len(assignment.pools) != 1:
        return MANY
    most = MANY
    for term in assignment.own_terms:
        # For which partition a run executes it is not known here.
        limit = None if term.fields else policy.limit_of(term.name)
        if limit:
            most = min(most, limit // term.slots)
    return max(most, 1)


def _slots(terms: Iterable[Term]) -> dict[str, int]:
    slots: dict[str, int] = {}
    for term in terms:
        slots[term.name] = max(slots.get(term.name, 0), term.slots)
    return slots


def blocks_findings(
    found: Iterable[Blocks],
    asks: Iterable[Ask],
    policy: Config,
    limits: Mapping[str, int | None],
) -> Iterator[Finding]:
    """Find slots inside assets that nobody can ever give them."""
    for blocks in found:
        if policy.engine == "stock":
            yield from _beyond_stock(blocks)
    for ask in asks:
        for pool in blocks_itself(ask, limits):
            limit, held, wanted = limits[pool], ask.held.get(pool, 0), ask.wanted[pool]
            if not held:
                yield Finding(
                    "slots-above-limit",
                    "error",
                    f"{ask.asset} asks inside for {number(wanted, 'slot')} of the pool "
                    f"{pool_text(pool)}, whose limit is {limit}: it would wait for ever.",
                    "Ask for fewer slots, or raise the limit under pools.",
                    (ask.asset, pool),
                )
                continue
            yield Finding(
                "self-blocking",
                "error",
                f"{ask.asset} holds {number(held, 'slot')} of the pool {pool_text(pool)} and "
                f"asks inside for {wanted} more, of {limit}: it waits for itself.",
                "Take the pool out of what it holds, or ask for all that it needs at once.",
                (ask.asset, pool),
                evidence=(_said(ask),),
            )


def _beyond_stock(blocks: Blocks) -> Iterator[Finding]:
    asset = blocks.assignment.asset
    for terms in (terms for block in blocks.nested for terms in block):
        if len(terms) > 1 or terms[0].slots > 1:
            yield Finding(
                "needs-engine",
                "error",
                f"{asset} asks inside for {terms_text(terms)}: needs engine: lifeguard.",
                "Under engine: stock ask for one slot of one pool.",
                (asset,),
            )


def circle_findings(asks: Sequence[Ask], limits: Mapping[str, int | None]) -> Iterator[Finding]:
    """Find assets whose runs may wait for each other for ever."""
    for circle in circles(asks, limits):
        assets = list(dict.fromkeys(link.ask.asset for link in circle))
        pools = list(dict.fromkeys(link.pool for link in circle))
        who = f"Runs of {enumerate_some(assets)}" if len(assets) > 1 else f"Two runs of {assets[0]}"
        yield Finding(
            "circular-wait",
            "warning",
            f"{who} may wait for each other's slots of {pools_text(pools)} for ever.",
            "Let all ask for these pools in one order, or for all at once.",
            (*assets, *pools),
            evidence=tuple(dict.fromkeys(_said(link.ask) for link in circle)),
        )


def _said(ask: Ask) -> str:
    return f"{ask.asset} asks for {_text(ask.wanted)} while it holds {_text(ask.held)}"


def _text(slots: Mapping[str, int]) -> str:
    return terms_text([Term(name, n) for name, n in slots.items()])
