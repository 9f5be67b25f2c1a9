"""Tracing by OpenTelemetry: a span for each request, sent to a collector by OTLP over HTTP. Imported only where that is set."""

from fastapi import FastAPI
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATIENCE_SECONDS = 5.0  # with a collector that does not answer; requests never wait for it
TRACED = "/v1/"  # neither scrapes nor questions after its health


class Traces:
    """Where spans go.

    Args:
        url: of the collector, with its path, such as http://127.0.0.1:4318/v1/traces.
    """

    def __init__(self, url: str) -> None:
        # A provider of its own, not the process' global one: who embeds the application keeps theirs.
        self._provider = TracerProvider(resource=Resource.create({"service.name": "fraud-scorer"}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=PATIENCE_SECONDS)))
        self.tracer = self._provider.get_tracer("fraud_api")

    def trace(self, app: FastAPI) -> None:
        """Trace the requests of an application."""
        app.add_middleware(Traced, traces=self)

    def close(self) -> None:
        """Send what waits, and end."""
        self._provider.shutdown()


class Traced:
    """ASGI middleware within `RequestLog`: goes on with the caller's trace (W3C traceparent), and tells the log its id.

    A span holds what the request's log line holds, and nothing of the payment.
    """

    def __init__(self, app: ASGIApp, traces: Traces) -> None:
        self._app = app
        self._tracer = traces.tracer
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(TRACED):
            await self._app(scope, receive, send)
            return
        carrier = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"] if name.startswith(b"trace")
        }
        state, status = scope["state"], 500
        with self._tracer.start_as_current_span(
            scope["method"],
            context=self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            record_exception=False,  # an exception's text may hold what was sent
            set_status_on_exception=False,
        ) as span:
            state["trace_id"] = f"{span.get_span_context().trace_id:032x}"

            async def noted(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await self._app(scope, receive, noted)
            finally:
                route = getattr(scope.get("route"), "path", "(none)")
                span.update_name(f"{scope['method']} {route}")
                span.set_attributes(
                    {
                        "http.request.method": scope["method"],
                        "http.route": route,
                        "http.response.status_code": status,
                        "fraud.request_id": state["request_id"],
                        "fraud.model_version": state.get("model_version", ""),
                        "fraud.refused": state.get("refused", ""),
                    }
                )
                if status >= 500:
                    span.set_status(StatusCode.ERROR)
