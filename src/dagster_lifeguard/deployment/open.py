"""Opening the deployment that a user means: an address, or else the instance in DAGSTER_HOME."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from dagster_lifeguard.deployment.endpoint import EndpointDeployment
from dagster_lifeguard.deployment.home import home_folder, home_problem
from dagster_lifeguard.deployment.instance import InstanceDeployment
from dagster_lifeguard.deployment.webserver import Webserver
from dagster_lifeguard.errors import DeploymentError, LifeguardError, first_line
from dagster_lifeguard.storage.halves import refuse_half

if TYPE_CHECKING:
    from dagster_lifeguard.deployment.contract import Deployment
    from dagster_lifeguard.deployment.webserver import TokenKind

_CAUSES_MAX = 10


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
    problem = home_problem(home)
    if problem is not None:
        raise DeploymentError(
            f"{problem}.",
            remedy="Set it to the instance's directory, such as /opt/dagster/home.",
            names=[home],
        )
    folder = str(home_folder(home))
    return InstanceDeployment(instance_in(folder), folder)


def instance_in(home: str) -> dg.DagsterInstance:
    """Open the instance in a directory.

    Raises:
        DeploymentError: Dagster cannot open it.
        ConfigError: Of its storages, some are the engine's and some are not.
    """
    try:
        instance = dg.DagsterInstance.from_config(home)
    except LifeguardError:
        raise
    except Exception as error:
        raise unopened(error, home) from error
    refuse_half(instance)
    return instance


_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.ENOENT, errno.ENOTDIR)
_SQLITE_UNWRITABLE = ("readonly database", "unable to open database file")


def unopened(error: Exception, home: str) -> DeploymentError:
    """The error for an instance that Dagster cannot open: what is wrong, and what mends it."""
    chain = [error]
    while len(chain) < _CAUSES_MAX and isinstance(chain[-1].__cause__, Exception):
        chain.append(chain[-1].__cause__)
    told = ": ".join(dict.fromkeys(map(first_line, (chain[0], *chain[1:2]))))
    remedy = f"Correct {Path(home) / 'dagster.yaml'}; dagster instance info says the same."
    for cause in chain:
        is_file = isinstance(cause, OSError) and cause.errno in _UNWRITABLE and cause.filename
        if is_file or any(text in str(cause) for text in _SQLITE_UNWRITABLE):
            place = home
            if isinstance(cause, OSError) and is_file:
                place = str(cause.filename)
                told = f"{place}: {cause.strerror}"
            remedy = (
                f"Dagster has to write {place}: run this as a user who may, or name another "
                "directory where dagster.yaml or DAGSTER_HOME names this one."
            )
    if isinstance(error, ModuleNotFoundError) and error.name == "psycopg":
        remedy = (
            "SQLAlchemy 2.1 and later look for psycopg 3 behind postgresql://, which "
            "dagster-postgres does not bring. Write postgresql+psycopg2:// in postgres_url, "
            "or scheme: postgresql+psycopg2 under postgres_db."
        )
    return DeploymentError(
        f"The instance in {home} cannot be opened: {told}.", remedy=remedy, names=[home]
    )
