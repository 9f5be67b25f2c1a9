"""Signals of simulated payments: the same in every window, nobody's, shared by the legitimate; and fraud that only they show."""

import csv
import tomllib
from datetime import date, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pydantic import ValidationError

from fraud_core.fields import schema
from fraud_core.signing.card_numbers import holds_card_number
from fraud_core.simulator.config import FIRST_DAY, ONLINE_KINDS, FraudKind, OnlineConfig, SimulatorConfig
from fraud_core.simulator.draws import below, hashed
from fraud_core.simulator.signals import CURRENCIES, worth
from fraud_core.simulator.simulate import simulate
from fraud_core.sources.partitions import Cadence, key_range, window

NEW_YORK = ZoneInfo("America/New_York")
SOURCES = Path(__file__).parents[4] / "sources"
DECLARED = tomllib.loads((SOURCES / "simulated_online.toml").read_text(encoding="utf-8"))
SHIPPED = SimulatorConfig.model_validate(DECLARED["simulator"])
SMALL = SHIPPED.model_copy(update={"cardholders": 300, "merchants": 200, "transactions_per_card_per_day": 0.8})
COLUMNS = {
    "device",
    "ip",
    "email",
    "channel",
    "three_ds",
    "cvv",
    "currency",
    "billing_country",
    "shipping_country",
    "account_opened",
    "authorised",
}
ONLINE_ONLY = COLUMNS - {"device", "ip", "channel", "currency", "authorised", "cvv"}


def simulated(config: SimulatorConfig, key: str = "2024-05", zone: ZoneInfo = NEW_YORK) -> pl.DataFrame:
    cadence = {4: Cadence.YEARLY, 7: Cadence.MONTHLY, 10: Cadence.DAILY}[len(key)]
    return simulate(config, *window(key, cadence, zone), zone)


@pytest.fixture(scope="module")
def year() -> pl.DataFrame:
    """A year of the shipped portfolio, with what its TOML derives."""
    return seen(simulated(SHIPPED, "2024"))


def seen(frame: pl.DataFrame) -> pl.DataFrame:
    local = pl.col("timestamp").dt.convert_time_zone(NEW_YORK.key)
    degrees = (pl.col("home_latitude") - pl.col("merchant_latitude")) ** 2 + (
        pl.col("home_longitude") - pl.col("merchant_longitude")
    ) ** 2
    return frame.with_columns(
        bin=pl.col("card").str.head(6),
        network=pl.col("ip").str.extract(r"^(\d+\.\d+\.\d+)\."),
        account_age=(pl.col("timestamp") - pl.col("account_opened")).dt.total_seconds() / 3_600,
        hour=local.dt.hour(),
        day=local.dt.date(),
        month=local.dt.month(),
        dollars=pl.col("amount_cents") / pl.col("currency").replace_strict({"USD": 100, "EUR": 92, "JPY": 15_000}),
        distance=degrees.sqrt(),
        online=pl.col("channel") != "pos",
    )


def only(kind: FraudKind) -> SimulatorConfig:
    """Few campaigns of one kind, that do not meet."""
    small = {"cardholders": 1_200, "transactions_per_card_per_day": 0.15, "fraud_rate": 0.02, "seed": 5}
    return SHIPPED.model_copy(update={"kinds": {kind: 1.0}} | small)


# --- windows


def test_the_same_seed_gives_the_same_signals_and_another_seed_others() -> None:
    assert_frame_equal(simulated(SMALL), simulated(SMALL))
    other = simulated(SMALL.model_copy(update={"seed": 4}))
    assert not set(simulated(SMALL)["device"].drop_nulls()) & set(other["device"].drop_nulls())


