"""Score checked payments: probabilities and what is behind them. The API, the desk and files come through here."""

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import SecretStr, ValidationError

from fraud_core.errors import StoreError
from fraud_core.features import catalogue
from fraud_core.fields.declared import NOTHING, Declared
from fraud_core.fields.schema import Column
from fraud_core.history.lookup import HistoryLookup
from fraud_core.models.explain import Explainer, Reason
from fraud_core.models.follower import LoadedModel
from fraud_core.models.scorer import Scorer
from fraud_core.transactions.decision import Decision
from fraud_core.transactions.declared_type import fields_of
from fraud_core.transactions.refusals import FieldProblem, trimmed, wrong_fields
from fraud_core.transactions.transaction import Transaction
from fraud_core.units.arrays import Floats
from fraud_core.units.time import to_microseconds

_EPOCH_DAY = date(1970, 1, 1).toordinal()
_NO_DAY = np.iinfo(np.int64).min  # NumPy's NaT

Record = dict[str, Any]


def from_values(fields: Any, context: dict[str, Any] | None = None, of: type[Transaction] = Transaction) -> Transaction:
    """The payment of parsed JSON or of typed columns, in this context (see `transaction.reading`).

    Raises:
        ValidationError: a field is wrong.
    """
    return of.__pydantic_validator__.validate_python(fields, context=context)  # type: ignore[no-any-return]


def from_text(fields: Any, context: dict[str, Any] | None = None, of: type[Transaction] = Transaction) -> Transaction:
    """Likewise of cells of text."""
    return of.__pydantic_validator__.validate_strings(fields, context=context)  # type: ignore[no-any-return]


Validate = Callable[[Any, dict[str, Any] | None, type[Transaction]], Transaction]


