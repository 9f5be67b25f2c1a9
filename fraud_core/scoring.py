"""From checked payments to probabilities and what is behind them. The API, the desk and files come through here."""

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from fraud_core import features
from fraud_core.holder import Served
from fraud_core.payment import Transaction
from fraud_core.refusals import FieldProblem, wrong_fields
from fraud_core.scorer import Floats, Scorer

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EPOCH_DAY = _EPOCH.toordinal()
_NO_DAY = np.iinfo(np.int64).min  # NumPy's NaT

Validate = Callable[[Any], Transaction]
Record = dict[str, Any]

from_values: Validate = Transaction.__pydantic_validator__.validate_python  # of parsed JSON, or of typed columns
from_text: Validate = Transaction.__pydantic_validator__.validate_strings  # of cells of text


def inputs_of(transactions: Sequence[Transaction]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of length n that `features.compute` takes, of n transactions; a field that is not given is missing."""
    return {
        "timestamp": np.array([(t.timestamp - _EPOCH) // _MICROSECOND for t in transactions], dtype=np.int64),
        "amount_cents": np.array([t.amount_cents for t in transactions], dtype=np.int64),
        "birth_date": _days([t.birth_date for t in transactions]),
        "home_latitude": np.array([t.home_latitude for t in transactions], dtype=np.float64),
        "home_longitude": np.array([t.home_longitude for t in transactions], dtype=np.float64),
        "merchant_latitude": np.array([t.merchant_latitude for t in transactions], dtype=np.float64),
        "merchant_longitude": np.array([t.merchant_longitude for t in transactions], dtype=np.float64),
        "city_population": np.array([t.city_population for t in transactions], dtype=np.float64),
        "category": np.array([t.category for t in transactions], dtype=object),
    }


def _days(dates: Sequence[date | None]) -> npt.NDArray[np.datetime64]:
    """Dates as NumPy's days. Converted by NumPy itself, they would take longer than all other fields together."""
    numbers = [_NO_DAY if day is None else day.toordinal() - _EPOCH_DAY for day in dates]
    return np.array(numbers, dtype=np.int64).view("datetime64[D]")


def probabilities(scorer: Scorer, transactions: Sequence[Transaction]) -> list[float]:
    """The fraud probabilities of payments, one or more."""
    scored: list[float] = scorer.score_inputs(inputs_of(transactions)).tolist()
    return scored


def matrix_of(scorer: Scorer, transactions: Sequence[Transaction]) -> Floats:
    """What the model sees of n payments: shape (n, columns)."""
    return scorer.matrix(inputs_of(transactions))


@dataclass(frozen=True)
class Examined:
    """A payment's score, and what is behind it.

    Attributes:
        probability: of fraud.
        values: feature -> the value it had, as `features.compute` gives it.
        matrix: of shape (1, columns), what the model saw of it.
        base: the score expected before anything is known, in the explainer's unit.
        contributions: of shape (columns,), what each column of the encoder added to it.
    """

    probability: float
    values: dict[str, Any]
    matrix: Floats
    base: float
    contributions: Floats


def examine(served: Served, transaction: Transaction) -> Examined:
    """Score one payment, and explain the score."""
    scorer = served.scorer
    values = features.compute(scorer.features, inputs_of([transaction]), scorer.zone)
    matrix = scorer.bundle.encoder.matrix(values)
    base, contributions = served.explainer.contributions(matrix)
    first = {name: array[0] for name, array in values.items()}
    return Examined(float(scorer.score_matrix(matrix)[0]), first, matrix, base, contributions[0])


def score_rows(scorer: Scorer, rows: Iterable[Any], first: int, validate: Validate = from_values) -> list[Record]:
    """A record a row, in order: what `RowScore` or `RowRefusal` describe.

    Args:
        rows: each a mapping of fields, or a problem that was found on the way here.
        first: number of the first row.
        validate: a mapping of fields -> a transaction.
    """
    records: list[Record] = []
    scored: list[tuple[Record, Transaction]] = []
    for number, row in enumerate(rows, first):
        record: Record = {"row": number}
        records.append(record)
        if isinstance(row, FieldProblem):
            record["errors"] = [row.model_dump()]
            continue
        try:
            scored.append((record, validate(row)))
        except ValidationError as error:
            record["errors"] = [problem.model_dump() for problem in wrong_fields(error)]
    if scored:
        found = probabilities(scorer, [transaction for _, transaction in scored])
        for (record, transaction), probability in zip(scored, found, strict=True):
            record["transaction_id"] = transaction.transaction_id or made_id()
            record["probability"] = probability
            record["decision"] = scorer.decide(probability)
    return records


def made_id() -> str:
    """An id for a payment that came without one."""
    return secrets.token_hex(16)
