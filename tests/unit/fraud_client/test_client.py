"""The client: typed answers, and repetition of what is safe to repeat."""

import ast
import json
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

import fraud_client
from fraud_client.client import FraudClient
from fraud_client.errors import IncompleteError, RefusedError, UnavailableError
from fraud_client.types import FieldProblem, Labelled, RowRefusal, RowScore, Score, Transaction

SCORE = {"transaction_id": "a", "probability": 0.25, "decision": "approve", "model_version": "v1"}
PAYMENT = Transaction(
    timestamp=datetime(2020, 6, 21, tzinfo=UTC), amount=Decimal("2.80"), transaction_id="a", card="4111111111111111"
)
NAMELESS = Transaction(timestamp=datetime(2020, 6, 21, tzinfo=UTC), amount=3)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    monkeypatch.setattr("fraud_client.client.time.sleep", taken.append)
    return taken


def client(*answers: httpx.Response | Exception, patience: float = 60.0) -> tuple[FraudClient, list[httpx.Request]]:
    """A client of a server that gives these answers, one after the other."""
    waiting, seen = list(answers), []

    def handle(request: httpx.Request) -> httpx.Response:
        request.read()
        seen.append(request)
        answer = waiting.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return FraudClient("http://scorer", "fraud_k", patience=patience, transport=httpx.MockTransport(handle)), seen


def test_a_score_goes_out_exactly_and_comes_back_typed() -> None:
    api, seen = client(httpx.Response(200, json=SCORE))
    assert api.score(PAYMENT) == Score("a", 0.25, "approve", "v1")
    sent = json.loads(seen[0].content)
    assert sent == {
        "transaction_id": "a",
        "timestamp": "2020-06-21T00:00:00+00:00",
        "amount": "2.80",
        "card": "4111111111111111",
    }
    assert seen[0].headers["authorization"] == "Bearer fraud_k"


def test_a_label_goes_out_and_comes_back_typed() -> None:
    told = {"transaction_id": "a", "sequence": 3, "known_at": "2020-06-28T09:00:00Z"}
    api, seen = client(httpx.ReadError("x"), httpx.Response(201, json=told))
    known_at = datetime(2020, 6, 28, 9, tzinfo=UTC)
    assert api.label("a", "fraud", source="analyst", note="he called") == Labelled("a", 3, known_at)
    assert json.loads(seen[1].content) == {"transaction_id": "a", "outcome": "fraud", "source": "analyst", "note": "he called"}
    assert (seen[1].method, seen[1].url.path) == ("POST", "/v1/labels")


def test_reasons_come_back_typed() -> None:
    reason = {"feature": "hour", "value": 3, "contribution": 0.5, "code": "HOUR", "sentence": "s"}
    explained = SCORE | {"explanation": {"unit": "log-odds", "base": -1.0, "reasons": [reason], "others": 0.1, "total": -0.4}}
    api, seen = client(httpx.Response(200, json=explained))
    explanation = api.score(PAYMENT, explain=True).explanation
    assert explanation is not None
    assert explanation.reasons[0].contribution == 0.5
    assert seen[0].url.query == b"explain=true"


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("x"),
        httpx.ReadError("x"),
        httpx.RemoteProtocolError("x"),
        httpx.ReadTimeout("x"),
        httpx.Response(503, json={}),
        httpx.Response(429, headers={"retry-after": "1"}),
    ],
)
def test_a_payment_with_an_id_is_sent_again(failure: Any) -> None:
    api, seen = client(failure, failure, httpx.Response(200, json=SCORE))
    assert api.score(PAYMENT).decision == "approve"
    assert len(seen) == 3


def test_a_payment_without_an_id_is_sent_again_only_if_it_was_never_sent() -> None:
    api, seen = client(httpx.ConnectError("x"), httpx.Response(200, json=SCORE))
    api.score(NAMELESS)
    assert len(seen) == 2
    api, seen = client(httpx.ReadError("x"), httpx.Response(200, json=SCORE))
    with pytest.raises(UnavailableError):
        api.score(NAMELESS)
    assert len(seen) == 1


def test_retry_after_is_obeyed_and_patience_ends(pauses: list[float]) -> None:
    api, seen = client(httpx.Response(503, headers={"retry-after": "7"}), httpx.Response(200, json=SCORE))
    api.score(PAYMENT)
    assert pauses == [7.0]
    api, seen = client(httpx.Response(503, headers={"retry-after": "7"}), patience=5)
    with pytest.raises(UnavailableError):
        api.score(PAYMENT)
    assert len(seen) == 1


