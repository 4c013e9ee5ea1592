"""A proxy before an S3 server that behaves like servers without atomic conditional writes."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

CONDITIONS = ("if-match", "if-none-match")
DROPPED = (*CONDITIONS, "host", "connection", "expect", "transfer-encoding")
CHECK_S = 0.2


@contextmanager
def careless_s3(upstream: str, mode: Literal["ignores", "checks_first"]) -> Iterator[str]:
    """Endpoint of the proxy. `ignores`: conditions mean nothing. `checks_first`: they are looked at, and then,
    a moment later, the file is written whatever happened meanwhile."""  # fmt: skip
    target = urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if mode == "checks_first" and not self.condition_holds():
                self.reply(412, [], b"<Error><Code>PreconditionFailed</Code></Error>")
                return
            headers = {k: v for k, v in self.headers.items() if k.lower() not in DROPPED}
            self.reply(*ask(self.command, self.path, body, headers))

        def condition_holds(self) -> bool:
            wanted = self.headers.get("If-Match")
            if wanted is None and self.headers.get("If-None-Match") is None:
                return True
            status, headers, _ = ask("HEAD", self.path, b"", {})
            time.sleep(CHECK_S)
            if wanted is None:
                return status == 404
            return dict(headers).get("ETag", "").strip('"') == wanted.strip('"')

        def reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            kept = {k: v for k, v in headers if k.lower() not in ("connection", "transfer-encoding")}
            for name, value in ({"Content-Length": str(len(body))} | kept).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    def ask(method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(target, timeout=30)
        try:
            connection.request(method, path, body or None, headers)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
