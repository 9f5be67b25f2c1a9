"""What Prometheus scrapes: requests, by the instrumentator, and scores, decisions, refusals and the model, by us.

Labels are bounded: routes, methods, kinds of problem, decisions, and the one version that is served.
"""

import os
from collections.abc import Iterator

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_fastapi_instrumentator import Instrumentator
from prometheus_fastapi_instrumentator.metrics import Info

from fraud_core.holder import ScorerHolder

LATENCY_EDGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
SCORE_EDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1)
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class Metrics:
    """The metrics of one process; several processes share theirs through files where PROMETHEUS_MULTIPROC_DIR is set."""

    def __init__(self, holder: ScorerHolder) -> None:
        self._registry = CollectorRegistry()
        self._model = ModelCollector(holder)
        self._requests = Histogram(
            "http_request_duration_seconds",
            "Duration of requests, by route.",
            ("method", "handler", "status"),
            buckets=LATENCY_EDGES,
            registry=self._registry,
        )
        self._refused = Counter("fraud_refused", "Refusals, by kind of problem.", ("kind",), registry=self._registry)
        self._scores = Histogram(
            "fraud_score", "Fraud probabilities of single payments.", buckets=SCORE_EDGES, registry=self._registry
        )
        self._decisions = Counter("fraud_decisions", "Decisions on single payments.", ("decision",), registry=self._registry)

    def instrument(self, app: FastAPI) -> None:
        """Count the requests of an application."""
        Instrumentator(should_group_status_codes=False, registry=self._registry).add(self._count).instrument(app)

    def decided(self, probability: float, decision: str) -> None:
        """Count a decision."""
        self._scores.observe(probability)
        self._decisions.labels(decision).inc()

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format."""
        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        # The model is told by the process that answers: they agree within one poll.
        model = CollectorRegistry()
        model.register(self._model)
        return generate_latest(registry) + generate_latest(model)

    def _count(self, info: Info) -> None:
        method = info.method if info.method in METHODS else "other"
        self._requests.labels(method, info.modified_handler, info.modified_status).observe(info.modified_duration)
        kind = info.request.scope["state"].get("refused")
        if kind is not None:
            self._refused.labels(kind).inc()


class ModelCollector(Collector):
    """What is served, read from the holder when somebody asks."""

    def __init__(self, holder: ScorerHolder) -> None:
        self._holder = holder

    def collect(self) -> Iterator[Metric]:
        """The model's metrics."""
        status = self._holder.status
        yield GaugeMetricFamily(
            "fraud_model_loaded", "1 while there is a model to score with.", value=float(status.served is not None)
        )
        yield GaugeMetricFamily(
            "fraud_model_reload_failing", "1 while the newest model cannot be loaded.", value=float(status.problem is not None)
        )
        yield CounterMetricFamily("fraud_model_reload_failures", "Looks at the pointer that failed.", value=status.failures)
        if status.checked_at is not None:
            yield GaugeMetricFamily(
                "fraud_model_checked_timestamp_seconds",
                "When the pointer was last looked at.",
                value=status.checked_at.timestamp(),
            )
        if status.served is not None:
            served = status.served
            info = GaugeMetricFamily("fraud_model_info", "1 for the version that is served.", labels=("version",))
            info.add_metric((served.version,), 1)
            yield info
            promoted = served.latest.history[-1].at if served.latest.history else served.loaded_at
            yield GaugeMetricFamily(
                "fraud_model_promoted_timestamp_seconds",
                "When the version that is served became champion.",
                value=promoted.timestamp(),
            )
