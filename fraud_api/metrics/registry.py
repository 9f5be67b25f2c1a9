"""Prometheus metrics of the scorer: of requests by the instrumentator, all others by us. docs/observability.md lists them.

Labels are bounded: routes, methods, kinds of problem, decisions, features and their bins, and the one version that is served.
Several workers keep their metrics in files of one folder (see `shared_metrics`); the same code serves one process and many.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Literal, get_args

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_fastapi_instrumentator.metrics import Info
from prometheus_fastapi_instrumentator.middleware import PrometheusInstrumentatorMiddleware
from starlette.requests import Request
from starlette.routing import Route

from fraud_api.metrics.deferred import BulkHistogram, DeferredObservations
from fraud_api.metrics.traffic import Traffic
from fraud_api.metrics.workers import WorkersCollector, present, shared_folder
from fraud_core.labels.resolve import LabelSource, Outcome
from fraud_core.models.follower import LoadedModel, Status
from fraud_core.signing.keys import Key
from fraud_core.storage.objects import ObjectStore
from fraud_core.transactions.decision import Decision
from fraud_core.units.arrays import Floats

logger = logging.getLogger(__name__)

LATENCY_EDGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
STORE_EDGES = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 1)
SCORE_EDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1)
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
DECISIONS: tuple[Decision, ...] = ("approve", "review", "decline")
Operation = Literal["read", "write"]
OPERATIONS: tuple[Operation, ...] = ("read", "write")


class Metrics:
    """The metrics of one process. Methods may be called from any thread; each costs less than a microsecond.

    Args:
        store: where the champion's reference is.
        key: verifies it.
    """

    def __init__(self, store: ObjectStore, key: Key) -> None:
        self._store = store
        self._key = key
        self._registry = registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        histogram = partial(BulkHistogram, registry=registry)
        self._requests = Histogram(
            "http_request_duration_seconds",
            "Duration of requests, by route.",
            ("method", "handler", "status"),
            buckets=LATENCY_EDGES,
            registry=registry,
        )
        self._refused = counter("fraud_refused", "Refusals, by kind of problem.", ("kind",))
        self._notes = DeferredObservations()
        self._scores = histogram("fraud_score", "Fraud probabilities of single payments.", buckets=SCORE_EDGES)
        decisions = counter("fraud_decisions", "Decisions on single payments.", ("decision",))
        self._decisions = {decision: decisions.labels(decision) for decision in DECISIONS}
        told = "Time that reading or writing what cards and merchants did takes."
        history = histogram("fraud_history_seconds", told, ("operation",), buckets=STORE_EDGES)
        self._history = {operation: history.labels(operation) for operation in OPERATIONS}
        self._history_failures = counter("fraud_history_failures", "Requests that had to do without the history.")
        self._log = histogram("fraud_decision_log_seconds", "Time that logging decisions takes.", buckets=STORE_EDGES)
        told = "Decisions that are not in the database yet."
        self._backlog = gauge("fraud_decision_log_backlog", told, multiprocess_mode="livemax")
        labels = counter("fraud_labels_received", "Outcomes that the API was told.", ("outcome", "source"))
        self._labels = {pair: labels.labels(*pair) for pair in product(get_args(Outcome), get_args(LabelSource))}
        told = "1 while payments can be recorded nowhere, and are refused."
        self._recording_failing = gauge("fraud_recording_failing", told, multiprocess_mode="livemax")
        self._waiting: Callable[[], int] = lambda: 0
        self._fails: Callable[[], bool] = lambda: False
        self._model = _ModelMetrics(registry)
        self.traffic = Traffic(registry)

    def instrument(self, app: FastAPI) -> None:
        """Count the requests of an application."""
        app.add_middleware(
            _RequestMetrics, should_group_status_codes=False, instrumentations=(self._count,), registry=self._registry
        )

    def follow(self, status: Status) -> None:
        """Tell what is served and what waits, after each look at the pointer. Never raises: the looks go on."""
        try:
            self._model.follow(status)
            if status.served is not None:
                self.traffic.follow(status.served, self._store, self._key)
            self.settle()
            self._recording_failing.set(self._fails())
            self._backlog.set(self._waiting())
        except Exception:
            logger.exception("the metrics are not brought up to date; the next look tries again")

    def scored(self, served: LoadedModel, matrix: Floats, probabilities: Sequence[float]) -> None:
        """Look at payments that were scored together (see `Traffic.saw`)."""
        self.traffic.saw(served, matrix, probabilities)

    def decided(self, probability: float, decision: Decision) -> None:
        """Count a decision."""
        self._notes.add(self._scores, probability)
        self._notes.add(self._decisions[decision], 1)

    def history_seconds(self, operation: Operation, seconds: float) -> None:
        """Note how long the history took."""
        self._notes.add(self._history[operation], seconds)

    def history_failed(self) -> None:
        """Count a request that had to do without the history."""
        self._history_failures.inc()

    def decision_log_seconds(self, seconds: float) -> None:
        """Note how long the decision log took."""
        self._notes.add(self._log, seconds)

    def watch_backlog(self, waiting: Callable[[], int]) -> None:
        """Ask here, at each look at the pointer, how many decisions wait for the database on this machine."""
        self._waiting = waiting

    def watch_recording(self, fails: Callable[[], bool]) -> None:
        """Ask here, at each look at the pointer, whether payments can be recorded nowhere."""
        self._fails = fails

    def label_received(self, outcome: Outcome, source: LabelSource) -> None:
        """Count an outcome that the API was told."""
        self._labels[outcome, source].inc()

    def settle(self) -> None:
        """Count what was noted so far: at each look at the pointer, before a scrape, and at the end."""
        self._notes.count()
        self.traffic.count()

    @property
    def registry(self) -> CollectorRegistry:
        """Everything, of all workers, for one who exposes it."""
        registry = CollectorRegistry()
        folder = shared_folder()
        registry.register(_OneProcess(self) if folder is None else WorkersCollector(folder))
        return registry

    def exposition(self) -> bytes:
        """Everything, of all workers, in Prometheus' text format."""
        self.settle()
        return generate_latest(self.registry)

    def collected(self) -> Iterator[Metric]:
        """The metrics of this process."""
        self.settle()
        yield from present(self._registry.collect())

    def _count(self, info: Info) -> None:
        method = info.method if info.method in METHODS else "other"
        self._requests.labels(method, info.modified_handler, info.modified_status).observe(info.modified_duration)
        kind = info.request.scope["state"].get("refused")
        if kind is not None:
            self._refused.labels(kind).inc()


