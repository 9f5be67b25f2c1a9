"""The client of the scoring API. It repeats what is safe to repeat, within a time the caller sets, and nothing else."""

import json
import random
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from fraud_client.errors import IncompleteError, RefusedError, UnavailableError
from fraud_client.types import (
    BatchScore,
    FieldProblem,
    Labelled,
    LabelSource,
    Outcome,
    Readiness,
    RowRefusal,
    RowScore,
    Score,
    Transaction,
    row_of,
    score_of,
)

FIRST_PAUSE = 0.05  # seconds; doubles with every further attempt
CHUNK = 1 << 20
MEDIA_TYPES = {".csv": "text/csv", ".parquet": "application/vnd.apache.parquet", ".pq": "application/vnd.apache.parquet"}

# Raised before anything was sent: no server can have seen the request.
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class FraudClient:
    """Calls a scoring API. Safe to share between threads; use it as a context manager, or close it.

    Args:
        url: of the API, such as http://127.0.0.1:8000.
        key: the API key, where the API asks for one.
        timeout: seconds to wait for one answer.
        patience: seconds that one call may take in all, repetitions included. 0: nothing is repeated.
        transport: replaces the network, in tests.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 2.0,
        patience: float = 5.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"User-Agent": f"fraud-client/{_version()}"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)
        self._patience = patience

    def score(self, transaction: Transaction, *, explain: bool = False) -> Score:
        """Score a payment. Repeated where the connection fails only if the payment has a `transaction_id`.

        Raises:
            RefusedError: something about it is wrong.
            UnavailableError: the API cannot be reached, or has no model.
        """
        parameters = {"explain": "true"} if explain else None
        is_safe = transaction.transaction_id is not None
        return score_of(self._call("POST", "/v1/score", is_safe, json=transaction.to_json(), params=parameters).json())

    def score_batch(self, transactions: Sequence[Transaction]) -> BatchScore:
        """Score up to 10,000 payments; nothing is recorded, so it is repeated where the connection fails.

        Raises:
            RefusedError: the batch as a whole is wrong; a wrong row is among the results instead.
            UnavailableError: the API cannot be reached, or has no model.
        """
        body = {"transactions": [transaction.to_json() for transaction in transactions]}
        document = self._call("POST", "/v1/score/batch", True, json=body).json()
        return BatchScore(document["model_version"], tuple(row_of(result) for result in document["results"]))

    def score_file(self, path: Path) -> Iterator[RowScore | RowRefusal]:
        """Score a CSV or Parquet file, row by row as the answer comes.

        Raises:
            RefusedError: the file as a whole cannot be scored.
            IncompleteError: the answer ended early.
            UnavailableError: the API cannot be reached, or has no model.
        """
        media_type = MEDIA_TYPES.get(path.suffix.lower())
        if media_type is None:
            raise ValueError(f"{path.name}: the API reads {', '.join(MEDIA_TYPES)}")
        with path.open("rb") as file:
            content = iter(lambda: file.read(CHUNK), b"")
            request = self._http.build_request("POST", "/v1/score/file", content=content, headers={"Content-Type": media_type})
            request.extensions["timeout"] = httpx.Timeout(None, connect=self._http.timeout.connect).as_dict()
            try:
                answer = self._http.send(request, stream=True)
                try:
                    yield from _rows(answer)
                finally:
                    answer.close()
            except httpx.TransportError as error:
                raise UnavailableError(f"The connection failed: {type(error).__name__}.") from error

    def label(self, transaction_id: str, outcome: Outcome, *, source: LabelSource = "chargeback", note: str = "") -> Labelled:
        """Say what became of a payment, scored here or not. Needs the scope `label`.

        The same word twice changes nothing, so it is repeated where the connection fails.

        Raises:
            RefusedError: something is wrong.
            UnavailableError: the API or its database cannot be reached.
        """
        body = {"transaction_id": transaction_id, "outcome": outcome, "source": source, "note": note}
        document = self._call("POST", "/v1/labels", True, json=body).json()
        return Labelled(document["transaction_id"], document["sequence"], datetime.fromisoformat(document["known_at"]))

    def model(self) -> dict[str, Any]:
        """The model that scores: version, thresholds, partitions, card.

        Raises:
            RefusedError, UnavailableError: as with `score`.
        """
        document: dict[str, Any] = self._call("GET", "/v1/model", True).json()
        return document

    def models(self) -> dict[str, Any]:
        """All versions, and the changes of champion. Needs the scope `admin`.

        Raises:
            RefusedError, UnavailableError: as with `score`.
        """
        document: dict[str, Any] = self._call("GET", "/v1/models", True).json()
        return document

    def ready(self) -> Readiness:
        """Whether the API can score now.

        Raises:
            UnavailableError: it cannot be reached.
        """
        try:
            document = self._http.get("/readyz").json()
        except (httpx.TransportError, ValueError) as error:
            raise UnavailableError(f"The API cannot be reached: {type(error).__name__}.") from error
        return Readiness(document["ready"], document.get("model_version"), document.get("problem"))

    def reload(self) -> Readiness:
        """Make the API look for a newer model now. Needs the scope `admin`.

        Raises:
            RefusedError, UnavailableError: as with `score`.
        """
        document = self._call("POST", "/v1/admin/reload", True).json()
        return Readiness(document["ready"], document.get("model_version"), document.get("problem"))

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _call(self, method: str, path: str, is_safe: bool, **content: Any) -> httpx.Response:
        """Send a request, and again while that is safe and there is time."""
        deadline = time.monotonic() + self._patience
        pause = FIRST_PAUSE
        while True:
            try:
                answer = self._http.request(method, path, **content)
            except httpx.TransportError as error:
                wait = pause * random.uniform(0.5, 1.5)  # noqa: S311 - spreads callers out, nothing more
                if not (is_safe or isinstance(error, _NEVER_SENT)) or time.monotonic() + wait > deadline:
                    raise UnavailableError(f"The API cannot be reached: {type(error).__name__}.") from error
            else:
                if answer.is_success:
                    return answer
                # Neither answer is given once anything was done with the request.
                if answer.status_code not in {429, 503}:
                    raise _refusal(answer)
                wait = _retry_after(answer, pause)
                if time.monotonic() + wait > deadline:
                    raise UnavailableError(str(_refusal(answer)))
            time.sleep(wait)
            pause *= 2


def _version() -> str:
    try:
        return version("fraud-detection")
    except PackageNotFoundError:  # copied into another project
        return "0"


def _retry_after(answer: httpx.Response, otherwise: float) -> float:
    given = answer.headers.get("retry-after", "")
    return float(given) if given.isdecimal() else otherwise


def _refusal(answer: httpx.Response) -> RefusedError:
    try:
        document = answer.json()
        errors = tuple(FieldProblem(error["field"], error["reason"]) for error in document.get("errors", ()))
        return RefusedError(
            answer.status_code, document["type"].rpartition(":")[2], document["detail"], errors, document["request_id"]
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        # Not the API's own answer: something between it and us.
        return RefusedError(answer.status_code, "unknown", answer.reason_phrase, (), "")


def _rows(answer: httpx.Response) -> Iterator[RowScore | RowRefusal]:
    if not answer.is_success:
        answer.read()
        if answer.status_code in {429, 503}:
            raise UnavailableError(str(_refusal(answer)))
        raise _refusal(answer)
    rows = 0
    for line in answer.iter_lines():
        document = json.loads(line)
        if "complete" in document:
            if not document["complete"]:
                raise IncompleteError(document["rows"], document["problem"])
            return
        rows += 1
        yield row_of(document)
    raise IncompleteError(rows, "the connection ended.")
