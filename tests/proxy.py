"""A proxy in front of a real MLflow server: it is slow, or loses answers to requests carried out."""

import http.client
import http.server
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "host")


class Proxy:
    """Forwards every request.

    Args:
        url: of the server.
        seconds: that each answer is held back.
        lose: ends of paths; the first answer to each of them is lost after the server has given it.
    """

    def __init__(self, url: str, seconds: float = 0.0, lose: tuple[str, ...] = ()) -> None:
        self.seconds, self._left = seconds, list(lose)
        self.lost: list[str] = []
        self.asked: Counter[str] = Counter()
        there, proxy = urlsplit(url), self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path = urlsplit(self.path).path
                proxy.asked[path] += 1
                server = http.client.HTTPConnection(there.hostname or "", there.port, timeout=600)
                headers = {key: value for key, value in self.headers.items() if key.lower() not in HOP_BY_HOP}
                server.request(self.command, self.path, content, headers)
                answer = server.getresponse()
                body = answer.read()
                time.sleep(proxy.seconds)
                for end in proxy._left:
                    if path.endswith(end):
                        proxy._left.remove(end)
                        proxy.lost.append(end)
                        self.close_connection = True  # nothing is answered
                        return
                self.send_response(answer.status)
                for key, value in answer.getheaders():
                    if key.lower() not in HOP_BY_HOP:
                        self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
