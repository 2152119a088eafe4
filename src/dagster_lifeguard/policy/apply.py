"""A policy meets definitions: the definitions come back with their pools set.

The definitions that were given are left as they were.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, overload

import dagster as dg

from dagster_lifeguard.compat.definitions import (
    LazyDefinitions,
    map_lazy_definitions,
    replace_definitions,
)
from dagster_lifeguard.compat.replacement import OpReplacement, target_assets
from dagster_lifeguard.errors import UnsupportedDefinitionsError
from dagster_lifeguard.policy.assignments import Assignments
from dagster_lifeguard.policy.config import Config
from dagster_lifeguard.policy.executables import with_op

if TYPE_CHECKING:
    from collections.abc import Iterator

_Lazy = TypeVar("_Lazy", bound="LazyDefinitions[Any]")


class Policy(Config):
    """The rules that give each asset its pools.

    ``Policy()`` gives every asset a pool of its own. See ``Config`` for the settings.

    Raises:
        pydantic.ValidationError: A setting is not allowed.
    """

    @overload
    def apply(self, defs: dg.Definitions) -> dg.Definitions: ...

    @overload
    def apply(self, defs: _Lazy) -> _Lazy: ...

    def apply(self, defs: dg.Definitions | _Lazy) -> dg.Definitions | _Lazy:
        """Return the definitions with each op's pool set by the rules, and nothing else changed.

        Applying a policy to definitions that already had one applied replaces it. What a
        ``@definitions`` function returns is left lazy. Apply it last and once, to the merged
        definitions: an op that is used in two parts which were wrapped apart may get two pools,
        and Dagster then refuses the merged definitions.

        Limits are not set here: a pool is limited by its limit on the instance, or else by
        ``concurrency: pools: default_limit`` in ``dagster.yaml``.

        Raises:
            LifeguardError: A rule cannot be honoured; its subclass says why. Nothing is applied.
            UnsupportedDefinitionsError: ``defs`` is not a ``Definitions``, or holds assets that
                Dagster builds only when it loads them.
        """
        if isinstance(defs, LazyDefinitions):
            lazy: _Lazy = map_lazy_definitions(defs, self.apply)
            return lazy
        if not isinstance(defs, dg.Definitions):
            raise UnsupportedDefinitionsError(
                f"A policy applies to a Definitions, not to a {type(defs).__name__}.",
                remedy="Wrap it: Policy().apply(dg.Definitions(assets=[...])).",
            )
        with _without_collection():
            return _apply(self, defs)


@overload
def apply_per_asset_concurrency(defs: dg.Definitions) -> dg.Definitions: ...


@overload
def apply_per_asset_concurrency(defs: _Lazy) -> _Lazy: ...


def apply_per_asset_concurrency(defs: dg.Definitions | _Lazy) -> dg.Definitions | _Lazy:
    """Give every asset a pool of its own, so that with a limit of 1 no two runs execute it at once.

    The same as ``Policy().apply(defs)``; see there for what it raises. The asset
    ``["my_group", "my_asset"]`` gets the pool ``my_group_my_asset``. A pool that an asset
    declares itself is kept.
    """
    return Policy().apply(defs)


@contextmanager
def _without_collection() -> Iterator[None]:
    """Put off Python's garbage collection while many objects are made and none is dropped.

    What is made for 10,000 assets would set off a full pass over all definitions there are, which
    takes as long as the rest and finds nothing.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _apply(policy: Policy, defs: dg.Definitions) -> dg.Definitions:
    assets, checks = list(defs.assets or ()), list(defs.asset_checks or ())
    schedules, sensors = list(defs.schedules or ()), list(defs.sensors or ())
    jobs = list(defs.jobs or ())
    whole = [with_op(item) for item in assets]
    targets = [item for automation in (*schedules, *sensors) for item in target_assets(automation)]

    planned = Assignments(policy, [*whole, *checks, *targets])
    if planned.problems:
        raise planned.problems[0]
    replacement = OpReplacement(planned.new_ops, planned.untagged, planned.pools_of_uses)

    def new_asset(item: Any, item_with_op: Any) -> Any:
        if not isinstance(item_with_op, dg.AssetsDefinition):
            return item
        new = replacement.assets(item_with_op)
        # An observable source asset that gets no pool stays the source asset that it was.
        is_unlimited = isinstance(item, dg.SourceAsset) and new.op.pool is None
        return item if is_unlimited else new

    fields = {
        "assets": [new_asset(*pair) for pair in zip(assets, whole, strict=True)],
        "asset_checks": [replacement.assets(item) for item in checks],
        "schedules": [replacement.schedule(item) for item in schedules],
        "sensors": [replacement.sensor(item) for item in sensors],
        "jobs": [replacement.job(item) for item in jobs],
    }
    given = {name: getattr(defs, name) is not None for name in fields}
    return replace_definitions(
        defs, **{name: value for name, value in fields.items() if given[name]}
    )
