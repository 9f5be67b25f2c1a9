"""Response schemas. What comes in is a `fraud_core.transactions.transaction.Transaction`."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from fraud_core.fields.declaration import Kind
from fraud_core.labels.resolve import Outcome
from fraud_core.transactions.decision import Decision
from fraud_core.transactions.declared_type import MOST_KEPT
from fraud_core.transactions.transaction import EXAMPLE, Transaction, clean_text, id_of

MOST_ROWS = 10_000  # in one batch
MOST_LABELS = 1_000  # in one request
# Commas and colons of a body: a payment of twelve fields has about 27, a label about 10. Counting them takes a moment, building
# what they part may take seconds, in which nothing else is answered.
MOST_PAYMENT_MARKS = 40
MOST_LABEL_MARKS = 100 * MOST_LABELS


def most_batch_marks(payment: type[Transaction]) -> int:
    """How many commas and colons a batch of such payments may have."""
    own = len(payment.model_declared.given)
    times = sum(field.kind in {"time", "id"} for field in payment.model_declared.given.values())  # which have colons themselves
    kept = 0 if payment.model_config["extra"] == "forbid" else 2 * MOST_KEPT
    return (MOST_PAYMENT_MARKS + 2 * own + 8 * times + kept) * MOST_ROWS


class Reason(BaseModel):
    """One feature's part in a score."""

    feature: str
    value: float | int | str | None = Field(description="The value it had, in the feature's unit; null: missing.")
    contribution: float = Field(description="What it added to the score (see `unit`); positive raises the risk.")
    code: str = Field(description="Short and stable, for programs.")
    sentence: str = Field(description="In plain words.")


class Explanation(BaseModel):
    """Why a score is what it is: `base`, the reasons' contributions and `others` sum to `total`."""

    unit: Literal["log-odds", "probability"]
    base: float = Field(description="The score expected before anything is known of the payment.")
    reasons: list[Reason] = Field(description="The strongest, strongest first.")
    others: float = Field(description="What all other features added together.")
    total: float = Field(description="The score in this unit: the served log-odds, or a forest's own probability.")


class Score(BaseModel):
    """A decision on one payment."""

    transaction_id: str
    probability: float = Field(ge=0, le=1, description="Calibrated probability of fraud.")
    decision: Decision
    model_version: str
    degraded: bool = Field(False, description="Whether it was scored without history, because the history store was gone.")
    explanation: Explanation | None = Field(None, description="Given with ?explain=true.")


class Refunded(BaseModel):
    """A refund that was recorded. It is no payment, so nothing is decided about it."""

    transaction_id: str
    recorded: bool = Field(description="Whether it is in the history; false where nothing is recorded (FRAUD_RECORD=off).")


class Batch(BaseModel):
    """Up to 10,000 payments. Each is judged by itself: a wrong one does not sink the others."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    transactions: list[Transaction] = Field(min_length=1, max_length=MOST_ROWS)


class RowScore(BaseModel):
    """The decision on one row of a batch or file."""

    row: int = Field(ge=0, description="Place in the batch, from 0; in a file, from 1.")
    transaction_id: str
    probability: float = Field(ge=0, le=1)
    decision: Decision
    degraded: bool = Field(False, description="Given where it was scored without history, because the history store was gone.")


class RowRefusal(BaseModel):
    """A row that could not be scored."""

    row: int = Field(ge=0)
    errors: list[dict[str, str]] = Field(description="Every wrong field: `field` and `reason`.")


class BatchScore(BaseModel):
    """The decisions on a batch, in its order, all by one model."""

    model_version: str
    rows: int
    refused: int
    results: list[RowScore | RowRefusal]


LABELLING: JsonDict = {"transaction_id": EXAMPLE["transaction_id"], "outcome": "fraud", "note": "Case 4711 of the scheme"}


class Labelling(BaseModel):
    """What became of a payment, whether it was scored here or not."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        str_strip_whitespace=True,
        hide_input_in_errors=True,
        json_schema_extra={"examples": [LABELLING]},
    )

    transaction_id: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(id_of)] = Field(
        description="Under which it was scored, or stands in the files that are trained on."
    )
    outcome: Outcome = Field(description="unsure: nobody can tell; the payment counts in no training and no fraud rate.")
    source: Literal["chargeback", "analyst"] = Field("chargeback", description="A chargeback goes before an analyst's word.")
    note: Annotated[str, Field(max_length=1_000), AfterValidator(clean_text)] = Field("", description="For people.")


