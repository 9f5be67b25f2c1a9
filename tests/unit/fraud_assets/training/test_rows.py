"""Rows of a side: within their borders, thinned with weights, and told apart without their hashes."""

import hashlib
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from fraud_assets.training.rows import WIDE, CardCodes, Rows, at_most, known_frauds, read_rows, read_training_rows
from fraud_assets.training.split import Block

ALL = Block()
SPRING = Block(start=datetime(2024, 3, 10, 5, tzinfo=UTC), end=datetime(2024, 5, 2, 4, tzinfo=UTC))


def everything(bench: Any) -> pl.DataFrame:
    return pl.concat(list(bench.rows().values()))


def test_a_block_in_time_holds_the_rows_from_its_start_to_before_its_end(bench: Any) -> None:
    rows = read_rows(bench.installation.training_data(), bench.refs(), SPRING)
    assert SPRING.start is not None
    expected = everything(bench).filter(pl.col("timestamp").is_between(SPRING.start, SPRING.end, closed="left"))
    assert rows.frame.equals(expected)
    border = Block(start=rows.frame["timestamp"][0], end=rows.frame["timestamp"][-1])
    inside = read_rows(bench.installation.training_data(), bench.refs(), border)
    assert inside.frame.equals(expected[:-1])


def test_a_block_of_buckets_holds_whole_cardholders(bench: Any) -> None:
    rows = read_rows(bench.installation.training_data(), bench.refs(), Block(low=200, high=450))
    assert rows.frame.equals(everything(bench).filter(pl.col("split_bucket").is_between(200, 449)))
    others = read_rows(bench.installation.training_data(), bench.refs(), Block(low=450, high=1_000))
    assert not set(rows.frame["card"]) & set(others.frame["card"])


def test_each_row_knows_its_partition_and_counts_once(bench: Any) -> None:
    refs = bench.refs()
    rows = read_rows(bench.installation.training_data(), refs, ALL)
    names = [refs[place].partition for place in rows.partition]
    assert names == [identity[:7] for identity in rows.frame["transaction_id"]]
    assert rows.weights.tolist() == [1.0] * len(rows.frame)


def thinned(bench: Any, most: int = 2_000, seed: int = 3) -> Rows:
    return read_training_rows(bench.installation.training_data(), bench.refs(), ALL, most, seed)


def test_every_fraud_is_kept_with_weight_one(bench: Any) -> None:
    rows, population = thinned(bench), everything(bench)
    assert rows.frame.filter("label").equals(population.filter("label"))
    assert set(rows.weights[rows.labels]) == {1.0}


def test_the_weights_stand_for_the_population(bench: Any) -> None:
    rows, population = thinned(bench), everything(bench)
    share = 1 / rows.weights.max()
    legitimate = int((~population["label"]).sum())
    # Of n rows kept with probability p, n p remain; weighted up, the sum's standard deviation is sqrt(n (1-p) / p).
    assert rows.weights.sum() == pytest.approx(len(population), abs=4 * np.sqrt(legitimate * (1 - share) / share))
    assert share < 0.3


@pytest.mark.parametrize("most", [1_000, 2_000, 4_000])
def test_the_cap_on_training_rows_is_respected(bench: Any, most: int) -> None:
    kept = len(thinned(bench, most).frame)
    assert most - 4 * np.sqrt(most) < kept < most + 4 * np.sqrt(most)


def test_under_the_cap_nothing_is_thinned(bench: Any) -> None:
    rows = thinned(bench, most=1_000_000)
    assert rows.frame.equals(everything(bench))
    assert set(rows.weights) == {1.0}


def test_the_draw_follows_from_the_seed(bench: Any) -> None:
    assert thinned(bench, seed=3).frame.equals(thinned(bench, seed=3).frame)
    assert not thinned(bench, seed=3).frame.equals(thinned(bench, seed=4).frame)


