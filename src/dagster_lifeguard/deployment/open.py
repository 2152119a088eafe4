"""Opening the deployment that a user means: an address, or else the instance in DAGSTER_HOME."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from dagster_lifeguard.deployment.endpoint import EndpointDeployment
from dagster_lifeguard.deployment.instance import InstanceDeployment
from dagster_lifeguard.deployment.webserver import Webserver
from dagster_lifeguard.errors import DeploymentError, LifeguardError, first_line

if TYPE_CHECKING:
    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.deployment.webserver import TokenKind


def open_deployment(
    url: str | None = None, token: str | None = None, token_kind: TokenKind | None = None
) -> Deployment:
    """Open a deployment.

    Args:
        url: Address of its webserver; None for the instance in DAGSTER_HOME.
        token: For the address.
        token_kind: How to send it; None: as the host wants it.

    Raises:
        DeploymentError: There is none, or it cannot be opened.
    """
    if url is not None:
        return EndpointDeployment(Webserver(url, token, token_kind))
    return open_instance()


def open_instance() -> InstanceDeployment:
    """Open the instance in DAGSTER_HOME.

    Raises:
        DeploymentError: There is none, or Dagster cannot open it.
    """
    home = os.getenv("DAGSTER_HOME")
    if not home:
        raise DeploymentError(
            "No deployment is named: neither --url nor DAGSTER_HOME is set.",
            remedy="Set DAGSTER_HOME to the instance's directory, or give the webserver's address "
            "with --url.",
        )
    if not Path(home).is_absolute() or not Path(home).is_dir():
        raise DeploymentError(
            f"DAGSTER_HOME is {home}, which is not an absolute path to a directory.",
            remedy="Set it to the instance's directory, such as /opt/dagster/home.",
            names=[home],
        )
    return InstanceDeployment(instance_in(home), home)


def instance_in(home: str) -> dg.DagsterInstance:
    """Open the instance in a directory.

    Raises:
        DeploymentError: Dagster cannot open it.
    """
    try:
        return dg.DagsterInstance.from_config(home)
    except LifeguardError:
        raise
    except Exception as error:
        cause = f": {first_line(error.__cause__)}" if error.__cause__ else ""
        remedy = f"Mend {Path(home) / 'dagster.yaml'}; dagster instance info says the same."
        if isinstance(error, ModuleNotFoundError) and error.name == "psycopg":
            remedy = (
                "SQLAlchemy 2.1 and later look for psycopg 3 behind postgresql://, which "
                "dagster-postgres does not bring. Write postgresql+psycopg2:// in postgres_url, "
                "or scheme: postgresql+psycopg2 under postgres_db."
            )
        raise DeploymentError(
            f"The instance in {home} cannot be opened: {first_line(error)}{cause}.",
            remedy=remedy,
            names=[home],
        ) from error