class Labelled(BaseModel):
    """A label that was added. Labels are only ever added; of equal weight the last one counts."""

    transaction_id: str
    sequence: int = Field(ge=1, description="Its number; later labels have greater ones.")
    known_at: AwareDatetime = Field(description="Since when it is known, by the server's clock. History and training go by it.")
    decided: bool = Field(
        description="Whether the payment is in the decision log. If not, the label waits for the payment: look at the id."
    )


class Health(BaseModel):
    """The process is alive."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether there is a model to score with, and whether it is the newest."""

    ready: bool
    stopping: bool = Field(False, description="The server finishes what it has, and then stops.")
    model_version: str | None = None
    sequence: int | None = Field(None, description="Number of the change of the pointer that is served.")
    checked_at: AwareDatetime | None = Field(None, description="When the pointer was last looked at.")
    problem: str | None = Field(
        None, description="Kind of the error that keeps the newest model out, or payments from being recorded; the log has more."
    )


class TrainedOn(BaseModel):
    """A partition that the model learned from."""

    partition: str
    content: str = Field(description="Hash of its content.")
    verdict: str = Field(description="How it passed the drift gate.")


class DecisionThresholds(BaseModel):
    """Probabilities from which a payment is reviewed, and declined."""

    review: float
    decline: float


class FieldDetails(BaseModel):
    """A field that a transaction may have."""

    name: str
    kind: Kind
    meaning: str
    required: bool = Field(False, description="Whether a transaction without it is refused.")
    personal: bool = Field(False, description="Hashed on arrival or not kept, and never repeated.")
    values: list[str] | None = Field(None, description="All that it may be, where that is declared.")
    unit: str = ""
    lowest: float | None = None
    highest: float | None = None
    read: bool = Field(description="Whether the model that scores declares it; others were those of the one before.")
    derived_from: list[str] | None = Field(
        None, description="Of a field that follows from others: these; it is computed on arrival and must not be sent."
    )


class AmountDetails(BaseModel):
    """How amounts are read."""

    currency: str | None = Field(description="That amounts are kept in, by ISO 4217; null: none is declared.")
    by: str | None = Field(description="The field that says in which currency a payment was made; null: all are in that one.")
    negative: Literal["refuse", "refund", "keep"] = Field(
        description="What one below zero is: refused; a refund, for POST /v1/refunds; or kept."
    )
    decimals: Literal["exact", "round"] = Field(description="Whether more decimals than the currency has are refused or rounded.")
    rates: str | None = Field(description="In a sentence, which table of daily rates this process converts by.")


class ModelDetails(BaseModel):
    """The model that scores."""

    model_version: str
    kind: str
    source: str
    features: list[str]
    needs: list[str] = Field(description="Fields of a transaction that it looks at; one that is not given counts as missing.")
    fields: list[FieldDetails] = Field(description="All fields that a transaction may have, in order.")
    amounts: AmountDetails
    thresholds: DecisionThresholds
    partitions: list[TrainedOn]
    promoted_at: AwareDatetime | None
    loaded_at: AwareDatetime
    card: dict[str, Any] | None = Field(description="Its newest card with all metrics, as the pipeline wrote and signed it.")
    unsigned_card: dict[str, Any] | None = Field(
        default=None,
        description="A card without a signature, as release 0.1.0 wrote them: whoever writes to the store may have made it up.",
    )


class ModelState(BaseModel):
    """A version in the store."""

    model_version: str
    state: Literal["champion", "withdrawn", "available"]
    withdrawn_by: str | None = None
    withdrawn_because: str | None = None


class ModelChange(BaseModel):
    """A change of champion."""

    sequence: int
    model_version: str
    at: AwareDatetime
    how: str
    who: str
    reason: str


class ModelList(BaseModel):
    """All versions, and the changes of champion, newest last."""

    models: list[ModelState]
    history: list[ModelChange]
