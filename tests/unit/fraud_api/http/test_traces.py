"""Traces: to a real collector's address, with the caller's trace, and nothing of the payment; off, not even imported."""

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from fraud_api.app import create_app
from fraud_api.schemas import EXAMPLE
from tests.unit.fraud_api.conftest import Caller

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"


class Collector:
    """Takes traces by OTLP over HTTP."""

    def __init__(self) -> None:
        self.taken = taken = list[ExportTraceServiceRequest]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                taken.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1/traces"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def spans(self) -> list[Any]:
        return [span for one in self.taken for r in one.resource_spans for s in r.scope_spans for span in s.spans]


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.server.shutdown()
    made.server.server_close()


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


def test_a_request_goes_on_with_its_callers_trace_and_tells_nothing_of_the_payment(
    installation: Any, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    version = installation.promote(1)
    settings = installation.settings.model_copy(update={"traces_url": collector.url, "log_format": "json"})
    caplog.set_level("INFO", logger="fraud_api.requests")
    with Caller(create_app(settings, asks_for_keys=False)) as api:
        answer = api.post("/v1/score", json=EXAMPLE, headers={"traceparent": f"00-{TRACE}-{CALLER}-01"})
        refused = api.post("/v1/score?card=4111111111111111", json={"card": "4111111111111111"})
        api.get("/healthz")
    score, wrong = collector.spans
    assert (score.name, score.trace_id.hex(), score.parent_span_id.hex()) == ("POST /v1/score", TRACE, CALLER)
    assert attributes(score)["http.response.status_code"] == 200
    assert attributes(score)["fraud.request_id"] == answer.headers["x-request-id"]
    assert attributes(score)["fraud.model_version"] == version
    assert (wrong.name, attributes(wrong)["fraud.refused"]) == ("POST /v1/score", "invalid-input")
    assert attributes(wrong)["fraud.request_id"] == refused.headers["x-request-id"]
    everything = "".join(str(one) for one in collector.taken)
    for secret in (*(str(EXAMPLE[name]) for name in ("card", "birth_date", "merchant", "home_latitude")), "4111111111111111"):
        assert secret not in everything
    assert json.loads(caplog.records[0].getMessage())["trace"] == TRACE


def test_an_error_of_ours_is_a_failed_span_without_the_errors_text(
    installation: Any, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.promote(1)

    async def fails(*_: object, **__: object) -> None:
        raise ValueError(f"cannot take {EXAMPLE['card']}")

    monkeypatch.setattr("fraud_api.deciding.Deciding.decide", fails)
    settings = installation.settings.model_copy(update={"traces_url": collector.url})
    with Caller(create_app(settings, asks_for_keys=False)) as api, pytest.raises(ValueError, match="cannot take"):
        api.post("/v1/score", json=EXAMPLE)
    (span,) = collector.spans
    assert (attributes(span)["http.response.status_code"], span.status.code) == (500, Status.STATUS_CODE_ERROR)
    assert str(EXAMPLE["card"]) not in str(collector.taken)


def test_a_collector_that_is_away_harms_no_request(call: Any, installation: Any) -> None:
    installation.promote(1)
    api = call(installation.settings.model_copy(update={"traces_url": "http://127.0.0.1:9/v1/traces"}))
    assert api.post("/v1/score", json=EXAMPLE).status_code == 200


def test_without_a_collector_neither_sdk_nor_exporter_is_imported(installation: Any) -> None:
    program = (
        "import sys; from fraud_api.app import create_app; from fraud_core.settings import Settings; "
        f"create_app(Settings(_env_file=None, home={str(installation.settings.home)!r}), asks_for_keys=False); "
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
