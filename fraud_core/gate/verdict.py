"""Verdict of the gate on a partition: its evidence, and the decisions of people upon it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeVar

import polars as pl
from pydantic import BaseModel, ConfigDict

from fraud_core.signing.keys import Key
from fraud_core.storage.documents import Counted
from fraud_core.storage.heads import Heads
from fraud_core.storage.index import Index
from fraud_core.storage.objects import ObjectStore

FOLDER = "drift"
NATURAL_PARTITIONS = 24  # so many accepted partitions tell how large natural variation is


Summary = TypeVar("Summary", bound=BaseModel)
Likened = Literal["last", "confirmed", "season"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PartitionRef(_Model):
    """A partition and the sha256 (hex) of its transformed content."""

    partition: str
    content: str


class ReferencePart(PartitionRef):
    """An accepted partition behind the reference, and how many of the reference's rows are its."""

    rows: int


class FeatureResult(_Model):
    """One feature of the judged partition against the reference.

    `excess` is the distance beyond `noise`, which is what sampling alone gives; `clustering` says how much of that comes from
    rows that share a card. The feature has drifted when its corrected p-value lies under the significance and its excess above
    the bound.
    """

    name: str
    role: Literal["blocks", "reported"]
    measure: str
    distance: float
    noise: float
    clustering: float
    excess: float
    bound: float
    statistic: float
    p_value: float
    p_corrected: float
    rows_reference: int
    rows_current: int
    drifted: bool

    @property
    def severity(self) -> float:
        """Excess in units of the bound; above 2 the feature alone rejects the partition."""
        return self.excess / self.bound


class Finding(_Model):
    """Something about the partition that has a name of its own; `message` is a sentence for people."""

    name: Literal[
        "too_few_rows",
        "no_reference",
        "missing_column",
        "constant_column",
        "null_share",
        "unseen_category",
        "feature_drift",
        "drifted_share",
        "slow_drift",
        "known_step",
        "rewritten",
        "volume",
    ]
    message: str
    blocking: bool = True
    feature: str | None = None
    value: float
    bound: float


class LongComparison(_Model):
    """The judged partition against what it may not drift away from in small steps: what a person confirmed, or a season ago."""

    kind: Literal["bootstrap", "confirmed", "season", "rest"]
    reference: tuple[ReferencePart, ...]
    features: tuple[FeatureResult, ...]

    @property
    def worst(self) -> tuple[FeatureResult, ...]:
        """The features, furthest beyond their bound first."""
        return tuple(sorted(self.features, key=lambda feature: -feature.severity))


class FormerSelf(PartitionRef):
    """What a partition held when it was last accepted; `feature_version` is that of the code that made it."""

    kind: Literal["bootstrap", "judged"]
    rows: int
    sample_sha256: str
    feature_version: int


class Decision(_Model):
    """What a person said about one content, or about the rules of the gate, whatever the statistics say."""

    action: Literal["accept", "refuse", "confirm"]
    who: str
    reason: str
    at: datetime


class Verdict(Counted):
    """What the gate says about one partition's content, and its evidence.

    `accepted` is what the statistics say; `is_accepted` is what holds, with the last decision of a person. `sequence` counts the
    changes of the partition's verdict (0: written before they were counted); `rules` is the hash of the rules it was judged by
    (see `gate.rules`), and `confirmed` who let them be changed to what they are. `likened` says what `reference` is: the last
    partitions, or a step away from them that a person accepted. `long` is empty where there was nothing to compare with,
    `former` where the partition was never accepted before.
    """

    format: Literal[1] = 1
    partition: str
    content: str
    rules: str = ""
    confirmed: Decision | None = None
    kind: Literal["bootstrap", "judged"]
    accepted: bool
    rows: int
    features: tuple[FeatureResult, ...] = ()
    findings: tuple[Finding, ...] = ()
    reference: tuple[ReferencePart, ...] = ()
    likened: Likened = "last"
    long: LongComparison | None = None
    former: FormerSelf | None = None
    sample_rows: int
    sample_sha256: str
    seed: int
    detector: str
    versions: dict[str, str]
    created_at: datetime
    decisions: tuple[Decision, ...] = ()

    @property
    def ref(self) -> PartitionRef:
        """The partition and content that this verdict speaks of."""
        return PartitionRef(partition=self.partition, content=self.content)

    @property
    def overruled_by(self) -> Decision | None:
        """The person's acceptance that holds, if any."""
        return self._last("accept")

    @property
    def refused_by(self) -> Decision | None:
        """The person's refusal that holds, if any."""
        return self._last("refuse")

    @property
    def is_accepted(self) -> bool:
        """Whether this content may train: the last decision of a person, else what the statistics say."""
        return self.refused_by is None and (self.accepted or self.overruled_by is not None)

    @property
    def is_step(self) -> bool:
        """Whether it is unlike the partitions before it, and a person accepted that: this one, or one that it is like."""
        return self.is_accepted and (self.overruled_by is not None or self.likened != "last")

    @property
    def sample_key(self) -> str:
        """Where this partition's sample of features lies in the store."""
        return sample_key(self.ref)

    @property
    def feature_version(self) -> int:
        """Of the code that made the features; it was 3 before verdicts said so."""
        return int(self.versions.get("features", "3"))

    @property
    def accepted_self(self) -> FormerSelf | None:
        """What the partition holds where this verdict accepts it, else what it held when it was last accepted."""
        if not self.is_accepted:
            return self.former
        return FormerSelf(
            partition=self.partition,
            content=self.content,
            kind=self.kind,
            rows=self.rows,
            sample_sha256=self.sample_sha256,
            feature_version=self.feature_version,
        )

    @property
    def worst(self) -> tuple[FeatureResult, ...]:
        """The features, furthest beyond their bound first."""
        return tuple(sorted(self.features, key=lambda feature: -feature.severity))

    def _last(self, action: str) -> Decision | None:
        return self.decisions[-1] if self.decisions and self.decisions[-1].action == action else None


