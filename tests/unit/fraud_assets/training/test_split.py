"""Who trains, who validates, who is held out."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fraud_assets.training.split import SIDES, Block, Split, split_of
from fraud_core.errors import NotYetTrainableError
from fraud_core.fields.schema import SPLIT_BUCKETS
from fraud_core.sources.source import Source
from fraud_core.storage.artifacts import Pointer

FIRST = date(2024, 1, 1)
PERSON = {"card": "who"}


def declared(
    split: dict[str, object], *, zone: str = "Europe/Zurich", delay: int = 7, columns: dict[str, str] = PERSON
) -> Source:
    required = {"timestamp": {"column": "t"}, "amount": "a", "label": {"column": "l"}}
    return Source.model_validate(
        {
            "name": "cards",
            "paths": ["x.csv"],
            "timezone": zone,
            "cadence": "daily",
            "first": FIRST.isoformat(),
            "label_delay_days": delay,
            "columns": required | columns,
            "split": split,
        }
    )


def spanning(source: Source, last: date, rows: int = 1) -> dict[str, Pointer]:
    """Pointers of partitions with rows from the first day to the last."""
    return {str(day): pointer(source, day, rows) for day in (FIRST, last)}


def pointer(source: Source, day: date, rows: int = 1) -> Pointer:
    noon = datetime.combine(day, time(12), tzinfo=source.zone)
    facts = {"first_us": int(noon.timestamp() * 1e6), "last_us": int(noon.timestamp() * 1e6)}
    return Pointer(
        asset="transformed",
        partition=day.isoformat(),
        format="parquet",
        key="k",
        sha256="s",
        size=1,
        rows=rows,
        content="c",
        inputs="i",
        facts=facts,
    )


def midnights(block: Block, zone: ZoneInfo) -> tuple[date, date]:
    """The local days on whose midnight a block begins and ends."""
    assert block.start is not None
    assert block.end is not None
    local = [at.astimezone(zone) for at in (block.start, block.end)]
    assert all(at.time() == time() for at in local)
    return local[0].date(), local[1].date()


def in_block(block: Block, at: datetime) -> bool:
    assert block.start is not None
    assert block.end is not None
    return block.start <= at < block.end


ZONES = st.sampled_from(["UTC", "Europe/Zurich", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"])
TIME = {"protocol": "time", "holdout_days": 30, "validation_days": 20, "training_days": 40}
NEEDED_DAYS = 40 + 20 + 20 + 30 + 4 * 7


@given(
    zone=ZONES,
    delay=st.integers(0, 40),
    holdout=st.integers(1, 90),
    validation=st.integers(1, 60),
    training=st.integers(1, 60),
    spare=st.integers(0, 200),
)
def test_exactly_a_label_delay_lies_at_each_border_of_a_rolling_split(
    zone: str, delay: int, holdout: int, validation: int, training: int, spare: int
) -> None:
    lengths = {"holdout_days": holdout, "validation_days": validation, "training_days": training}
    source = declared({"protocol": "time", **lengths}, zone=zone, delay=delay)
    last = FIRST + timedelta(days=training + 2 * validation + holdout + 4 * delay + spare - 1)
    split = split_of(source, spanning(source, last))
    days = {side: midnights(split.side(side), source.zone) for side in SIDES}
    gap = timedelta(days=delay)
    assert days["training"][0] == FIRST
    assert days["training"][1] - FIRST == timedelta(days=training + spare)
    assert days["validation_a"][0] == days["training"][1] + gap
    assert days["validation_a"][1] - days["validation_a"][0] == timedelta(days=validation)
    assert days["validation_b"][0] == days["validation_a"][1] + gap
    assert days["validation_b"][1] - days["validation_b"][0] == timedelta(days=validation)
    assert days["holdout"][0] == days["validation_b"][1] + gap
    assert days["holdout"][1] - days["holdout"][0] == timedelta(days=holdout)
    assert last + timedelta(days=1) - days["holdout"][1] == gap  # the newest rows' labels have not matured


@given(zone=ZONES, delay=st.integers(0, 20), seconds=st.integers(0, 400 * 86_400))
def test_no_instant_lies_on_two_sides(zone: str, delay: int, seconds: int) -> None:
    source = declared(TIME, zone=zone, delay=delay)
    split = split_of(source, spanning(source, FIRST + timedelta(days=300)))
    instant = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    assert sum(in_block(split.side(side), instant) for side in SIDES) <= 1


def test_a_rolling_holdout_moves_with_the_data() -> None:
    source = declared(TIME)
    last = FIRST + timedelta(days=200)
    before, after = (split_of(source, spanning(source, last + timedelta(days=more))) for more in (0, 9))
    for side in ("validation_a", "validation_b", "holdout"):
        earlier, later = (midnights(split.side(side), source.zone) for split in (before, after))
        assert [day + timedelta(days=9) for day in earlier] == list(later)


def test_a_fixed_holdout_stays_where_it_is_and_so_do_the_validation_blocks() -> None:
    fixed = declared(TIME | {"holdout_start": date(2024, 6, 21)})
    splits = {split_of(fixed, spanning(fixed, date(2024, 7, day))) for day in (20, 25, 31)}
    assert len(splits) == 1
    assert midnights(splits.pop().holdout, fixed.zone) == (date(2024, 6, 21), date(2024, 7, 21))


def test_a_fixed_holdout_without_a_length_runs_to_the_end_of_the_data() -> None:
    fixed = declared({**TIME, "holdout_start": date(2024, 6, 21), "holdout_days": None})
    split = split_of(fixed, spanning(fixed, date(2024, 12, 31)))
    assert midnights(split.holdout, fixed.zone) == (date(2024, 6, 21), date(2025, 1, 1))


@pytest.mark.parametrize(("last", "length"), [(date(2024, 6, 20), None), (date(2024, 7, 19), 30)])
def test_before_the_data_reaches_through_a_fixed_holdout_nothing_is_trained(last: date, length: int | None) -> None:
    fixed = declared({**TIME, "holdout_start": date(2024, 6, 21), "holdout_days": length})
    with pytest.raises(NotYetTrainableError, match="the hold-out runs from 2024-06-21"):
        split_of(fixed, spanning(fixed, last))
    split_of(fixed, spanning(fixed, last + timedelta(days=1)))


@given(missing=st.integers(1, NEEDED_DAYS - 1))
def test_too_little_data_says_how_many_days_are_missing_and_with_them_it_is_enough(missing: int) -> None:
    source = declared(TIME)
    last = FIRST + timedelta(days=NEEDED_DAYS - missing - 1)
    with pytest.raises(NotYetTrainableError, match=rf"Not yet trainable.* need {missing} more"):
        split_of(source, spanning(source, last))
    split_of(source, spanning(source, last + timedelta(days=missing)))


def test_empty_partitions_after_the_data_do_not_move_the_holdout() -> None:
    source = declared(TIME)
    filled = spanning(source, date(2024, 8, 31))
    empty = {str(day): pointer(source, day, rows=0) for day in (date(2024, 9, 1), date(2024, 12, 1))}
    assert split_of(source, filled | empty) == split_of(source, filled)


@pytest.mark.parametrize("split", [TIME, {"protocol": "cardholder"}])
def test_without_a_row_nothing_is_trained(split: dict[str, object]) -> None:
    source = declared(split)
    for partitions in ({}, spanning(source, date(2024, 8, 31), rows=0)):
        with pytest.raises(NotYetTrainableError, match="no materialized partition has rows"):
            split_of(source, partitions)


@given(validation=st.floats(0.01, 0.39), holdout=st.floats(0.01, 0.59))
def test_each_cardholder_is_on_exactly_one_side(validation: float, holdout: float) -> None:
    assume(2 * validation + holdout < 0.99)
    source = declared({"protocol": "cardholder", "validation_share": validation, "holdout_share": holdout})
    split = split_of(source, spanning(source, FIRST))
    assert not split.by_time
    sides = {side: buckets(split, side) for side in SIDES}
    assert sorted(bucket for side in sides.values() for bucket in side) == list(range(SPLIT_BUCKETS))
    assert len(sides["holdout"]) == pytest.approx(holdout * SPLIT_BUCKETS, abs=1)
    assert len(sides["validation_a"]) == len(sides["validation_b"]) == pytest.approx(validation * SPLIT_BUCKETS, abs=1)


def test_more_data_moves_no_cardholder_to_another_side() -> None:
    source = declared({"protocol": "cardholder"})
    assert split_of(source, spanning(source, FIRST)) == split_of(source, spanning(source, date(2025, 1, 1)))


def buckets(split: Split, side: str) -> range:
    block: Block = getattr(split, side)
    assert block.low is not None
    assert block.high is not None
    return range(block.low, block.high)
