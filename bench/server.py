"""Serves one of the routes that are compared, at /v1/score with all that is around it: `server.py scoring|empty|bare PORT`.

scoring: the real one. empty: a FastAPI route as anybody writes it, with the same request and response models, that answers a
constant. bare: our own route, its reading and writing of JSON included, that answers a constant.
"""

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI

from fraud_api import app as application
from fraud_api.deciding import Deciding
from fraud_api.schemas import Score
from fraud_api.server import configure_logging, tune_interpreter
from fraud_core.settings import Settings
from fraud_core.transactions.transaction import EXAMPLE, Transaction

CONSTANT = Score(transaction_id=str(EXAMPLE["transaction_id"]), probability=0.5, decision="review", model_version="0" * 16)


def empty_route(app: FastAPI) -> None:
    """Put an empty route in the place of the scoring one."""
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") != "/v1/score"]

    @app.post("/v1/score")
    async def empty(transaction: Transaction, explain: bool = False) -> Score:
        return CONSTANT

    app.router.routes.insert(0, app.router.routes.pop())  # where the scoring route stands


def bare_route() -> None:
    """Let the scoring route answer a constant, without any waiting."""

    async def constant(*_: Any, **__: Any) -> Score:
        return CONSTANT

    Deciding.decide = constant  # type: ignore[method-assign]


def main(kind: str, port: int) -> None:
    """Serve on loopback."""
    settings = Settings()
    configure_logging(settings)
    if kind == "bare":
        bare_route()
    app = application.create_app(settings, asks_for_keys=True, on_start=lambda _: tune_interpreter())
    if kind == "empty":
        empty_route(app)
    uvicorn.run(app, host="127.0.0.1", port=port, log_config=None, access_log=False, server_header=False, ws="none")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
