"""A proxy with TLS before a server, on this machine: what docs/operating/security.md asks for.

It takes one request a connection, keeps its `Host`, says in `X-Forwarded-Proto` and
`X-Forwarded-For` how and from where it came, and passes on what is answered as it comes.
"""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager, suppress
from http.client import parse_headers
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VISITOR = "192.0.2.7"
"""From where every request comes, as it tells."""

_ITS_OWN = ("connection", "x-forwarded-for", "x-forwarded-proto")


@contextmanager
def tls_before(url: str, name: str, folder: Path) -> Iterator[str]:
    """The address of a proxy before a server, by this name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(name, folder))
    upstream = urlsplit(url)
    opened: set[socket.socket] = set()

    class Passing(StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError), context.wrap_socket(self.request, server_side=True) as client:
                self.pass_on(client)

        def pass_on(self, client: ssl.SSLSocket) -> None:
            with client.makefile("rb") as request:
                line = request.readline()
                if not line:
                    return
                headers = parse_headers(request)
                kept = [item for item in headers.items() if item[0].lower() not in _ITS_OWN]
                kept += [("X-Forwarded-For", VISITOR), ("X-Forwarded-Proto", "https")]
                kept += [("Connection", "close")]
                head = "".join(f"{key}: {value}\r\n" for key, value in kept)
                body = request.read(int(headers.get("content-length", "0")))
            try:
                server = socket.create_connection((upstream.hostname, upstream.port))
            except OSError:
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                return
            with server:
                opened.add(server)
                server.sendall(line + head.encode("latin-1") + b"\r\n" + body)
                while answer := server.recv(65536):
                    client.sendall(answer)

    with ThreadingTCPServer(("127.0.0.1", 0), Passing) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        try:
            yield f"https://{name}:{proxy.server_address[1]}"
        finally:
            proxy.shutdown()
            thread.join()
            for server in opened:
                with suppress(OSError):
                    server.shutdown(socket.SHUT_RDWR)


def _certificate(name: str, folder: Path) -> Path:
    """A certificate that nobody has reason to trust, with its key."""
    if shutil.which("openssl") is None:
        pytest.fail(
            "The test of a proxy with TLS needs openssl. Install it: apt-get install openssl"
        )
    path = folder / "proxy.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
         "-keyout", str(path), "-out", str(path)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return path
