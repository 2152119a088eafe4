"""One shape for everything that goes wrong, in HTML and in JSON."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from dagster_lifeguard.errors import DeploymentError, LifeguardError, UnknownNameError


@dataclass(frozen=True, slots=True)
class ErrorPage:
    """What went wrong.

    Attributes:
        status: Of HTTP.
        code: Stable identifier; see the reference of findings.
        message: What is wrong, in one line.
        remedy: What to do about it, in one line.
        names: The pools, assets or runs concerned.
    """

    status: int
    code: str
    message: str
    remedy: str
    names: tuple[str, ...] = ()


class RequestRefusedError(LifeguardError):
    """A request that the server refuses."""

    code = "request-refused"

    def __init__(self, status: int, message: str, *, remedy: str) -> None:
        super().__init__(message, remedy=remedy)
        self.status = status


def page_of(error: LifeguardError) -> ErrorPage:
    """The page of an error."""
    return ErrorPage(_status(error), error.code, error.message, error.remedy, error.names)


def page_of_status(status: int) -> ErrorPage:
    """The page of a status of HTTP, with HTTP's own reason."""
    known = HTTPStatus(status)
    remedy = (
        "Begin at the overview."
        if status < HTTPStatus.INTERNAL_SERVER_ERROR
        else ("The server's log says more.")
    )
    return ErrorPage(status, "-".join(known.phrase.lower().split()), f"{known.phrase}.", remedy)


def _status(error: LifeguardError) -> int:
    if isinstance(error, RequestRefusedError):
        return error.status
    if isinstance(error, UnknownNameError):
        return HTTPStatus.NOT_FOUND
    if isinstance(error, DeploymentError):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.BAD_REQUEST
