"""For each kind of definition: the pools are set, and nothing else changes."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from catalogue import KINDS, Kind
from dagster_lifeguard import Policy, apply_per_asset_concurrency
from dagster_lifeguard.policy.assignments import Assignments
from served import differences, in_pool_fields, served

POOLS = {
    "asset": {"orders": "orders", "my_group/my_asset": "my_group_my_asset"},
    "asset_with_everything": {"raw/events": "raw_events"},
    "multi_asset": {"animals/zebra": "animals_ant", "animals/ant": "animals_ant"},
    "multi_asset_specs_subset": {
        "dbt/staging": "dbt_facts",
        "dbt/facts": "dbt_facts",
        "dbt/marts": "dbt_facts",
    },
    "specs_from_a_set": dict.fromkeys(
        ("models/bills", "models/events", "models/orders", "models/users"), "models_bills"
    ),
    "graph_asset": {"g/total": "g_total"},
    "graph_multi_asset": {"pair/second": "pair_first", "pair/first": "pair_first"},
    "graph_with_config_and_mapped_steps": {"squares": "squares"},
    "shared_ops": {"left": "left", "right": "right"},
    "from_graph_and_from_op": {
        "first/made": "first_made",
        "second/made": "first_made",
        "a": "a",
        "b": "a",
    },
    "observable_source_asset": {
        "bucket": "bucket",
        "s1": "s1",
        "s2": "s1",
        "copy_of_bucket": "copy_of_bucket",
    },
    "asset_checks": {"orders": "orders"},
    "external": {},
    "partitions": {"letters": "letters", "weather": "weather", "files": "files"},
    "automations": {
        "listed": "listed",
        "only_in_schedule": "only_in_schedule",
        "only_in_sensor": "only_in_sensor",
        "parted": "parted",
    },
    "surroundings": {"thing": "thing"},
    "merged": {
        "orders": "orders",
        "my_group/my_asset": "my_group_my_asset",
        "pair/second": "pair_first",
        "pair/first": "pair_first",
        "thing": "thing",
    },
    "cycle_through_subsets": {"a1": "a1", "a2": "a1", "b1": "b1"},
    "subset_of_graph": {"pair/first": "pair_first"},
}

kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))


def served_pools(defs: dg.Definitions) -> dict[str, str]:
    """The pools of each asset as Dagster's UI is told them."""
    result = {}
    for node in served(defs)["external_asset_graph_data"]:
        pools = node.get("pools", {}).get("__set__", [])
        if pools:
            result["/".join(node["asset_key"]["path"])] = " ".join(sorted(pools))
    return result


def test_every_kind_is_listed() -> None:
    assert set(KINDS) <= set(POOLS)
    assert set(POOLS) - set(KINDS) <= {"subset_of_graph"}


@kinds
def test_every_asset_gets_the_pool_that_is_promised(kind: Kind) -> None:
    assert served_pools(apply_per_asset_concurrency(kind())) == POOLS[kind.__name__]


@kinds
def test_nothing_but_pools_differs_in_what_dagster_serves(kind: Kind) -> None:
    base = kind()
    before = served(base)
    after = served(apply_per_asset_concurrency(base))
    changed = differences(before, after)
    assert [path for path in changed if not in_pool_fields(path)] == []
    assert bool(changed) == bool(POOLS[kind.__name__])


@kinds
def test_the_definitions_given_are_left_as_they_were(kind: Kind) -> None:
    base = kind()
    apply_per_asset_concurrency(base)
    assert served_pools(base) == {}


@kinds
def test_what_a_run_yields_is_the_same_before_and_after(kind: Kind) -> None:
    base = kind()
    assert results(base) == results(apply_per_asset_concurrency(base))


@kinds
def test_applying_twice_is_applying_once(kind: Kind) -> None:
    once = apply_per_asset_concurrency(kind())
    assert differences(served(once), served(apply_per_asset_concurrency(once))) == []


@kinds
def test_another_policy_replaces_the_first_wholly(kind: Kind) -> None:
    base = kind()
    before = served(base)
    after = served(Policy(rules=[]).apply(apply_per_asset_concurrency(base)))
    assert differences(before, after) == []


@kinds
def test_a_plan_says_what_applying_does(kind: Kind) -> None:
    new = apply_per_asset_concurrency(kind())
    items: list[Any] = [*(new.assets or ()), *(new.asset_checks or ())]
    for assignment in Assignments(Policy(), items).assignments():
        assert assignment.pools == assignment.current
        assert " ".join(assignment.pools) == POOLS[kind.__name__].get(assignment.asset, "")


def results(defs: dg.Definitions) -> list[tuple[Any, ...]]:
    """Execute all assets of some definitions; return what happened, without times and ids."""
    repository = defs.get_repository_def()
    found: list[tuple[Any, ...]] = []
    with dg.DagsterInstance.ephemeral() as instance:
        for name in sorted(repository.get_implicit_asset_job_names()):
            job = repository.get_job(name)
            keys = sorted(job.asset_layer.executable_asset_keys)
            for partitions_def, selected in _by_partitions(job, keys).items():
                partition = None
                if partitions_def is not None:
                    if isinstance(partitions_def, dg.DynamicPartitionsDefinition):
                        instance.add_dynamic_partitions(partitions_def.name, ["file"])
                    partition = partitions_def.get_partition_keys(
                        dynamic_partitions_store=instance
                    )[0]
                result = job.execute_in_process(
                    instance=instance,
                    asset_selection=selected,
                    partition_key=partition,
                    raise_on_error=False,
                )
                found.append(
                    (result.success, partition, *_events(result, instance.storage_directory()))
                )
    return found


def _by_partitions(job: Any, keys: list[dg.AssetKey]) -> dict[Any, list[dg.AssetKey]]:
    groups: dict[Any, list[dg.AssetKey]] = {}
    for key in keys:
        groups.setdefault(job.asset_layer.asset_graph.get(key).partitions_def, []).append(key)
    return groups


def _events(result: dg.ExecuteInProcessResult, storage: str) -> list[tuple[Any, ...]]:
    events = []
    for event in result.all_events:
        data = event.event_specific_data
        materialized = getattr(data, "materialization", None)
        observed = getattr(data, "asset_observation", None)
        about = materialized or observed
        events.append(
            (
                event.event_type_value,
                event.step_key,
                None if about is None else (about.asset_key, about.partition),
                None
                if about is None
                else sorted(str(m).replace(storage, "") for m in about.metadata.items()),
                getattr(data, "check_name", None),
                getattr(data, "success", None),
            )
        )
    return sorted((e for e in events if e[1] is not None), key=repr)
