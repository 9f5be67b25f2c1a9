"""A way to an S3 server that a test can make slow, or break at a request of its choice."""

import http.client
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

# pass: as if the way were not there. refuse: the connection ends at once. cut: the server gets half of the body, the client no
# answer. lose: the server gets all of it, the client no answer.
Fate = Literal["pass", "refuse", "cut", "lose"]


@dataclass(frozen=True)
class Asked:
    """A request as it came in, and what the server answered (None: it was not asked, or nobody heard)."""

    method: str
    path: str
    status: int | None


class S3Proxy:
    """Passes every request on to the server at `port`, after `delay` seconds, unless its fate is another."""

    def __init__(self, port: int) -> None:
        self.delay = 0.0
        self.fate: Callable[[str, str], Fate] = lambda method, path: "pass"
        self.asked: list[Asked] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _take(self) -> None:
                proxy._take(self, port)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _take  # noqa: N815 - as http.server names them

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let go of the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _take(self, request: BaseHTTPRequestHandler, port: int) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        time.sleep(self.delay)
        fate = self.fate(request.command, request.path)
        if fate == "refuse":
            self._end(request)
            return
        server = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            server.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name.lower() not in {"expect", "connection"}:
                    server.putheader(name, value)
            server.endheaders(body[: len(body) // 2] if fate == "cut" else body)
            if fate == "cut":
                self._end(request)
                return
            answer = server.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):  # the server is gone
            self._end(request)
            return
        finally:
            server.close()
        if fate == "lose":
            self._end(request)
            return
        self.asked.append(Asked(request.command, request.path, answer.status))
        request.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in {"connection", "content-length", "transfer-encoding"} or request.command == "HEAD":
                request.send_header(name, value)
        if request.command != "HEAD":
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if answer.status not in {204, 304}:
            request.wfile.write(content)

    def _end(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(Asked(request.command, request.path, None))
        request.close_connection = True
        request.connection.shutdown(socket.SHUT_RDWR)
