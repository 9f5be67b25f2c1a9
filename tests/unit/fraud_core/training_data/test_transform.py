"""What transformed promises: features of the row's own past, no personal column, and nothing made of a past that is missing."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fraud_core.errors import PartitionError
from fraud_core.features import catalogue
from fraud_core.fields import schema
from fraud_core.intake.landing import land
from fraud_core.intake.raw import build_raw
from fraud_core.signing.keys import Key
from fraud_core.sources.source import Source, load_source
from fraud_core.storage.artifacts import Artifacts
from fraud_core.storage.directory import DirectoryStore
from fraud_core.training_data.transform import (
    CARRIED,
    build_transformed,
    dropped_features,
    required_raws,
    source_features,
    transformed_inputs,
)
from tests import history_features
from tests.unit.fraud_core.intake.shop import CARD, CARD_KEY, COLUMNS, Intake, csv_text

KEY = Key(b"s" * 32)
JANUARY = [
    {"id": f"j{n}", "when": f"2024-01-{n + 1:02d} 1{n % 10}:00:00", "sum": f"{n}.50", "pan": f"4{n:015d}"} for n in range(20)
]
FEBRUARY = [
    {"id": f"f{n}", "when": f"2024-02-{n + 1:02d} 0{n % 10}:30:00", "outcome": "F" if n % 5 == 0 else "L"} for n in range(10)
]


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    folder = tmp_path / "files"
    folder.mkdir()
    return Intake(folder, DirectoryStore(tmp_path / "store"))


def materialize(source: Source, store: DirectoryStore, key: Key = CARD_KEY) -> Artifacts:
    """Land the source's files and make every partition that has rows, in order."""
    artifacts = Artifacts(store, KEY)
    landed = land(source, store, key, None)
    for partition in landed.partitions():
        made = build_raw(source, landed, partition, store, key)
        artifacts.write("raw", partition, made.rows)
        artifacts.write("quarantine", partition, made.quarantine)
        artifacts.write("transformed", partition, build_transformed(source, artifacts, partition))
    return artifacts


def rows(artifacts: Artifacts, partition: str) -> pl.DataFrame:
    return artifacts.scan("transformed", partition).collect()


# ---- what a row becomes


def test_a_row_has_its_features_its_label_and_what_evaluation_needs(intake: Intake) -> None:
    intake.rows({"id": "x", "when": "2024-01-05 23:30:00", "outcome": "F"})
    row = rows(materialize(intake.source(), intake.store), "2024-01").row(0, named=True)
    assert row["timestamp"] == datetime(2024, 1, 5, 22, 30, tzinfo=UTC)
    wanted = {
        "transaction_id": "x",
        "amount_cents": 1_234,
        "label": True,
        "hour": 23,
        "weekday": 4,
        "night": 1,
        "age": 43,
        "city_population": 400_000,
        "category": "grocery",
    }
    assert {name: row[name] for name in wanted} == wanted
    assert row["log_amount"] == pytest.approx(2.590767, abs=1e-6)
    assert row["distance"] == pytest.approx(5_620, abs=30)


def test_no_personal_column_but_the_hash_of_the_card_is_carried(intake: Intake) -> None:
    intake.rows(*JANUARY)
    frame = rows(materialize(intake.source(), intake.store), "2024-01")
    names = [feature.name for feature in history_features.FEATURES]
    assert frame.columns == [*CARRIED, *names]
    assert set(frame.columns) & schema.PERSONAL == {"card"}
    assert not {"card", "split_bucket", "transaction_id", "label"} & set(names)


def test_missing_values_stay_missing(intake: Intake) -> None:
    intake.rows({"when": "2024-01-05 00:00:00", "born": "", "lat": "", "people": "", "kind": ""})
    row = rows(materialize(intake.source(), intake.store), "2024-01").row(0, named=True)
    assert [row[name] for name in ("age", "distance", "city_population", "category")] == [None] * 4


def test_the_facts_tell_rows_frauds_and_the_span(intake: Intake) -> None:
    intake.rows(*FEBRUARY)
    artifacts = materialize(intake.source(first="2024-02"), intake.store)
    pointer, stamps = artifacts.pointer("transformed", "2024-02"), rows(artifacts, "2024-02")["timestamp"].dt.epoch("us")
    assert pointer is not None
    assert pointer.facts == {"rows": 10, "frauds": 2, "first_us": stamps.min(), "last_us": stamps.max()}


def test_an_excluded_feature_and_one_whose_columns_are_missing_are_not_made(intake: Intake) -> None:
    source = intake.source(excluded_features=["weekday"], columns={"timestamp": "when", "amount": "sum", "label": "outcome"})
    assert [feature.name for feature in source_features(source)] == ["log_amount", "hour", "night"]
    plain = ("weekday", "age", "distance", "city_population", "category")
    assert dropped_features(source) == plain + tuple(feature.name for feature in history_features.HISTORY)


