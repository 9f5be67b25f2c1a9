"""A receiver of webhooks that remembers what it took."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """A server that remembers what it took. With another status it takes nothing. Whoever reads there gets that status,
    and what `tells` gives."""

    status: int = 200
    port: int = 0
    taken: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    refuses: str | None = None  # messages with this word in them
    tells: Callable[[], bytes] = bytes

    def __post_init__(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = 413 if receiver.refuses and receiver.refuses in json.dumps(body) else receiver.status
                if status == 200:
                    receiver.taken.append(body)
                    receiver.headers.append(dict(self.headers))
                self.send_response(status)
                self.end_headers()

            def do_GET(self) -> None:
                self.send_response(receiver.status)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(receiver.tells())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Stop; the port refuses connections then."""
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
