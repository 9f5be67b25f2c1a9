"""What goes over the wire, for both clients: each call of the API, when it is repeated, and what its answer means."""

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Generic, TypeVar

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

T = TypeVar("T")


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and how its answer is read.

    Attributes:
        method: of HTTP.
        path: of the API.
        read: makes the result of the answer's JSON.
        is_safe: whether it may be sent again when nobody knows if the API has seen it.
        content: body and parameters, as httpx takes them.
    """

    method: str
    path: str
    read: Callable[[Any], T]
    is_safe: bool = True
    content: Mapping[str, Any] = field(default_factory=dict)


def score(transaction: Transaction, explain: bool) -> Call[Score]:
    """Decide one payment."""
    content: dict[str, Any] = {"json": transaction.to_json()}
    if explain:
        content["params"] = {"explain": "true"}
    return Call("POST", "/v1/score", score_of, transaction.transaction_id is not None, content)


def refund(transaction: Transaction) -> Call[str]:
    """Record a refund."""
    content = {"json": transaction.to_json()}
    return Call(
        "POST", "/v1/refunds", lambda document: str(document["transaction_id"]), bool(transaction.transaction_id), content
    )


def score_batch(transactions: Sequence[Transaction]) -> Call[BatchScore]:
    """Score many payments."""
    body = {"transactions": [transaction.to_json() for transaction in transactions]}

    def read(document: Any) -> BatchScore:
        return BatchScore(document["model_version"], tuple(row_of(result) for result in document["results"]))

    return Call("POST", "/v1/score/batch", read, content={"json": body})


def label(transaction_id: str, outcome: Outcome, source: LabelSource, note: str) -> Call[Labelled]:
    """Say what became of a payment."""
    body = {"transaction_id": transaction_id, "outcome": outcome, "source": source, "note": note}

    def read(document: Any) -> Labelled:
        known_at = datetime.fromisoformat(document["known_at"])
        return Labelled(document["transaction_id"], document["sequence"], known_at)

    return Call("POST", "/v1/labels", read, content={"json": body})


def _readiness_of(document: Any) -> Readiness:
    return Readiness(document["ready"], document.get("model_version"), document.get("problem"))


MODEL: Call[dict[str, Any]] = Call("GET", "/v1/model", dict)
MODELS: Call[dict[str, Any]] = Call("GET", "/v1/models", dict)
READY = Call("GET", "/readyz", _readiness_of)  # its 503 is an answer, too
RELOAD = Call("POST", "/v1/admin/reload", _readiness_of)


def headers(key: str | None) -> dict[str, str]:
    """What every request says about its sender."""
    return {"User-Agent": f"fraud-client/{_version()}"} | ({"Authorization": f"Bearer {key}"} if key else {})


def _version() -> str:
    for distribution in ("fraud-client", "fraud-detection"):  # by itself, or with the whole product
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "0"  # copied into another project


def result_of(call: Call[T], answer: httpx.Response) -> T:
    """What an answer means.

    Raises:
        UnavailableError: it is not the API's, whatever its status: something between it and us answered.
    """
    try:
        return call.read(answer.json())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise unreachable(error) from error


class Attempts:
    """Says after each attempt of a call whether to try again, and after how long a pause; within the caller's patience.

    Attributes:
        timeout: seconds that the next attempt may take.
    """

    def __init__(self, is_safe: bool, timeout: float, patience: float) -> None:
        self.timeout = timeout
        self._is_safe, self._pause = is_safe, FIRST_PAUSE
        self._deadline = time.monotonic() + patience

    def after_failure(self, error: httpx.TransportError) -> float:
        """Seconds to wait after a connection that failed.

        Raises:
            UnavailableError: it must not be sent again, or there is no time.
        """
        wait = self._pause * random.uniform(0.5, 1.5)  # noqa: S311 - spreads callers out, nothing more
        if not (self._is_safe or isinstance(error, _NEVER_SENT)) or not self._has_time(wait):
            raise unreachable(error) from error
        return wait

    def after_answer(self, answer: httpx.Response) -> float | None:
        """Seconds to wait after an answer; None where it is the one that was asked for.

        Raises:
            RefusedError: it refuses the request.
            UnavailableError: the API cannot answer now, and there is no time.
        """
        if answer.is_success:
            return None
        # Neither answer is given once anything was done with the request.
        if answer.status_code not in {429, 503}:
            raise _refusal(answer)
        given = answer.headers.get("retry-after", "")
        wait = float(given) if given.isdecimal() else self._pause
        if not self._has_time(wait):
            raise UnavailableError(str(_refusal(answer)))
        return wait

    def _has_time(self, wait: float) -> bool:
        """Whether an attempt after this pause would begin in time; it then takes no longer than what is left."""
        left = self._deadline - time.monotonic() - wait
        self._pause *= 2
        self.timeout = min(self.timeout, left)
        return left > 0


def unreachable(error: Exception) -> UnavailableError:
    """Nobody answers, or somebody else does."""
    return UnavailableError(f"The API cannot be reached: {type(error).__name__}.")


def broke_off(error: httpx.TransportError) -> UnavailableError:
    """A connection failed under way."""
    return UnavailableError(f"The connection failed: {type(error).__name__}.")


def file_options(path: Path, timeout: httpx.Timeout) -> dict[str, Any]:
    """How a file is sent, as httpx's `build_request` takes it.

    Raises:
        ValueError: the API does not read such files.
    """
    media_type = MEDIA_TYPES.get(path.suffix.lower())
    if media_type is None:
        raise ValueError(f"{path.name}: the API reads {', '.join(MEDIA_TYPES)}")
    return {
        "method": "POST",
        "url": "/v1/score/file",
        "headers": {"Content-Type": media_type},
        "timeout": httpx.Timeout(None, connect=timeout.connect),
    }


class FileAnswer:
    """Reads the answer to a file line by line; the last line says whether it is all."""

    def __init__(self) -> None:
        self._rows = 0

    def row(self, line: str) -> RowScore | RowRefusal | None:
        """The result of a row; None: that was all.

        Raises:
            IncompleteError: the API says that it is not.
        """
        try:
            document = json.loads(line)
        except ValueError:
            raise self.cut_off() from None  # within the line
        if "complete" not in document:
            self._rows += 1
            return row_of(document)
        if not document["complete"]:
            raise IncompleteError(document["rows"], document["problem"])
        return None

    def cut_off(self) -> IncompleteError:
        """There are no more lines, and none was the last."""
        return IncompleteError(self._rows, "the connection ended.")


def require_rows(answer: httpx.Response) -> None:
    """Look at an answer to a file, read whole unless it is a success.

    Raises:
        RefusedError, UnavailableError: it is a refusal.
    """
    if answer.is_success:
        return
    if answer.status_code in {429, 503}:
        raise UnavailableError(str(_refusal(answer)))
    raise _refusal(answer)


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
