"""An application in this process, called without a network."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fraud_api.app import create_app


class Caller:
    """Calls an application; a context manager around its lifespan."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.runner = asyncio.Runner()

    def __enter__(self) -> "Caller":
        self._life = self.app.router.lifespan_context(self.app)
        self.runner.run(self._enter())
        return self

    async def _enter(self) -> None:
        await self._life.__aenter__()
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://test")

    def __exit__(self, *_: object) -> None:
        async def leave() -> None:
            await self.http.aclose()
            await self._life.__aexit__(None, None, None)

        self.runner.run(leave())
        self.runner.close()

    def get(self, path: str, **content: Any) -> httpx.Response:
        return self.runner.run(self.http.get(path, **content))

    def post(self, path: str, **content: Any) -> httpx.Response:
        return self.runner.run(self.http.post(path, **content))


CallerOf = Callable[..., Caller]


@pytest.fixture
def call() -> Iterator[CallerOf]:
    """Settings -> a caller of their application, ended with the test."""
    with ExitStack() as stack:
        yield lambda settings, asks_for_keys=False, **options: stack.enter_context(
            Caller(create_app(settings, asks_for_keys=asks_for_keys, **options))
        )
