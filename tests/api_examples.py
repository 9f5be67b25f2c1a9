"""Answers of the real application to one request of each kind: the examples of its OpenAPI document are made of them.

    FRAUD_TEST_EXAMPLES=write .venv/bin/pytest tests/unit/fraud_api/test_examples.py

writes fraud_api/examples.json anew.
"""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from fraud_api.endpoints import models
from fraud_api.endpoints.openapi import EVERYWHERE
from fraud_core.access.api_keys import ApiKeys
from fraud_core.errors import StoreError
from fraud_core.fields.declared import Declared
from fraud_core.labels.log import LabelLog
from fraud_core.transactions.transaction import EXAMPLE

Examples = dict[str, dict[str, dict[str, dict[str, Any]]]]  # operation, status, media type, name -> what was answered

WRONG = EXAMPLE | {"transaction_id": "b", "amount": "-1", "birth_date": "1868-03-19"}
REFUND = EXAMPLE | {"transaction_id": "refund-1001", "amount": "-2.86"}
FILE = "transaction_id,timestamp,amount\norder-1001,2020-06-21T12:14:25Z,2.86\norder-1002,2020-06-21T12:20:00Z,\n"
CSV = {"Content-Type": "text/csv"}
JSON = {"Content-Type": "application/json"}
LABEL = {"transaction_id": EXAMPLE["transaction_id"], "outcome": "fraud", "source": "chargeback", "note": "case 4711"}

# What is another each time, and what stands for it.
_ALWAYS = (
    (r'("request_id": ?")[^"]+', r"\g<1>4f1c9a0b7d2e8356"),
    (r'("(?:known_at|checked_at|loaded_at|promoted_at|at)": ?")[^"]+', r"\g<1>2026-01-31T09:00:00Z"),
    (r"(\d\.\d{5})\d+", r"\1"),
    (r"([\[,: ]-?\d+\.\d{5})\d+", r"\1"),
)


class Recorder:
    """Collects answers."""

    def __init__(self) -> None:
        self.examples: Examples = {}

    def take(self, operation: str, answer: httpx.Response, name: str = "answer", version: str = "") -> None:
        """Keep an answer as an example of its operation and status."""
        text = answer.text.replace(version, "3f0c8d1b6a527e94") if version else answer.text
        for pattern, with_ in _ALWAYS:
            text = re.sub(pattern, with_, text)
        media_type = answer.headers["content-type"].partition(";")[0]
        value = json.loads(text) if media_type.endswith("json") and "ndjson" not in media_type else text
        of_status = self.examples.setdefault(operation, {}).setdefault(str(answer.status_code), {})
        of_status.setdefault(media_type, {})[name] = value


def recorded(call: Callable[..., Any], installation: Any, patch: pytest.MonkeyPatch) -> Examples:
    """One answer of every kind that the document announces."""
    recorder = Recorder()
    quick = installation.settings.model_copy(update={"api_drain_seconds": 0.01})
    _without_model(recorder, call(quick))
    _refused_to_keys(recorder, call, quick)
    _refused_everywhere(recorder, call(quick.model_copy(update={"api_body_seconds": 0.05}), hosts=("test",)))
    version = installation.promote(1)
    api = call(quick)
    _scores(recorder, api, version)
    _labels(recorder, api, patch)
    _models(recorder, api, version, patch)
    _refunds(recorder, call(quick), installation)
    return recorder.examples


def _without_model(recorder: Recorder, api: Any) -> None:
    for operation, path, content in (
        ("score", "/v1/score", {"json": EXAMPLE}),
        ("score_batch", "/v1/score/batch", {"json": {"transactions": [EXAMPLE]}}),
        ("score_file", "/v1/score/file", {"content": FILE, "headers": CSV}),
        ("refund", "/v1/refunds", {"json": EXAMPLE}),
    ):
        recorder.take(operation, api.post(path, **content))
    recorder.take("model", api.get("/v1/model"))
    recorder.take("readyz", api.get("/readyz"))


def _refused_to_keys(recorder: Recorder, call: Callable[..., Any], settings: Any) -> None:
    _, key = ApiKeys.of(settings).create("till", ["label"])
    held = call(settings.model_copy(update={"api_rate": 0.01, "api_rate_burst": 1}), asks_for_keys=True)
    sent = {"Authorization": f"Bearer {key}"}
    recorder.take(EVERYWHERE, held.post("/v1/score", json=EXAMPLE), "no key")
    recorder.take(EVERYWHERE, held.post("/v1/score", json=EXAMPLE, headers=sent), "key without the scope")
    held.post("/v1/labels", json=LABEL, headers=sent)
    recorder.take(EVERYWHERE, held.post("/v1/labels", json=LABEL, headers=sent), "too fast")