@pytest.mark.parametrize(
    ("zone", "first", "last"),
    [
        ("America/New_York", "2024-03-06", "2024-03-12"),
        ("America/New_York", "2024-11-01", "2024-11-05"),
        ("Asia/Tokyo", "2024-03-06", "2024-03-09"),
    ],
)
def test_days_put_together_equal_the_week_with_attempts_refunds_and_shifts(zone: str, first: str, last: str) -> None:
    place = ZoneInfo(zone)
    shifts = {"shift_from": date(2024, 3, 8), "new_category": "crypto", "merchant_concentration": 0.2, "hour_shift": 5}
    for config in (SMALL, SMALL.model_copy(update=shifts)):
        begin, end = window(first, Cadence.DAILY, place)[0], window(last, Cadence.DAILY, place)[1]
        whole = simulate(config, begin, end, place)
        days = [simulated(config, day, place) for day in key_range(first, last, Cadence.DAILY)]
        assert_frame_equal(pl.concat(days), whole)
        assert whole.filter(pl.col("account_opened") >= pl.col("timestamp")).is_empty()
        assert whole.filter(pl.col("amount_cents") < 0).height > 0


def test_a_month_drawn_alone_is_that_month_of_the_year(year: pl.DataFrame) -> None:
    alone = simulated(SHIPPED, "2024-07")
    assert_frame_equal(alone, year.filter(pl.col("month") == 7).select(alone.columns))


def test_signals_change_no_payment_that_there_is_without_them() -> None:
    config = SimulatorConfig(seed=3, cardholders=300, merchants=200, fraud_rate=0.03)
    without, with_them = simulated(config), simulated(config.model_copy(update={"online": OnlineConfig()}))
    same = ["timestamp", "merchant", "category", "birth_date", "home_latitude", "label", "kind"]
    assert without.columns == [name for name in with_them.columns if name not in COLUMNS]
    assert without.join(with_them, on=same, how="anti", nulls_equal=True).is_empty()
    assert len(without) < len(with_them) < 1.15 * len(without)
    assert "online" not in config.model_dump(mode="json")  # so that the fingerprint of such a source is what it was


def test_a_hash_depends_on_each_of_its_keys_and_on_nothing_beside_them() -> None:
    keys = np.arange(-3, 5_000)
    assert len(np.unique(hashed(1, 2, keys))) == len(keys)
    assert (hashed(1, 2, keys)[[7, 9]] == hashed(1, 2, keys[[7, 9]])).all()
    assert not (hashed(1, 2, keys) == hashed(2, 1, keys)).any()
    tenths = np.bincount(below(10, 1, 3, keys), minlength=10) / len(keys)
    assert np.abs(tenths - 0.1).max() < 0.02


# --- columns


def test_a_frame_has_the_columns_that_the_toml_declares_and_they_are_empty_where_nobody_asks(year: pl.DataFrame) -> None:
    frame = simulated(SMALL)
    assert set(frame.columns) == {column.name for column in schema.CANONICAL} | {"kind"} | COLUMNS
    assert frame["transaction_id"].is_unique().all()
    refund, in_shop = pl.col("amount_cents") < 0, pl.col("channel") == "pos"
    assert year.filter(refund | in_shop).select(pl.col(*ONLINE_ONLY, "cvv").is_not_null().any()).row(0) == (False,) * 6
    assert year.filter(~refund & ~in_shop).select(pl.col(*ONLINE_ONLY).is_null().any()).row(0) == (False,) * 5
    assert year.filter(refund).select(pl.col("device", "ip").is_not_null().any()).row(0) == (False, False)
    assert year.filter(~refund).select(pl.col("device", "ip").is_null().any()).row(0) == (False, False)
    assert set(year["authorised"].unique()) == {"approved", "declined"}
    asked = year.filter("online")["cvv"].is_not_null().mean()
    assert 0.6 < asked < 0.8


def test_no_number_address_or_name_is_anybodys(year: pl.DataFrame) -> None:
    digits = year["card"].unique().sort().sample(2_000, seed=1).to_list()
    assert all(len(number) == 16 and number.startswith("9") for number in digits)
    assert all(sum(int(d) if i % 2 else int(d) * 2 - 9 * (d > "4") for i, d in enumerate(n)) % 10 == 0 for n in digits)  # Luhn
    nobodys = [ip_network(net) for net in ("10.0.0.0/8", "172.16.0.0/12", "100.64.0.0/10")]
    addresses = year["ip"].drop_nulls().unique().sort().sample(2_000, seed=1).to_list()
    assert all(any(ip_address(address) in net for net in nobodys) for address in addresses)
    assert year["email"].drop_nulls().str.contains(r"^[a-z]+\.[a-z]+[0-9]+@[a-z]+\.example$").all()
    for column in ("device", "ip", "email"):
        assert not any(holds_card_number(text) for text in year[column].drop_nulls().unique().to_list())


