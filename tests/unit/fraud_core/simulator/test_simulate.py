"""The simulator: the same in every window, with habits, fraud that looks its kind, and shifts that do what they say."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pydantic import ValidationError
from sklearn.metrics import average_precision_score

from fraud_core.features.catalogue import feature_frame
from fraud_core.fields import schema
from fraud_core.simulator.config import CATEGORIES, FraudKind, SimulatorConfig
from fraud_core.simulator.simulate import simulate
from fraud_core.sources.partitions import Cadence, key_range, window
from fraud_core.sources.source import load_source
from tests.history_features import FEATURES

NEW_YORK = ZoneInfo("America/New_York")
SMALL = SimulatorConfig(seed=3, cardholders=300, merchants=200, fraud_rate=0.03)
ONLINE = [category.name for category in CATEGORIES if category.online]


def month(config: SimulatorConfig, key: str = "2024-05", zone: ZoneInfo = NEW_YORK) -> pl.DataFrame:
    return simulate(config, *window(key, Cadence.MONTHLY, zone), zone)


def year_of(config: SimulatorConfig) -> pl.DataFrame:
    return simulate(config, *window("2024", Cadence.YEARLY, NEW_YORK), NEW_YORK)


@pytest.fixture(scope="module")
def year() -> pl.DataFrame:
    """A year of the shipped portfolio, with what a person would look at: hour and weekday, distance from home, currency units."""
    frame = year_of(SimulatorConfig())
    distance = feature_frame(frame, [f for f in FEATURES if f.name == "distance"], NEW_YORK)["distance"]
    return seen(frame).with_columns(kilometres=distance / 1_000)


def seen(frame: pl.DataFrame) -> pl.DataFrame:
    local = pl.col("timestamp").dt.convert_time_zone(NEW_YORK.key)
    return frame.with_columns(
        amount=pl.col("amount_cents") / 100,
        hour=local.dt.hour(),
        weekday=local.dt.weekday(),
        month=local.dt.month(),
        day=local.dt.date(),
        online=pl.col("category").is_in(ONLINE),
    )


def only(kind: FraudKind, **others: object) -> SimulatorConfig:
    return SimulatorConfig.model_validate({"seed": 11, "cardholders": 500, "merchants": 400, "kinds": {kind: 1.0}} | others)


# --- windows


def test_the_same_seed_gives_the_same_frame_and_another_seed_another_one() -> None:
    assert_frame_equal(month(SMALL), month(SMALL))
    assert not month(SMALL).equals(month(SMALL.model_copy(update={"seed": 4})))


def test_a_month_drawn_alone_is_that_month_of_the_year() -> None:
    whole = year_of(SMALL)
    for key in ("2024-01", "2024-03", "2024-12"):
        start, end = window(key, Cadence.MONTHLY, NEW_YORK)
        assert_frame_equal(month(SMALL, key), whole.filter(pl.col("timestamp").is_between(start, end, closed="left")))


@pytest.mark.parametrize(
    ("zone", "key"),
    [("America/New_York", "2024-03"), ("America/New_York", "2024-11"), ("America/Havana", "2024-03"), ("Asia/Tokyo", "2024-02")],
)
def test_days_put_together_equal_the_month_even_where_clocks_change(zone: str, key: str) -> None:
    place = ZoneInfo(zone)
    shifted = SMALL.model_copy(
        update={"shift_from": date(2024, 3, 8), "new_category": "crypto", "merchant_concentration": 0.2, "hour_shift": 5}
    )
    for config in (SMALL, shifted):
        days = [day for day in key_range("2024-02-01", "2024-11-30", Cadence.DAILY) if day.startswith(key)]
        daily = [simulate(config, *window(day, Cadence.DAILY, place), place) for day in days]
        assert_frame_equal(pl.concat(daily), month(config, key, place))


def test_a_window_may_begin_and_end_in_the_middle_of_a_day() -> None:
    start, end = datetime(2024, 5, 3, 11, 30, tzinfo=UTC), datetime(2024, 5, 7, 2, 0, tzinfo=UTC)
    inside = month(SMALL).filter(pl.col("timestamp").is_between(start, end, closed="left"))
    assert_frame_equal(simulate(SMALL, start, end, NEW_YORK), inside)


def test_a_frame_is_canonical_sorted_unique_and_inside_its_window() -> None:
    frame = month(SMALL)
    start, end = window("2024-05", Cadence.MONTHLY, NEW_YORK)
    assert frame.schema == {column.name: column.dtype for column in schema.CANONICAL} | {"kind": pl.String()}
    assert frame.drop("kind").null_count().sum_horizontal().item() == 0
    assert frame["transaction_id"].is_unique().all()
    assert frame.equals(frame.sort("timestamp", "transaction_id"))
    assert start <= frame["timestamp"].min() <= start + timedelta(hours=6)
    assert end - timedelta(hours=6) <= frame["timestamp"].max() < end
    for column in schema.CANONICAL:
        if column.lowest is not None:
            assert frame[column.name].is_between(column.lowest, column.highest).all()
    assert (frame["kind"].is_not_null() == frame["label"]).all()


def test_nothing_happens_before_the_epoch() -> None:
    config = SMALL.model_copy(update={"epoch": date(2024, 5, 10)})
    before = month(config, "2024-04")
    assert before.is_empty()
    assert before.schema == month(SMALL).schema
    assert seen(month(config))["day"].min() == date(2024, 5, 10)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (datetime(2024, 5, 1), datetime(2024, 6, 1, tzinfo=UTC)),  # noqa: DTZ001 - that is the point
        (datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 1, tzinfo=UTC)),
    ],
)
def test_a_window_without_zone_or_length_is_refused(start: datetime, end: datetime) -> None:
    with pytest.raises(ValueError, match="a start before its end, both with a time zone"):
        simulate(SMALL, start, end, NEW_YORK)


# --- habits


def test_volume_follows_the_parameters_the_weekday_and_december(year: pl.DataFrame) -> None:
    assert len(year) == pytest.approx(1_000 * 0.8 * 366, rel=0.01)
    by_weekday = year.group_by("weekday").len().sort("weekday")["len"].to_numpy()
    assert by_weekday[5] > 1.1 * by_weekday[1]  # Saturday over Tuesday
    by_day = year.group_by("month").agg(pl.len() / pl.col("day").n_unique()).sort("month")["len"].to_numpy()
    assert 1.03 < by_day[11] / by_day[:10].mean() < 1.15


def test_cardholders_have_a_place_favourites_and_an_activity_of_their_own(year: pl.DataFrame) -> None:
    usual = year.filter(~pl.col("label"))
    in_shops = usual.filter(~pl.col("online"))
    assert in_shops["kilometres"].median() < 60
    assert 0.02 < (in_shops["kilometres"] > 300).mean() < 0.15  # travel
    per_card = usual.group_by("card").len()["len"]
    assert per_card.quantile(0.9) > 3 * per_card.quantile(0.1)
    groceries = usual.filter(pl.col("category") == "grocery_pos").group_by("card", "merchant").len()
    favourite = groceries.group_by("card").agg(pl.col("len").max() / pl.col("len").sum())["len"].mean()
    assert favourite > 0.5
    assert (
        year.group_by("card")
        .agg(pl.col("birth_date", "home_latitude", "city_population").n_unique())[:, 1:]
        .max_horizontal()
        .max()
        == 1
    )


def test_categories_have_their_shares_amounts_and_hours(year: pl.DataFrame) -> None:
    usual = year.filter(~pl.col("label"))
    found = usual.group_by("category").agg(share=pl.len() / len(usual), median=pl.col("amount").median())
    for category in CATEGORIES:
        row = found.row(by_predicate=pl.col("category") == category.name, named=True)
        assert row["share"] == pytest.approx(category.share, rel=0.25)
        assert row["median"] == pytest.approx(category.median, rel=0.15)
    night = (usual["hour"] < 6) | (usual["hour"] >= 22)
    assert night.mean() < 0.12
    at_noon = usual.group_by("category").agg(share=pl.col("hour").is_between(11, 13).mean())
    noon = dict(at_noon.iter_rows())
    assert noon["food_dining"] > 1.5 * noon["entertainment"]


# --- fraud


@pytest.mark.parametrize("rate", [0.002, 0.01, 0.05])
def test_the_fraud_rate_is_near_its_parameter(rate: float) -> None:
    config = SimulatorConfig(seed=1, cardholders=4_000, fraud_rate=rate)
    start, _ = window("2024-01", Cadence.MONTHLY, NEW_YORK)
    frame = simulate(config, start, start + timedelta(days=120), NEW_YORK)
    assert frame["label"].mean() == pytest.approx(rate, rel=0.15)


def test_kinds_divide_the_fraud_by_weight_and_an_unnamed_kind_does_not_happen() -> None:
    kinds = {FraudKind.CARD_TESTING: 3.0, FraudKind.ACCOUNT_TAKEOVER: 1.0, FraudKind.BUST_OUT: 0.0}
    frauds = year_of(SimulatorConfig(kinds=kinds, fraud_rate=0.02)).filter("label")
    assert set(frauds["kind"]) == {"card_testing", "account_takeover"}
    assert (frauds["kind"] == "card_testing").mean() == pytest.approx(0.75, abs=0.05)
    assert not month(SimulatorConfig(fraud_rate=0.0, kinds={}))["label"].any()


def test_card_testing_is_a_burst_of_tiny_online_payments_and_then_a_large_one() -> None:
    frauds = seen(month(only(FraudKind.CARD_TESTING, fraud_rate=0.02))).filter("label", pl.col("day") > date(2024, 5, 2))
    cut_by_the_window = frauds.filter(pl.col("day") >= date(2024, 5, 30))["card"]
    frauds = frauds.filter(~pl.col("card").is_in(cut_by_the_window.implode()))
    assert len(frauds) > 50
    assert frauds["online"].all()
    for _, burst in frauds.group_by("card"):
        tiny, large = burst.filter(pl.col("amount") <= 3), burst.filter(pl.col("amount") > 50)
        assert len(tiny) >= 5
        assert len(tiny) + len(large) == len(burst)
    first = frauds.sort("timestamp").group_by("card", maintain_order=True).head(5)
    span = first.group_by("card").agg(pl.col("timestamp").max() - pl.col("timestamp").min())["timestamp"]
    assert span.median() < timedelta(minutes=15)


def test_account_takeover_is_by_night_far_away_and_large(year: pl.DataFrame) -> None:
    frauds, usual = (year.filter(kind) for kind in (pl.col("kind") == "account_takeover", ~pl.col("label")))
    assert ((frauds["hour"] < 6) | (frauds["hour"] >= 22)).mean() > 0.6
    assert frauds.filter(~pl.col("online"))["kilometres"].median() > 300
    assert frauds["amount"].median() > 5 * usual["amount"].median()


def test_skimmed_cards_paid_at_one_terminal_and_are_used_elsewhere_weeks_later() -> None:
    start, end = datetime(2024, 3, 1, 5, tzinfo=UTC), datetime(2024, 5, 1, 4, tzinfo=UTC)
    # Cards that hardly pay at all otherwise: what they have in common is no habit.
    config = only(FraudKind.SKIMMING, fraud_rate=0.02, transactions_per_card_per_day=0.02, seed=10)
    frame = simulate(config, start, end, NEW_YORK)
    frauds, usual = frame.filter("label"), frame.filter(~pl.col("label"))
    cards = frauds["card"].unique()
    assert 3 <= len(cards) <= 7  # one campaign: its seed was looked for
    begin = frauds["timestamp"].min()
    weeks_before = usual.filter(pl.col("timestamp").is_between(begin - timedelta(days=27), begin - timedelta(days=3)))
    paid_at = [set(weeks_before.filter(pl.col("card") == card)["merchant"]) for card in cards]
    assert set.intersection(*paid_at)
    assert not set.intersection(*paid_at) & set(frauds["merchant"])
    distance = feature_frame(frauds, [f for f in FEATURES if f.name == "distance"], NEW_YORK)["distance"]
    assert distance.median() > 300_000


def test_a_compromised_merchant_charges_mostly_fraud_for_four_weeks_to_its_usual_customers() -> None:
    frame = seen(year_of(only(FraudKind.COMPROMISED_MERCHANT)))
    frauds = frame.filter("label")
    hit = frauds.group_by("merchant").agg(first=pl.col("timestamp").min(), last=pl.col("timestamp").max(), frauds=pl.len())
    once = hit.filter(pl.col("last") - pl.col("first") <= timedelta(days=28))
    assert len(once) > 0.7 * len(hit)  # a few are compromised twice
    during = frame.join(once, on="merchant").filter(pl.col("timestamp").is_between("first", "last"))
    assert during["label"].mean() > 0.5
    customers = frame.filter(~pl.col("label")).select("card", "merchant").unique()
    assert len(frauds.join(customers, on=["card", "merchant"], how="semi")) > 0.8 * len(frauds)
    usual = frame.filter(~pl.col("label"), pl.col("merchant").is_in(hit["merchant"].implode()))
    assert frauds["amount"].median() < 1.6 * usual["amount"].median()


def test_a_bust_out_grows_for_weeks_from_ordinary_amounts_to_the_limit() -> None:
    frauds = seen(year_of(only(FraudKind.BUST_OUT, seed=2))).filter("label")
    cards = (
        frauds.sort("timestamp")
        .group_by("card")
        .agg(
            rows=pl.len(),
            span=pl.col("timestamp").max() - pl.col("timestamp").min(),
            begin=pl.col("amount").head(3).median(),
            end=pl.col("amount").tail(3).median(),
        )
    )
    once = cards.filter(pl.col("rows").is_between(14, 22))
    assert len(once) > 10
    assert once["span"].is_between(timedelta(days=21), timedelta(days=43)).mean() > 0.9
    assert (once["end"] > 2 * once["begin"]).mean() > 0.9
    assert once["end"].median() > 500


def test_every_kind_happens_by_default_and_no_single_column_tells_fraud(year: pl.DataFrame) -> None:
    assert set(year["kind"].drop_nulls()) == {kind.value for kind in SimulatorConfig().kinds}
    label = year["label"].to_numpy()
    for score in ("amount", "kilometres", "hour", "city_population"):
        values = year[score].to_numpy().astype(float)
        assert average_precision_score(label, values) < 0.3
        assert average_precision_score(label, -values) < 0.3


# --- shifts


def test_amounts_are_multiplied_and_nothing_else_changes() -> None:
    base, shifted = month(SMALL), month(SMALL.model_copy(update={"amount_factor": 1.3}))
    assert_frame_equal(base.drop("amount_cents"), shifted.drop("amount_cents"))
    difference = shifted["amount_cents"].to_numpy() - 1.3 * base["amount_cents"].to_numpy()
    assert np.abs(difference).max() <= 1.2


def test_a_shift_acts_from_its_day_on() -> None:
    border = datetime(2024, 5, 15, tzinfo=NEW_YORK).astimezone(UTC)
    base = month(SMALL)
    shifted = month(SMALL.model_copy(update={"amount_factor": 2.0, "shift_from": date(2024, 5, 15)}))
    assert_frame_equal(base.filter(pl.col("timestamp") < border), shifted.filter(pl.col("timestamp") < border))
    ratio = (
        shifted.filter(pl.col("timestamp") >= border)["amount_cents"].sum()
        / base.filter(pl.col("timestamp") >= border)["amount_cents"].sum()
    )
    assert ratio == pytest.approx(2.0, abs=0.001)


@pytest.mark.parametrize("hours", [6, -3])
def test_hours_are_shifted_within_the_day(hours: int) -> None:
    base, shifted = seen(month(SMALL)), seen(month(SMALL.model_copy(update={"hour_shift": hours})))
    what = ["day", "hour", "card", "merchant", "amount_cents", "label"]
    expected = base.with_columns(hour=((pl.col("hour") + hours) % 24).cast(pl.Int8))
    assert_frame_equal(expected.select(what).sort(what), shifted.select(what).sort(what))


def test_a_boosted_category_is_bought_so_much_more_often() -> None:
    config = SMALL.model_copy(update={"cardholders": 3_000, "fraud_rate": 0.0})
    boosted = config.model_copy(update={"category_boost": {"travel": 2.0, "grocery_pos": 0.5}})
    base, shifted = month(config), month(boosted)
    assert len(base) == len(shifted)
    for name, factor in boosted.category_boost.items():
        ratio = (shifted["category"] == name).mean() / (base["category"] == name).mean()
        assert ratio == pytest.approx(factor, rel=0.12)


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_the_share_of_online_purchases_is_set(share: float) -> None:
    config = SimulatorConfig(cardholders=3_000, fraud_rate=0.0, online_share=share)
    assert month(config)["category"].is_in(ONLINE).mean() == pytest.approx(share, abs=0.03)


def test_a_new_category_appears_with_its_share() -> None:
    base = month(SMALL)
    shifted = month(SMALL.model_copy(update={"new_category": "crypto", "new_category_share": 0.1}))
    assert "crypto" not in set(base["category"])
    assert (shifted["category"] == "crypto").mean() == pytest.approx(0.1, abs=0.015)
    assert_frame_equal(base.drop("category"), shifted.drop("category"))


def test_one_merchant_takes_its_share_with_its_category_and_place() -> None:
    shifted = month(SMALL.model_copy(update={"merchant_concentration": 0.5}))
    largest = shifted["merchant"].value_counts(sort=True).row(0, named=True)
    assert largest["count"] / len(shifted) == pytest.approx(0.5, abs=0.05)
    there = shifted.filter(pl.col("merchant") == largest["merchant"])
    assert there.select("category", "merchant_latitude", "merchant_longitude").unique().height == 1


# --- configuration


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"cardholder": 5}, "Extra inputs are not permitted"),
        ({"fraud_rate": 1.5}, "less than or equal to 0.5"),
        ({"category_boost": {"casino": 2.0}}, "there is no category 'casino'"),
        ({"category_boost": {"travel": 0.0}}, "boosted by a number above zero"),
        ({"new_category": "travel"}, "'travel' is not new"),
        ({"kinds": {"card_testing": -1.0}}, "numbers from zero on"),
        ({"kinds": {"phishing": 1.0}}, "should be 'card_testing'"),
        ({"kinds": {}}, "no kind of fraud has a weight"),
    ],
)
def test_an_impossible_configuration_is_refused_with_a_sentence(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        SimulatorConfig.model_validate(values)


def test_the_shipped_source_has_all_canonical_columns_and_about_300_000_rows() -> None:
    source = load_source(Path(__file__).parents[4] / "sources" / "simulated.toml")
    assert source.simulator is not None
    assert len(source.keys) == 12
    assert 250_000 < source.simulator.transactions_per_day * 366 < 350_000
    assert source.columns.canonical == tuple(column.name for column in schema.CANONICAL)
    assert source.simulator == SimulatorConfig()
