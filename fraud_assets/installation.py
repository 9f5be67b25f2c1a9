"""Installation: the settings, source, keys, stores and artifacts that every asset works with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fraud_core.errors import IntegrityError
from fraud_core.evaluation.model_card import Promotion
from fraud_core.gate import Rules, TrainingSet, read_verdict, rules_in_force, training_set
from fraud_core.gate.labels import without_held
from fraud_core.models.registry import ChampionPointer, latest_of
from fraud_core.settings import Settings
from fraud_core.signing import keys
from fraud_core.signing.keys import Key
from fraud_core.sources.source import Source, load_source
from fraud_core.storage.artifacts import Artifacts, Pointer
from fraud_core.storage.database import open_database
from fraud_core.storage.heads import Heads
from fraud_core.storage.open import open_store

if TYPE_CHECKING:
    from fraud_assets.training.rows import Data
    from fraud_assets.training.task import TrainingTask

Tell = Callable[[str], None]


def _silent(_: str) -> None:
    """For runs that Dagster's own log shows."""


@dataclass(frozen=True)
class Installation:
    """One installation: settings and the source they name."""

    settings: Settings
    source: Source
    tell: Tell = _silent  # told, in a sentence, how long work goes on; the command line prints it
    # The last judgement on a promotion, by the hash of all that decided it: of this process and these very settings.
    promotions: dict[str, Promotion] = field(default_factory=dict, init=False, repr=False, compare=False)
    # Likewise the last answer to whether a training is due: why, and by which key.
    trainings: dict[str, tuple[str, str | None]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def load(cls, settings: Settings, files: tuple[str, ...] = (), tell: Tell = _silent) -> "Installation":
        """The installation that the settings describe; `files` take the place of the source's paths.

        Raises:
            SourceError: the source's TOML is missing or wrong.
        """
        return cls(settings, load_source(settings.source, files), tell)

    @cached_property
    def artifacts(self) -> Artifacts:
        """The artifacts, in a store that is claimed for the source on first use.

        Raises:
            SourceError: the store belongs to another source.
            StoreError: it cannot be reached.
        """
        client = _s3_client() if self.settings.store_url.startswith("s3://") else None
        store = open_store(self.settings.store_url, self.settings.home / "cache", client)
        heads = Heads(open_database(self.settings), store.url)
        artifacts = Artifacts(store, keys.signing_key(self.settings), heads)
        artifacts.claim(self.source.name)
        return artifacts

    @property
    def heads(self) -> Heads:
        """The newest changes of signed documents that this installation has seen in its store."""
        assert self.artifacts.heads is not None
        return self.artifacts.heads

    @cached_property
    def card_key(self) -> Key:
        """Key of the card hashes."""
        return keys.card_key(self.settings)

    def transformed(self) -> dict[str, Pointer]:
        """Pointers of the materialized transformed partitions, in time order."""
        return self.artifacts.pointers("transformed")

    def rules(self, *, record: bool = False) -> Rules:
        """The rules that the gate decides by; those who judge have them recorded.

        Raises:
            GateRefusalError: the source's TOML declares others, which nobody has confirmed.
        """
        store, key = self.artifacts.store, self.artifacts.signing_key
        return rules_in_force(store, key, self.source, datetime.now(UTC), self.heads, record=record)

    def latest(self) -> ChampionPointer | None:
        """The pointer to the champion, None where there is none yet.

        Raises:
            IntegrityError: its signature does not hold, it is gone, or an older one was put back.
        """
        return latest_of(self.artifacts.store, self.artifacts.signing_key, self.heads).follow()

    def accepted_set(self, own_partition: str | None = None) -> TrainingSet:
        """The partitions that the drift gate lets train, whatever their labels.

        Raises:
            GateRefusalError: a materialized partition is not judged, or the run's own is not accepted; or the rules of the gate
                were changed, which nobody has confirmed.
        """
        contents = {key: pointer.content for key, pointer in self.transformed().items()}
        store, key = self.artifacts.store, self.artifacts.signing_key
        return training_set(store, key, contents, own_partition, self.rules(), self.heads)

    def training_set(self, own_partition: str | None = None) -> TrainingSet:
        """The partitions that the gate lets train, and whose labels are not held.

        Raises:
            GateRefusalError: as `accepted_set`; or the labels of the run's own partition are held, or those of all.
        """
        allowed = self.accepted_set(own_partition)
        return without_held(self.artifacts.store, self.artifacts.signing_key, allowed, own_partition, self.heads)

    def training_data(self) -> "Data":
        """The rows of transformed, with what has become known of them."""
        from fraud_assets.training.rows import Data  # noqa: PLC0415 - learning is heavy, and most commands do without

        return Data.of(self.artifacts, self.source)

    def training_task(self, allowed: TrainingSet) -> "TrainingTask":
        """A training on these partitions, as values.

        Raises:
            NotYetTrainableError: there is too little data for the split.
        """
        from fraud_assets.training.task import TrainingTask  # noqa: PLC0415 - learning is heavy, and most commands do without

        return TrainingTask.read(self.artifacts, self.source, self.settings, allowed, self.card_key.id)

    def is_accepted(self, key: str) -> bool:
        """Whether the gate accepts what the transformed partition holds at present."""
        pointer = self.artifacts.pointer("transformed", key)
        try:
            verdict = read_verdict(self.artifacts.store, self.artifacts.signing_key, key)
        except IntegrityError:
            return False  # nothing is trusted that does not verify
        return pointer is not None and verdict is not None and verdict.content == pointer.content and verdict.is_accepted


def _s3_client() -> Any:
    from fraud_assets.s3 import PatientS3Resource  # noqa: PLC0415 - only where the store is S3

    return PatientS3Resource().get_client()
