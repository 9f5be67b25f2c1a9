"""The two files that people really have, whole, against an independent reading of them."""

import csv
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet
import pytest

from fraud_core.fields import schema
from fraud_core.intake.landing import Landing, land
from fraud_core.intake.raw import build_raw
from fraud_core.sources.source import Source, load_source
from fraud_core.storage.directory import DirectoryStore
from tests.shared_data import shared_file
from tests.unit.fraud_core.intake.shop import CARD_KEY

SOURCES = Path(__file__).parents[4] / "sources"


def landed(source: Source, folder: Path) -> tuple[Landing, DirectoryStore]:
    store = DirectoryStore(folder)
    return land(source, store, CARD_KEY, None), store


def test_the_west_us_file_is_read_day_first_to_the_cent_with_63_copies_refused_and_2_labels_repaired(tmp_path: Path) -> None:
    path = shared_file("fraud_data.csv")
    source = load_source(SOURCES / "kaggle_west_us.toml", (str(path),))
    result, store = landed(source, tmp_path)
    made = [build_raw(source, result, key, store, CARD_KEY) for key in source.keys]
    kept = {row["source_line"]: row for part in made for row in part.rows.frame.iter_rows(named=True)}
    refused = pl.concat([part.quarantine.frame for part in made])

    expected, copies, odd_labels, seen = {}, set(), 0, set()
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            line = reader.line_num
            if row["trans_num"] in seen:
                copies.add(line)
                continue
            seen.add(row["trans_num"])
            odd_labels += row["is_fraud"] not in {"0", "1"}
            expected[line] = {
                "transaction_id": row["trans_num"],
                "timestamp": datetime.strptime(row["trans_date_trans_time"], "%d-%m-%Y %H:%M").replace(tzinfo=UTC),
                "amount_cents": int(Decimal(row["amt"]) * 100),
                "label": row["is_fraud"][0] == "1",
                "merchant": row["merchant"].strip('"'),
                "category": row["category"],
                "birth_date": datetime.strptime(row["dob"], "%d-%m-%Y").replace(tzinfo=UTC).date(),
                "home_latitude": float(row["lat"]),
                "home_longitude": float(row["long"]),
                "merchant_latitude": float(row["merch_lat"]),
                "merchant_longitude": float(row["merch_long"]),
                "city_population": int(row["city_pop"]),
            }

    assert {line: {name: row[name] for name in expected[2]} for line, row in kept.items()} == expected
    assert (len(copies), odd_labels) == (63, 2)
    assert set(refused["source_line"]) == copies
    assert refused["reason"].str.contains("^(is a copy of|contradicts) fraud_data.csv line ").all()
    assert sum(file.repaired for file in result.files.values()) == 2
    assert not any(file.refused for file in result.files.values())
    assert len({row["card"] for row in kept.values()}) == 187


@pytest.mark.integration
def test_the_sparkov_file_is_read_whole(tmp_path: Path) -> None:
    path = shared_file("sparkov_2019_2020.parquet")
    source = load_source(SOURCES / "kaggle_sparkov.toml", (str(path),))
    result, store = landed(source, tmp_path)
    columns = ["trans_num", "trans_date_trans_time", "amt", "is_fraud", "cc_num", "dob", "city_pop", "lat", "merch_long"]
    table = pyarrow.parquet.read_table(path, columns=columns)
    whole = pl.DataFrame(pl.from_arrow(table))
    months = Counter(text[:7] for text in table["trans_date_trans_time"].to_pylist())

    assert table.num_rows == 1_396_649
    assert len(source.keys) == len(months) == 24
    lines = []
    for key in source.keys:
        made = build_raw(source, result, key, store, CARD_KEY)
        frame = made.rows.frame
        assert (len(frame), len(made.quarantine.frame)) == (months[key], 0)
        assert frame.schema == pl.Schema(schema.raw_schema(source.columns.canonical))
        line = frame["source_line"].to_numpy().astype(np.int64)
        lines.append(line)
        original = whole[line - 1]
        same = {
            "transaction_id": original["trans_num"],
            "timestamp": original["trans_date_trans_time"].str.to_datetime(time_zone="UTC", time_unit="us"),
            "home_latitude": original["lat"],
            "merchant_longitude": original["merch_long"],
            "birth_date": original["dob"].str.to_date(),
            "city_population": original["city_pop"],
            "label": original["is_fraud"] == 1,
            "amount_cents": (original["amt"] * 100).round().cast(pl.Int64),
        }
        assert [name for name, values in same.items() if not (frame[name] == values).all()] == []
        cards = dict(zip(original["cc_num"].to_list(), frame["card"], strict=True))
        assert len(set(cards.values())) == len(cards)
        assert frame["card"].to_list() == [cards[number] for number in original["cc_num"].to_list()]
    assert np.array_equal(np.sort(np.concatenate(lines)), np.arange(1, table.num_rows + 1))
