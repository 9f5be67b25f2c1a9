"""schemathesis: requests made from the OpenAPI document, right and wrong ones; no answer that the document does not announce."""

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from fraud_api.app import create_app

pytestmark = pytest.mark.integration

Record = Callable[[str, dict[str, Any]], None]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
# A file starts a process of its own, and operations without a body have little to vary.
SHARES = {"POST /v1/score": 0.45, "POST /v1/score/batch": 0.35, "POST /v1/score/file": 0.02}
OTHER_SHARE = 0.036
CAN_BE_WRONG = {"POST /v1/score", "POST /v1/score/batch", "POST /v1/labels"}  # the others take nothing, or any bytes


@pytest.fixture
def server(installation: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """A server with a model, its URL and its document."""
    installation.promote(1)
    app = create_app(installation.settings, asks_for_keys=False)
    listener = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", app.openapi()
    running.should_exit = True
    thread.join()
    listener.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::hypothesis.errors.HypothesisWarning")
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_generated_request_gets_a_server_error_or_an_undocumented_answer(
    server: tuple[str, dict[str, Any]], mode: GenerationMode, full: bool, record: Record
) -> None:
    url, document = server
    cases = 6_200 if full else 620  # in both modes together more than 10,000, or 1,000
    seen: dict[str, int] = {}
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = found.ok()
        count = max(3, int(cases * SHARES.get(operation.label, OTHER_SHARE)))
        if mode is GenerationMode.NEGATIVE and operation.label not in CAN_BE_WRONG:
            continue
        strategy = operation.as_strategy(generation_mode=mode)

        @seed(20)
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategy)
        def check(case: schemathesis.Case) -> None:
            seen[case.operation.label] = seen.get(case.operation.label, 0) + 1
            case.call_and_validate(base_url=url, checks=CHECKS, timeout=60)

        check()
    assert sum(seen.values()) >= 0.75 * cases
    record(f"api_schema_{mode.value}", {"cases": seen})
    assert len(seen) == len(CAN_BE_WRONG if mode is GenerationMode.NEGATIVE else document["paths"])