def test_a_card_has_one_issuer_and_is_replaced_after_years(year: pl.DataFrame) -> None:
    holders = year.filter(pl.col("kind").is_null(), ~pl.col("online")).group_by("birth_date", "home_latitude", "home_longitude")
    cards = holders.agg(pl.col("card").n_unique(), pl.col("bin").n_unique())
    assert cards["bin"].max() == 1
    assert 0.2 < (cards["card"] == 2).mean() < 0.5
    assert year.filter(pl.col("kind") != "bin_enumeration")["bin"].n_unique() == 12


def test_amounts_are_plausible_in_each_currency_and_yen_are_whole(year: pl.DataFrame) -> None:
    paid = year.filter("online", pl.col("amount_cents") > 0)
    medians = dict(paid.group_by("currency").agg(pl.col("dollars").median()).iter_rows())
    assert set(medians) == set(CURRENCIES)
    assert max(medians.values()) < 2 * min(medians.values())
    assert (paid.filter(pl.col("currency") == "JPY")["amount_cents"] % 100 == 0).all()
    assert (year.filter(~pl.col("online"))["currency"] == "USD").all()
    shares = dict(paid["currency"].value_counts(normalize=True).iter_rows())
    assert shares["EUR"] > 0.05
    assert shares["JPY"] > 0.01


def test_some_attempts_are_declined_and_tried_again_and_some_payments_are_given_back(year: pl.DataFrame) -> None:
    usual = year.filter(pl.col("kind").is_null())
    assert 0.03 < (usual["authorised"] == "declined").mean() < 0.07
    refunds = usual.filter(pl.col("amount_cents") < 0)
    assert 0.008 < len(refunds) / len(usual) < 0.016
    assert not refunds["label"].any()
    failed = usual.filter(pl.col("cvv") == "N", pl.col("authorised") == "declined")
    again = failed.join(usual, on=["card", "merchant", "amount_cents", "email"]).with_columns(
        later=pl.col("timestamp_right") - pl.col("timestamp")
    )
    tried = again.filter(pl.col("later").is_between(timedelta(), timedelta(minutes=20), closed="right"))
    assert tried["transaction_id"].n_unique() > 0.95 * len(failed)
    # Of those given back whole, each has its payment in the two weeks before, in the same currency.
    paid = usual.filter(pl.col("amount_cents") > 0).with_columns(-pl.col("amount_cents"))
    late = refunds.filter(pl.col("month") > 1)
    found = late.join(paid, on=["card", "merchant", "currency", "amount_cents"]).filter(
        (pl.col("timestamp") - pl.col("timestamp_right")).is_between(timedelta(), timedelta(days=15))
    )
    assert 0.65 < found["transaction_id"].n_unique() / len(late) < 0.85


def test_neighbouring_months_are_alike_in_every_signal(year: pl.DataFrame) -> None:
    usual = year.filter(pl.col("online"), pl.col("kind").is_null())
    for column in ("channel", "three_ds", "cvv", "currency", "billing_country", "shipping_country", "authorised"):
        shares = usual.group_by("month").agg(
            *((pl.col(column) == value).mean().alias(value) for value in usual[column].unique().drop_nulls().sort())
        )
        shares = shares.sort("month").drop("month").to_numpy()
        assert np.abs(np.diff(shares, axis=0)).sum(axis=1).max() / 2 < 0.03, column
    ages = [usual.filter(pl.col("month") == month)["account_age"].to_numpy() for month in range(1, 13)]
    grid = np.quantile(np.concatenate(ages), np.linspace(0, 1, 200))
    curves = np.array([np.searchsorted(np.sort(age), grid) / len(age) for age in ages])
    assert np.abs(np.diff(curves, axis=0)).max() < 0.03


# --- fraud


def test_kinds_divide_the_fraud_by_weight(year: pl.DataFrame) -> None:
    frauds = year.filter("label")
    weight = sum(SHIPPED.kinds.values())
    shares = dict(frauds["kind"].value_counts(normalize=True).iter_rows())
    for kind in ONLINE_KINDS:
        assert shares[kind.value] == pytest.approx(SHIPPED.kinds[kind] / weight, rel=0.25)
    assert year["label"].mean() == pytest.approx(SHIPPED.fraud_rate, rel=0.1)