class VerdictSummary(_Model):
    """What planning has to know of a verdict, as its index holds it: of which content, by which rules, and what holds."""

    sequence: int
    content: str
    rules: str
    is_accepted: bool


@dataclass(frozen=True)
class TrainingSet:
    """The partitions that may train, and those that may not, each bound to its present content; in key order.

    `held` says of those rejected ones whose labels are held, why.
    """

    accepted: tuple[PartitionRef, ...]
    rejected: tuple[PartitionRef, ...]
    verdicts: Mapping[str, Verdict]
    held: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """A verdict with the two samples behind it (watched features only, Float64 or String), for plots and for the store.

    `sample` is `current` as Parquet, whose hash the verdict holds. `reference` is empty where nothing was accepted before.
    """

    verdict: Verdict
    current: pl.DataFrame
    reference: pl.DataFrame
    sample: bytes


@dataclass(frozen=True)
class LongReference:
    """Accepted partitions that do not move on with every acceptance: their verdicts and samples."""

    kind: Literal["bootstrap", "confirmed", "season", "rest"]
    verdicts: tuple[Verdict, ...]
    samples: tuple[pl.DataFrame, ...]


@dataclass(frozen=True)
class Past:
    """What a partition is judged against.

    Attributes:
        verdicts: accepted ones before it, oldest first; the last that tell what natural variation is.
        references: the last K of them, or what stands in their place.
        samples: of the references.
        steps: what a person accepted although it was unlike its past; a partition that is like one of them is no stranger.
        long: what it may not have drifted away from in small steps; it has to be like one of them.
        rest: the first accepted partitions beside it, be they before or after it.
        former: what it held itself when it was last accepted, and the sample of that.
        has_begun: whether anything was accepted on its merits or by a person, so that the bootstrap is over.
    """

    verdicts: tuple[Verdict, ...] = ()
    references: tuple[Verdict | FormerSelf, ...] = ()
    samples: tuple[pl.DataFrame, ...] = ()
    steps: tuple[LongReference, ...] = ()
    long: tuple[LongReference, ...] = ()
    rest: LongReference | None = None
    former: tuple[FormerSelf, pl.DataFrame] | None = None
    has_begun: bool = False


def sample_key(part: PartitionRef) -> str:
    """Key of the sample of a partition's features in the store."""
    return f"{FOLDER}/samples/{part.partition}-{part.content[:12]}.parquet"


def verdict_key(partition: str) -> str:
    """Key of a partition's verdict in the store."""
    return f"{FOLDER}/{partition}.json"


def verdict_index(
    name: str,
    kind: type[Summary],
    store: ObjectStore,
    key: Key,
    heads: Heads | None,
    prefix: str,
    read: Callable[[str], BaseModel | None],
) -> Index[Summary]:
    """An index of verdicts of a kind, whose keys in the store are prefix and partition; the summary has fields of theirs."""

    def listed() -> list[str]:
        names = (where.removeprefix(prefix).removesuffix(".json") for where in store.list(FOLDER) if where.startswith(prefix))
        return [each for each in names if each[:1].isdigit()]

    def summary(partition: str) -> Summary | None:
        verdict = read(partition)
        return None if verdict is None else kind.model_validate({each: getattr(verdict, each) for each in kind.model_fields})

    return Index(name, kind, store, key, heads, listed, summary)


def explain(verdict: Verdict) -> str:
    """One sentence: why the partition may not train, and how a person accepts it."""
    if verdict.refused_by is not None:
        cause = f"was refused by {verdict.refused_by.who} ({verdict.refused_by.reason})"
    else:
        blocking = [finding.message for finding in verdict.findings if finding.blocking]
        more = f"; and {len(blocking) - 3} more" if len(blocking) > 3 else ""
        cause = f"is rejected by the drift gate: {'; '.join(blocking[:3])}{more}"
    return (
        f"Partition {verdict.partition} {cause}. No model is trained on it; if the data is right all the same, "
        f'accept it with `fraud accept {verdict.partition} --reason "..."`.'
    )


def has_words(reason: str) -> bool:
    """Whether a reason has at least two words."""
    return len(re.findall(r"[^\W\d_]{2,}", reason)) >= 2
