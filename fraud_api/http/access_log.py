"""Request logging: each request gets an id that returns to its caller, and a line in the log. Neither holds anything of it."""

import json
import logging
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

requests_log = logging.getLogger("fraud_api.requests")


@dataclass
class Draining:
    """Whether the server is on its way out: it still answers, and asks callers to open no further request on the connection."""

    active: bool = False


class RequestLog:
    """ASGI middleware around all others.

    A slash at a path's end changes nothing. A path that leads nowhere is not written down: callers put anything into paths.
    """

    def __init__(self, app: ASGIApp, draining: Draining, as_json: bool) -> None:
        self._app = app
        self._draining = draining
        self._as_json = as_json

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if path[-1:] == "/" and len(path) > 1:  # many clients do not send a body again where a redirect asks them to
            scope["path"] = path.rstrip("/") or "/"
        started = time.perf_counter()
        request_id = secrets.token_hex(8)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        status = 500

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
                if self._draining.active:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            route = scope.get("route")
            line = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "request": request_id,
                "method": scope["method"] if len(scope["method"]) <= 8 else "(other)",
                "route": getattr(route, "path", "(none)"),
                "status": status,
                "ms": round((time.perf_counter() - started) * 1e3, 3),
                "key": state.get("key_id"),
                "model": state.get("model_version"),
                "refused": state.get("refused"),
                "trace": state.get("trace_id"),
            }
            if self._as_json:
                requests_log.info(json.dumps(line))
            else:
                requests_log.info(" ".join(f"{name}={value}" for name, value in line.items() if value is not None))
