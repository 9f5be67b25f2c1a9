"""The model's card: what was trained on what, how well it does, and what its figures do not say."""

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from fraud_core.evaluation.intervals import Interval
from fraud_core.evaluation.report import Policy, Report

FEW_FRAUD_CARDS = 30  # below so many compromised cards a bootstrap over cards draws from too few to be trusted


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Candidate(_Model):
    """A kind of model that was tried, and its average precision on validation A."""

    kind: str
    average_precision: float
    chosen: bool


class Fallback(_Model):
    """The second model, without features of the past, and its average precision on validation B and on the hold-out."""

    kind: str
    features: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    validation: float
    holdout: float


class DroppedFeature(_Model):
    """A feature this model does without, and why."""

    name: str
    reason: str


class TrainingPartition(_Model):
    """A partition that was trained on, bound to its content, and how it passed the gate."""

    key: str
    content_hash: str
    verdict: Literal["accepted", "bootstrap", "accepted_by"]
    accepted_by: str | None = None
    reason: str | None = None


class RejectedPartition(_Model):
    """A partition that the gate kept out of training."""

    key: str
    content_hash: str
    reason: str


class Block(_Model):
    """One side of the split. Borders are days (the end is excluded) or, where cardholders are split, buckets."""

    name: str
    begin: str
    end: str
    rows: int
    frauds: int


class Promotion(_Model):
    """Whether the candidate became champion, and every reason for or against."""

    promoted: bool
    reasons: tuple[str, ...]
    champion: str | None = None  # the version it was compared with; None: there was none
    difference: float | None = None  # candidate minus champion in average precision, same rows
    interval: Interval | None = None


class ModelCard(_Model):
    """Everything a person should know before trusting this model. `created` is passed in, so that a card can be made again.

    `holdout` counts every row of the hold-out; `holdout_without_rejected` leaves out partitions that the gate rejected (None:
    it rejected none there). `holdout_looks` counts the models that were measured on this hold-out, this one included.
    """

    version: str
    source: str
    created: AwareDatetime
    kind: str
    candidates: tuple[Candidate, ...]
    candidates_fraud_rate: float
    features: tuple[str, ...]
    dropped_features: tuple[DroppedFeature, ...]
    partitions: tuple[TrainingPartition, ...]
    rejected_partitions: tuple[RejectedPartition, ...]
    split: tuple[Block, ...]
    policy: Policy
    validation: Report
    holdout: Report
    holdout_without_rejected: Report | None
    holdout_looks: int
    promotion: Promotion
    fallback: Fallback | None = None
