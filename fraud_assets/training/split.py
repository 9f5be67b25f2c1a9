"""Train, validation and hold-out split: by time with label delays between, or by cardholder."""

from datetime import date, datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict

from fraud_core.errors import NotYetTrainableError
from fraud_core.fields.schema import SPLIT_BUCKETS
from fraud_core.sources.source import CardholderSplit, Source, TimeSplit
from fraud_core.storage.artifacts import Pointer
from fraud_core.units.time import local_date, midnight

Side = Literal["training", "validation_a", "validation_b", "holdout"]
SIDES: tuple[Side, ...] = ("training", "validation_a", "validation_b", "holdout")
ROLLING_HOLDOUT_DAYS = 60


class Block(BaseModel):
    """One side of the split: timestamps in [start, end) (None: all), and split buckets in [low, high) (None: all)."""

    model_config = ConfigDict(frozen=True)

    start: datetime | None = None
    end: datetime | None = None
    low: int | None = None
    high: int | None = None


class Split(BaseModel):
    """The four sides. Validation A chooses among models, B calibrates and sets thresholds, the hold-out is evaluated once."""

    model_config = ConfigDict(frozen=True)

    training: Block
    validation_a: Block
    validation_b: Block
    holdout: Block

    def side(self, name: Side) -> Block:
        """The block of a side."""
        block = getattr(self, name)
        assert isinstance(block, Block)
        return block

    @property
    def by_time(self) -> bool:
        """Whether sides are stretches of time."""
        return self.holdout.start is not None


def split_of(source: Source, partitions: dict[str, Pointer]) -> Split:
    """The split of what is materialized at present.

    Args:
        source: whose protocol is followed.
        partitions: pointers of the transformed partitions that decide where the data begins and ends.
            Empty ones say nothing about how far the data goes.

    Raises:
        NotYetTrainableError: there is too little label-mature data.
    """
    filled = {key: pointer for key, pointer in partitions.items() if pointer.rows}
    if not filled:
        raise NotYetTrainableError("Not yet trainable: no materialized partition has rows.")
    match source.split:
        case TimeSplit() as split:
            return _by_time(source, split, filled)
        case CardholderSplit() as split:
            return _by_cardholder(split)


def _by_time(source: Source, split: TimeSplit, partitions: dict[str, Pointer]) -> Split:
    """Backwards from the hold-out: hold-out, delay, validation B, delay, validation A, delay, training.

    The delay at each border is what keeps the split honest: on the day a block begins, outcomes of the last days before it
    were not known yet, so nothing may learn from them.
    """
    delay = timedelta(days=source.label_delay_days)
    first = local_date(min(int(pointer.facts["first_us"]) for pointer in partitions.values()), source.zone)
    last = local_date(max(int(pointer.facts["last_us"]) for pointer in partitions.values()), source.zone) + timedelta(days=1)
    if split.holdout_start is not None:
        holdout_start = split.holdout_start
        length = split.holdout_days
        holdout_end = last if length is None else holdout_start + timedelta(days=length)
        if holdout_start + timedelta(days=1) > last or holdout_end > last:
            raise NotYetTrainableError(
                f"Not yet trainable: the hold-out runs from {holdout_start} to {holdout_end}, and the data ends on {last}."
            )
    else:
        holdout_end = last - delay  # later rows have no mature labels
        holdout_start = holdout_end - timedelta(days=split.holdout_days or ROLLING_HOLDOUT_DAYS)
    length_of_validation = timedelta(days=split.validation_days)
    b_end = holdout_start - delay
    b_start = b_end - length_of_validation
    a_end = b_start - delay
    a_start = a_end - length_of_validation
    training_end = a_start - delay
    missing = first + timedelta(days=split.training_days) - training_end
    if missing > timedelta(0):
        raise NotYetTrainableError(
            f"Not yet trainable: the data spans {(last - first).days} days, from {first} to {last}, and training "
            f"({split.training_days} days), two validation blocks ({split.validation_days} days each), the hold-out and four "
            f"label delays ({source.label_delay_days} days each) need {missing.days} more."
        )

    def block(start: date, end: date) -> Block:
        return Block(start=midnight(start, source.zone), end=midnight(end, source.zone))

    return Split(
        training=block(first, training_end),
        validation_a=block(a_start, a_end),
        validation_b=block(b_start, b_end),
        holdout=block(holdout_start, holdout_end),
    )


def _by_cardholder(split: CardholderSplit) -> Split:
    holdout = round(split.holdout_share * SPLIT_BUCKETS)
    validation = round(split.validation_share * SPLIT_BUCKETS)
    borders = (0, holdout, holdout + validation, holdout + 2 * validation, SPLIT_BUCKETS)
    return Split(
        holdout=Block(low=borders[0], high=borders[1]),
        validation_b=Block(low=borders[1], high=borders[2]),
        validation_a=Block(low=borders[2], high=borders[3]),
        training=Block(low=borders[3], high=borders[4]),
    )
