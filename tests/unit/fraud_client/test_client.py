"""The clients, blocking and async: typed answers, and repetition of what is safe to repeat. Each test holds for both."""

import ast
import asyncio
import inspect
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

import fraud_client
from fraud_client.client import AsyncFraudClient, FraudClient
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

    async def sleep(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr("fraud_client.client.time.sleep", taken.append)
    monkeypatch.setattr("fraud_client.client.asyncio.sleep", sleep)
    return taken


class Awaiting:
    """The async client, called as the blocking one is."""

    def __init__(self, api: AsyncFraudClient, runner: asyncio.Runner) -> None:
        self.api, self.runner = api, runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.api, name)

        def call(*given: Any, **named: Any) -> Any:
            made = method(*given, **named)
            return self.rows(made) if inspect.isasyncgen(made) else self.runner.run(made)

        return call

    def rows(self, made: AsyncIterator[Any]) -> Iterator[Any]:
        async def following() -> Any:
            return await anext(made, None)

        while (row := self.runner.run(following())) is not None:
            yield row


ClientOf = Callable[..., tuple[Any, list[httpx.Request]]]


@pytest.fixture(params=["blocking", "async"])
def client(request: pytest.FixtureRequest) -> Iterator[ClientOf]:
    """Answers -> a client of a server that gives these, one after the other, and the requests that it got."""

    def make(*answers: httpx.Response | Exception, patience: float = 60.0, timeout: float = 2.0) -> Any:
        waiting, seen = list(answers), []

        def take(request: httpx.Request) -> httpx.Response:
            seen.append(request)
            answer = waiting.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)  # one may be given twice

        def handle(request: httpx.Request) -> httpx.Response:
            request.read()
            return take(request)

        async def handle_async(request: httpx.Request) -> httpx.Response:
            await request.aread()
            return take(request)

        options: dict[str, Any] = {"patience": patience, "timeout": timeout}
        if is_async:
            transport = httpx.MockTransport(handle_async)
            return Awaiting(AsyncFraudClient("http://scorer", "fraud_k", transport=transport, **options), runner), seen
        return FraudClient("http://scorer", "fraud_k", transport=httpx.MockTransport(handle), **options), seen

    is_async = request.param == "async"
    with asyncio.Runner() as runner:
        yield make


def test_a_score_goes_out_exactly_and_comes_back_typed(client: ClientOf) -> None:
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


def test_a_label_goes_out_and_comes_back_typed(client: ClientOf) -> None:
    told = {"transaction_id": "a", "sequence": 3, "known_at": "2020-06-28T09:00:00Z"}
    api, seen = client(httpx.ReadError("x"), httpx.Response(201, json=told))
    known_at = datetime(2020, 6, 28, 9, tzinfo=UTC)
    assert api.label("a", "fraud", source="analyst", note="he called") == Labelled("a", 3, known_at)
    assert json.loads(seen[1].content) == {"transaction_id": "a", "outcome": "fraud", "source": "analyst", "note": "he called"}
    assert (seen[1].method, seen[1].url.path) == ("POST", "/v1/labels")


def test_reasons_come_back_typed(client: ClientOf) -> None:
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
def test_a_payment_with_an_id_is_sent_again(client: ClientOf, failure: Any) -> None:
    api, seen = client(failure, failure, httpx.Response(200, json=SCORE))
    assert api.score(PAYMENT).decision == "approve"
    assert len(seen) == 3


def test_a_payment_without_an_id_is_sent_again_only_if_it_was_never_sent(client: ClientOf) -> None:
    api, seen = client(httpx.ConnectError("x"), httpx.Response(200, json=SCORE))
    api.score(NAMELESS)
    assert len(seen) == 2
    api, seen = client(httpx.ReadError("x"), httpx.Response(200, json=SCORE))
    with pytest.raises(UnavailableError):
        api.score(NAMELESS)
    assert len(seen) == 1


def test_retry_after_is_obeyed_and_patience_ends(client: ClientOf, pauses: list[float]) -> None:
    api, seen = client(httpx.Response(503, headers={"retry-after": "7"}), httpx.Response(200, json=SCORE))
    api.score(PAYMENT)
    assert pauses == [7.0]
    api, seen = client(httpx.Response(503, headers={"retry-after": "7"}), patience=5)
    with pytest.raises(UnavailableError):
        api.score(PAYMENT)
    assert len(seen) == 1