def inputs_of(
    transactions: Sequence[Transaction],
    declared: Declared = NOTHING,
    hashed: Callable[[SecretStr], str] | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """The arrays of length n that `features.compute` takes, of n transactions; a field that is not given is missing.

    Args:
        transactions: the payments.
        declared: the own fields that are wanted: numbers and flags are float64 (NaN: missing), times int64 microseconds as
            float64 (NaN: missing), names object (None: missing). Of what is not kept there is no array.
        hashed: what a personal id is known by; None: all of them are missing.
    """
    moments = np.array([to_microseconds(t.timestamp) for t in transactions], dtype=np.int64)
    cents = np.array([t.amount_cents for t in transactions], dtype=np.int64)
    categories = np.array([t.category for t in transactions], dtype=object)
    found: dict[str, npt.NDArray[Any]] = {"timestamp": moments, "amount_cents": cents, "category": categories}
    found["birth_date"] = _days([t.birth_date for t in transactions])
    found |= {name: np.array([getattr(t, name) for t in transactions], dtype=np.float64) for name in _NUMBERS}
    for column in declared.columns:
        values = [t.__dict__.get(column.name) for t in transactions]
        found[column.name] = _array(column, values, hashed)
    return found


def _array(column: Column, values: list[Any], hashed: Callable[[SecretStr], str] | None) -> npt.NDArray[Any]:
    """An own column's values, as features and windows take them."""
    match column.parser:
        case "number" | "flag":
            return np.array(values, dtype=np.float64)
        case "time":
            return np.array([None if one is None else to_microseconds(one) for one in values], dtype=np.float64)
        case "secret":
            return np.array([None if one is None or hashed is None else hashed(one) for one in values], dtype=object)
        case _:
            return np.array(values, dtype=object)


_NUMBERS = ("home_latitude", "home_longitude", "merchant_latitude", "merchant_longitude", "city_population")


def _days(dates: Sequence[date | None]) -> npt.NDArray[np.datetime64]:
    """Dates as NumPy's days. Converted by NumPy itself, they would take longer than all other fields together."""
    numbers = [_NO_DAY if day is None else day.toordinal() - _EPOCH_DAY for day in dates]
    return np.array(numbers, dtype=np.int64).view("datetime64[D]")


@dataclass(frozen=True)
class Scored:
    """n payments, scored together.

    Attributes:
        scorer: what scored them: the model without history where its past could not be read.
        values: feature -> the values they had, as `features.compute` gives them.
        matrix: what the model saw, of shape (n, columns).
        probabilities: of fraud, float64[n].
        sequence: number of the newest recorded payment that history took into account; None: none was looked at.
        degraded: whether the model had to do without the history it was made for.
    """

    scorer: Scorer
    values: dict[str, npt.NDArray[Any]]
    matrix: Floats
    probabilities: Floats
    sequence: int | None
    degraded: bool

    @cached_property
    def plain(self) -> list[dict[str, float | str | None]]:
        """`values`, a dictionary a payment."""
        return catalogue.plain(self.values)


def score_together(scorer: Scorer, transactions: Sequence[Transaction], lookup: HistoryLookup | None) -> Scored:
    """Score payments, each as of its own time; nothing is recorded.

    Args:
        scorer: the model.
        transactions: the payments.
        lookup: tells their past. None, or a store that cannot be used: the model without history scores them.
    """
    inputs = inputs_of(transactions, scorer.declared, lookup.hashed if lookup is not None and scorer.declared.personal else None)
    sequence, degraded = None, False
    if scorer.reach is not None:
        assert scorer.without_history is not None
        try:
            if lookup is None:
                raise StoreError("There is no history store.")
            past = lookup.past(transactions, scorer.plan, scorer.reach, scorer.zone)
        except StoreError:
            scorer, degraded = scorer.without_history, True
        else:
            inputs |= past.states
            sequence = past.sequence
    values = catalogue.compute(scorer.features, inputs, scorer.zone)
    matrix = scorer.bundle.encoder.matrix(values)
    return Scored(scorer, values, matrix, scorer.score_matrix(matrix), sequence, degraded)


@dataclass(frozen=True)
class Examined:
    """A payment's score, and what is behind it.

    Attributes:
        probability: of fraud.
        decision: by the thresholds of the model that scored it.
        values: feature -> the value it had, as `features.compute` gives it.
        explainer: of the model that scored it.
        base: the score expected before anything is known, in the explainer's unit.
        contributions: of shape (columns,), what each column of the encoder added to it.
        degraded: see `Scored`.
    """

    probability: float
    decision: Decision
    values: dict[str, Any]
    explainer: Explainer
    base: float
    contributions: Floats
    degraded: bool

    @property
    def reasons(self) -> list[Reason]:
        """The strongest, strongest first."""
        return self.explainer.reasons(self.values, self.contributions)

    @property
    def total(self) -> float:
        """The score in the explainer's unit."""
        return self.base + float(self.contributions.sum())


def examined(served: LoadedModel, scored: Scored, at: int) -> Examined:
    """One of the payments that were scored together, with what is behind its score."""
    explainer = served.explainer_of(scored.scorer)
    base, contributions = explainer.contributions(scored.matrix[at : at + 1])
    probability = float(scored.probabilities[at])
    values = {name: array[at] for name, array in scored.values.items()}
    return Examined(
        probability, scored.scorer.decide(probability), values, explainer, base, contributions[0], degraded=scored.degraded
    )


def score_rows(
    scorer: Scorer,
    rows: Iterable[Any],
    first: int,
    validate: Validate = from_values,
    lookup: HistoryLookup | None = None,
    repeated: Sequence[str] = (),
    of: type[Transaction] | None = None,
) -> list[Record]:
    """A record a row, in order: what `RowScore` or `RowRefusal` describe. Each is scored as of its own time; nothing is recorded.

    Args:
        scorer: the model.
        rows: each a mapping of fields, or a problem that was found on the way here.
        first: number of the first row.
        validate: a mapping of fields -> a transaction, in the scorer's context.
        lookup: tells the past of the payments.
        repeated: attributes of a transaction that its record repeats.
        of: the type of the payments; None: the one that the scorer's declaration makes.
    """
    of = of or scorer.payment
    known = fields_of(of)
    records: list[Record] = []
    read: list[tuple[Record, Transaction]] = []
    for number, row in enumerate(rows, first):
        record: Record = {"row": number}
        records.append(record)
        if isinstance(row, FieldProblem):
            record["errors"] = [row.model_dump()]
            continue
        try:
            read.append((record, validate(trimmed(row, known), scorer.reading, of)))
        except ValidationError as error:
            record["errors"] = [problem.model_dump() for problem in wrong_fields(error)]
    if read:
        scored = score_together(scorer, [transaction for _, transaction in read], lookup)
        for (record, transaction), probability in zip(read, scored.probabilities.tolist(), strict=True):
            record["transaction_id"] = transaction.transaction_id or made_id()
            record["probability"] = probability
            record["decision"] = scored.scorer.decide(probability)
            if scored.degraded:
                record["degraded"] = True
            for name in repeated:
                record[name] = getattr(transaction, name)
    return records


def made_id() -> str:
    """An id for a payment that came without one."""
    return secrets.token_hex(16)
