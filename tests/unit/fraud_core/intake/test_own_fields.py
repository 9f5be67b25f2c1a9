"""What own fields promise at the intake: parsed by their kind, refused with a reason, derived before hashing, never shown."""

import gzip
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fraud_core.errors import SourceError
from fraud_core.intake.landing import land
from fraud_core.intake.parsing import PARTITION, Parsed, parse
from fraud_core.intake.raw import RawPartition, build_raw
from fraud_core.signing.card_numbers import hashed_card
from fraud_core.signing.keys import Key
from fraud_core.sources.source import Source, load_source
from fraud_core.storage.directory import DirectoryStore
from tests.unit.fraud_core.intake.shop import CARD, CARD_KEY, read

MAIL = "Ada.Lovelace@Mail.Example.CO.UK"
HEAD = """
name = "shop"
paths = ["pay.csv"]
timezone = "Europe/Zurich"
cadence = "monthly"
first = "2024-01"
label_delay_days = 7
"""
COLUMNS = """
[columns]
timestamp = { column = "when", formats = ["%Y-%m-%d %H:%M:%S"] }
amount = "sum"
card = "pan"
"""
FIELDS = """
[fields.basket]
kind = "number"
lowest = 0
highest = 1000
missing = ["-1", "NA"]
[fields.channel]
kind = "category"
values = ["web", "pos"]
[fields.cvv]
kind = "flag"
values = { true = ["M", "Y"], false = ["N"] }
[fields.vip]
kind = "flag"
[fields.opened]
kind = "time"
formats = ["%Y-%m-%d"]
[fields.device]
column = "device_id"
kind = "id"
[fields.email]
kind = "id"
personal = true
[fields.born]
kind = "time"
formats = ["%Y-%m-%d"]
personal = true
[fields."V{1..2}"]
kind = "number"
[fields.rest]
columns = "x_*"
kind = "number"
[fields.ip]
kind = "id"
personal = true
[fields.domain]
from = { part = "domain", of = "email" }
[fields.top]
from = { part = "top_domain", of = "email" }
[fields.bin]
from = { first_digits = 6, of = "card" }
[fields.network]
kind = "id"
from = { network = "24/48", of = "ip" }
[fields.same]
from = { equal = ["channel", "device"] }
[fields.account_age]
from = { hours_since = "opened" }
[fields.years]
from = { hours_since = "born" }
[fields.left]
from = { difference = ["basket", "amount"] }
"""
ROW = {
    "when": "2024-03-05 10:20:30", "sum": "12.50", "pan": CARD, "basket": "3", "channel": "web", "cvv": "m", "vip": "1.0",
    "opened": "2024-03-04", "device_id": "d-7", "email": MAIL, "born": "1980-02-29", "V1": "0.25", "V2": "-1e-3",
    "ip": "10.1.2.3", "x_a": "1", "x_b": "", "unread": "secret",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def declared(folder: Path, fields: str = FIELDS, head: str = HEAD, columns: str = COLUMNS, *rows: dict[str, str]) -> Source:
    frame = pl.DataFrame([ROW | row for row in rows or ({},)])
    frame.write_csv(folder / "pay.csv")
    (folder / "shop.toml").write_text(head + columns + fields)
    return load_source(folder / "shop.toml")


def parsed(source: Source, folder: Path, key: Key = CARD_KEY) -> Parsed:
    return parse(read(folder / "pay.csv", source), "pay.csv", source, key)


def landed(source: Source, folder: Path) -> RawPartition:
    store = DirectoryStore(folder / "store")
    return build_raw(source, land(source, store, CARD_KEY, None), "2024-03", store, CARD_KEY)


def one(folder: Path, **changes: str) -> dict[str, Any]:
    result = parsed(declared(folder, FIELDS, HEAD, COLUMNS, changes), folder)
    assert result.refused.is_empty(), result.refused.row(0, named=True)
    return result.rows.row(0, named=True)


def refusal(folder: Path, **changes: str) -> tuple[str, str, str]:
    row = parsed(declared(folder, FIELDS, HEAD, COLUMNS, changes), folder).refused.row(0, named=True)
    return row["column"], row["reason"], row["value"]


def test_each_kind_is_read_and_derived_fields_are_made_of_what_was_given(folder: Path) -> None:
    row = one(folder)
    keyed = {name: row.pop(name) for name in ("card", "email", "ip", "transaction_id", "split_bucket")}
    assert row == {
        "timestamp": datetime(2024, 3, 5, 9, 20, 30, tzinfo=UTC), "amount_cents": 1250,
        "basket": 3.0, "channel": "web", "cvv": True, "vip": True, "opened": datetime(2024, 3, 3, 23, tzinfo=UTC),
        "device": "d-7", "V1": 0.25, "V2": -0.001, "x_a": 1.0, "x_b": None,
        "domain": "mail.example.co.uk", "top": "uk", "bin": "411111", "network": "10.1.2.0/24", "same": False,
        "account_age": 34 + 20.5 / 60, "years": pytest.approx(385_834.34, abs=0.01), "left": -9.5,
        "source_file": "pay.csv", "source_line": 2, PARTITION: "2024-03",
    }  # fmt: skip
    assert keyed["card"] == hashed_card(CARD, CARD_KEY)
    assert keyed["email"] == hashed_card(MAIL, CARD_KEY)  # the same hash as of cards, so that equality holds across fields


def test_what_is_personal_is_hashed_or_not_kept_and_in_no_quarantine(folder: Path) -> None:
    rows = parsed(declared(folder, FIELDS, HEAD, COLUMNS, {"email": "x" * 201}, {"born": MAIL}, {}), folder)
    assert "born" not in rows.rows.columns
    assert rows.refused["value"].to_list() == ["(hidden)", "(hidden)"]
    for frame in (rows.rows, rows.refused):
        text = frame.write_csv()
        assert all(one not in text for one in (MAIL, "10.1.2.3", CARD, "1980-02-29", "xxxx"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"basket": "many"}, ("basket", "is not a finite number", "xxxx")),
        ({"basket": "1001"}, ("basket", "is out of bounds (0 to 1000)", "9999")),
        ({"channel": "moon"}, ("channel", "is none of the declared values (web, pos)", "xxxx")),
        ({"cvv": "maybe"}, ("cvv", "is neither m/y (true) nor n (false)", "xxxxx")),
        ({"vip": "2"}, ("vip", "is neither 1/true/yes/y/t (true) nor 0/false/no/n/f (false)", "9")),
        ({"opened": "04.03.2024"}, ("opened", "does not have the declared format (%Y-%m-%d)", "99.99.9999")),
        ({"device_id": CARD}, ("device", "holds what looks like a card number", "9999999999999999")),
        ({"device_id": "4.5E+15"}, ("device", "is a floating-point number that has lost digits; keep", "9.9x+99")),
        ({"device_id": "d" * 201}, ("device", "is longer than 200 characters", "x" * 40)),
        ({"V2": "NaN"}, ("V2", "is not a finite number", "xxx")),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_reason(folder: Path, changes: dict[str, str], says: Any) -> None:
    column, reason, value = refusal(folder, **changes)
    assert (column, value) == (says[0], says[2])
    assert reason.startswith(says[1])


def test_declared_texts_and_empty_ones_are_missing(folder: Path) -> None:
    row = one(folder, basket="NA", channel="", cvv="", opened="", device_id="", email="", born="", ip="")
    kept = (
        "basket",
        "channel",
        "cvv",
        "opened",
        "device",
        "email",
        "ip",
        "domain",
        "network",
        "same",
        "account_age",
        "years",
        "left",
    )
    assert {name: row[name] for name in kept} == dict.fromkeys(kept)
    assert one(folder, basket="-1.0")["basket"] is None


def test_typed_columns_are_read_as_text_is(folder: Path) -> None:
    source = declared(folder)
    text = read(folder / "pay.csv", source)
    typed = text.with_columns(
        pl.col("basket").cast(pl.Int64), pl.lit(True).alias("vip"), pl.col("V1", "V2").cast(pl.Float64),
        pl.col("opened").str.to_date(), pl.col("pan").cast(pl.Int64), pl.lit(True).alias("cvv"),
    )  # fmt: skip
    first, second = (parse(frame, "pay.csv", source, CARD_KEY).rows for frame in (text, typed))
    assert first.equals(second)


def test_raw_has_the_fields_and_its_content_is_the_same_under_every_key(folder: Path) -> None:
    source = declared(folder)
    part = landed(source, folder)
    assert part.rows.frame.height == 1
    assert {"basket", "domain", "x_a"} <= set(part.rows.frame.columns)
    assert parsed(source, folder).digest("2024-03") == parsed(source, folder, Key(b"d" * 32)).digest("2024-03")


def test_an_id_made_of_content_and_the_comparison_of_copies_include_own_fields(folder: Path) -> None:
    source = declared(folder, FIELDS, HEAD, COLUMNS, {}, {"device_id": "d-8"}, {})
    part = landed(source, folder)
    assert part.rows.frame["device"].to_list() == ["d-7", "d-8"]
    assert part.quarantine.frame["reason"].to_list() == ["is a copy of pay.csv line 2"]


def test_a_standard_field_may_be_declared_under_fields_and_be_missing_by_its_texts(folder: Path) -> None:
    other = '\n[fields.merchant]\ncolumn = "device_id"\nmissing = ["none"]\ndrift = "reported"\n[fields.amount]\nhighest = 20\n'
    source = declared(folder, FIELDS + other, HEAD, COLUMNS, {"device_id": "none"}, {"sum": "20.01"})
    result = parsed(source, folder)
    assert result.rows["merchant"].to_list() == [None]
    assert result.refused["reason"].to_list() == ["is out of bounds (0 to 2000 cents)"]
    assert source.declared.overridden("merchant").drift == "reported"  # type: ignore[union-attr]
    under = HEAD + COLUMNS.replace('amount = "sum"', "") + '[fields.amount]\ncolumn = "sum"\n'
    (folder / "shop.toml").write_text(under)
    assert load_source(folder / "shop.toml").declared.is_standard


def test_a_source_survives_being_written_down_and_read_back(folder: Path) -> None:
    source = declared(folder)
    again = Source.model_validate(source.model_dump(mode="json"))
    assert again == source
    assert again.parse_fingerprint() == source.parse_fingerprint()


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        (('meaning = "The basket of {value}"\ndrift = "reported"\nrequired = true\nlearns = false\nunit = "items"\n'), False),
        ("lowest = -5\n", True),
        ('missing = ["?"]\n', True),
        ('column = "sum"\n', True),
    ],
)
def test_only_what_decides_how_a_field_is_read_makes_files_be_read_anew(folder: Path, change: str, matters: bool) -> None:
    before = declared(folder, '[fields.basket]\nkind = "number"\n')
    after = declared(folder, '[fields.basket]\nkind = "number"\n' + change)
    assert (before.parse_fingerprint() != after.parse_fingerprint()) is matters


def test_a_pattern_takes_what_nothing_else_reads_also_from_packed_files(folder: Path) -> None:
    source = declared(folder, '[fields.V1]\nkind = "flag"\n[fields.all]\ncolumns = "V*"\nkind = "number"\n')
    assert {name: field.kind for name, field in source.fields.items()} == {"V1": "flag", "V2": "number"}
    (folder / "pay.csv").write_bytes(gzip.compress((folder / "pay.csv").read_bytes()))
    assert load_source(folder / "shop.toml") == source
    (folder / "pay.csv").unlink()
    with pytest.raises(SourceError, match=r"line 15, fields\.all: .*none of `paths` is on this machine"):
        load_source(folder / "shop.toml")
