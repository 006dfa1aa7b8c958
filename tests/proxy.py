"""A proxy for a real MLflow server that delays or drops responses, or requires authorization."""

import http.client
import http.server
import ssl
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "host")


class Proxy:
    """Forwards every request to a server.

    Args:
        url: URL of the server.
        seconds: delay of each response.
        lose: suffixes of paths; for each, the first response is dropped after the server has sent it.
        authorization: value of the header that each request must have; empty for none.
        tls: context for HTTPS; None for HTTP.

    Attributes:
        url: URL of the proxy.
        seconds: delay of each response; may be changed.
        lost: suffixes for which a response was dropped.
        requests: number of requests by path.
    """

    def __init__(
        self,
        url: str,
        seconds: float = 0.0,
        lose: tuple[str, ...] = (),
        authorization: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.seconds, self._lose = seconds, list(lose)
        self.lost: list[str] = []
        self.requests: Counter[str] = Counter()
        target, proxy = urlsplit(url), self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if authorization and self.headers.get("Authorization") != authorization:
                    self.send_response(401)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                path = urlsplit(self.path).path
                proxy.requests[path] += 1
                server = http.client.HTTPConnection(target.hostname or "", target.port, timeout=600)
                headers = {key: value for key, value in self.headers.items() if key.lower() not in HOP_BY_HOP}
                server.request(self.command, self.path, content, headers)
                response = server.getresponse()
                body = response.read()
                time.sleep(proxy.seconds)
                for end in proxy._lose:
                    if path.endswith(end):
                        proxy._lose.remove(end)
                        proxy.lost.append(end)
                        self.close_connection = True  # drops the response
                        return
                self.send_response(response.status)
                for key, value in response.getheaders():
                    if key.lower() not in HOP_BY_HOP:
                        self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = forward

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
