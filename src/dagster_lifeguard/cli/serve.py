"""``lifeguard serve``: a live web page of pools, and metrics."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from dagster_lifeguard.cli.duration_option import duration_option
from dagster_lifeguard.cli.file_changes import FILE_NAME
from dagster_lifeguard.cli.target import quiet_deployment_options
from dagster_lifeguard.deployment.endpoint import EndpointDeployment
from dagster_lifeguard.errors import ConfigError, DeploymentError, LifeguardError

if TYPE_CHECKING:
    from dagster_lifeguard.deployment.contract import Deployment

TOKEN_VARIABLE = "LIFEGUARD_WEB_TOKEN"  # noqa: S105 - the name of one, not a token


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=3080,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on. 0 takes a free one.",
)
@click.option(
    "--access-token-env",
    metavar="NAME",
    help="Environment variable with the token that visitors need. If --host is not 127.0.0.1 "
    f"and no token is set, the command makes one up and prints it.  [default: {TOKEN_VARIABLE}]",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Host name under which visitors reach the server, e.g. the name of a proxy. Repeatable.",
)
@click.option(
    "--dagster-url",
    metavar="URL",
    help="Address of the Dagster UI, for links to runs and assets.  [default: --url]",
)
@click.option(
    "--allow-changes",
    is_flag=True,
    help="Let visitors set and pause limits, and free slots. Without this they can only look.",
)
@click.option(
    "--change-log",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="With --allow-changes, write each change to this file: visitor, time, old and new value.",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Mark pools whose settings differ from this file.  "
    f"[default: {FILE_NAME}, if it is in the current folder]",
)
@duration_option(
    "--window", "24h", "How far back to look for waits, estimates and history, e.g. 30m, 24h, 7d."
)
@quiet_deployment_options
def serve_command(
    deployment: Deployment,
    host: str,
    port: int,
    access_token_env: str | None,
    hosts: tuple[str, ...],
    dagster_url: str | None,
    change_log: Path | None,
    config_path: Path | None,
    window: float,
    *,
    allow_changes: bool,
) -> None:
    """Show pools live in a browser, and serve metrics.

    The page shows holders, waiting steps and the reason they wait, and the last hours. It updates
    by itself. Add .json to the address of a page to get its data. /metrics is for Prometheus.

    \b
    Examples:
      lifeguard serve
      lifeguard serve --allow-changes --dagster-url http://localhost:3000
      lifeguard serve --url https://my-org.dagster.cloud/prod
      lifeguard serve --host 0.0.0.0 --allow-host pools.example.com

    Exit codes: 0 ended with Ctrl-C, 2 usage error.
    """
    try:
        from dagster_lifeguard.web.app import Serving, make_app  # noqa: PLC0415 - an extra
        from dagster_lifeguard.web.security import Access, is_loopback  # noqa: PLC0415
        from dagster_lifeguard.web.serving import listen, make_server  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise LifeguardError(
            f"The web page needs {error.name}, which is not installed.",
            remedy="Run: pip install 'dagster-lifeguard[web]'",
        ) from error
    token = _access_token(access_token_env)
    made_up = token is None and not is_loopback(host)
    if made_up:
        token = secrets.token_urlsafe(24)
    if dagster_url is None and isinstance(deployment, EndpointDeployment):
        dagster_url = deployment.name
    with listen(host, port) as listener:
        port = listener.getsockname()[1]
        serving = Serving(
            access=Access.of(host, port, token, (*hosts, *_own_names(host))),
            window=window,
            dagster_url=_checked(dagster_url),
            allow_changes=allow_changes,
            change_log=change_log,
            file=_declaring(config_path),
        )
        app = make_app(deployment, serving)
        shown = f"[{host}]" if ":" in host else host
        click.echo(f"Serving {deployment.name} on http://{shown}:{port}/", err=True)
        if made_up:
            click.echo(f"Access token: {token}", err=True)
        _log_to_stderr()
        make_server(app).run([listener])


def _declaring(config_path: Path | None) -> Path | None:
    """The file to compare with; None for none.

    Raises:
        ConfigError: The file that was named cannot be read, or is wrong.
    """
    if config_path is None:
        usual = Path(FILE_NAME)
        return usual.absolute() if usual.is_file() else None
    from dagster_lifeguard.policy.config import Config  # noqa: PLC0415 - slow

    Config.from_yaml(config_path)
    return config_path.absolute()


def _log_to_stderr() -> None:
    """Tell there what the server logs: changes, logins, trouble."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("dagster_lifeguard.web")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.propagate = False


def _access_token(variable: str | None) -> str | None:
    if variable is None:
        return os.getenv(TOKEN_VARIABLE) or None
    token = os.getenv(variable)
    if not token:
        raise click.UsageError(f"--access-token-env names {variable}, which is not set.")
    return token


def _own_names(host: str) -> tuple[str, ...]:
    """Names of this machine, by which a server that listens on all addresses is reached."""
    return (socket.gethostname(), socket.getfqdn()) if host in ("0.0.0.0", "::") else ()  # noqa: S104


def _checked(url: str | None) -> str | None:
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DeploymentError(
            f"{url!r} is no address of the Dagster UI.",
            remedy="Give one such as http://localhost:3000.",
            names=[url],
        )
    if parts.username is not None or parts.password is not None:
        plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        raise ConfigError(
            "The address of the Dagster UI has a name or a password in it, which every visitor of "
            "the page would see.",
            remedy=f"Give it without: --dagster-url {plain}",
        )
    return url.rstrip("/")
