"""A proxy that remembers who came to it: what would have left this machine."""

import socketserver
import threading
from typing import Any

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
# A folder's name of every character that somebody's parser takes for its own.
NAME = "[old] #1: 50%20, {a}? & 'b' \u00e4"


class Sink:
    """Takes connections, and answers none."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        taken = self.taken

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                taken.append(self.request.recv(200))

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.environment = dict.fromkeys(VARIABLES, f"http://127.0.0.1:{self._server.server_address[1]}")

    def __enter__(self) -> "Sink":
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()