def test_a_device_ring_works_through_forty_cards_behind_a_dozen_addresses_in_two_days() -> None:
    frame = seen(simulated(only(FraudKind.DEVICE_RING), "2024"))
    frauds = frame.filter("label")
    rings = frauds.group_by("device").agg(
        cards=pl.col("card").n_unique(),
        networks=pl.col("network").n_unique(),
        days=(pl.col("day").max() - pl.col("day").min()).dt.total_days(),
    )
    assert len(rings) > 10
    assert rings["cards"].is_between(28, 50).all()
    assert rings["cards"].mean() == pytest.approx(40, abs=4)
    assert rings["networks"].is_between(6, 12).all()
    assert rings["days"].max() <= 2
    assert frame.filter(~pl.col("label")).join(rings, on="device", how="semi").is_empty()


def test_an_enumeration_tries_numbers_never_seen_under_one_bin_within_minutes_and_few_pass() -> None:
    frauds = seen(simulated(only(FraudKind.BIN_ENUMERATION), "2024")).filter("label").sort("timestamp")
    apart = pl.col("timestamp").diff() > timedelta(hours=1)
    campaigns = frauds.with_columns(campaign=apart.fill_null(value=False).cum_sum()).group_by("campaign")
    found = campaigns.agg(
        bins=pl.col("bin").n_unique(),
        rows=pl.len(),
        cards=pl.col("card").n_unique(),
        devices=pl.col("device").n_unique(),
        span=pl.col("timestamp").max() - pl.col("timestamp").min(),
    ).filter(pl.col("rows") < 36)  # more: two at a time
    assert len(found) > 20
    assert (found["bins"] == 1).mean() > 0.9
    assert (found["cards"] == found["rows"]).all()
    assert (found["devices"] == found["rows"]).all()
    assert found["span"].median() < timedelta(minutes=30)
    assert ((frauds["cvv"] == "N") & (frauds["authorised"] == "declined")).mean() > 0.85
    assert 0.03 < (frauds["authorised"] == "approved").mean() < 0.12


def test_a_farm_opens_its_accounts_behind_one_network_and_uses_them_within_the_week() -> None:
    frauds = seen(simulated(only(FraudKind.ACCOUNT_FARM), "2024")).filter("label")
    farms = frauds.group_by("network").agg(
        accounts=pl.col("email").n_unique(),
        names=pl.col("email").str.replace(r"[0-9]+@", "@").n_unique(),
        opened=pl.col("account_opened").max() - pl.col("account_opened").min(),
        oldest=pl.col("account_age").max(),
        devices=pl.col("device").n_unique(),
        rows=pl.len(),
    )
    whole = farms.filter(pl.col("accounts").is_between(15, 32))
    assert len(whole) > 0.7 * len(farms)  # the others are cut by the year, or share a network
    assert (whole["names"] == 1).mean() > 0.9
    assert (whole["opened"] <= timedelta(days=3)).mean() > 0.9
    assert whole["oldest"].median() < 8 * 24
    assert (whole["devices"] == whole["accounts"]).mean() > 0.8


@pytest.mark.parametrize("kind", ONLINE_KINDS)
def test_the_hidden_kinds_are_like_the_holders_own_payments(year: pl.DataFrame, kind: FraudKind) -> None:
    usual = year.filter("online", pl.col("kind").is_null(), pl.col("amount_cents") > 0)
    frauds = year.filter(pl.col("kind") == kind.value)
    for column in ("hour", "distance", "city_population"):
        one, other = (np.sort(part[column].to_numpy().astype(float)) for part in (usual, frauds))
        gap = np.searchsorted(one, other, side="right") / len(one) - np.searchsorted(other, other, side="right") / len(other)
        all_at_once = kind is FraudKind.BIN_ENUMERATION and column == "hour"  # so that there are as many hours as campaigns
        assert np.abs(gap).max() < (0.25 if all_at_once else 0.1), column
    mixes = [part["category"].value_counts(normalize=True).sort("category")["proportion"].to_numpy() for part in (usual, frauds)]
    assert np.abs(mixes[0] - mixes[1]).sum() / 2 < 0.08
    # Those of an enumeration are in the cheaper half of what people pay.
    between = usual["dollars"].quantile(0.02), usual["dollars"].quantile(0.98)
    assert frauds["dollars"].is_between(*between).mean() > 0.9
    assert frauds["dollars"].median() < 1.2 * usual["dollars"].median()


