"""Prometheus metrics of the desk: how long its handlers take, and how often one failed that should not have."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

EDGES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class DeskMetrics:
    """The metrics of one desk. The label `handler` is the name of an endpoint, so there are as many as the page has."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._seconds = Histogram(
            "fraud_desk_handler_seconds",
            "Time that a handler of the desk takes; of one that gives its outputs bit by bit, each bit.",
            ("handler",),
            buckets=EDGES,
            registry=registry,
        )
        self._errors = Counter(
            "fraud_desk_handler_errors", "Unexpected exceptions in a handler of the desk.", ("handler",), registry=registry
        )
        self._unshown = Counter(
            "fraud_desk_cases_unshown",
            "Cases of the review queue that could not be shown to whoever asked for the next one.",
            registry=registry,
        )

    def expect(self, handler: str) -> None:
        """Tell of this handler from the start: a rate needs a first zero."""
        self._errors.labels(handler)
        self._seconds.labels(handler)

    def took(self, handler: str, seconds: float) -> None:
        """Note how long a handler took."""
        self._seconds.labels(handler).observe(seconds)

    def failed(self, handler: str) -> None:
        """Count an unexpected exception."""
        self._errors.labels(handler).inc()

    def could_not_show(self, cases: int) -> None:
        """Count cases of the review queue that could not be shown."""
        self._unshown.inc(cases)

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)