def test_history_that_is_switched_off_makes_no_feature_of_the_past(intake: Intake) -> None:
    intake.rows(*JANUARY)
    source = intake.source(history={"enabled": False, "reason": "for a test"})
    assert source_features(source) == catalogue.PLAIN
    frame = rows(materialize(source, intake.store), "2024-01")
    assert frame.columns == [*CARRIED, *(feature.name for feature in catalogue.PLAIN)]


# ---- no look into the future


def test_a_future_transaction_changes_no_earlier_row(intake: Intake, tmp_path: Path) -> None:
    intake.rows(*JANUARY, *FEBRUARY)
    before = materialize(intake.source(), intake.store)
    later = [{"id": "late", "when": "2024-01-31 23:59:59", "pan": JANUARY[0]["pan"], "sum": "9999.99", "outcome": "F"}]
    later += [
        {"id": f"m{n}", "when": f"2024-03-{n + 1:02d} 00:00:00", "pan": JANUARY[n]["pan"], "outcome": "F"} for n in range(20)
    ]
    intake.rows(*later, name="b.csv")
    after = materialize(intake.source(), DirectoryStore(tmp_path / "after"))
    january = rows(after, "2024-01")
    assert january.filter(pl.col("transaction_id") != "late").equals(rows(before, "2024-01"))
    assert len(january) == len(JANUARY) + 1
    plain = [*CARRIED, *(feature.name for feature in catalogue.PLAIN)]
    assert rows(after, "2024-02").select(plain).equals(rows(before, "2024-02").select(plain))


def test_the_labels_change_no_feature_before_their_delay_is_over_and_then_the_merchants_rates_alone(
    intake: Intake, tmp_path: Path
) -> None:
    intake.rows(*JANUARY)
    before = rows(materialize(intake.source(), intake.store), "2024-01")
    intake.rows(*[row | {"outcome": "F"} for row in JANUARY])
    after = rows(materialize(intake.source(), DirectoryStore(tmp_path / "after")), "2024-01")
    assert after["label"].all()
    rates = [name for name in after.columns if "fraud_rate" in name]
    assert after.drop("label", *rates).equals(before.drop("label", *rates))
    settled = pl.col("timestamp") >= before["timestamp"].min() + timedelta(days=7)  # type: ignore[operator]
    assert after.filter(~settled).select(rates).equals(before.filter(~settled).select(rates))
    assert set(after.filter(settled)["merchant_fraud_rate_30d"].drop_nulls()) == {1.0}


# ---- the past of card and merchant


def test_windows_reach_over_the_border_of_a_partition(intake: Intake) -> None:
    """Two payments of a card an hour apart, in two months; the whole in one partition gives the same."""
    shop = {"pan": CARD, "shop": "corner shop"}
    intake.rows(
        {"id": "a", "when": "2024-01-31 23:40:00", "sum": "10.00", **shop},
        {"id": "b", "when": "2024-02-01 00:30:00", "sum": "5.00", **shop},
        {"id": "c", "when": "2024-02-01 00:30:00", "sum": "7.00", **shop},
    )
    monthly = rows(materialize(intake.source(), intake.store), "2024-02")
    names = ["card_count_1h", "card_sum_1h", "card_mean_30d", "amount_over_mean", "seconds_since_last", "merchant_new"]
    assert monthly.select(names).row(0) == (1, 10.0, 10.0, 0.5, 3_000.0, 0)
    assert monthly.select("card_count_1h", "amount_over_mean").row(1) == (1, 0.7)  # the other of equal time is not seen


def test_the_greatest_payment_and_those_at_night_are_looked_for_in_a_day_and_a_week(intake: Intake) -> None:
    """By the source's own clocks, the payment itself and what is older than the window left out."""
    spent = {
        "02 12:00:00": "90.00",
        "08 21:59:59": "40.00",
        "08 22:00:00": "30.00",
        "09 05:59:59": "20.00",
        "09 06:00:00": "10.00",
    }
    intake.rows(*[{"id": when, "when": f"2024-01-{when}", "sum": amount, "pan": CARD} for when, amount in spent.items()])
    table = rows(materialize(intake.source(timezone="America/New_York"), intake.store), "2024-01")
    names = ["card_max_1d", "card_max_7d", "card_nights_1d", "card_nights_7d"]
    assert table.select(names).rows() == [(0, 0, 0, 0), (0, 90, 0, 0), (40, 90, 0, 0), (40, 90, 1, 1), (40, 90, 2, 2)]


