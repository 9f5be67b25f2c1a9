"""What every asset works with: the settings, the source, the keys and the artifacts of one installation."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fraud_core import keys
from fraud_core.artifacts import Artifacts, Pointer
from fraud_core.errors import IntegrityError
from fraud_core.gate import TrainingSet, read_verdict, training_set
from fraud_core.gate.labels import without_held
from fraud_core.keys import Key
from fraud_core.settings import Settings
from fraud_core.sources import Source, load_source
from fraud_core.stores.objects import open_store
from fraud_core.transform import transformed_inputs

Tell = Callable[[str], None]


def _silent(_: str) -> None:
    """For runs that Dagster's own log shows."""


@dataclass(frozen=True)
class Project:
    """One installation: settings and the source they name."""

    settings: Settings
    source: Source
    tell: Tell = _silent  # told, in a sentence, how long work goes on; the command line prints it

    @classmethod
    def load(cls, settings: Settings, files: tuple[str, ...] = (), tell: Tell = _silent) -> "Project":
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
        artifacts = Artifacts(store, keys.signing_key(self.settings))
        artifacts.claim(self.source.name)
        return artifacts

    @cached_property
    def card_key(self) -> Key:
        """Key of the card hashes."""
        return keys.card_key(self.settings)

    def transformed(self) -> dict[str, Pointer]:
        """Pointers of the materialized transformed partitions, in time order."""
        return self.artifacts.pointers("transformed")

    def accepted_set(self, own_partition: str | None = None) -> TrainingSet:
        """The partitions that the drift gate lets train, whatever their labels.

        Raises:
            GateRefusalError: a materialized partition is not judged, or the run's own is not accepted.
        """
        contents = {key: pointer.content for key, pointer in self.transformed().items()}
        return training_set(self.artifacts.store, self.artifacts.signing_key, contents, own_partition)

    def training_set(self, own_partition: str | None = None) -> TrainingSet:
        """The partitions that the gate lets train, and whose labels are not held.

        Raises:
            GateRefusalError: as `accepted_set`; or the labels of the run's own partition are held, or those of all.
        """
        allowed = self.accepted_set(own_partition)
        return without_held(self.artifacts.store, self.artifacts.signing_key, allowed, own_partition)

    def is_accepted(self, key: str) -> bool:
        """Whether the gate accepts what the transformed partition holds at present."""
        pointer = self.artifacts.pointer("transformed", key)
        try:
            verdict = read_verdict(self.artifacts.store, self.artifacts.signing_key, key)
        except IntegrityError:
            return False  # nothing is trusted that does not verify
        return pointer is not None and verdict is not None and verdict.content == pointer.content and verdict.is_accepted

    def is_current(self, key: str) -> bool:
        """Whether the transformed partition was made from what raw holds at present."""
        pointer = self.artifacts.pointer("transformed", key)
        raws = [self.artifacts.pointer("raw", needed) for needed in [*self.source.preceding(key), key]]
        present = [raw for raw in raws if raw is not None]
        return pointer is not None and len(present) == len(raws) and pointer.inputs == transformed_inputs(self.source, present)


def _s3_client() -> Any:
    from fraud_assets.s3 import PatientS3Resource  # noqa: PLC0415 - only where the store is S3

    return PatientS3Resource().get_client()
