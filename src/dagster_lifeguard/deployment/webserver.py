"""GraphQL over HTTP: asking a webserver, and telling what is wrong when it does not answer."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Literal

import httpx

from dagster_lifeguard.deployment.graphql import document
from dagster_lifeguard.errors import DeploymentError, first_line

if TYPE_CHECKING:
    from collections.abc import Mapping

TokenKind = Literal["dagster-cloud", "bearer"]

CLOUD_HOSTS = (".dagster.cloud", ".dagster.plus")
"""Hosts of Dagster+, which takes a token in a header of its own."""

_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_TRIES = 3
_PAUSE_SECONDS = 0.5
_BUSY = (502, 503, 504)
_USER = re.compile(r"//[^/?#]*@")
_ERROR_FOR_TRUE = "GraphenePythonError"
"""In what Dagster answers when something fails that is to be answered with true."""

_UNKNOWN_FIELD = ("Cannot query field", "Unknown argument", "Unknown type")


def is_dagster_plus(url: str) -> bool:
    """Whether this is an address of Dagster+, where its token may be sent."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parsed.scheme == "https" and parsed.host.endswith(CLOUD_HOSTS)


class Webserver:
    """The GraphQL of one webserver.

    The certificate is verified. A redirect is not followed, so that a token goes nowhere else.

    Args:
        url: Its address, with or without ``/graphql``.
        token: Sent with each question; None for none.
        token_kind: How; None: as Dagster+ wants it for its hosts, and else as bearer.

    Raises:
        DeploymentError: That is no address.
    """

    def __init__(
        self, url: str, token: str | None = None, token_kind: TokenKind | None = None
    ) -> None:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise _no_address(url) from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise _no_address(url)
        path = parsed.path.rstrip("/").removesuffix("/graphql")
        self.name = str(parsed.copy_with(username=None, password=None, path=path, query=None))
        """The address, without secrets."""
        self._address = f"{parsed.copy_with(path=path, query=None)}/graphql"
        self._has_token = token is not None
        kind = token_kind or ("dagster-cloud" if parsed.host.endswith(CLOUD_HOSTS) else "bearer")
        if token is not None and kind == "bearer" and parsed.userinfo:
            raise DeploymentError(
                f"{self.name} is given a user in its address and a token, and takes one of them.",
                remedy="Leave out the user, or the token (LIFEGUARD_TOKEN, --token-env).",
                names=[self.name],
            )
        headers = {"User-Agent": "dagster-lifeguard"}
        if token is not None and kind == "dagster-cloud":
            headers["Dagster-Cloud-Api-Token"] = token
        elif token is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            self._client = httpx.Client(headers=headers, timeout=_TIMEOUT, follow_redirects=False)
        except UnicodeEncodeError as error:
            raise DeploymentError(
                "The token has characters that no token has.",
                remedy="Check the environment variable that holds it.",
            ) from error

    def ask(self, name: str, **variables: object) -> dict[str, Any]:
        """The answer to a question; asked again when the connection or a proxy fails."""
        for trial in range(_TRIES):
            try:
                response = self._post(name, variables)
            except httpx.RequestError as error:
                if trial == _TRIES - 1:
                    raise self._unreachable(error) from error
            else:
                if response.status_code not in _BUSY or trial == _TRIES - 1:
                    return self._read(response)
            time.sleep(_PAUSE_SECONDS * 2**trial)
        raise AssertionError("unreachable")

    def change(self, name: str, **variables: object) -> dict[str, Any]:
        """Do something, once: a lost answer leaves open whether it was done."""
        try:
            response = self._post(name, variables)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._unreachable(error) from error
        except httpx.RequestError as error:
            raise self._in_doubt(_cause(error)) from error
        if response.status_code in _BUSY:  # A proxy that gave up, whatever the webserver did.
            raise self._in_doubt(f"HTTP {response.status_code}")
        return self._read(response)

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def _post(self, name: str, variables: Mapping[str, object]) -> httpx.Response:
        content = {"query": document(name), "variables": variables}
        return self._client.post(self._address, json=content)

    def _read(self, response: httpx.Response) -> dict[str, Any]:
        code = response.status_code
        if code in (401, 403):
            said = "refuses the token" if self._has_token else "wants a token"
            raise self._error(
                f"{said} (HTTP {code})",
                "Put a token that is valid for this deployment into LIFEGUARD_TOKEN, or name its "
                "variable with --token-env.",
            )
        if response.is_redirect:
            raise self._error(
                f"redirects to {response.headers.get('location')} (HTTP {code})",
                "Give that address, or, if it is a page to log in, a token.",
            )
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or not answer.keys() & {"data", "errors"}:
            kind = response.headers.get("content-type", "nothing").partition(";")[0]
            raise self._error(
                f"does not speak Dagster's GraphQL: HTTP {code}, {kind}",
                "Give the address of the webserver as a browser shows it, without a page's path; "
                "for Dagster+ with the deployment, such as https://my-org.dagster.cloud/prod.",
            )
        if answer.get("errors"):
            raise self._failure([str(e.get("message", e)) for e in answer["errors"]])
        found: dict[str, Any] = answer.get("data") or {}
        if not found:
            raise self._failure(["no data"])
        for value in found.values():
            if isinstance(value, dict) and value.get("__typename") == "PythonError":
                raise self._failure([value["message"]])
        return found

    def _failure(self, messages: list[str]) -> DeploymentError:
        text = " ".join(messages[0].split())
        if _ERROR_FOR_TRUE in text:
            return self._error("failed while it did this", "The webserver's log says why.")
        if any(mark in text for mark in _UNKNOWN_FIELD):
            return self._error(
                f"runs a Dagster that is too old, or too new, for this: {text}",
                "Dagster 1.10 to 1.13 are supported.",
            )
        return self._error(f"answers with an error: {text}", "The webserver's log says more.")

    def _in_doubt(self, cause: str) -> DeploymentError:
        return DeploymentError(
            f"{self.name} did not answer: {cause}. It may have been done all the same.",
            remedy="Look what is there now, and do it again if need be.",
            names=[self.name],
        )

    def _unreachable(self, error: httpx.RequestError) -> DeploymentError:
        return self._error(
            f"cannot be reached: {_cause(error)}", "Check the address, and that the webserver runs."
        )

    def _error(self, what: str, remedy: str) -> DeploymentError:
        return DeploymentError(f"{self.name} {what}.", remedy=remedy, names=[self.name])


def _cause(error: Exception) -> str:
    return first_line(error) if str(error) else type(error).__name__


def _no_address(url: str) -> DeploymentError:
    told = _USER.sub("//", url)  # It may hold a password.
    return DeploymentError(
        f"{told!r} is no address of a webserver.",
        remedy="Give one such as http://localhost:3000 or https://my-org.dagster.cloud/prod.",
        names=[told],
    )