def test_a_refusal_names_the_fields_and_is_not_repeated() -> None:
    problem = {
        "type": "urn:fraud:problem:invalid-input",
        "title": "Invalid input",
        "status": 422,
        "detail": "One field is wrong.",
        "request_id": "r1",
        "errors": [{"field": "amount", "reason": "is missing"}],
    }
    api, seen = client(httpx.Response(422, json=problem))
    with pytest.raises(RefusedError, match=r"amount is missing") as caught:
        api.score(PAYMENT)
    assert (caught.value.status, caught.value.kind, caught.value.request_id) == (422, "invalid-input", "r1")
    assert caught.value.errors == (FieldProblem("amount", "is missing"),)
    assert len(seen) == 1


@pytest.mark.parametrize("body", ["<html>bad gateway</html>", "[]", "{}", '{"errors": 5}'])
def test_an_answer_of_somebody_in_between_is_a_refusal_too(body: str) -> None:
    api, _ = client(httpx.Response(502, text=body))
    with pytest.raises(RefusedError, match="502: Bad Gateway"):
        api.score(PAYMENT)


def test_a_batch_tells_refused_rows_from_scored_ones() -> None:
    results = [
        {"row": 0, "transaction_id": "a", "probability": 0.5, "decision": "review"},
        {"row": 1, "errors": [{"field": "amount", "reason": "is missing"}]},
    ]
    api, _ = client(httpx.Response(200, json={"model_version": "v1", "rows": 2, "refused": 1, "results": results}))
    batch = api.score_batch([PAYMENT, NAMELESS])
    assert batch.results == (RowScore(0, "a", 0.5, "review"), RowRefusal(1, (FieldProblem("amount", "is missing"),)))
    assert batch.refused == batch.results[1:]


def lines(*documents: dict[str, Any]) -> httpx.Response:
    def content() -> Iterator[bytes]:
        for document in documents:
            yield json.dumps(document).encode() + b"\n"

    return httpx.Response(200, content=content())


ROW = {"row": 1, "transaction_id": "a", "probability": 0.5, "decision": "review"}


def test_a_file_comes_back_row_by_row(tmp_path: Path) -> None:
    (tmp_path / "some.csv").write_bytes(b"timestamp,amount\n")
    api, seen = client(lines(ROW, {"rows": 1, "refused": 0, "complete": True}))
    assert list(api.score_file(tmp_path / "some.csv")) == [RowScore(1, "a", 0.5, "review")]
    assert (seen[0].headers["content-type"], seen[0].content) == ("text/csv", b"timestamp,amount\n")


@pytest.mark.parametrize("last", [[{"rows": 1, "refused": 0, "complete": False, "problem": "it broke"}], []])
def test_an_answer_that_ends_early_is_never_taken_for_whole(tmp_path: Path, last: list[dict[str, Any]]) -> None:
    (tmp_path / "some.parquet").write_bytes(b"PAR1")
    api, _ = client(lines(ROW, *last))
    rows = api.score_file(tmp_path / "some.parquet")
    assert next(rows) == RowScore(1, "a", 0.5, "review")
    with pytest.raises(IncompleteError) as caught:
        next(rows)
    assert caught.value.rows == 1


@pytest.mark.parametrize(("status", "error"), [(422, RefusedError), (503, UnavailableError)])
def test_a_refused_file_says_why(tmp_path: Path, status: int, error: type[Exception]) -> None:
    (tmp_path / "some.csv").write_bytes(b"")
    api, _ = client(httpx.Response(status, json={"type": "a:b", "detail": "no", "request_id": "r"}))
    with pytest.raises(error, match="no"):
        list(api.score_file(tmp_path / "some.csv"))
    with pytest.raises(ValueError, match="the API reads"):
        list(api.score_file(tmp_path / "some.xlsx"))


def test_readiness_is_told_whatever_the_status() -> None:
    api, _ = client(httpx.Response(503, json={"ready": False}), httpx.ConnectError("x"))
    assert not api.ready().ready
    with pytest.raises(UnavailableError):
        api.ready()


def test_a_card_and_a_birth_date_are_never_printed() -> None:
    payment = Transaction(
        timestamp=datetime(2020, 6, 21, tzinfo=UTC), amount=1, card="4111111111111111", birth_date=date(1968, 3, 19)
    )
    assert "4111" not in repr(payment)
    assert "1968" not in repr(payment)


def test_a_naive_time_never_leaves() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Transaction(timestamp=datetime(2020, 6, 21), amount=1)  # noqa: DTZ001


def test_it_imports_nothing_of_ours_and_httpx_alone() -> None:
    allowed = {"fraud_client", "httpx"} | set(sys.stdlib_module_names)
    folder = Path(fraud_client.__path__[0])
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            assert {name.partition(".")[0] for name in names} <= allowed, path
