"""The TOMLs for public files, against files of their shapes and their documented headers."""

from pathlib import Path

import polars as pl
import pytest

from fraud_core.errors import SourceError
from fraud_core.intake.landing import Landing, land
from fraud_core.intake.raw import build_raw
from fraud_core.intake.refusals import explain_refusals
from fraud_core.sources.source import Source, load_source
from fraud_core.storage.directory import DirectoryStore
from fraud_core.units.canonical_text import LOST_DIGITS
from tests.shared_data import shared_file
from tests.unit.fraud_core.intake.shop import CARD_KEY

SOURCES = Path(__file__).parents[4] / "sources"


def numbered(name: str, last: int, first: int = 1, width: int = 0) -> list[str]:
    return [f"{name}{number:0{width}d}" for number in range(first, last + 1)]


IDENTITY = ["TransactionID", *numbered("id_", 38, width=2), "DeviceType", "DeviceInfo"]
HEADERS = {
    "ulb_creditcard": ["Time", *numbered("V", 28), "Amount", "Class"],
    "ieee_cis": [
        "TransactionID", "isFraud", "TransactionDT", "TransactionAmt", "ProductCD", *numbered("card", 6), "addr1", "addr2",
        "dist1", "dist2", "P_emaildomain", "R_emaildomain", *numbered("C", 14), *numbered("D", 15), *numbered("M", 9),
        *numbered("V", 339), *IDENTITY[1:],
    ],
    "tabformer": [
        "User", "Card", "Year", "Month", "Day", "Time", "Amount", "Use Chip", "Merchant Name", "Merchant City",
        "Merchant State", "Zip", "MCC", "Errors?", "Is Fraud?",
    ],
    "paysim": [
        "step", "type", "amount", "nameOrig", "oldbalanceOrg", "newbalanceOrig", "nameDest", "oldbalanceDest",
        "newbalanceDest", "isFraud", "isFlaggedFraud",
    ],
    "fraud_handbook": [
        "TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_TIME_SECONDS", "TX_TIME_DAYS",
        "TX_FRAUD", "TX_FRAUD_SCENARIO",
    ],
}  # fmt: skip
LEFT_OUT = {
    "tabformer": {"Merchant City"},
    "paysim": {"oldbalanceOrg", "newbalanceOrig", "oldbalanceDest", "newbalanceDest"},
    "fraud_handbook": {"TX_TIME_SECONDS", "TX_TIME_DAYS", "TX_FRAUD_SCENARIO"},
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_shipped_toml_reads_its_files_documented_header_but_for_what_it_leaves_out(name: str) -> None:
    source = load_source(SOURCES / f"{name}.toml")
    assert set(source.wanted) == set(HEADERS[name]) - LEFT_OUT.get(name, set())


def landed(source: Source, folder: Path) -> tuple[Landing, pl.DataFrame, DirectoryStore]:
    store = DirectoryStore(folder / "store")
    landing = land(source, store, CARD_KEY, None)
    parts = [build_raw(source, landing, key, store, CARD_KEY).rows.frame for key in landing.partitions()]
    return landing, pl.concat(parts) if parts else pl.DataFrame(), store


def changed(name: str, folder: Path, change: tuple[str, str], file: str) -> Source:
    text = (SOURCES / f"{name}.toml").read_text(encoding="utf-8")
    assert change[0] in text
    (folder / f"{name}.toml").write_text(text.replace(*change), encoding="utf-8")
    return load_source(folder / f"{name}.toml", (str(shared_file(f"shapes/{file}")),))


def test_ulb_keeps_every_component_and_its_copies_apart(tmp_path: Path) -> None:
    source = load_source(SOURCES / "ulb_creditcard.toml", (str(shared_file("shapes/ulb_creditcard_sample.csv")),))
    landing, raw, _ = landed(source, tmp_path)
    assert (landing.kept, landing.quarantined, len(raw), raw["label"].sum()) == (2_492, 0, 2_473, 473)
    assert raw.select(numbered("V", 28)).null_count().sum_horizontal()[0] == 0
    assert raw["timestamp"].dt.date().n_unique() <= 3


def test_ieee_cis_is_joined_with_the_identity_of_the_device(tmp_path: Path) -> None:
    second = shared_file("shapes/ieee_cis_shape_identity.csv")
    change = ("../data/train_identity.csv", str(second))
    source = changed("ieee_cis", tmp_path, change, "ieee_cis_shape_transaction.csv")
    landing, raw, _ = landed(source, tmp_path)
    assert (landing.kept, landing.quarantined, len(raw)) == (1_200, 0, 1_200)
    identified = set(pl.read_csv(second, infer_schema=False)["TransactionID"])
    assert set(raw.filter(pl.col("device_kind").is_not_null())["transaction_id"]) <= identified
    assert raw["device_kind"].null_count() < 1_200
    assert sum(file.rounded for file in landing.files.values()) > 1_000
    copy = tmp_path / "twice.csv"
    copy.write_text(second.read_text() + second.read_text().splitlines()[1] + "\n")
    source = changed("ieee_cis", tmp_path, ("../data/train_identity.csv", str(copy)), "ieee_cis_shape_transaction.csv")
    with pytest.raises(
        SourceError, match=r"line 702: the key TransactionID is that of line 2\. A row of the first file takes one"
    ):
        landed(source, tmp_path)


def test_tabformer_has_its_time_in_four_columns_and_refunds_and_numbers_that_a_spreadsheet_broke_are_refused(
    tmp_path: Path,
) -> None:
    path = shared_file("shapes/tabformer_user0.csv")
    source = load_source(SOURCES / "tabformer.toml", (str(path),))
    landing, _, store = landed(source, tmp_path)
    assert landing.kept == 0
    assert LOST_DIGITS in str(explain_refusals(source, landing, store))
    line = next(line for line in (SOURCES / "tabformer.toml").read_text().splitlines() if line.startswith("merchant ="))
    _, raw, _ = landed(changed("tabformer", tmp_path, (line, ""), path.name), tmp_path)
    negative = pl.read_csv(path, infer_schema=False).filter(pl.col("Amount").str.contains("-"))
    assert (len(raw), raw["refund"].sum()) == (19_963, len(negative))
    assert raw["amount_cents"].min() == 52
    assert str(raw["timestamp"].min()).startswith("2002-09-01 06:21:00")


def test_paysim_counts_hours_and_seconds_would_be_an_error(tmp_path: Path) -> None:
    source = load_source(SOURCES / "paysim.toml", (str(shared_file("shapes/paysim_sample.csv")),))
    landing, raw, _ = landed(source, tmp_path)
    assert (landing.kept, landing.quarantined, raw["label"].sum()) == (15_000, 0, 421)
    steps = pl.read_csv(shared_file("shapes/paysim_sample.csv"))["step"]
    span = raw["timestamp"].max() - raw["timestamp"].min()  # type: ignore[operator]
    assert span.total_seconds() / 3600 == steps.max() - steps.min()  # type: ignore[operator,union-attr]
    with pytest.raises(SourceError, match=r"all 15,000 rows lie within 118 seconds of each other.*If it counts hours, write"):
        landed(changed("paysim", tmp_path, ('unit = "h"', 'unit = "s"'), "paysim_sample.csv"), tmp_path)
