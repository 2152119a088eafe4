"""The pool of each op, everywhere or where it is used.

Dagster takes a step's pool from its op, or else from a tag on the use of the op. So an op that
several graph assets use has no pool itself where these want different ones: each use has its own.
What is one use for several assets, such as an op in a graph that they share, has one pool.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dagster as dg

from dagster_lifeguard.compat.copies import original_node
from dagster_lifeguard.compat.ops import leaf_ops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dagster_lifeguard.engine.rules.duplicates import OnConflict
    from dagster_lifeguard.policy.executables import OpUse, Unit
    from dagster_lifeguard.policy.pool_names import Asked


@dataclass(slots=True)
class Wish:
    """The pool that one unit wants for one of its ops.

    Attributes:
        unit: The unit.
        asked: What it asks for on behalf of each asset.
        declared: The pool that the user gave the op, if it is kept as it is.
        pool: What this comes out as; None if it is unlimited.
    """

    unit: Unit
    asked: Mapping[dg.AssetKey, Asked]
    declared: str | None
    pool: str | None = None

    @property
    def explicit(self) -> bool:
        """Whether the user gave the op its pool."""
        return self.declared is not None


@dataclass(frozen=True, slots=True)
class SharedOp:
    """An op that has one pool for several assets or jobs, which did not ask for one.

    Attributes:
        op: The op.
        pool: Its pool.
        assets: The assets.
        jobs: The jobs that use it besides, where its pool is on the op.
        graph: The graph in which it is used once for all these assets; None: by itself.
    """

    op: str
    pool: str
    assets: tuple[str, ...]
    jobs: tuple[str, ...]
    graph: str | None = None


@dataclass(slots=True)
class OpPool:
    """The pool of one op.

    Attributes:
        wishes: What units want in each graph that uses the op, in the order of their names.
            None: where it is used by itself, and then so everywhere.
        answers: What the rules say of duplicate runs, for each asset that it makes.
    """

    op: dg.OpDefinition
    wishes: dict[str | None, list[Wish]] = field(default_factory=dict)
    answers: dict[dg.AssetKey, OnConflict] = field(default_factory=dict)

    def at(self, graph: str | None) -> Wish:
        """The wish that counts in a graph: the first that gives the op a pool."""
        wishes = self.wishes[graph] if None not in self.wishes else self._all
        return next((wish for wish in wishes if wish.pool is not None), wishes[0])

    @property
    def _all(self) -> list[Wish]:
        found = {id(wish): wish for wishes in self.wishes.values() for wish in wishes}
        return sorted(found.values(), key=lambda wish: wish.unit.name)

    @property
    def first(self) -> Wish:
        """The first wish of all that gives the op a pool."""
        return next((wish for wish in self._all if wish.pool is not None), self._all[0])

    @property
    def units(self) -> tuple[str, ...]:
        """The names of the units that use it."""
        return tuple(dict.fromkeys(wish.unit.name for wish in self._all))

    @property
    def is_kept(self) -> bool:
        """Whether it keeps what the user gave it, wherever it is used."""
        return all(self.at(graph).explicit for graph in self.wishes)

    @property
    def of_uses(self) -> Mapping[str, str | None] | None:
        """The pool in each graph that is to have one, or none; None if it has one everywhere."""
        if self.is_kept or None in self.wishes:
            return None
        chosen = {graph: self.at(graph) for graph in self.wishes if graph is not None}
        if len({(wish.explicit, wish.pool) for wish in chosen.values()}) == 1:
            return None
        return {graph: wish.pool for graph, wish in chosen.items() if not wish.explicit}

    def shared(self, jobs: Iterable[str]) -> Iterator[SharedOp]:
        """Yield the places where the op has a pool that not all of its users there asked for.

        Args:
            jobs: The names of the jobs of ops that use it.
        """
        in_jobs = tuple(sorted(jobs)) if self.of_uses is None else ()
        pool = self.first.pool
        if pool is not None and (in_jobs or (None in self.wishes and _differ(self._all))):
            yield SharedOp(self.op.name, pool, self.units, in_jobs)
            return
        for graph, wishes in self.wishes.items():
            pool = self.at(graph).pool
            if graph is not None and pool is not None and _differ(wishes):
                units = tuple(dict.fromkeys(wish.unit.name for wish in wishes))
                yield SharedOp(self.op.name, pool, units, (), graph)


def _differ(wishes: Iterable[Wish]) -> bool:
    return len({wish.pool for wish in wishes}) > 1


class OpPools:
    """The pools of all ops."""

    def __init__(self) -> None:
        self._of: dict[dg.OpDefinition, OpPool] = {}

    def add(self, use: OpUse, wish: Wish) -> OpPool:
        """Take note of what a unit wants; units come in the order of their names."""
        found = self._of.setdefault(use.op, OpPool(use.op))
        for graph in use.graphs:
            found.wishes.setdefault(graph, []).append(wish)
        return found

    def settle(self, text: Callable[[Unit, Mapping[dg.AssetKey, Asked]], str | None]) -> None:
        """Work out the pool of each wish, once all are known."""
        for op_pool in self._of.values():
            for wish in {id(w): w for of in op_pool.wishes.values() for w in of}.values():
                wish.pool = wish.declared or text(wish.unit, wish.asked)

    def __iter__(self) -> Iterator[OpPool]:
        return iter(self._of.values())

    def of(self, use: OpUse) -> OpPool:
        """The pool of an op that a unit uses."""
        return self._of[use.op]

    def at(self, use: OpUse) -> list[Wish]:
        """The wishes that count where a unit uses an op."""
        found = self._of[use.op]
        return [found.at(graph) for graph in use.graphs]

    def shared(self, jobs: Iterable[object]) -> tuple[SharedOp, ...]:
        """Return the ops with a pool that not all of their users asked for, by name.

        Args:
            jobs: The jobs beside the assets; jobs of ops may use an op that an asset uses.
        """
        job_names: defaultdict[dg.OpDefinition, set[str]] = defaultdict(set)
        for job in jobs:
            if isinstance(job, dg.JobDefinition):
                for op, *_ in leaf_ops(original_node(job.graph)):
                    job_names[op].add(job.name)
        found = [shared for pool in self for shared in pool.shared(job_names[pool.op])]
        return tuple(sorted(found, key=lambda shared: shared.op))