def test_legitimate_payments_share_devices_and_networks_and_fail_checks(year: pl.DataFrame) -> None:
    usual = year.filter("online", pl.col("kind").is_null())
    a_day = usual.group_by("device", "day").agg(pl.col("card").n_unique())
    assert a_day.filter(pl.col("card") >= 20).height > 100
    persons = ["birth_date", "home_latitude", "home_longitude"]
    at_home = usual.group_by("device").agg(pl.struct(persons).n_unique().alias("persons"))
    assert (at_home["persons"].is_between(2, 6)).mean() > 0.05  # families
    tills = year.filter(~pl.col("online")).group_by("device", "day").agg(pl.col("card").n_unique())
    assert tills.filter(pl.col("card") >= 20).height > 300
    a_week = usual.filter(pl.col("day").is_between(date(2024, 5, 6), date(2024, 5, 12))).group_by("network")
    assert a_week.agg(pl.col("email").n_unique()).filter(pl.col("email") >= 40).height >= 8
    young = usual.filter(pl.col("account_age") < 7 * 24)
    assert 0.08 < len(young) / len(usual) < 0.14
    assert 0.06 < (usual["cvv"].drop_nulls() == "N").mean() < 0.15
    unseen = usual.sort("timestamp").select(pl.struct("card", "device").is_first_distinct()).to_series()
    assert unseen.tail(len(usual) // 4).mean() > 0.15


# --- configuration and the shipped TOML


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"kinds": {"device_ring": 1.0}}, r"device_ring shows in nothing .* without \[simulator.online\]"),
        ({"online": {"declined": 0.1}}, "Extra inputs are not permitted"),
        ({"online": {"refund_share": 0.9}}, "less than or equal to 0.4"),
    ],
)
def test_an_impossible_configuration_is_refused_with_a_sentence(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        SimulatorConfig.model_validate(values)


def test_the_shipped_toml_declares_every_column_of_the_simulator_and_twenty_windows_over_five_entities() -> None:
    fields, windows = DECLARED["fields"], DECLARED["windows"]
    given = {name for name, field in fields.items() if "from" not in field}
    assert given | {DECLARED["currency"]["column"]} == COLUMNS
    for field in fields.values():
        of = field.get("from", {})
        needed = {of.get("of"), of.get("hours_since"), *of.get("equal", ())} - {None}
        assert needed <= given | set(DECLARED["columns"])
    ids = {name for name, field in fields.items() if field["kind" if "kind" in field else "from"] == "id"} | {"card"}
    entities = {(window["of"] if isinstance(window["of"], str) else window["of"][0]) for window in windows}
    assert entities == {"card", "device", "network", "email", "bin"} <= ids
    assert {window["over"] for window in windows if "over" in window} <= set(fields) | {"card"}
    assert {name for window in windows for name in window.get("where", {})} <= set(fields)
    assert sum(len(window["spans"]) for window in windows) == 20
    assert DECLARED["simulator"]["online"] == OnlineConfig().model_dump()
    assert 250_000 < SHIPPED.transactions_per_day * 366 < 350_000


def test_the_rate_table_has_every_day_of_the_source_with_the_rates_that_were_simulated() -> None:
    with (SOURCES / DECLARED["currency"]["rates"]).open(encoding="utf-8") as file:
        rates = {(row["date"], row["currency"]): float(row["rate"]) for row in csv.DictReader(file)}
    for day in (date(2023, 12, 31) + timedelta(days=n) for n in range(368)):
        for code in (1, 2):
            expected = worth(np.array([code]), np.array([(day - FIRST_DAY).days]))[0]
            assert rates.pop((day.isoformat(), CURRENCIES[code])) == pytest.approx(expected, abs=1e-6)
    assert not rates
