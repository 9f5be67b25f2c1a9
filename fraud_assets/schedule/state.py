"""State of partitions, read from the store for planning."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from fraud_assets.installation import Installation
from fraud_assets.schedule.planning import PartitionState
from fraud_assets.stages.landing import load_landing
from fraud_core.errors import GateRefusalError
from fraud_core.gate import Rules, VerdictSummary, drift_index
from fraud_core.intake.landing import Landing
from fraud_core.storage.artifacts import Pointer


@dataclass(frozen=True)
class Overview:
    """What the store holds of all partitions, by its indexes: a few requests, however many there are. Nothing trains by it.

    Attributes:
        landing: what has landed; None: nothing.
        raws, transformed: the pointers, in time order.
        verdicts: the gate's, those that verify.
        rules: of the gate; None where a person has to confirm them first, so that nothing is judged by then.
        unconfirmed: what there is to confirm.
    """

    landing: Landing | None
    raws: Mapping[str, Pointer]
    transformed: Mapping[str, Pointer]
    verdicts: Mapping[str, VerdictSummary]
    rules: Rules | None
    unconfirmed: str | None = None

    @classmethod
    def read(cls, installation: Installation) -> "Overview":
        """As it is now.

        Raises:
            IntegrityError: a pointer's signature does not hold.
        """
        artifacts, unconfirmed = installation.artifacts, None
        try:
            rules = installation.rules()
        except GateRefusalError as refusal:
            rules, unconfirmed = None, str(refusal)
        return cls(
            load_landing(installation),
            artifacts.index("raw").read(),
            artifacts.index("transformed").read(),
            drift_index(artifacts.store, artifacts.signing_key, artifacts.heads).read(),
            rules,
            unconfirmed,
        )

    def is_accepted(self, key: str) -> bool:
        """Whether the gate accepts what the transformed partition holds."""
        made, verdict = self.transformed.get(key), self.verdicts.get(key)
        return made is not None and verdict is not None and verdict.content == made.content and verdict.is_accepted


def read_state(installation: Installation, key: str) -> PartitionState:
    """One partition's state, by what lies in its own place.

    Raises:
        IntegrityError: a pointer's signature does not hold.
    """
    raw, transformed = (partial(installation.artifacts.pointer, asset) for asset in ("raw", "transformed"))
    return PartitionState.of(installation.source, load_landing(installation), key, raw, transformed)


def read_states(installation: Installation, keys: Iterable[str]) -> Iterator[PartitionState]:
    """The states of many partitions; every pointer is read once. Raises as `read_state`."""
    raws, transformed = installation.artifacts.pointers("raw"), installation.transformed()
    landing = load_landing(installation)
    for key in keys:
        yield PartitionState.of(installation.source, landing, key, raws.get, transformed.get)
