"""A server of objects that answers the few requests of S3 that conditional puts need, as S3 does."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from typing_extensions import Self

METADATA = "x-amz-meta-"


@dataclass(frozen=True)
class StoredObject:
    body: bytes
    metadata: dict[str, str]

    @property
    def e_tag(self) -> str:
        return f'"{hashlib.md5(self.body).hexdigest()}"'


class ObjectServer:
    """Serves, on a port of its own, for the length of a block.

    Attributes:
        objects: By path, bucket first.
    """

    def __init__(self) -> None:
        self.objects: dict[str, StoredObject] = {}
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def put(self, path: str, stored: StoredObject, if_match: str, if_none_match: str) -> int:
        """Put an object if the conditions hold: the status of the answer."""
        with self._lock:
            found = self.objects.get(path)
            if if_match and found is None:
                return 404
            if (if_match and found and found.e_tag != if_match) or (if_none_match and found):
                return 412
            self.objects[path] = stored
            return 200

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                found = server.objects.get(self.path)
                if found is None:
                    self.answer(404)
                else:
                    metadata = {METADATA + name: text for name, text in found.metadata.items()}
                    self.answer(200, found.body, {"ETag": found.e_tag, **metadata})

            def do_PUT(self) -> None:
                headers = {name.lower(): text for name, text in self.headers.items()}
                stored = StoredObject(
                    self.rfile.read(int(headers["content-length"])),
                    {
                        name[len(METADATA) :]: text
                        for name, text in headers.items()
                        if name.startswith(METADATA)
                    },
                )
                status = server.put(
                    self.path,
                    stored,
                    headers.get("if-match", ""),
                    headers.get("if-none-match", ""),
                )
                self.answer(status, headers={"ETag": stored.e_tag} if status == 200 else {})

            def answer(
                self, status: int, body: bytes = b"", headers: dict[str, str] | None = None
            ) -> None:
                self.send_response(status)
                for name, text in (headers or {}).items():
                    self.send_header(name, text)
                self.send_header("Last-Modified", formatdate(usegmt=True))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                """Say nothing."""

        return Handler

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()