def test_a_refusal_names_the_fields_and_is_not_repeated(client: ClientOf) -> None:
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
def test_an_answer_of_somebody_in_between_is_a_refusal_too(client: ClientOf, body: str) -> None:
    api, _ = client(httpx.Response(502, text=body))
    with pytest.raises(RefusedError, match="502: Bad Gateway"):
        api.score(PAYMENT)


@pytest.mark.parametrize("body", ["<html>sign in first</html>", "[]", "{}", '"ok"'])
def test_a_page_with_status_200_of_somebody_in_between_is_no_decision(client: ClientOf, body: str) -> None:
    api, _ = client(*[httpx.Response(200, text=body)] * 2)
    with pytest.raises(UnavailableError, match="cannot be reached"):
        api.score(PAYMENT)
    with pytest.raises(UnavailableError, match="cannot be reached"):
        api.ready()


def test_a_repeated_request_takes_no_longer_than_the_patience_that_is_left(client: ClientOf) -> None:
    api, seen = client(httpx.ConnectError("x"), httpx.Response(200, json=SCORE), timeout=2.0, patience=1.0)
    api.score(PAYMENT)
    first, second = (request.extensions["timeout"]["read"] for request in seen)
    assert first == 2.0
    assert 0.5 < second < 1.0


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        functions = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(one).parameters) for name, one in functions if not name.startswith("_")}

    assert methods(FraudClient) == methods(AsyncFraudClient)


def test_a_batch_tells_refused_rows_from_scored_ones(client: ClientOf) -> None:
    results = [
        {"row": 0, "transaction_id": "a", "probability": 0.5, "decision": "review"},
        {"row": 1, "errors": [{"field": "amount", "reason": "is missing"}]},
    ]
    api, _ = client(httpx.Response(200, json={"model_version": "v1", "rows": 2, "refused": 1, "results": results}))
    batch = api.score_batch([PAYMENT, NAMELESS])
    assert batch.results == (RowScore(0, "a", 0.5, "review"), RowRefusal(1, (FieldProblem("amount", "is missing"),)))
    assert batch.refused == batch.results[1:]


def lines(*documents: dict[str, Any], end: bytes = b"") -> httpx.Response:
    return httpx.Response(200, content=b"".join(json.dumps(document).encode() + b"\n" for document in documents) + end)


ROW = {"row": 1, "transaction_id": "a", "probability": 0.5, "decision": "review"}


def test_a_file_comes_back_row_by_row(client: ClientOf, tmp_path: Path) -> None:
    (tmp_path / "some.csv").write_bytes(b"timestamp,amount\n")
    api, seen = client(lines(ROW, {"rows": 1, "refused": 0, "complete": True}))
    assert list(api.score_file(tmp_path / "some.csv")) == [RowScore(1, "a", 0.5, "review")]
    assert (seen[0].headers["content-type"], seen[0].content) == ("text/csv", b"timestamp,amount\n")


@pytest.mark.parametrize(
    ("last", "end"), [([{"rows": 1, "refused": 0, "complete": False, "problem": "it broke"}], b""), ([], b""), ([], b'{"row":2,')]
)
def test_an_answer_that_ends_early_is_never_taken_for_whole(
    client: ClientOf, tmp_path: Path, last: list[dict[str, Any]], end: bytes
) -> None:
    (tmp_path / "some.parquet").write_bytes(b"PAR1")
    api, _ = client(lines(ROW, *last, end=end))
    rows = api.score_file(tmp_path / "some.parquet")
    assert next(rows) == RowScore(1, "a", 0.5, "review")
    with pytest.raises(IncompleteError) as caught:
        next(rows)
    assert caught.value.rows == 1


@pytest.mark.parametrize(("status", "error"), [(422, RefusedError), (503, UnavailableError)])
def test_a_refused_file_says_why(client: ClientOf, tmp_path: Path, status: int, error: type[Exception]) -> None:
    (tmp_path / "some.csv").write_bytes(b"")
    api, _ = client(httpx.Response(status, json={"type": "a:b", "detail": "no", "request_id": "r"}))
    with pytest.raises(error, match="no"):
        list(api.score_file(tmp_path / "some.csv"))
    with pytest.raises(ValueError, match="the API reads"):
        list(api.score_file(tmp_path / "some.xlsx"))


def test_readiness_is_told_whatever_the_status(client: ClientOf) -> None:
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
