"""Visitors: a browser, known by its cookie, or a program, known by the token in its request."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_lifeguard.web.errors import RequestRefusedError
from dagster_lifeguard.web.guesses import Guesses

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection, Request

SESSION_SECONDS = 7 * 86400
"""How long a login lasts."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """The sender of a request.

    Attributes:
        session: The same for all requests of one browser; empty for any other sender.
        csrf: What its forms send back.
        who: Its name in the account of changes: an address, and a mark of the session.
        is_program: Whether the request itself carries the token, which no other site can make a
            browser do.
    """

    session: str
    csrf: str
    who: str
    is_program: bool = False

    @property
    def is_known(self) -> bool:
        """Whether the visitor may see pages."""
        return bool(self.session) or self.is_program


def address_of_client(connection: HTTPConnection) -> str:
    """The address of the sender."""
    return connection.client.host if connection.client else "?"


def visitor_of(connection: HTTPConnection) -> Visitor:
    """The visitor, as the guard found out."""
    found: Visitor = connection.state.visitor
    return found


def refuse_forged(visitor: Visitor, sent: object) -> None:
    """Refuse a form that was not served to this visitor.

    Raises:
        RequestRefusedError: It was not.
    """
    if visitor.is_program:
        return
    if isinstance(sent, str) and visitor.csrf and _same(visitor.csrf, sent):
        return
    raise RequestRefusedError(
        403,
        "This form is not from this session.",
        remedy="Load its page again, and do it there: the server may have been started anew.",
    )


class Sessions:
    """Recognizes browsers. A cookie is signed, by the token if there is one.

    So a login outlives a restart of the server as long as the token is the same. Ended sessions
    are in memory only.

    Args:
        token: The access token; None if every visitor may ask.
        port: The port of the server: browsers send a cookie to all ports of a host.
    """

    def __init__(self, token: str | None, port: int) -> None:
        self._token = token
        self._cookie = f"lifeguard-{port}"
        seed = secrets.token_bytes(32) if token is None else token.encode()
        self._guesses = Guesses()
        self._ended: dict[str, float] = {}
        self._key = hashlib.sha256(b"lifeguard session\0" + seed).digest()

    @property
    def needs_login(self) -> bool:
        """Whether a visitor needs the token."""
        return self._token is not None

    def accepts(self, token: str, address: str) -> bool:
        """Whether this is the token. A wrong token makes its address wait.

        Raises:
            RequestRefusedError: Too many wrong tokens came from the address just now.
        """
        self._guesses.refuse_hasty(address)
        is_right = self._token is not None and _same(self._token, token)
        if is_right:
            self._guesses.forget(address)
        else:
            self._guesses.add(address)
        return is_right

    def find(self, request: Request) -> Visitor:
        """The visitor; unknown without a cookie and without a token.

        Raises:
            RequestRefusedError: The token is wrong.
        """
        address = address_of_client(request)
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            if not self.accepts(shown.strip(), address):
                raise RequestRefusedError(
                    401, "That is not the token of this server.", remedy="Send the right one."
                )
            return Visitor("", "", f"{address} (bearer)", is_program=True)
        session = self._read(request.cookies.get(self._cookie, ""))
        if session is None or session in self._ended:
            return Visitor("", "", address)
        return self._known(session, address)

    def is_open(self, visitor: Visitor) -> bool:
        """Whether a visitor that was known has not logged out since."""
        return visitor.session not in self._ended

    def begin(self, address: str, *, secure: bool) -> tuple[Visitor, str]:
        """A new session, and its ``Set-Cookie`` for the browser."""
        session = secrets.token_urlsafe(18)
        text = f"{session}.{int(time.time())}"
        return self._known(session, address), self._set_cookie(
            f"{text}.{self._sign('session', text)}", SESSION_SECONDS, secure=secure
        )

    def end(self, visitor: Visitor, *, secure: bool) -> str:
        """End a session, also for copies of its cookie, and return the cookie that deletes it."""
        now = time.time()
        self._ended = {s: at for s, at in self._ended.items() if now - at < SESSION_SECONDS}
        if visitor.session:
            self._ended[visitor.session] = now
        return self._set_cookie("", 0, secure=secure)

    def _set_cookie(self, value: str, seconds: int, *, secure: bool) -> str:
        end = "; Secure" if secure else ""
        return f"{self._cookie}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{end}"

    def _known(self, session: str, address: str) -> Visitor:
        mark = hashlib.sha256(session.encode()).hexdigest()[:6]
        return Visitor(session, self._sign("form", session), f"{address} (session {mark})")

    def _read(self, cookie: str) -> str | None:
        text, _, signature = cookie.rpartition(".")
        session, _, begun = text.partition(".")
        if not _same(self._sign("session", text), signature) or not begun.isdecimal():
            return None
        return session if time.time() - int(begun) < SESSION_SECONDS else None

    def _sign(self, purpose: str, text: str) -> str:
        message = f"{purpose}\0{text}".encode(errors="surrogatepass")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(
        one.encode(errors="surrogatepass"), other.encode(errors="surrogatepass")
    )
