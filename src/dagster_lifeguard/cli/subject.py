"""What a person means by a name: a pool or an asset; or what it may have been."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Literal

from dagster_lifeguard.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Collection

    from dagster_lifeguard.deployment.contract import Deployment

_NEAR_MAX = 3


def known_pool(deployment: Deployment, text: str) -> str:
    """The pool of this name.

    Raises:
        UnknownNameError: It has no limit, no holder and no waiter, and no asset has it.
    """
    pools = _pools(deployment)
    if text in pools:
        return text
    raise _unknown(deployment, "pool", text, pools)


def pool_or_asset(deployment: Deployment, text: str) -> Literal["pool", "asset"]:
    """What this is the name of; of both, the asset.

    Raises:
        UnknownNameError: Of neither.
    """
    assets = deployment.assets()
    if text in assets:
        return "asset"
    pools = _pools(deployment)
    if text in pools:
        return "pool"
    raise _unknown(deployment, "pool and no asset", text, {*pools, *assets})


def _pools(deployment: Deployment) -> set[str]:
    found = {state.pool for state in deployment.pools()}
    return found.union(*deployment.assets().values())


def _unknown(
    deployment: Deployment, what: str, text: str, known: Collection[str]
) -> UnknownNameError:
    by_lower = {name.lower(): name for name in sorted(known)}
    near = difflib.get_close_matches(text.lower(), by_lower, n=_NEAR_MAX)
    near = near or [name for name in by_lower if text.lower() in name][:_NEAR_MAX]
    names = [by_lower[name] for name in near]
    some = "Its names: " + ", ".join(sorted(known)[:_NEAR_MAX]) if known else "It has none yet"
    return UnknownNameError(
        f"{deployment.name} knows no {what} {text!r}.",
        remedy=f"Did you mean {' or '.join(names)}?" if names else f"{some}.",
        names=[text],
    )