class _OneProcess(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return self._metrics.collected()


class _RequestMetrics(PrometheusInstrumentatorMiddleware):
    """The instrumentator's middleware, which finds a route without matching patterns: ours hold no parameters."""

    def _get_handler(self, request: Request) -> tuple[str, bool]:
        path = request.scope["path"]
        if path in self._paths(request):
            return path, True
        found: tuple[str, bool] = super()._get_handler(request)
        return found

    def _paths(self, request: Request) -> frozenset[str]:
        known: frozenset[str] | None = getattr(self, "_known", None)
        if known is None:
            routes = request.scope["app"].routes
            known = frozenset(route.path for route in routes if isinstance(route, Route) and "{" not in route.path)
            self._known = known
        return known


class _ModelMetrics:
    """What is served. Of several workers the one that is furthest behind is told."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, told: str, mode: Literal["livemin", "livemax"], *labels: str) -> Gauge:
            return Gauge(name, told, labels, multiprocess_mode=mode, registry=registry)

        self._loaded = gauge("fraud_model_loaded", "1 while there is a model to score with.", "livemin")
        self._failing = gauge("fraud_model_reload_failing", "1 while the newest model cannot be loaded.", "livemax")
        self._failures = Counter("fraud_model_reload_failures", "Looks at the pointer that failed.", registry=registry)
        self._checked = gauge("fraud_model_checked_timestamp_seconds", "When the pointer was last looked at.", "livemin")
        self._info = gauge("fraud_model_info", "1 for the version that is served.", "livemax", "version")
        told = "When the version that is served became champion."
        self._promoted = gauge("fraud_model_promoted_timestamp_seconds", told, "livemin")
        self._version: str | None = None
        self._failed = 0

    def follow(self, status: Status) -> None:
        self._loaded.set(status.served is not None)
        self._failing.set(status.problem is not None)
        self._failures.inc(status.failures - self._failed)
        self._failed = status.failures
        if status.checked_at is not None:
            self._checked.set(status.checked_at.timestamp())
        served = status.served
        if served is not None and served.version != self._version:
            if self._version is not None:
                self._info.labels(self._version).set(0)
            self._info.labels(served.version).set(1)
            self._version = served.version
        if served is not None:
            promoted = served.latest.history[-1].at if served.latest.history else served.loaded_at
            self._promoted.set(promoted.timestamp())