def test_history_is_all_raw_rows_of_the_days_that_it_reaches_into(intake: Intake, tmp_path: Path) -> None:
    """However the same payments are cut into partitions, every row has the same past."""
    intake.rows(*JANUARY, *FEBRUARY, *[row | {"id": f"2{row['id']}"} for row in JANUARY], {"when": "2024-01-24 08:00:00"})
    cut = {}
    for cadence, first in (("monthly", "2024-01"), ("weekly", "2024-01-01"), ("yearly", "2024")):
        source = intake.source(cadence=cadence, first=first, last="open")
        artifacts = materialize(source, DirectoryStore(tmp_path / cadence))
        frames = [rows(artifacts, key) for key in sorted(artifacts.pointers("transformed"))]
        cut[cadence] = pl.concat(frames).sort("transaction_id")
    assert cut["monthly"].equals(cut["weekly"])
    assert cut["monthly"].equals(cut["yearly"])
    assert cut["monthly"]["card_count_30d"].max() > 1  # type: ignore[operator]


# ---- the past that it needs


def test_a_missing_predecessor_is_refused_unless_the_source_begins_there(intake: Intake) -> None:
    intake.rows(*FEBRUARY)
    with pytest.raises(
        PartitionError, match="transformed 2024-02 looks back 37 days and needs raw 2023-12, which was not materialized"
    ):
        materialize(intake.source(first="2023-01"), intake.store)
    assert Artifacts(intake.store, KEY).pointer("transformed", "2024-02") is None
    assert len(rows(materialize(intake.source(first="2024-02"), intake.store), "2024-02")) == 10


def test_the_partitions_looked_back_into_and_its_own_are_what_it_is_made_of(intake: Intake) -> None:
    intake.rows(*JANUARY, *FEBRUARY)
    source = intake.source()
    artifacts = materialize(source, intake.store)
    assert [pointer.partition for pointer in required_raws(source, artifacts, "2024-02")] == ["2024-01", "2024-02"]
    raws = [artifacts.pointers("raw")[key] for key in ("2024-01", "2024-02")]
    pointer = artifacts.pointer("transformed", "2024-02")
    assert pointer is not None
    assert pointer.inputs == transformed_inputs(source, raws)
    assert transformed_inputs(source, raws[1:]) != pointer.inputs
    assert transformed_inputs(intake.source(excluded_features=["hour"]), raws) != pointer.inputs
    assert transformed_inputs(intake.source(history_days=60), raws) != pointer.inputs
    assert transformed_inputs(intake.source(history_events=500), raws) != pointer.inputs


# ---- the same everywhere, and no card number anywhere


def test_two_homes_with_other_keys_have_the_same_content_of_every_partition(intake: Intake, tmp_path: Path) -> None:
    intake.rows(*JANUARY, *FEBRUARY)
    mine = materialize(intake.source(), intake.store)
    other = materialize(intake.source(), DirectoryStore(tmp_path / "other"), Key(b"o" * 32))
    for asset in ("raw", "quarantine", "transformed"):
        contents = [{key: pointer.content for key, pointer in each.pointers(asset).items()} for each in (mine, other)]
        assert contents[0] == contents[1]
        assert set(contents[0]) == {"2024-01", "2024-02"}
    frames = [rows(each, "2024-01") for each in (mine, other)]
    assert frames[0].drop("card").equals(frames[1].drop("card"))
    assert set(frames[0]["card"]).isdisjoint(frames[1]["card"])


def test_card_numbers_are_nowhere_in_the_bytes_or_columns_of_the_store(intake: Intake) -> None:
    spoilt = [
        {"id": f"s{n}", "when": "2024-01-05 00:00:00", "pan": CARD, column: "?"}
        for n, column in enumerate(("sum", "born", "lat"))
    ]
    misplaced = [
        {"id": "m1", "when": CARD},
        {"id": "m2", "sum": CARD},
        {"id": "m3", "people": CARD},
        {"id": "m4", "outcome": CARD},
    ]
    intake.rows(
        *JANUARY,
        *spoilt,
        *misplaced,
        {"id": "again", "when": "2024-01-05 00:00:00"},
        {"id": "again", "when": "2024-01-05 00:00:00"},
    )
    store = materialize(intake.source(), intake.store).store
    numbers = {CARD, *(row["pan"] for row in JANUARY)}
    keys = list(store.list(""))
    assert {key.split("/")[1] for key in keys if not key.startswith("index/")} == {"landing", "raw", "quarantine", "transformed"}
    for key in keys:
        data = store.get(key)
        shown = pl.read_parquet(data).write_csv().encode() if key.endswith(".parquet") else b""
        assert not any(number.encode() in data or number.encode() in shown for number in numbers), key


# ---- a source by a TOML alone

