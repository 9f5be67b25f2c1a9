"""Manifest of a bundle: everything that is signed about a model, its files, thresholds and lineage."""

import hashlib
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from fraud_core.features.windows import NEWEST_EVENTS, Reach
from fraud_core.fields.declared import Declared
from fraud_core.models.kinds.catalogue import KINDS
from fraud_core.signing.keys import canonical_json

FORMAT = 2
MAIN, FALLBACK = ("model", "encoder"), ("fallback", "fallback_encoder")  # what the files of each model are called


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"'{kind}' is no kind of model that this release knows: {', '.join(KINDS)}")
    return kind


ModelKind = Annotated[str, AfterValidator(_known)]


def file_names(kind: str, names: tuple[str, str]) -> tuple[str, str]:
    """What the two files of a model are called, its own and its encoder's."""
    model, encoder = names
    return f"{model}.{KINDS[kind].suffix}", f"{encoder}.json"


class SignedPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Calibration(SignedPart):
    """Platt's map: log-odds = slope * margin + intercept.

    The margin is boosting's raw log-odds, a forest's mean probability, or a linear model's decision function (see `kinds`).
    """

    slope: float
    intercept: float


class Thresholds(SignedPart):
    """Probabilities from which a payment is reviewed and declined; review <= decline."""

    review: float
    decline: float


class Lookback(SignedPart):
    """How far the features of the past look back, in days, and at how many payments of a card at most."""

    history_days: int
    label_delay_days: int
    newest_events: int = NEWEST_EVENTS

    @property
    def reach(self) -> Reach:
        """The same as the windows take it."""
        return Reach.of_days(self.history_days, self.label_delay_days, self.newest_events)


class LearnedModel(SignedPart):
    """What decides the scores of one model; its two files by their hashes."""

    features: tuple[str, ...]
    kind: ModelKind
    model_sha256: str
    encoder_sha256: str
    calibration: Calibration
    thresholds: Thresholds


class Learned(LearnedModel):
    """Everything that decides a score. The version of a bundle is the hash of this.

    `lookback` and `fallback`, the second model, are None where no feature speaks of the past; `declared`, the fields and windows
    of its source, where these are the standard ones alone.
    """

    format: int = FORMAT
    source: str
    timezone: str
    feature_version: int
    lookback: Lookback | None = None
    fallback: LearnedModel | None = None
    declared: Declared | None = None

    @property
    def version(self) -> str:
        """16 hex digits."""
        deciding = self.model_dump(mode="json")
        if self.lookback is not None and self.lookback.newest_events == NEWEST_EVENTS:
            del deciding["lookback"]["newest_events"]  # bundles of before it was declared are known by what was declared then
        if self.declared is None:
            del deciding["declared"]  # likewise
        return hashlib.sha256(canonical_json(deciding)).hexdigest()[:16]


class Lineage(SignedPart):
    """Where the knowledge came from: partitions as (key, content hash, verdict), and under which keys and libraries.

    `data_revision` is the commit of the data repository that holds all of it; None where no data versions are made, or where
    this one was made later. It is found by the version in any case.
    """

    training_set: str
    labels: str = ""  # hash of what the log of labels changed among these payments; empty: nothing
    partitions: tuple[tuple[str, str, str], ...]
    rejected: tuple[tuple[str, str], ...] = ()
    files: dict[str, str] = {}  # partition -> SHA-256 of the file that was read; empty where release 0.1.0 trained
    dropped_features: tuple[str, ...] = ()  # that the source does without
    dropped_columns: dict[str, str] = {}  # features that nothing could be learned from, and why
    card_key_id: str
    libraries: dict[str, str]
    data_revision: str | None = None
    digits: dict[str, tuple[int, ...]] = {}  # names that are numbers of so many digits by design (`sources.TextColumn`)


class Manifest(SignedPart):
    """A bundle's table of contents."""

    version: str
    learned: Learned
    lineage: Lineage
