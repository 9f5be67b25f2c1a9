"""The FastAPI application: middleware, endpoints and background work, put together."""

import logging
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy import Engine
from starlette.exceptions import HTTPException

from fraud_api.deciding import Deciding
from fraud_api.endpoints import files, labels, models, openapi, operations, score
from fraud_api.endpoints.operations import METRICS
from fraud_api.http import pages
from fraud_api.http.access_log import Draining, RequestLog
from fraud_api.http.bodies import BodyLimit, BodyLimits
from fraud_api.http.problems import Refused, invalid, response
from fraud_api.http.rates import SharedRate
from fraud_api.http.security import OPEN_PATHS, Guard, OwnPagesOnly
from fraud_api.metrics.registry import Metrics
from fraud_api.metrics.workers import join_registry, shared_folder
from fraud_api.newer import NewerChampion
from fraud_api.services import Services
from fraud_api.uploads import Uploads
from fraud_core.access.api_keys import ApiKeys, KeyRing
from fraud_core.decisions.log import DecisionLog
from fraud_core.decisions.writer import open_decision_writer
from fraud_core.features.windows import Reach
from fraud_core.history.lookup import HistoryLookup
from fraud_core.history.open import open_history
from fraud_core.history.writer import open_history_writer
from fraud_core.labels.log import LabelLog
from fraud_core.models.follower import ModelFollower
from fraud_core.settings import Settings
from fraud_core.signing.keys import card_key, signing_key
from fraud_core.sources.money import RateTable
from fraud_core.storage.database import open_database
from fraud_core.storage.heads import Heads
from fraud_core.storage.open import open_store
from fraud_core.transactions.refusals import field_problems
from fraud_core.transactions.transaction import Transaction

if TYPE_CHECKING:
    from fraud_api.http.traces import Traces

logger = logging.getLogger(__name__)

ENDPOINTS = (score, files, labels, models, operations)  # in the order of the OpenAPI document
WIDE_REACH = Reach.of_days(90, 180)  # before the first champion says how far back it looks, nothing it may need is removed


def create_app(
    settings: Settings,
    *,
    asks_for_keys: bool,
    hosts: Collection[str] | None = None,
    on_start: Callable[[Draining], None] = lambda _: None,
) -> FastAPI:
    """The scoring API.

    Args:
        settings: all of it.
        asks_for_keys: whether callers must show an API key (see `security.must_show_key`).
        hosts: names of this server beside those of loopback, where no key is asked; None: every name is taken.
        on_start: called in the server's event loop before the first request.
    """
    store = open_store(settings.store_url, settings.home / "cache")
    key = signing_key(settings)
    metrics = Metrics(store, key)
    engine = open_database(settings)
    follower = ModelFollower(store, key, metrics.follow, Heads(engine, store.url), RateTable.of(settings))
    services = _services(settings, follower, metrics, engine)
    ring = KeyRing(ApiKeys.of(settings, engine)) if asks_for_keys else None
    own_door = settings.metrics_port != 0
    traces = _traces(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        follower.start(settings.poll_seconds)
        if ring is not None:
            ring.start()
        close_door = join_registry(settings, metrics.registry) if own_door and shared_folder() is None else lambda: None
        on_start(services.draining)
        yield
        close_door()
        follower.stop()
        if ring is not None:
            ring.stop()
        services.close()
        metrics.settle()
        if traces is not None:
            traces.close()

    app = FastAPI(
        title="Fraud scoring",
        version="1",
        description="A fraud probability and a decision for card payments, by the newest champion.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own load their scripts from elsewhere; see pages.py
        redoc_url=None,
    )
    app.state.services = services
    routes = [route for part in (*ENDPOINTS, pages) for route in part.router.routes]
    app.router.routes += [route for route in routes if not (own_door and getattr(route, "path", "") == METRICS)]
    app.openapi = _documented(app, services, asks_for_keys=asks_for_keys)  # type: ignore[method-assign]
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_parameters)
    app.add_exception_handler(Exception, unexpected_error)

    # What is added last stands outermost.
    app.add_middleware(
        BodyLimits, limits=_limits(settings), default=BodyLimit(settings.api_body_bytes, settings.api_body_seconds)
    )
    if ring is not None:
        rate = SharedRate(settings.home / "run" / "rates", settings.api_rate, settings.api_rate_burst)
        open_paths = OPEN_PATHS | {METRICS} if settings.metrics_access == "open" else OPEN_PATHS
        app.add_middleware(Guard, ring=ring, rate=rate, open_paths=open_paths)
    else:
        app.add_middleware(OwnPagesOnly, hosts=hosts)
    services.metrics.instrument(app)
    if traces is not None:
        traces.trace(app)
    app.add_middleware(RequestLog, draining=services.draining, as_json=settings.log_format == "json")
    return app


def _traces(settings: Settings) -> "Traces | None":
    if not settings.traces_url:
        return None
    from fraud_api.http.traces import Traces  # noqa: PLC0415 - a scorer without traces does without OpenTelemetry

    return Traces(settings.traces_url)


def _services(settings: Settings, follower: ModelFollower, metrics: Metrics, engine: Engine) -> Services:
    history = open_history(settings, WIDE_REACH)
    lookup = HistoryLookup(history, card_key(settings))
    hasty = open_database(settings, settings.decision_log_timeout)
    log = DecisionLog(hasty, settings.decision_retention_days)
    decisions = open_decision_writer(settings, log)
    writer = open_history_writer(settings, history)
    metrics.watch_backlog(lambda: decisions.backlog + decisions.spool.waiting())
    metrics.watch_recording(lambda: (writer.problem or decisions.problem) is not None)
    return Services(
        settings=settings,
        follower=follower,
        newer=NewerChampion(follower),
        metrics=metrics,
        lookup=lookup,
        deciding=Deciding(settings, lookup, writer, decisions, metrics),
        labels=LabelLog(engine),
        decisions=decisions,
        history=writer,
        uploads=Uploads(settings),
        batches=ThreadPoolExecutor(1, "batches"),
        draining=Draining(),
        engines=(engine, hasty),
    )


def _limits(settings: Settings) -> dict[str, BodyLimit]:
    return {
        "/v1/score/batch": BodyLimit(settings.api_batch_bytes, settings.api_body_seconds),
        "/v1/labels": BodyLimit(settings.api_batch_bytes, settings.api_body_seconds),
        "/v1/score/file": BodyLimit(settings.max_upload, settings.max_upload_seconds),
    }


def _documented(app: FastAPI, services: Services, *, asks_for_keys: bool) -> Callable[[], dict[str, Any]]:
    """The OpenAPI document, made anew when payments have other fields."""
    made: list[tuple[type[Transaction], dict[str, Any]]] = []

    def document() -> dict[str, Any]:
        served = services.follower.served
        payment = Transaction if served is None else services.payment(served)
        if not made or made[0][0] is not payment:
            made[:] = [(payment, openapi.document(app, payment, asks_for_keys=asks_for_keys))]
        return made[0][1]

    return document


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return response(error, request.scope)


async def _refuse_parameters(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = field_problems({**one, "loc": one["loc"][1:]} for one in error.errors())
    return response(invalid(problems), request.scope)


async def unexpected_error(request: Request, error: Exception) -> Response:
    # The server writes the traceback next, and does not know of which request it is.
    logger.error("request %s ended in a %s of ours", request.scope["state"]["request_id"], type(error).__name__)
    return response(Refused(500, "our-fault", "This is our fault; the log has it under this request id."), request.scope)
