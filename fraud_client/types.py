"""Requests and answers of the scoring API as plain dataclasses."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

Decision = Literal["approve", "review", "decline"]
Outcome = Literal["fraud", "legitimate", "unsure"]
LabelSource = Literal["chargeback", "analyst"]


Value = str | int | float | Decimal | bool | datetime | date | None


@dataclass(frozen=True, kw_only=True, init=False, repr=False)
class Transaction:
    """One card payment. What is None counts as missing; `card` is a number or a token and is never shown.

    With a `transaction_id` the request may be repeated safely, and is where the connection fails. Fields that your installation
    declares are further keywords (kept in `own`); `fraud client-types` writes a class that knows their names and types.
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
    own: tuple[tuple[str, Value], ...] = ()

    def __init__(
        self,
        *,
        timestamp: datetime,
        amount: Decimal | int | str,
        transaction_id: str | None = None,
        card: str | None = None,
        merchant: str | None = None,
        category: str | None = None,
        birth_date: date | None = None,
        home_latitude: float | None = None,
        home_longitude: float | None = None,
        merchant_latitude: float | None = None,
        merchant_longitude: float | None = None,
        city_population: int | None = None,
        own: Iterable[tuple[str, Value]] = (),
        **more: Value,
    ) -> None:
        given = dict(locals())
        for field in fields(Transaction):
            object.__setattr__(self, field.name, given[field.name])
        object.__setattr__(self, "own", tuple({**dict(own), **more}.items()))
        for name, value in (("timestamp", timestamp), *self.own):
            if isinstance(value, datetime) and value.utcoffset() is None:
                raise ValueError(f"{name} needs a time zone; for example datetime.now(UTC)")

    def __repr__(self) -> str:
        return f"Transaction(transaction_id={self.transaction_id!r}, timestamp={self.timestamp.isoformat()})"

    def to_json(self) -> dict[str, Any]:
        """The fields that are given, as the API takes them."""
        given = {field.name: getattr(self, field.name) for field in fields(Transaction) if field.name != "own"}
        sent = {name: _json(value) for name, value in (*given.items(), *self.own) if value is not None}
        return sent | {"amount": str(sent["amount"])}


def _json(value: Value) -> Any:
    """A value as JSON has it, to the last digit."""
    match value:
        case Decimal():
            return format(value, "f")
        case datetime() | date():
            return value.isoformat()
        case _:
            return value


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