def _refused_everywhere(recorder: Recorder, api: Any) -> None:
    async def slowly() -> Any:
        yield b"{"
        await asyncio.sleep(0.1)
        yield b"}"

    abroad = {"Origin": "https://elsewhere.example"}
    recorder.take(EVERYWHERE, api.post("/v1/labels", content=slowly(), headers=JSON), "too slow")
    recorder.take(EVERYWHERE, api.post("/v1/score", content=b" " * 40_000, headers=JSON), "too long")
    recorder.take(EVERYWHERE, api.post("/v1/labels", content=b"{", headers=JSON), "no JSON")
    recorder.take(EVERYWHERE, api.post("/v1/labels", json=LABEL, headers=abroad), "page of another site")
    recorder.take(EVERYWHERE, api.post("/v1/labels", json=LABEL, headers={"Host": "elsewhere.example"}), "unknown name")


def _scores(recorder: Recorder, api: Any, version: str) -> None:
    recorder.take("score", api.post("/v1/score", json=EXAMPLE | {"transaction_id": "order-1001"}), "decided", version)
    recorder.take("score", api.post("/v1/score?explain=true", json=EXAMPLE), "explained", version)
    recorder.take("score", api.post("/v1/score", json=EXAMPLE | {"amount": "9000.00"}))
    recorder.take("score", api.post("/v1/score", json=WRONG))
    recorder.take("score", api.post("/v1/score", content=b"amount=2.86"))
    recorder.take("score_batch", api.post("/v1/score/batch", json={"transactions": [EXAMPLE, WRONG]}), version=version)
    recorder.take("score_batch", api.post("/v1/score/batch", json={"transactions": []}))
    recorder.take("score_batch", api.post("/v1/score/batch", content=b"amount=2.86"))
    recorder.take("score_file", api.post("/v1/score/file", content=FILE, headers=CSV), version=version)
    recorder.take("score_file", api.post("/v1/score/file", content=FILE, headers=CSV | {"Accept": "text/csv"}), version=version)
    recorder.take("score_file", api.post("/v1/score/file", content=FILE, headers=CSV | {"Accept": "image/png"}))
    recorder.take("score_file", api.post("/v1/score/file", content=FILE, headers=JSON))
    recorder.take("score_file", api.post("/v1/score/file", content="when,how much\n", headers=CSV))


def _labels(recorder: Recorder, api: Any, patch: pytest.MonkeyPatch) -> None:
    recorder.take("label", api.post("/v1/labels", json=LABEL), "one")
    recorder.take("label", api.post("/v1/labels", json=[LABEL, LABEL | {"transaction_id": "order-1001"}]), "several")
    recorder.take("label", api.post("/v1/labels", json=LABEL | {"outcome": "perhaps"}))
    recorder.take("label", api.post("/v1/labels", content=b"outcome=fraud"))

    def gone(*_: Any) -> None:
        raise StoreError("The database is gone.")

    with patch.context() as away:
        away.setattr(LabelLog, "append_all", gone)
        recorder.take("label", api.post("/v1/labels", json=LABEL))


def _refunds(recorder: Recorder, api: Any, installation: Any) -> None:
    recorder.take("refund", api.post("/v1/refunds", json=REFUND))  # this source has none
    installation.promote(2, declared=Declared.model_validate({"amounts": {"negative": "refund"}}))
    api.post("/v1/admin/reload")
    recorder.take("refund", api.post("/v1/refunds", json=REFUND))
    recorder.take("refund", api.post("/v1/refunds", json=REFUND | {"amount": "-9.00"}))
    recorder.take("refund", api.post("/v1/refunds", content=b"amount=-2.86"))


def _models(recorder: Recorder, api: Any, version: str, patch: pytest.MonkeyPatch) -> None:
    recorder.take("model", api.get("/v1/model"), version=version)
    recorder.take("all_models", api.get("/v1/models"), version=version)
    recorder.take("reload", api.post("/v1/admin/reload"), version=version)
    recorder.take("healthz", api.get("/healthz"))
    recorder.take("readyz", api.get("/readyz"), version=version)

    def gone(*_: Any) -> None:
        raise StoreError("The bucket is gone.")

    with patch.context() as away:
        away.setattr(models, "overview", gone)
        recorder.take("all_models", api.get("/v1/models"))