def test_the_draw_is_the_same_under_every_card_key(bench: Any, new_bench: Any) -> None:
    other = new_bench()
    other.fill({key: rehashed(frame) for key, frame in bench.rows().items()})
    kept = [thinned(one).frame["transaction_id"].to_list() for one in (bench, other)]
    assert kept[0] == kept[1]


def rehashed(frame: pl.DataFrame) -> pl.DataFrame:
    hashes = {card: hashlib.sha256(b"another key" + card.encode()).hexdigest()[:32] for card in frame["card"].unique()}
    return frame.with_columns(pl.col("card").replace_strict(hashes))


def test_card_codes_say_nothing_about_the_hashes() -> None:
    cards = pl.Series(["b", "a", "b", "c", "a", "d"])
    renamed = cards.replace_strict({"a": "z9", "b": "y2", "c": "a1", "d": "m5"})
    assert CardCodes().codes(cards).tolist() == CardCodes().codes(renamed).tolist() == [0, 1, 0, 2, 1, 3]


def test_card_codes_carry_over_from_one_block_to_the_next() -> None:
    codes = CardCodes()
    assert codes.codes(pl.Series(["b", "a"])).tolist() == [0, 1]
    assert codes.codes(pl.Series(["c", "a", "b"])).tolist() == [2, 1, 0]


def test_known_frauds_are_those_before_the_block_and_no_others(bench: Any) -> None:
    codes = CardCodes()
    known = known_frauds(bench.installation.training_data(), bench.refs(), SPRING, bench.installation.source, codes)
    past = everything(bench).filter(pl.col("label"), pl.col("timestamp") < SPRING.start)
    assert len(known.cards) == len(known.days) == len(past) > 50
    assert known.cards.tolist() == CardCodes().codes(past["card"]).tolist()
    local = past["timestamp"].dt.convert_time_zone("America/New_York").dt.date()
    assert known.days.tolist() == [(day - date(1970, 1, 1)).days for day in local]


def test_days_and_months_are_the_sources_own(bench: Any) -> None:
    rows = read_rows(bench.installation.training_data(), bench.refs(), SPRING)
    scores = np.linspace(0, 1, len(rows.frame))
    evaluated = rows.evaluation(scores, bench.installation.source, CardCodes(), by_time=True)
    assert evaluated.local_day is not None
    assert evaluated.month is not None
    # The block ends on midnight in New York, which is 04:00 UTC of the first day that it leaves out.
    assert evaluated.local_day.max() == (date(2024, 5, 1) - date(1970, 1, 1)).days
    assert sorted(set(evaluated.month)) == ["2024-03", "2024-04", "2024-05"]
    assert evaluated.labels.tolist() == rows.frame["label"].to_list()
    assert evaluated.amounts_cents.tolist() == rows.frame["amount_cents"].to_list()


def test_without_cards_or_time_the_evaluation_does_without(bench: Any) -> None:
    rows = read_rows(bench.installation.training_data(), bench.refs(), SPRING)
    evaluated = rows.evaluation(np.zeros(len(rows.frame)), bench.installation.source, None, by_time=False)
    assert evaluated.cards is evaluated.local_day is evaluated.month is None


def test_fewer_rows_are_learned_from_of_a_wide_table_and_as_many_as_ever_of_any_other() -> None:
    assert at_most(400_000, 1) == at_most(400_000, WIDE) == 400_000
    assert at_most(400_000, 4 * WIDE) == 100_000


def test_narrowed_rows_hold_every_fraud_and_stand_for_as_many_as_before(bench: Any) -> None:
    rows = read_rows(bench.installation.training_data(), bench.refs(), ALL)
    kept, weights = rows.narrowed(2_000, 20)
    narrow = rows.where(kept)
    assert narrow.labels.sum() == rows.labels.sum()
    assert len(narrow.frame) == len(weights) == pytest.approx(2_000, rel=0.1)
    assert weights.sum() == pytest.approx(rows.weights.sum(), rel=0.05)
    assert (weights[narrow.labels] == 1).all()
    same, unchanged = rows.narrowed(len(rows.frame), 20)
    assert same.all()
    assert (unchanged == rows.weights).all()
