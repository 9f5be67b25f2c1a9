"""Training rows of a side of the split, read partition by partition: memory is bounded by the side, not by the store."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from fraud_assets.training.split import Block
from fraud_core.evaluation.report import EvaluationRows, KnownFraud
from fraud_core.gate import PartitionRef
from fraud_core.labels.resolve_table import standing
from fraud_core.sources.source import Source
from fraud_core.storage.artifacts import Artifacts, fingerprint
from fraud_core.training_data.labels import Outcomes, read_labels
from fraud_core.training_data.volume import mature_until
from fraud_core.units.arrays import Array, Flags
from fraud_core.units.time import local_days

# Columns of a wide table. With 20 legitimate rows to each fraud, a model loses a twentieth of what all of them would tell.
WIDE = 64


def at_most(rows: int, columns: int) -> int:
    """How many of so many rows are learned from: fewer of a wide table, so that time and memory stay what they are for `WIDE`."""
    return rows if columns <= WIDE else rows * WIDE // columns


@dataclass(frozen=True)
class Rows:
    """n rows of transformed, in time order.

    Attributes:
        frame: features and what is carried beside them.
        weights: float64[n], how many rows of the population each stands for.
        partition: int64[n], place of the row's partition among those that were asked for.
    """

    frame: pl.DataFrame
    weights: Array
    partition: Array

    @property
    def labels(self) -> Array:
        """bool[n], True: fraud."""
        return self.frame["label"].to_numpy()

    def where(self, kept: Flags) -> "Rows":
        """The rows that a bool array of length n chooses."""
        return Rows(self.frame.filter(pl.Series(kept)), self.weights[kept], self.partition[kept])

    def narrowed(self, most: int, seed: int) -> tuple[Flags, Array]:
        """At most about `most` of the rows: which are kept, and their weights, as `read_training_rows` does it."""
        labels = self.labels
        share = _share(len(labels), int(labels.sum()), most)
        kept = labels | (np.random.default_rng([seed, len(labels)]).random(len(labels)) < share)
        return kept, (self.weights / np.where(labels, 1.0, share))[kept]

    def local_days(self, source: Source) -> Array:
        """int64[n], days since 1970 on the source's clocks."""
        return local_days(self.frame["timestamp"].to_physical().to_numpy(), source.zone)

    def evaluation(self, scores: Array, source: Source, cards: "CardCodes | None", by_time: bool) -> EvaluationRows:
        """The rows as the evaluation takes them, with the scores given."""
        days = self.local_days(source) if by_time else None
        return EvaluationRows(
            labels=self.labels,
            scores=scores,
            amounts_cents=self.frame["amount_cents"].to_numpy(),
            cards=None if cards is None else cards.codes(self.frame["card"]),
            local_day=days,
            month=None if days is None else np.datetime_as_string(days.astype("datetime64[D]"), unit="M"),
        )


class CardCodes:
    """Whole numbers for cards, in order of first appearance: the same under every card key, unlike the hashes themselves."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def codes(self, cards: pl.Series) -> Array:
        """int64[n]."""
        for card in cards.unique(maintain_order=True):
            self._codes.setdefault(card, len(self._codes))
        return cards.replace_strict(self._codes, return_dtype=pl.Int64).to_numpy()


@dataclass(frozen=True)
class Data:
    """Transformed, and what has become known of its payments."""

    artifacts: Artifacts
    outcomes: Outcomes

    @classmethod
    def of(cls, artifacts: Artifacts, source: Source) -> "Data":
        """What the store holds at present."""
        pointers = [pointer for pointer in artifacts.pointers("transformed").values() if pointer.rows]
        last = max((int(pointer.facts["last_us"]) for pointer in pointers), default=0)
        return cls(artifacts, Outcomes(standing(read_labels(artifacts)), mature_until(source, last)))

    def scan(self, part: PartitionRef, block: Block) -> pl.LazyFrame:
        """The rows of a partition that lie in a block, with the labels that hold."""
        return self.outcomes.settled(_within(self.artifacts.scan("transformed", part.partition), block))

    def fingerprint(self) -> str:
        """Hash of what the log of labels changes among the payments at hand; empty where it changes nothing."""
        if self.outcomes.standing.is_empty():
            return ""
        parts = [self.outcomes.changes(self.artifacts.scan("transformed", key)) for key in self.artifacts.pointers("transformed")]
        changed = pl.concat(parts).sort("transaction_id")
        return "" if changed.is_empty() else fingerprint(changed.write_csv())


def read_rows(data: Data, partitions: Sequence[PartitionRef], block: Block) -> Rows:
    """All rows of a side, of the partitions given."""
    return _read(data, partitions, block, lambda frame, _: (frame, np.ones(len(frame))))


def read_training_rows(data: Data, partitions: Sequence[PartitionRef], block: Block, most: int, seed: int) -> Rows:
    """Training rows, at most about `most`: every fraud, and legitimate rows thinned by a seeded draw and weighted up.

    Memory is bounded by `most` and one partition. The draw of a partition depends on the seed and its content alone.
    """
    counts = [
        data.scan(part, block).select(pl.len(), pl.col("label").sum().alias("frauds")).collect().row(0) for part in partitions
    ]
    rows, frauds = sum(count[0] for count in counts), sum(count[1] for count in counts)
    share = _share(rows, frauds, most)

    def thin(frame: pl.DataFrame, part: PartitionRef) -> tuple[pl.DataFrame, Array]:
        random = np.random.default_rng([seed, int(part.content[:12], 16)])
        label = frame["label"].to_numpy()
        kept = label | (random.random(len(frame)) < share)
        return frame.filter(pl.Series(kept)), np.where(label[kept], 1.0, 1.0 / share)

    return _read(data, partitions, block, thin)


def known_frauds(data: Data, partitions: Sequence[PartitionRef], before: Block, source: Source, cards: CardCodes) -> KnownFraud:
    """Cards compromised before a block in time, and the local days of their frauds."""
    past = Block(end=before.start)
    frames = [data.scan(part, past).filter("label").select("timestamp", "card").collect() for part in partitions]
    frauds = pl.concat(frames)
    days = local_days(frauds["timestamp"].to_physical().to_numpy(), source.zone)
    return KnownFraud(cards=cards.codes(frauds["card"]), days=days)


def _share(rows: int, frauds: int, most: int) -> float:
    """Which share of the legitimate rows is kept: with every fraud, about `most`, and no fewer than there are frauds."""
    return min(1.0, max(most - frauds, frauds) / max(rows - frauds, 1))


def _read(
    data: Data,
    partitions: Sequence[PartitionRef],
    block: Block,
    select: Callable[[pl.DataFrame, PartitionRef], tuple[pl.DataFrame, Array]],
) -> Rows:
    frames: list[pl.DataFrame] = []
    weights: list[Array] = []
    places: list[Array] = []
    for place, part in enumerate(partitions):
        frame, weight = select(data.scan(part, block).collect(), part)
        frames.append(frame)
        weights.append(weight)
        places.append(np.full(len(frame), place, dtype=np.int64))
    return Rows(pl.concat(frames), np.concatenate(weights), np.concatenate(places))


def _within(rows: pl.LazyFrame, block: Block) -> pl.LazyFrame:
    if block.start is not None:
        rows = rows.filter(pl.col("timestamp") >= block.start)
    if block.end is not None:
        rows = rows.filter(pl.col("timestamp") < block.end)
    if block.low is not None and block.high is not None:
        rows = rows.filter(pl.col("split_bucket").is_between(block.low, block.high, closed="left"))
    return rows