HANDBOOK = """
name = "handbook"
paths = ["transactions/*.csv"]
timezone = "Europe/Brussels"
cadence = "weekly"
first = "2018-04-02"
label_delay_days = 7
history_days = 14

[columns]
timestamp = { column = "TX_DATETIME", formats = ["%Y-%m-%d %H:%M:%S"] }
amount = "TX_AMOUNT"
label = "TX_FRAUD"
card = "CUSTOMER_ID"
merchant = "TERMINAL_ID"
"""


def test_a_source_with_other_names_and_only_card_and_merchant_works_by_its_toml_alone(tmp_path: Path) -> None:
    (tmp_path / "handbook.toml").write_text(HANDBOOK)
    (tmp_path / "transactions").mkdir()
    header = (
        "TRANSACTION_ID,TX_DATETIME,CUSTOMER_ID,TERMINAL_ID,TX_AMOUNT,TX_TIME_SECONDS,TX_TIME_DAYS,TX_FRAUD,TX_FRAUD_SCENARIO"
    )
    lines = [
        f"{n},2018-04-{2 + n // 8:02d} {n % 24:02d}:15:31,{n % 7},{n % 5},{n}.5,0,0,{int(n % 11 == 0)},0" for n in range(120)
    ]
    (tmp_path / "transactions" / "2018-04.csv").write_text("\n".join([header, *lines]))
    source = load_source(tmp_path / "handbook.toml")
    artifacts = materialize(source, DirectoryStore(tmp_path / "store"))
    frame = pl.concat([rows(artifacts, key) for key in artifacts.pointers("transformed")])
    assert list(artifacts.pointers("transformed")) == ["2018-04-02", "2018-04-09", "2018-04-16"]
    lost = ("age", "distance", "city_population", "category")
    lost += ("distance_from_last", "speed_from_last", "card_categories_1d", "category_new", "amount_over_mean")
    kept = [feature.name for feature in history_features.FEATURES if feature.name not in lost and "30d" not in feature.name]
    assert frame.columns == [*CARRIED, *kept]
    assert set(dropped_features(source)) == {feature.name for feature in history_features.FEATURES} - set(kept)
    assert (len(frame), frame["label"].sum(), frame["card"].n_unique()) == (120, 11, 7)
    assert frame["amount_cents"].to_list() == [100 * n + 50 for n in range(120)]
    assert frame["hour"].to_list() == [n % 24 for n in range(120)]
    assert all(pointer.facts["quarantined"] == 0 for pointer in artifacts.pointers("raw").values())


def test_refunds_are_rows_of_raw_that_never_train_and_count_only_where_a_window_asks_for_them(intake: Intake) -> None:
    times = [f"2024-01-05 {hour:02d}:00:00" for hour in (8, 9, 10)]
    intake.rows(*({"when": when, "sum": amount} for when, amount in zip(times, ("10", "-4", "20"), strict=True)))
    columns = COLUMNS | {"amount": {"column": "sum", "negative": "refund"}}
    asks = {"of": "card", "measure": ["count", "sum"], "over": "amount", "spans": ["1d"], "where": {"refund": [True]}}
    source = intake.source(columns=columns, windows=[asks | {"name": "refunds_{measure}"}])
    artifacts = materialize(source, intake.store)
    raw = artifacts.scan("raw", "2024-01").collect()
    assert (raw["amount_cents"].to_list(), raw["refund"].to_list()) == ([1000, 400, 2000], [False, True, False])
    frame = rows(artifacts, "2024-01")
    assert frame["amount_cents"].to_list() == [1000, 2000]
    assert frame["card_count_1d"].to_list() == [0, 1]
    assert frame["refunds_count"].to_list() == [0, 1]
    assert frame["refunds_sum"].to_list() == [0, 4]


def test_a_partition_without_rows_is_empty_and_not_missing(intake: Intake) -> None:
    intake.write("a.csv", csv_text(*JANUARY))
    source: Any = intake.source()
    artifacts = Artifacts(intake.store, KEY)
    landed = land(source, intake.store, CARD_KEY, None)
    for key in ("2024-01", "2024-02"):
        artifacts.write("raw", key, build_raw(source, landed, key, intake.store, CARD_KEY).rows)
        artifacts.write("transformed", key, build_transformed(source, artifacts, key))
    empty = rows(artifacts, "2024-02")
    assert (len(empty), empty.schema) == (0, rows(artifacts, "2024-01").schema)
    pointer = artifacts.pointer("transformed", "2024-02")
    assert pointer is not None
    start = int(datetime(2024, 1, 31, 23, tzinfo=UTC).timestamp() * 1e6)
    assert pointer.facts == {"rows": 0, "frauds": 0, "first_us": start, "last_us": start}
