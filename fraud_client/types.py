"""Requests and answers of the scoring API as plain dataclasses."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

Decision = Literal["approve", "review", "decline"]
Outcome = Literal["fraud", "legitimate", "unsure"]
LabelSource = Literal["chargeback", "analyst"]


@dataclass(frozen=True, kw_only=True)
class Transaction:
    """One card payment. What is None counts as missing; `card` is a number or a token and is never shown.

    With a `transaction_id` the request may be repeated safely, and is where the connection fails.
    """

    timestamp: datetime
    amount: Decimal | int | str
    transaction_id: str | None = None
    card: str | None = None
    merchant: str | None = None
    category: str | None = None
    birth_date: date | None = None
    home_latitude: float | None = None
    home_longitude: float | None = None
    merchant_latitude: float | None = None
    merchant_longitude: float | None = None
    city_population: int | None = None

    def __post_init__(self) -> None:
        if self.timestamp.utcoffset() is None:
            raise ValueError("timestamp needs a time zone; for example datetime.now(UTC)")

    def __repr__(self) -> str:
        return f"Transaction(transaction_id={self.transaction_id!r}, timestamp={self.timestamp.isoformat()})"

    def to_json(self) -> dict[str, Any]:
        """The fields that are given, as the API takes them."""
        fields: dict[str, Any] = {name: value for name, value in vars(self).items() if value is not None}
        fields["timestamp"] = self.timestamp.isoformat()
        fields["amount"] = format(self.amount, "f") if isinstance(self.amount, Decimal) else str(self.amount)
        if self.birth_date is not None:
            fields["birth_date"] = self.birth_date.isoformat()
        return fields


@dataclass(frozen=True)
class Reason:
    """One feature's part in a score; a positive contribution raises the risk."""

    feature: str
    value: float | int | str | None
    contribution: float
    code: str
    sentence: str


@dataclass(frozen=True)
class Explanation:
    """Why a score is what it is: `base`, the reasons' contributions and `others` sum to `total`."""

    unit: str
    base: float
    reasons: tuple[Reason, ...]
    others: float
    total: float


@dataclass(frozen=True)
class Score:
    """A decision on one payment."""

    transaction_id: str
    probability: float
    decision: Decision
    model_version: str
    explanation: Explanation | None = None


@dataclass(frozen=True)
class FieldProblem:
    """What is wrong with one field."""

    field: str
    reason: str


@dataclass(frozen=True)
class RowScore:
    """The decision on one row: its place in the batch from 0, in a file from 1."""

    row: int
    transaction_id: str
    probability: float
    decision: Decision


@dataclass(frozen=True)
class RowRefusal:
    """A row that could not be scored."""

    row: int
    errors: tuple[FieldProblem, ...]


@dataclass(frozen=True)
class BatchScore:
    """The decisions on a batch, in its order, all by one model."""

    model_version: str
    results: tuple[RowScore | RowRefusal, ...]

    @property
    def refused(self) -> tuple[RowRefusal, ...]:
        """The rows that could not be scored."""
        return tuple(result for result in self.results if isinstance(result, RowRefusal))


@dataclass(frozen=True)
class Labelled:
    """A label that was added. `sequence`: its number, later ones are greater; `known_at`: since when it counts."""

    transaction_id: str
    sequence: int
    known_at: datetime


@dataclass(frozen=True)
class Readiness:
    """Whether the API can score. `problem`: why the newest model is not the one that scores."""

    ready: bool
    model_version: str | None
    problem: str | None


def score_of(document: Mapping[str, Any]) -> Score:
    """A score out of its JSON."""
    given = document.get("explanation")
    explanation = None
    if given:
        reasons = tuple(Reason(**reason) for reason in given["reasons"])
        explanation = Explanation(given["unit"], given["base"], reasons, given["others"], given["total"])
    return Score(
        document["transaction_id"], document["probability"], document["decision"], document["model_version"], explanation
    )


def row_of(document: Mapping[str, Any]) -> RowScore | RowRefusal:
    """A row's result out of its JSON."""
    if "errors" in document:
        return RowRefusal(document["row"], tuple(FieldProblem(**error) for error in document["errors"]))
    return RowScore(document["row"], document["transaction_id"], document["probability"], document["decision"])
