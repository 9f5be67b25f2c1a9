"""Training task: everything that a training is made of, as values, and the hash by which it is known."""

from dataclasses import dataclass
from importlib import metadata

from pydantic import BaseModel, ConfigDict

from fraud_assets.training.candidates import recipe
from fraud_assets.training.rows import Data
from fraud_assets.training.split import Split, split_of
from fraud_core import gate
from fraud_core.evaluation.report import Policy
from fraud_core.features import catalogue
from fraud_core.gate import PartitionRef, TrainingSet
from fraud_core.gate.labels import held_labels
from fraud_core.models.manifest import Lineage, Thresholds
from fraud_core.settings import Settings
from fraud_core.sources.source import Source
from fraud_core.storage.artifacts import Artifacts, Pointer, fingerprint
from fraud_core.training_data.transform import dropped_features

LIBRARIES = ("numpy", "polars", "scikit-learn", "treelite")


class TrainingSettings(BaseModel):
    """The settings that decide what a training learns and how it is judged; `fraud_core.settings` describes each."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    threads: int
    seed: int
    max_training_rows: int
    min_holdout_frauds: int
    bootstrap_draws: int
    review_capacity: int
    review_cost: float
    false_decline_cost: float

    def of_the_model(self) -> str:
        """Those that change the model, as JSON: neither the number of threads nor that of bootstrap draws does."""
        return self.model_dump_json(exclude={"threads", "bootstrap_draws"})

    def policy(self, thresholds: Thresholds, label_delay_days: int) -> Policy:
        """By what a model with these thresholds is evaluated."""
        return Policy(
            review_threshold=thresholds.review,
            decline_threshold=thresholds.decline,
            review_cost=self.review_cost,
            false_decline_cost=self.false_decline_cost,
            label_delay_days=label_delay_days,
            draws=self.bootstrap_draws,
            seed=self.seed,
            min_frauds=self.min_holdout_frauds,
        )


@dataclass(frozen=True)
class TrainingTask:
    """What a training is given, as it is at one time.

    Attributes:
        source: the declaration of the data.
        settings: those that decide.
        data: the rows, with what has become known of them.
        allowed: which partitions may train.
        split: of the accepted partitions: a rejected one that comes last moves no border; the same set, the same model.
        measured: the partitions that the hold-out is read from (see `measured_partitions`).
        lineage: where all of it comes from; it ships with the model.
    """

    source: Source
    settings: TrainingSettings
    data: Data
    allowed: TrainingSet
    split: Split
    measured: tuple[PartitionRef, ...]
    lineage: Lineage

    @classmethod
    def read(
        cls, artifacts: Artifacts, source: Source, settings: Settings, allowed: TrainingSet, card_key_id: str
    ) -> "TrainingTask":
        """What the store holds at present.

        Raises:
            NotYetTrainableError: there is too little data for the split.
        """
        pointers = artifacts.pointers("transformed")
        data, accepted = Data.of(artifacts, source), {part.partition: pointers[part.partition] for part in allowed.accepted}
        return cls(
            source,
            TrainingSettings.model_validate(settings),
            data,
            allowed,
            split_of(source, accepted),
            measured_partitions(artifacts),
            _lineage(source, allowed, accepted, data.fingerprint(), card_key_id),
        )

    @property
    def inputs(self) -> str:
        """Hash of everything the training depends on; while it stays, training again would give the same model."""
        return fingerprint(
            self.lineage.training_set,
            *([self.lineage.labels] if self.lineage.labels else []),
            self.split.model_dump_json(),
            self.settings.of_the_model(),
            str(catalogue.VERSION),
            recipe(),
            *(f"{name} {version}" for name, version in self.lineage.libraries.items()),
        )


def measured_partitions(artifacts: Artifacts) -> tuple[PartitionRef, ...]:
    """Every materialized partition, those that the gate rejected included, but those whose labels are held: by them nothing can
    be measured.

    Raises:
        GateRefusalError: a verdict on labels does not verify, or is not the newest that was seen.
    """
    contents = {key: pointer.content for key, pointer in artifacts.pointers("transformed").items()}
    held = held_labels(artifacts.store, artifacts.signing_key, contents, artifacts.heads)
    return tuple(PartitionRef(partition=key, content=content) for key, content in contents.items() if key not in held)


def _lineage(source: Source, allowed: TrainingSet, accepted: dict[str, Pointer], labels: str, card_key_id: str) -> Lineage:
    return Lineage(
        training_set=gate.fingerprint(allowed),
        labels=labels,
        partitions=tuple((part.partition, part.content, _how(allowed, part)) for part in allowed.accepted),
        rejected=tuple((part.partition, part.content) for part in allowed.rejected),
        files={key: pointer.sha256 for key, pointer in accepted.items()},
        dropped_features=dropped_features(source),
        card_key_id=card_key_id,
        libraries={name: metadata.version(name) for name in LIBRARIES},
        digits=source.digits,
    )


def _how(allowed: TrainingSet, part: PartitionRef) -> str:
    verdict = allowed.verdicts[part.partition]
    if verdict.overruled_by is not None:
        return "accepted_by"
    return "bootstrap" if verdict.kind == "bootstrap" else "accepted"
