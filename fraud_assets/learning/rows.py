"""Rows of a side of the split, read partition by partition, so that memory is bounded by the side and not by the store."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fraud_assets.learning.split import Block
from fraud_core.artifacts import Artifacts
from fraud_core.evaluation import EvaluationRows, KnownFraud
from fraud_core.gate import PartitionRef
from fraud_core.sources import Source

Array = npt.NDArray[Any]
DAY_US = 86_400_000_000
NO_CARD = -1


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

    def evaluation(self, scores: Array, source: Source, cards: "CardCodes | None", by_time: bool) -> EvaluationRows:
        """The rows as the evaluation takes them, with the scores given."""
        local = self.frame["timestamp"].dt.convert_time_zone(source.timezone).dt.replace_time_zone(None)
        return EvaluationRows(
            labels=self.labels,
            scores=scores,
            amounts_cents=self.frame["amount_cents"].to_numpy(),
            cards=None if cards is None else cards.codes(self.frame["card"]),
            local_day=np.floor_divide(local.dt.epoch("us").to_numpy(), DAY_US) if by_time else None,
            month=local.dt.strftime("%Y-%m").to_numpy() if by_time else None,
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


def read_rows(artifacts: Artifacts, partitions: Sequence[PartitionRef], block: Block) -> Rows:
    """All rows of a side, of the partitions given."""
    return _read(artifacts, partitions, block, lambda frame, _: (frame, np.ones(len(frame))))


def read_training_rows(artifacts: Artifacts, partitions: Sequence[PartitionRef], block: Block, most: int, seed: int) -> Rows:
    """Training rows, at most about `most`: every fraud, and legitimate rows thinned by a seeded draw and weighted up.

    Memory is bounded by `most` and one partition. The draw of a partition depends on the seed and its content alone.
    """
    counts = [
        _scan(artifacts, part, block).select(pl.len(), pl.col("label").sum().alias("frauds")).collect().row(0)
        for part in partitions
    ]
    rows, frauds = sum(count[0] for count in counts), sum(count[1] for count in counts)
    share = min(1.0, max(most - frauds, frauds) / max(rows - frauds, 1))

    def thin(frame: pl.DataFrame, part: PartitionRef) -> tuple[pl.DataFrame, Array]:
        random = np.random.default_rng([seed, int(part.content[:12], 16)])
        label = frame["label"].to_numpy()
        kept = label | (random.random(len(frame)) < share)
        return frame.filter(pl.Series(kept)), np.where(label[kept], 1.0, 1.0 / share)

    return _read(artifacts, partitions, block, thin)


def known_frauds(
    artifacts: Artifacts, partitions: Sequence[PartitionRef], before: Block, source: Source, cards: CardCodes
) -> KnownFraud:
    """Cards compromised before a block in time, and the local days of their frauds."""
    past = Block(end=before.start)
    frames = [_scan(artifacts, part, past).filter("label").select("timestamp", "card").collect() for part in partitions]
    frauds = pl.concat(frames)
    local = frauds["timestamp"].dt.convert_time_zone(source.timezone).dt.replace_time_zone(None)
    return KnownFraud(cards=cards.codes(frauds["card"]), days=np.floor_divide(local.dt.epoch("us").to_numpy(), DAY_US))


def _read(
    artifacts: Artifacts,
    partitions: Sequence[PartitionRef],
    block: Block,
    select: Callable[[pl.DataFrame, PartitionRef], tuple[pl.DataFrame, Array]],
) -> Rows:
    frames: list[pl.DataFrame] = []
    weights: list[Array] = []
    places: list[Array] = []
    for place, part in enumerate(partitions):
        frame, weight = select(_scan(artifacts, part, block).collect(), part)
        frames.append(frame)
        weights.append(weight)
        places.append(np.full(len(frame), place, dtype=np.int64))
    return Rows(pl.concat(frames), np.concatenate(weights), np.concatenate(places))


def _scan(artifacts: Artifacts, part: PartitionRef, block: Block) -> pl.LazyFrame:
    rows = artifacts.scan("transformed", part.partition)
    if block.start is not None:
        rows = rows.filter(pl.col("timestamp") >= block.start)
    if block.end is not None:
        rows = rows.filter(pl.col("timestamp") < block.end)
    if block.low is not None and block.high is not None:
        rows = rows.filter(pl.col("split_bucket").is_between(block.low, block.high, closed="left"))
    return rows
