"""Ops and graphs: the pools of their steps, and ops with another pool."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import dagster as dg
from dagster._core.storage.tags import GLOBAL_CONCURRENCY_TAG

from dagster_lifeguard.compat.copies import copy_once

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dagster._core.definitions.node_definition import NodeDefinition

_POLICY = "_lifeguard_policy"

ON_CONFLICT_TAG = "lifeguard/on_conflict"
"""On an op: what its rule says of duplicates, where the run coordinator finds it with each run."""

CONCURRENCY_KEY_TAG = GLOBAL_CONCURRENCY_TAG
"""On an op, or on one use of it: the pool of its steps, the older way to say it (1.10.0)."""

POOL_OF_USE_TAG = "lifeguard/pool_of_use"
"""On one use of an op: its pool is given by a policy, in the tag ``dagster/concurrency_key``."""

_NO_TAGS: Mapping[str, str] = MappingProxyType({})


class Leaf(NamedTuple):
    """One use of an op.

    Attributes:
        op: The op.
        tags: The tags that its step will have.
        graph: The name of the graph that uses it, which is unique in a repository; None if the op
            is used by itself.
        step: The key of its step, unless Dagster renames the node in a job.
    """

    op: dg.OpDefinition
    tags: Mapping[str, str]
    graph: str | None
    step: str


def applied_policy(op: dg.OpDefinition) -> object | None:
    """Return the policy that was applied to this op; None if none was."""
    return cast("object | None", vars(op).get(_POLICY))


def declared_pool(op: dg.OpDefinition, tags: Mapping[str, str]) -> str | None:
    """Return the pool that a step of the op claims: ``op.pool``, or else the older tag.

    Relies on: a step's pool is ``op.pool`` or else its ``dagster/concurrency_key`` tag (1.10.0).
    """
    return op.pool or tags.get(GLOBAL_CONCURRENCY_TAG) or op.tags.get(GLOBAL_CONCURRENCY_TAG)


def op_under_policy(
    op: dg.OpDefinition, policy: object, policy_text: str, tags: Mapping[str, str] = _NO_TAGS
) -> dg.OpDefinition:
    """Copy an op as it is, with a note of the policy that was applied to it.

    Args:
        op: The op as the user wrote it.
        policy: The policy.
        policy_text: The policy in writing; policies of one text are one.
        tags: Tags that it gets besides its own.

    Relies on: ``NodeDefinition._tags`` (1.10.0).
    """
    changes: dict[str, object] = {_POLICY: policy}
    if tags:
        changes["_tags"] = {**op.tags, **tags}
    return copy_once((id(op), policy_text, *sorted(tags.items())), op, changes)


def op_with_pool(
    op: dg.OpDefinition,
    pool: str | None,
    policy: object,
    policy_text: str,
    tags: Mapping[str, str] = _NO_TAGS,
) -> dg.OpDefinition:
    """Copy an op as it is, but for its pool, with a note of the policy that gave it.

    The tag ``dagster/concurrency_key`` is removed with the pool that it named: Dagster refuses an
    op whose tag and pool differ.

    Args:
        op: The op as the user wrote it.
        pool: Its pool.
        policy: The policy.
        policy_text: The policy in writing; policies of one text are one.
        tags: Tags that it gets besides its own.

    Relies on: ``OpDefinition._pool`` and ``NodeDefinition._tags`` (1.10.0).
    """
    assert hasattr(op, "_pool")
    changes: dict[str, object] = {"_pool": pool, _POLICY: policy}
    if tags or GLOBAL_CONCURRENCY_TAG in op.tags:
        own = {k: v for k, v in op.tags.items() if k != GLOBAL_CONCURRENCY_TAG}
        changes["_tags"] = {**own, **tags}
    return copy_once((id(op), policy_text, pool, *sorted(tags.items())), op, changes)


def tags_with_pool(tags: Mapping[str, str], pool: str | None) -> dict[str, str]:
    """The tags of one use of an op that has no pool, so that its step claims this one.

    Relies on: a step whose op has no pool claims what the tag says that its use has, and the run
    queue counts that (1.10.0).
    """
    new = {k: v for k, v in tags.items() if k not in (GLOBAL_CONCURRENCY_TAG, POOL_OF_USE_TAG)}
    if pool is not None:
        new |= {GLOBAL_CONCURRENCY_TAG: pool, POOL_OF_USE_TAG: "true"}
    return new


def leaf_ops(node: NodeDefinition, name: str | None = None) -> Iterator[Leaf]:
    """Yield each use of an op under a node.

    Args:
        node: An op or a graph.
        name: The name by which it is used; None: its own.

    Relies on: ``GraphDefinition.nodes`` and ``Node.definition``, ``Node.name``, ``Node.tags``; the
    key of a step has the names of the nodes with points between them (1.10.0).
    """
    name = name or node.name
    if isinstance(node, dg.OpDefinition):
        yield Leaf(node, node.tags, None, name)
        return
    for inner in cast("Any", node).nodes:
        if isinstance(inner.definition, dg.OpDefinition):
            tags = {**inner.definition.tags, **inner.tags}
            yield Leaf(inner.definition, tags, node.name, f"{name}.{inner.name}")
        else:
            yield from leaf_ops(inner.definition, f"{name}.{inner.name}")
