"""Access: which requests the server answers, and what browsers have to refuse.

A server on a loopback address needs no token: only users of this machine can reach it. It still
answers only to names of this machine, so that no page of another site can reach it through a name
of its own (DNS rebinding), and it changes nothing for a form that it did not serve itself.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse

from dagster_lifeguard.errors import ConfigError
from dagster_lifeguard.web.errors import RequestRefusedError
from dagster_lifeguard.web.visitors import Visitor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from dagster_lifeguard.web.visitors import Sessions

TOKEN_LENGTH_MIN = 16
"""A shorter token might be guessed."""

BODY_MAX = 64 * 1024
"""Bytes of a request; a form has less."""

ADDRESS_MAX = 8 * 1024
"""Characters of a path with its query."""

_SAFE = ("GET", "HEAD")
_OPEN = ("/healthz", "/login")
_FOR_PROGRAMS = ("/healthz", "/metrics", "/live")
_STATIC = "/static/"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Others are told nothing. With no-referrer, browsers would not say where a form comes from.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on this address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Access:
    """The rules for requests.

    Attributes:
        token: The token that a visitor needs; None if every user of this machine may ask.
        hosts: Names by which the server is reached, beside ``localhost``.
        any_ip: Whether it may also be reached by any address in numbers, which no other site can
            have as its name.
        port: On which it listens; it is part of the cookie's name, since cookies know no ports.
    """

    token: str | None
    hosts: frozenset[str]
    any_ip: bool
    port: int

    @classmethod
    def of(cls, host: str, port: int, token: str | None, names: tuple[str, ...] = ()) -> Access:
        """The rules for a server on this address.

        Raises:
            ConfigError: It needs a token, or a longer one.
        """
        if token is None and not is_loopback(host):
            raise ConfigError(
                f"A server on {host} needs a token.", remedy="Give one.", names=[host]
            )
        if token is not None and len(token) < TOKEN_LENGTH_MIN:
            raise ConfigError(
                f"The access token has {len(token)} characters.",
                remedy=f"Take one of at least {TOKEN_LENGTH_MIN}: openssl rand -hex 32",
            )
        known = frozenset(name.lower() for name in (host, *names))
        return cls(token, known, any_ip=not is_loopback(host), port=port)

    def knows_host(self, header: str) -> bool:
        """Whether a ``Host`` header names this server."""
        try:
            name = urlsplit(f"//{header}").hostname
        except ValueError:
            return False
        if name is None or any(c in header for c in "/\\@?# \t"):
            return False
        if name == "localhost" or name in self.hosts:
            return True
        try:
            found = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_ip or found.is_loopback


class Guard:
    """Refuses requests that the rules forbid, and adds to each answer what browsers have to refuse.

    Args:
        app: The guarded application.
        access: The rules for requests.
        sessions: Knows the visitors.
        tell: Makes the answer that says why a request is refused.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        sessions: Sessions,
        tell: Callable[[Request, RequestRefusedError], Awaitable[Response]],
    ) -> None:
        self._app = app
        self._access = access
        self._tell = tell
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        cookies: list[str] = []

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                if not scope["path"].startswith(_STATIC):
                    headers["Cache-Control"] = "no-store"
                for cookie in cookies:
                    headers.append("Set-Cookie", cookie)
            await send(message)

        bounded = _bounded(receive)
        request = Request(scope, bounded)
        request.state.visitor = Visitor("", "", "")
        answer: ASGIApp
        try:
            self._refuse_strangers(request)
            visitor = self._sessions.find(request)
            if not visitor.is_known and not self._sessions.needs_login:
                visitor, cookie = self._sessions.begin(visitor.who, secure=is_secure(request))
                # A link from elsewhere comes without the cookie, and must not replace it.
                if wants_html(request) and _site(request) != "cross-site":
                    cookies.append(cookie)
            request.state.visitor = visitor
            answer = self._app
            if not visitor.is_known and not _is_open(scope["path"]):
                answer = _to_login(request)
        except RequestRefusedError as error:
            answer = await self._tell(request, error)
        await answer(scope, bounded, send_guarded)

    def _refuse_strangers(self, request: Request) -> None:
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not self._access.knows_host(hosts[0]):
            raise RequestRefusedError(
                403,
                "The server is not known by this name.",
                remedy="Start it with --allow-host and the name by which it is reached.",
            )
        if not _is_from_here(request):
            raise RequestRefusedError(
                403,
                "The request comes from a page of another site.",
                remedy="Do it on a page of this server.",
            )
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > BODY_MAX:
            raise _too_long()
        if len(_path_and_query(request)) > ADDRESS_MAX:
            raise RequestRefusedError(414, "The address is too long.", remedy="Give less.")


def wants_html(request: Request) -> bool:
    """Whether a person looks at the answer, in a browser."""
    path = request.url.path
    if path.endswith((".json", ".csv")) or path in _FOR_PROGRAMS or path.startswith(_STATIC):
        return False
    accepted = request.headers.get("accept", "*/*")
    return "text/html" in accepted or "json" not in accepted


def is_secure(request: Request) -> bool:
    """Whether the browser came over HTTPS, as far as a proxy on this machine says."""
    return request.url.scheme == "https"


def _to_login(request: Request) -> Response:
    if not wants_html(request) or request.method != "GET":
        raise RequestRefusedError(
            401,
            "This server wants its token.",
            remedy="Send it as Authorization: Bearer TOKEN, or log in.",
        )
    here = quote(_path_and_query(request), safe="")
    return RedirectResponse(f"/login?next={here}", 303)


def own_address(text: str) -> str:
    """The address if it is on this server, or else the first page: no link leads elsewhere."""
    try:
        parts = urlsplit(text) if text.isprintable() and "\\" not in text else None
    except ValueError:  # Such as //[
        return "/"
    is_ours = parts is not None and not parts.scheme and not parts.netloc
    return text if is_ours and text.startswith("/") and not text.startswith("//") else "/"


def _path_and_query(request: Request) -> str:
    query = request.url.query
    return request.url.path + (f"?{query}" if query else "")


def _is_open(path: str) -> bool:
    return path in _OPEN or path.startswith(_STATIC)


def _is_from_here(request: Request) -> bool:
    """Whether a page of this server sent the request, or a person, or a program.

    From another site, only a link to a page is allowed, which changes nothing.
    """
    origin = request.headers.get("origin")
    if origin is not None:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        if is_secure(request) and parts.scheme != "https":
            return False
        return parts.netloc.lower() == request.headers["host"].lower()
    is_link = request.method in _SAFE and request.headers.get("sec-fetch-mode") == "navigate"
    return _site(request) in ("same-origin", "none") or is_link


def _site(request: Request) -> str:
    return request.headers.get("sec-fetch-site", "none")


def _too_long() -> RequestRefusedError:
    return RequestRefusedError(413, "The request is too long.", remedy="Send less.")


def _bounded(receive: Receive) -> Receive:
    """Refuse a request that is longer than ``BODY_MAX``, whatever its head says."""
    left = BODY_MAX

    async def bounded() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise _too_long()
        return message

    return bounded
