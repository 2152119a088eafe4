"""The options by which a command is told its deployment."""

from __future__ import annotations

import functools
import gc
import os
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import click

from dagster_lifeguard.cli.watched_deployment import with_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dagster_lifeguard.deployment.webserver import TokenKind

OWN_VARIABLE = "LIFEGUARD_TOKEN"
"""Where a token is looked for unless ``--token-env`` names another variable."""

_COLLECT_AFTER = (100_000, 50, 100)

PLUS_VARIABLE = "DAGSTER_CLOUD_API_TOKEN"
"""Where it is looked for next, but only for an address of Dagster+: it is for nobody else."""


def target_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--url`` and ``--token-env``, and hand it what ``open_deployment`` takes."""

    @click.option(
        "--url",
        envvar="LIFEGUARD_URL",
        show_envvar=True,
        help="Address of the deployment's webserver, e.g. http://localhost:3000 or "
        "https://my-org.dagster.cloud/prod.  [default: the instance in DAGSTER_HOME]",
    )
    @click.option(
        "--token-env",
        metavar="NAME",
        help="Environment variable with the token for --url.  "
        f"[default: {OWN_VARIABLE}, or for Dagster+ {PLUS_VARIABLE}]",
    )
    @click.option(
        "--token-kind",
        type=click.Choice(["dagster-cloud", "bearer"]),
        help="How to send the token.  [default: dagster-cloud to Dagster+, else bearer]",
    )
    @functools.wraps(command)
    def with_target(*args: Any, url: str | None, token_env: str | None, **kwargs: Any) -> None:
        with _seldom_collecting():
            command(*args, url=url, token=_token(token_env, url), **kwargs)

    return with_target


def deployment_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a deployment, and hand it an open ``deployment``."""
    return _with_deployment(command, tells_progress=True)


def quiet_deployment_options(command: Callable[..., None]) -> Callable[..., None]:
    """The same for a command that reads again and again, or shows its progress itself."""
    return _with_deployment(command, tells_progress=False)


def _with_deployment(command: Callable[..., None], *, tells_progress: bool) -> Callable[..., None]:
    @target_options
    @functools.wraps(command)
    def with_deployment(
        *args: Any,
        url: str | None,
        token: str | None,
        token_kind: TokenKind | None,
        **kwargs: Any,
    ) -> None:
        from dagster_lifeguard.deployment.open import open_deployment  # noqa: PLC0415 - slow

        with closing(open_deployment(url, token, token_kind)) as deployment:
            if tells_progress and not (kwargs.get("as_json") or kwargs.get("watch")):
                deployment = with_progress(deployment)  # noqa: PLW2901 - the same, watched
            command(*args, deployment=deployment, **kwargs)

    return with_deployment


@contextmanager
def _seldom_collecting() -> Iterator[None]:
    """Let Python look for garbage seldom until the end of the block.

    Tens of thousands of runs and tickets are read and kept, and nothing of it is garbage: to look
    through it again and again takes a third of the time.
    """
    before = gc.get_threshold()
    gc.set_threshold(*_COLLECT_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _token(variable: str | None, url: str | None) -> str | None:
    if url is None and variable is None:
        return None
    if variable is None:
        from dagster_lifeguard.deployment.webserver import is_dagster_plus  # noqa: PLC0415 - slow

        own = os.getenv(OWN_VARIABLE)
        return own or (os.getenv(PLUS_VARIABLE) if is_dagster_plus(url or "") else None)
    token = os.getenv(variable)
    if not token:
        raise click.UsageError(f"--token-env names {variable}, which is not set.")
    return token
