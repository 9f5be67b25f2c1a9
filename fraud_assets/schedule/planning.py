"""Planning: is a partition up to date and judged, and is the champion what a training would give. Pure: it reads nothing.

Sensors and the command line ask here; `state` reads what they are answered by.
"""

from collections.abc import Callable
from dataclasses import dataclass

from fraud_core.gate import Rules, Verdict, VerdictSummary
from fraud_core.intake.landing import Landing
from fraud_core.intake.raw import raw_inputs, refused_share
from fraud_core.models.registry import ChampionPointer
from fraud_core.sources.source import Source
from fraud_core.storage.artifacts import Pointer, fingerprint
from fraud_core.training_data.transform import transformed_inputs

Find = Callable[[str], Pointer | None]  # a partition's pointer by its key; None: it is not made


@dataclass(frozen=True)
class PartitionState:
    """A partition as it is, and as it should be.

    Attributes:
        key: its key.
        source: the declaration that it is made by.
        landed: hash of what raw is to be made of; None: nothing has landed.
        raw: what raw holds; None: it is not made.
        preceding: the same of the partitions that its features look back into.
        transformed: what transformed holds.
    """

    key: str
    source: Source
    landed: str | None
    raw: Pointer | None
    preceding: tuple[Pointer | None, ...]
    transformed: Pointer | None

    @classmethod
    def of(cls, source: Source, landing: Landing | None, key: str, raw: Find, transformed: Find) -> "PartitionState":
        """The state by what has landed, and by what can be found of raw and transformed."""
        preceding = tuple(raw(other) for other in source.preceding(key))
        return cls(key, source, None if landing is None else raw_inputs(landing, key), raw(key), preceding, transformed(key))

    @property
    def has_raw(self) -> bool:
        """Whether raw is made from what has landed."""
        return self.landed is not None and self.raw is not None and self.raw.inputs == self.landed

    @property
    def is_tolerable(self) -> bool:
        """Whether few enough of raw's rows were refused: else its check stops it, and nothing is made of it."""
        return self.raw is not None and refused_share(self.raw) <= self.source.quality.quarantined_share

    @property
    def can_be_made(self) -> bool:
        """Whether the partitions that it looks back into are there: else those come first."""
        return None not in self.preceding

    @property
    def is_current(self) -> bool:
        """Whether transformed was made from what raw holds at present."""
        return (
            self.transformed is not None
            and self.raw is not None
            and self.can_be_made
            and (self.transformed.inputs == self._inputs(self.raw))
        )

    @property
    def is_up_to_date(self) -> bool:
        """Whether raw and transformed are made from what has landed."""
        return self.has_raw and self.is_current

    def stamp(self, rules: Rules | None) -> str:
        """Hash of what it is to be made of and by which rules it is to be judged: what was tried once is not tried again."""
        confirmed = [rules.sha256] if rules is not None and rules.confirmed is not None else []
        return fingerprint(self.key, self.landed or "", self._inputs(), *confirmed)

    def _inputs(self, *own: Pointer) -> str:
        return transformed_inputs(self.source, [*(raw for raw in self.preceding if raw is not None), *own])


def is_judged(verdict: Verdict | VerdictSummary | None, content: str, rules: Rules | None) -> bool:
    """Whether a verdict speaks of this content, by the rules in force (None: whichever)."""
    return verdict is not None and verdict.content == content and (rules is None or rules.holds(verdict.rules))


def is_trained(inputs: str, last: Pointer | None) -> bool:
    """Whether the last training was made of just this (see `TrainingTask.inputs`)."""
    return last is not None and last.inputs == inputs


def is_champion(inputs: str, last: Pointer | None, latest: ChampionPointer | None) -> bool:
    """Whether the champion is what the last training gave, which was made of just this."""
    return is_trained(inputs, last) and latest is not None and last is not None and last.facts["version"] == latest.version
