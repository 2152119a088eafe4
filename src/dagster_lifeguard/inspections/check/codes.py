"""The codes of what ``lifeguard check`` finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

CODES: Mapping[str, str] = {
    "config-invalid": "A setting or rule is not allowed.",
    "selection-invalid": "A rule's asset selection is malformed or names no asset.",
    "template-unfilled": "An asset has no value, or several, for a template of its rule.",
    "slots-above-limit": "An asset asks for more slots of a pool than its limit.",
    "engine-off": "The policy needs the engine, and the instance is on Dagster's own storage.",
    "needs-engine": "A rule asks for what the engine in `engine:` cannot do.",
    "name-clash": "Two assets would share a pool named after one of them.",
    "not-applied": "The definitions do not have the pools that the policy gives them.",
    "no-rule": "No rule selects an asset, so it is unlimited.",
    "unused-rule": "A rule decides for no asset.",
    "unused-pool": "A declared pool is used by no asset.",
    "pool-undeclared": "A rule names a pool that is not declared, and is like one that is.",
    "same-target": "Assets declare the same table or path and share no pool.",
    "tag-without-effect": "Assets are tagged `dagster/concurrency_key`, and lack the pool.",
    "steps-interleave": "A graph asset's steps claim one by one, so runs of it may interleave.",
    "one-rule-per-op": "Under engine: stock, an op that makes several assets goes by one rule.",
    "shared-op": "Assets or jobs share an op, or a graph, whose ops have one pool for all of them.",
    "partly-limited": "An op is tagged with a pool where it is used once, and not elsewhere.",
    "executor-without-pools": "A job with pools has an executor that claims no slots.",
    "limits-differ": "Several policies declare different limits for one pool.",
    "no-instance": "DAGSTER_HOME names no instance, so no limit was looked at.",
    "default-limit": "`dagster.yaml` gives pools another default limit than the policy, or none.",
    "limit-in-force": "A pool has another limit on the instance than the policy declares.",
    "coordinator-missing": "A rule says `on_conflict`, which the run coordinator does not heed.",
    "limit-not-set": "At granularity run, pools have no limit of their own on the instance.",
}
"""Every code of a finding, and what it says."""
