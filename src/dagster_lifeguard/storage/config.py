"""The optional key ``lifeguard`` in the configuration of the storages.

Everything else in the configuration is the stock storage's own::

    config:
      base_dir: {env: DAGSTER_HOME}
      lifeguard: {lease_seconds: 30, on_lease_lost: terminate}
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from dagster_lifeguard.engine.engine_options import EngineOptions
from dagster_lifeguard.engine.rules.admission import PATIENCE_SECONDS
from dagster_lifeguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = "lifeguard"


@dataclass(frozen=True, kw_only=True)
class StorageOptions:
    """How the engine behind a storage behaves.

    Attributes:
        lease_seconds: A process that is silent for so long is taken for dead, and its slots are
            free. Longer than any pause of a process that is to survive: a machine that swaps, a
            debugger.
        on_lease_lost: What a process does that finds its step's slot gone: ``terminate`` the step,
            or only ``warn``.
        patience_seconds: A step that waited longer is passed by no other of its priority.
        look_again_seconds: How often a waiting step looks although nothing woke it. The first in
            line looks also when a lease runs out.
        abandon_seconds: A waiting step that does not look for so long loses its place. The
            in-process executor does not look while another step of the run executes.
        direct_url: The URL of the PostgreSQL server itself, where Dagster's own connections go
            through a pooler. The engine's one connection of each process goes there.
    """

    lease_seconds: float = 30.0
    on_lease_lost: Literal["terminate", "warn"] = "terminate"
    patience_seconds: float = PATIENCE_SECONDS
    look_again_seconds: float = 5.0
    abandon_seconds: float = 30.0
    direct_url: str | None = None

    def __post_init__(self) -> None:
        self.engine_options()
        if self.abandon_seconds <= self.look_again_seconds:
            raise ConfigError(
                f"{KEY}: abandon_seconds is {self.abandon_seconds}, and look_again_seconds "
                f"{self.look_again_seconds}: a waiting step would lose its place before it looks.",
                remedy="Give abandon_seconds several times look_again_seconds.",
                names=[KEY],
            )
        if self.on_lease_lost not in ("terminate", "warn"):
            raise ConfigError(
                f"{KEY}: on_lease_lost is {self.on_lease_lost!r}.",
                remedy="Write terminate or warn.",
                names=[KEY],
            )

    def engine_options(self, **others: Any) -> EngineOptions:
        """The same, as the engine takes it, with what else it takes."""
        return EngineOptions(
            lease_seconds=self.lease_seconds,
            patience_seconds=self.patience_seconds,
            look_again_seconds=self.look_again_seconds,
            abandon_seconds=self.abandon_seconds,
            **others,
        )


def with_options(stock: Any, *, has_server: bool = True) -> dict[str, Any]:
    """A stock storage's configuration schema, with our key.

    Args:
        stock: The stock storage's schema.
        has_server: Whether the database has a server with an address.
    """
    kinds = {"float": float, "Literal['terminate', 'warn']": str}
    schema = {
        option.name: dg.Field(
            kinds[str(option.type)], is_required=False, default_value=option.default
        )
        for option in fields(StorageOptions)
        if option.name != "direct_url"
    }
    if has_server:
        schema["direct_url"] = dg.Field(dg.StringSource, is_required=False)
    assert isinstance(stock, dict)
    return {**stock, KEY: dg.Field(schema, is_required=False)}


def split_options(config: Mapping[str, Any]) -> tuple[dict[str, Any], StorageOptions]:
    """The stock storage's part of a configuration, and ours."""
    stock = dict(config)
    return stock, StorageOptions(**(stock.pop(KEY, None) or {}))
