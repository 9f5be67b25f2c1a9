"""What the gate's calibration measures, measured on a small scale."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from scipy.stats import beta

from fraud_core.gate import calibration
from fraud_core.gate.calibration import Rate


@pytest.fixture(scope="module")
def week() -> pl.DataFrame:
    [part] = calibration.weekly_portfolio(5, 2_000).partitions(1)
    return part.rows


def shifted(week: pl.DataFrame, name: str) -> pl.DataFrame:
    [shift] = [shift for shift in calibration.shifts() if shift.name == name]
    return shift.apply(week, np.random.default_rng(1))


@pytest.mark.parametrize(("hits", "trials"), [(0, 1_000), (11, 1_000), (199, 200), (200, 200)])
def test_intervals_are_exact(hits: int, trials: int) -> None:
    low, high = Rate(hits, trials).interval
    assert low == (0 if hits == 0 else pytest.approx(beta.ppf(0.025, hits, trials - hits + 1)))  # Clopper and Pearson's
    assert high == (1 if hits == trials else pytest.approx(beta.ppf(0.975, hits + 1, trials - hits)))


def test_a_portfolio_gives_each_partition_its_own_rows() -> None:
    portfolio = calibration.random_portfolio(3)
    parts = list(portfolio.partitions(3))
    assert [part.key for part in parts] == ["2023-01-02", "2023-01-03", "2023-01-04"]
    for key, rows, _ in parts:
        assert rows["timestamp"].dt.convert_time_zone(portfolio.zone.key).dt.strftime("%Y-%m-%d").unique().to_list() == [key]


def test_a_part_comes_with_what_its_features_look_back_on_and_no_more() -> None:
    portfolio = calibration.weekly_portfolio(5, 1_000)
    whole = list(portfolio.partitions(6))
    last, reach = whole[-1], timedelta(days=30)
    earlier = pl.concat([part.rows.select(calibration.REMEMBERED) for part in whole[:-1]])
    begin = datetime.fromisoformat(last.key).replace(tzinfo=UTC)
    assert last.before.equals(earlier.filter(pl.col("timestamp") >= begin - reach))
    assert 0 < len(last.before) < len(earlier)
    assert portfolio.features(last.rows, last.before)["amount_over_mean"].null_count() < len(last.rows) / 2


def test_no_two_portfolios_are_alike() -> None:
    configs = [calibration.random_portfolio(seed).config for seed in calibration.FALSE_ALARM_SEEDS]
    assert len({config.model_dump_json(exclude={"seed"}) for config in configs}) == len(configs)


def test_dearer_rows_cost_more_and_are_otherwise_the_same(week: pl.DataFrame) -> None:
    after = shifted(week, "amount x1.3")
    assert after["amount_cents"].sum() == pytest.approx(1.3 * week["amount_cents"].sum(), rel=1e-3)
    assert after.drop("amount_cents").equals(week.drop("amount_cents"))


def test_later_rows_stay_on_their_day(week: pl.DataFrame) -> None:
    after = shifted(week, "hour + 6")["timestamp"]
    assert ((after.dt.hour().cast(int) - week["timestamp"].dt.hour().cast(int)) % 24).unique().to_list() == [6]
    assert (after.dt.date() == week["timestamp"].dt.date()).all()


@pytest.mark.parametrize(("name", "rank"), [("the commonest category doubled", 0), ("the rarest category doubled", -1)])
def test_a_doubled_category_has_twice_the_rows_of_as_many_in_all(week: pl.DataFrame, name: str, rank: int) -> None:
    counts = week["category"].value_counts(sort=True)
    category, before = counts.row(rank)
    after = shifted(week, name)
    assert after.height == week.height
    assert (after["category"] == category).sum() == 2 * before


def test_half_of_the_rows_go_to_one_merchant(week: pl.DataFrame) -> None:
    merchant, count = shifted(week, "half the rows from one merchant")["merchant"].value_counts(sort=True).row(0)
    assert merchant in week["merchant"]
    assert count == pytest.approx(week.height / 2, rel=0.1)


def test_power_counts_each_shift_over_all_draws() -> None:
    rates = calibration.power(1_000, seeds=(3, 4), draws=6)
    assert {rate.trials for rate in rates.values()} == {6}
    assert rates["none"].hits == 0
    assert rates["amount x2.0"].hits == rates["hour + 6"].hits == rates["5 % of birth dates missing"].hits == 6
    assert rates["the same, source without category and place"].hits == 0


def test_false_alarms_are_counted_after_the_bootstrap() -> None:
    rates = calibration.false_alarms(seeds=(3, 5), judged=4)
    assert [(rate.hits, rate.trials) for _, rate in rates] == [(0, 4), (0, 4)]
