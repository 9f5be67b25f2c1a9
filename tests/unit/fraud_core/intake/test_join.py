"""What a second file promises: its columns stand beside those of the first, by a key that it has once."""

from pathlib import Path

import polars as pl
import pytest

from fraud_core.errors import SourceError
from fraud_core.intake.landing import Landing, land
from fraud_core.intake.raw import build_raw
from fraud_core.sources.source import Source, load_source
from fraud_core.storage.directory import DirectoryStore
from tests.unit.fraud_core.intake.shop import CARD_KEY

TOML = """
name = "two"
paths = ["pay*.csv"]
cadence = "monthly"
first = "2024-01"
label_delay_days = 7
[columns]
transaction_id = "id"
timestamp = { column = "when", formats = ["%Y-%m-%d"] }
amount = "sum"
[join]
file = "devices/second.csv"
key = "id"
[fields.device]
kind = "id"
[fields.screens]
columns = "screen_*"
kind = "number"
[fields.kind]
kind = "category"
"""
PAY = "id,when,sum,kind\n1,2024-01-02,1,a\n2,2024-01-03,2,b\n3,2024-01-04,3,\n"
SECOND = "screen_w,id,device,kind,unread\n100,3,d3,never,x\n200,1.0,d1,never,x\n300,9,d9,never,x\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "devices").mkdir()
    (tmp_path / "two.toml").write_text(TOML)
    (tmp_path / "pay.csv").write_text(PAY)
    (tmp_path / "devices" / "second.csv").write_text(SECOND)
    return tmp_path


def landed(source: Source, folder: Path, previous: Landing | None = None) -> tuple[Landing, pl.DataFrame]:
    store = DirectoryStore(folder / "store")
    landing = land(source, store, CARD_KEY, previous)
    return landing, build_raw(source, landing, "2024-01", store, CARD_KEY).rows.frame


def test_rows_have_the_columns_of_the_second_file_by_its_key_and_the_first_file_comes_first(folder: Path) -> None:
    _, rows = landed(load_source(folder / "two.toml"), folder)
    assert rows.select("transaction_id", "device", "screen_w", "kind").rows() == [
        ("1", "d1", 200.0, "a"), ("2", None, None, "b"), ("3", "d3", 100.0, None),
    ]  # fmt: skip


def test_the_second_file_may_be_parquet(folder: Path) -> None:
    path = folder / "devices" / "second.csv"
    pl.read_csv(path).with_columns(pl.col("id").cast(pl.Int64)).write_parquet(path)
    source = load_source(folder / "two.toml")
    assert landed(source, folder)[1]["screen_w"].to_list() == [200.0, None, 100.0]


def test_another_second_file_makes_the_first_be_read_anew(folder: Path) -> None:
    source = load_source(folder / "two.toml")
    first, _ = landed(source, folder)
    assert landed(source, folder, first)[0] == first
    (folder / "devices" / "second.csv").write_text(SECOND.replace("200", "250"))
    second, rows = landed(source, folder, first)
    assert second.parse != first.parse
    assert rows["screen_w"].to_list() == [250.0, None, 100.0]


def test_a_key_that_repeats_is_an_error_with_both_lines_and_shows_no_value(folder: Path) -> None:
    (folder / "devices" / "second.csv").write_text(SECOND + "400,3,d4,never,x\n400,9,d4,never,x\n")
    with pytest.raises(SourceError, match=r"line 5: the key id is that of line 2, and 1 more keys repeat.*leave the others out"):
        landed(load_source(folder / "two.toml"), folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('key = "id"', 'key = "nr"'), "line 1: there is no column 'nr'"),
        (("devices/second.csv", "devices/third.csv"), "third.csv"),
        (("devices/second.csv", "https://host/second.csv"), "host/second.csv, is not on this machine; put it there"),
        (("[fields.device]", "[fields.gerät]"), "is not valid TOML"),
        (("[fields.device]", "[fields.nowhere]"), "there is no column 'nowhere'"),
    ],
)
def test_what_cannot_be_joined_is_an_error_that_says_what_to_do(folder: Path, change: tuple[str, str], says: str) -> None:
    (folder / "two.toml").write_text(TOML.replace(*change), encoding="utf-8")
    with pytest.raises(SourceError, match=says):
        landed(load_source(folder / "two.toml"), folder)


def test_an_empty_second_file_is_an_error(folder: Path) -> None:
    source = load_source(folder / "two.toml")
    (folder / "devices" / "second.csv").write_text("")
    with pytest.raises(SourceError, match="is empty"):
        landed(source, folder)
