"""Body limits: bodies are bounded in size and time before anything reads them."""

import asyncio
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fraud_api.http.problems import Refused, response


@dataclass(frozen=True)
class BodyLimit:
    """The longest body, and how long it may take to arrive."""

    size: int
    seconds: float


class BodyLimits:
    """ASGI middleware: 413 for a body that is too long, 408 for one that takes too long.

    Args:
        limits: by path.
        default: for every other path.
    """

    def __init__(self, app: ASGIApp, limits: dict[str, BodyLimit], default: BodyLimit) -> None:
        self._app = app
        self._limits = limits
        self._default = default

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limits.get(scope["path"], self._default)
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > limit.size:
            await response(_too_long(limit), scope)(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + limit.seconds
        size, is_whole = 0, False

        async def limited() -> Message:
            nonlocal size, is_whole
            if is_whole:
                return await receive()  # who waits now, waits for the caller to hang up
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise Refused(
                    408, "body-too-slow", f"The body did not arrive within {limit.seconds:g} s; send it again.", headers=_CLOSE
                ) from None
            size += len(message.get("body", b""))
            if size > limit.size:
                raise _too_long(limit)
            is_whole = not message.get("more_body", False)
            return message

        await self._app(scope, limited, send)


_CLOSE = {"Connection": "close"}  # what is left of the body is not read


def _too_long(limit: BodyLimit) -> Refused:
    return Refused(413, "body-too-long", f"The body is longer than the {limit.size} bytes that are read here.", headers=_CLOSE)
