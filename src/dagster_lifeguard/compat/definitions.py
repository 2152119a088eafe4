"""Definitions: assets, their metadata, selections among them, and ``Definitions`` as a whole."""

from __future__ import annotations

import importlib
import os
import warnings
from typing import TYPE_CHECKING, Any, TypeVar, cast

import dagster as dg
from dagster import _record
from dagster._check import CheckError
from dagster._core.definitions.asset_selection import TagAssetSelection
from dagster._core.definitions.external_asset import create_external_asset_from_source_asset
from dagster._utils.test import definitions
from dagster._utils.warnings import BetaWarning, PreviewWarning

from dagster_lifeguard.engine.rules.partition_keys import KeyPart, PartitionKeys
from dagster_lifeguard.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dagster._core.definitions.node_definition import NodeDefinition

LazyDefinitions = definitions.LazyDefinitions
"""What the decorator ``@definitions`` makes of a function (1.10.0, public from 1.11)."""

UNSTABLE_API_WARNINGS: tuple[type[Warning], ...] = (BetaWarning, PreviewWarning)
"""What Dagster warns with where code uses parts of it that may change (1.10.0)."""

_T = TypeVar("_T")


def node_of(assets: dg.AssetsDefinition) -> NodeDefinition | None:
    """Return the op or graph that executes these assets; None for external assets.

    Relies on: ``AssetsDefinition.computation`` (1.10.0).
    """
    computation: Any = assets.computation
    return None if computation is None else cast("NodeDefinition", computation.node_def)


def made_keys(assets: dg.AssetsDefinition) -> tuple[dg.AssetKey, ...]:
    """Return the asset keys that the op or graph makes, sorted; for a subset, all keys.

    They are sorted because no order in Dagster is the same in every process. The order of ``specs``
    comes from a set for graph assets. The order of the outputs is the caller's, which for a dbt
    project comes from a set too. Pools that differ between processes would protect nothing.

    Relies on: ``AssetsDefinition.node_keys_by_output_name`` (1.10.0).
    """
    return tuple(sorted(set(assets.node_keys_by_output_name.values())))


def partition_keys_of(partitions: dg.PartitionsDefinition[Any]) -> PartitionKeys:
    """Return how the partition keys of a definition are written.

    Relies on: ``TimeWindowPartitionsDefinition.fmt``: a key is the start of its window, written
    so; ``MultiPartitionsDefinition.partitions_defs``: a key has their keys in this order, joined by
    ``|`` (1.10.0).
    """
    if isinstance(partitions, dg.MultiPartitionsDefinition):
        return PartitionKeys(
            tuple(
                KeyPart(dimension.name, _time_format(dimension.partitions_def))
                for dimension in partitions.partitions_defs
            )
        )
    return PartitionKeys((KeyPart("", _time_format(partitions)),))


def _time_format(partitions: object) -> str | None:
    return partitions.fmt if isinstance(partitions, dg.TimeWindowPartitionsDefinition) else None


def io_manager_key(assets: dg.AssetsDefinition, key: dg.AssetKey) -> str | None:
    """Return the key of the io manager that stores the asset.

    Relies on: ``AssetsDefinition.has_output_for_asset_key`` and
    ``get_io_manager_key_for_asset_key`` (1.10.0).
    """
    if not assets.has_output_for_asset_key(key):
        return None
    return assets.get_io_manager_key_for_asset_key(key)


def observation_as_assets(source: dg.SourceAsset) -> dg.AssetsDefinition:
    """Turn an observable source asset into the assets definition that Dagster makes of it.

    Dagster does so itself when it loads a repository, but drops the op on the way whenever
    resources are bound, and the pool would go with it.

    Relies on: ``create_external_asset_from_source_asset`` (1.10.0).
    """
    return create_external_asset_from_source_asset(source)


def replace_definitions(defs: dg.Definitions, **fields: object) -> dg.Definitions:
    """Copy a ``Definitions`` with some fields changed and all others kept.

    Relies on: ``Definitions`` is a record (1.10.0).
    """
    return _record.replace(defs, **fields)


def map_lazy_definitions(lazy: _T, func: Callable[[dg.Definitions], dg.Definitions]) -> _T:
    """Apply a function to what a ``@definitions`` function will return.

    Relies on: ``LazyDefinitions`` is a record with ``load_fn`` (1.10.0).
    """
    load = cast("Any", lazy).load_fn
    return cast("_T", _record.replace(cast("Any", lazy), load_fn=lambda *args: func(load(*args))))


def selector(
    assets: Iterable[dg.AssetsDefinition | dg.SourceAsset | dg.AssetSpec],
) -> Callable[[str], frozenset[dg.AssetKey]]:
    """Return a function that resolves asset selections, Dagster's own syntax, among these assets.

    The function raises ValueError if a selection is malformed, names an asset that does not
    exist, or is of a kind that Dagster does not resolve in Python.

    Relies on: ``AssetGraph.from_assets``; ``AssetSelection.from_string(include_sources=True)``,
    which before 1.11 forgets the sources of a tag that needs quotes, ``tag:a/b=c`` (1.10.0).
    """
    whole = [
        dg.AssetsDefinition(specs=[item]) if isinstance(item, dg.AssetSpec) else item
        for item in assets
    ]
    graph = _asset_graph_class().from_assets(whole)

    def select(selection: str) -> frozenset[dg.AssetKey]:
        try:
            with warnings.catch_warnings():
                # They concern the use made of Dagster here, so no user can do anything about them.
                for category in UNSTABLE_API_WARNINGS:
                    warnings.simplefilter("ignore", category)
                parsed: Any = cast("Any", dg.AssetSelection).from_string(
                    selection, include_sources=True
                )
                if isinstance(parsed, TagAssetSelection) and not parsed.include_sources:
                    parsed = dg.AssetSelection.tag(parsed.key, parsed.value, include_sources=True)
                return frozenset(parsed.resolve(graph))
        except NotImplementedError as error:  # such as column:, which only Dagster's UI knows
            raise ValueError("Dagster resolves this selection only in its UI") from error
        except (dg.DagsterError, CheckError) as error:  # before 1.11 the latter is none of its own
            raise ValueError(first_line(error)) from error

    return select


def _asset_graph_class() -> Any:
    try:
        return importlib.import_module(
            "dagster._core.definitions.assets.graph.asset_graph"
        ).AssetGraph
    except ImportError:  # before 1.11
        return importlib.import_module("dagster._core.definitions.asset_graph").AssetGraph


def metadata_texts(items: Iterable[object], names: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Yield asset key, metadata name and value wherever an asset has text under such a name."""
    for item in items:
        if isinstance(item, dg.AssetsDefinition):
            for key, metadata in item.metadata_by_key.items():
                for name in names:
                    value = metadata_text(metadata.get(name))
                    if value:
                        yield key.to_user_string(), name, value


def tag_values(items: Iterable[object], name: str) -> Iterator[tuple[str, str]]:
    """Yield asset key and value wherever an asset has a tag of that name."""
    for item in items:
        if isinstance(item, dg.AssetsDefinition):
            for spec in item.specs:
                if name in spec.tags:
                    yield spec.key.to_user_string(), spec.tags[name]


def metadata_text(value: object) -> str | None:
    """Return a metadata value as text; None if it is not a text, path, URL or number."""
    plain = getattr(value, "value", value)
    return str(plain) if isinstance(plain, str | int | os.PathLike) else None
