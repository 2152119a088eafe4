"""Ops and graphs: the pools of their steps, and ops with another pool."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

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

_NO_TAGS: Mapping[str, str] = MappingProxyType({})


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

    The tag ``dagster/concurrency_key`` goes with the pool it used to name: Dagster refuses an op
    whose tag and pool differ.

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


def leaf_ops(node: NodeDefinition) -> Iterator[tuple[dg.OpDefinition, Mapping[str, str]]]:
    """Yield each op under a node, once per use, with the tags that its step will have.

    Relies on: ``GraphDefinition.nodes`` and ``Node.definition``, ``Node.tags`` (1.10.0).
    """
    if isinstance(node, dg.OpDefinition):
        yield node, node.tags
        return
    for inner in cast("Any", node).nodes:
        if isinstance(inner.definition, dg.OpDefinition):
            yield inner.definition, {**inner.definition.tags, **inner.tags}
        else:
            yield from leaf_ops(inner.definition)
