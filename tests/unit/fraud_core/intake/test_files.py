"""What reading source files promises: nothing is guessed, and an error names the file, the line and the column."""

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import openpyxl
import polars as pl
import pyarrow
import pyarrow.parquet
import pytest

from fraud_core.errors import SourceError
from fraud_core.intake import files, unpacking
from fraud_core.intake.files import LINE, NO_VALUE, SourceFile, Tally, chunks, located
from fraud_core.intake.watch import look, s3_objects
from fraud_core.sources.source import Source, load_source
from tests.unit.fraud_core.intake.shop import CARD, ROW, Intake, csv_text, read

HEADER = csv_text()


def zipped(*members: tuple[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members:
            archive.writestr(name, text)
    return buffer.getvalue()


def refusal(path: Path, source: Source) -> str:
    """The message with which reading the file ends."""
    with pytest.raises(SourceError) as caught:
        read(path, source)
    return str(caught.value)


# ---- finding files


def test_files_are_found_by_glob_in_the_order_of_their_names(intake: Intake) -> None:
    for name in ("b.csv", "a.csv", "c.txt"):
        intake.rows({}, name=name)
    with located(intake.source("*.csv")) as found:
        assert [Path(file.name).name for file in found] == ["a.csv", "b.csv"]
        assert [file.size for file in found] == [len(csv_text({}))] * 2


def test_brackets_in_the_name_of_a_file_are_no_pattern(intake: Intake) -> None:
    path = intake.rows({}, name="export [1].csv")
    with located(intake.source("export [1].csv")) as found:
        assert [file.path for file in found] == [path]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/nowhere/missing.csv", "/nowhere/missing.csv: there is no such file"),
        ("http://example.org/a.csv", "only local paths, https:// and s3://"),
        ("ftp://example.org/a.csv", "only local paths, https:// and s3://"),
    ],
)
def test_a_missing_file_and_an_unknown_protocol_are_refused_by_name(intake: Intake, path: str, says: str) -> None:
    source = intake.source(paths=[path])
    with pytest.raises(SourceError, match=says), located(source):
        pass


def test_a_pattern_goes_through_folders_and_a_folder_by_itself_is_told_as_one(intake: Intake) -> None:
    for folder in ("in/month=2024-01", "in/month=2024-02/b", "[old]"):
        (intake.folder / folder).mkdir(parents=True)
        intake.rows({}, name=f"{folder}/a.csv")
    with located(intake.source("in/**")) as found:
        assert [Path(file.name).parent.name for file in found] == ["month=2024-01", "b"]
    with located(intake.source("[[]old]/*.csv")) as found:
        assert [Path(file.name).parent.name for file in found] == ["[old]"]
    with pytest.raises(SourceError, match=r"in is a folder; write .*/in/\*\.csv"), located(intake.source("in")):
        pass


@pytest.mark.parametrize(
    ("place", "pattern"),
    [
        ("[old]", "data/*.csv"),
        ("[old]/sources", "../data/**/*.csv"),
        ("what? *", "data/a.csv"),
        (".", "[old]/data/*.csv"),  # a folder that is there is meant, and not one of its letters
        ("[old]", "{absolute}/[old]/data/*.csv"),
        ("[old]", "data/a [[]1].csv"),
        ("[old]", "data/a [1].csv"),
    ],
)
def test_brackets_in_the_names_of_folders_are_names_and_only_the_pattern_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, pattern: str
) -> None:
    """As the TOML has it, and as the command line has it, in a folder with such a name."""
    data = tmp_path / (place if "sources" not in place and place != "." else "[old]") / "data"
    data.mkdir(parents=True)
    name = "a [1].csv" if "1" in pattern else "a.csv"
    (data / name).write_text(csv_text({}))
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    written = pattern.replace("{absolute}", str(tmp_path))
    toml = folder / "shop.toml"
    toml.write_text(
        f"name = 'shop'\npaths = ['{written}']\ncadence = 'monthly'\nfirst = '2024-01'\nlabel_delay_days = 7\n"
        "columns = { timestamp = 'when', amount = 'sum' }\n"
    )
    monkeypatch.chdir(folder)
    for source in (load_source(toml), load_source(toml, (written,))):
        with located(source) as found:
            assert [file.path.resolve() for file in found] == [data / name]
        assert [seen.name for seen in look(source)] == [file.name for file in found]


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("kind=gas%20station", "gas station"), ("kind=what?#1", "what?#1"), ("[old]/kind=x=y", "x=y"), (f"kind={NO_VALUE}", "")],
)
def test_a_column_may_stand_in_the_names_of_folders(intake: Intake, folder: str, kind: str) -> None:
    (intake.folder / folder).mkdir(parents=True)
    path = intake.write(f"{folder}/a.csv", csv_text({}, {}).replace(",kind", "").replace(",grocery", ""))
    assert read(path, intake.source())["kind"].to_list() == [kind] * 2


def test_patterns_of_s3_urls_match_as_those_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ["in/a.csv", "in/b [1].csv", "in/x/2024/c.csv", "in/x/d.parquet", "in/1.csv"]

    def paginate(Bucket: str, Prefix: str) -> list[dict[str, list[dict[str, str]]]]:
        return [{"Contents": [{"Key": key, "Size": 1, "ETag": "x"} for key in keys if key.startswith(Prefix)]}, {}]

    client = SimpleNamespace(get_paginator=lambda _: SimpleNamespace(paginate=paginate))
    monkeypatch.setattr("fraud_core.storage.s3.s3_client", lambda: client)
    found = {pattern: [seen.name[9:] for seen in s3_objects(f"s3://buck/{pattern}")] for pattern in (*PATTERNS, "in/a.csv")}
    assert found == PATTERNS | {"in/a.csv": ["/in/a.csv"]}


PATTERNS = {
    "in/*.csv": ["/in/1.csv", "/in/a.csv", "/in/b [1].csv"],
    "in/**/*.csv": ["/in/1.csv", "/in/a.csv", "/in/b [1].csv", "/in/x/2024/c.csv"],
    "in/x/**": ["/in/x/2024/c.csv", "/in/x/d.parquet"],
    "in/b [1].csv": ["/in/b [1].csv"],
    "in/[!0-9].csv": ["/in/a.csv"],
    "in/?/*.parquet": ["/in/x/d.parquet"],
}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"%PDF-1.7 x", "is a PDF"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "save it as .xlsx"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"x" * 257 + b"ustar", "is a tar archive"),
    ],
)
def test_a_file_that_is_not_read_is_told_as_what_it_is(intake: Intake, content: bytes, says: str) -> None:
    assert says in refusal(intake.write("a.csv", content), intake.source())


def zstd(content: bytes) -> bytes:
    return bytes(pyarrow.Codec("zstd").compress(content, asbytes=True))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstd, lambda b: gzip.compress(zstd(b))])
@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "export"])
def test_a_packed_file_is_known_by_its_content_whatever_its_name(
    intake: Intake, pack: Callable[[bytes], bytes], name: str
) -> None:
    rows = io.BytesIO()
    read(intake.rows({}, {}), intake.source()).drop(LINE).write_parquet(rows)
    for content in (csv_text({}, {}).encode(), rows.getvalue(), zipped(("x.csv", csv_text({}, {})))):
        assert read(intake.write(name, pack(content)), intake.source())["id"].to_list() == ["t1", "t2"]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, zstd])
def test_a_truncated_packed_file_is_refused_by_name(intake: Intake, pack: Callable[[bytes], bytes]) -> None:
    content = pack(csv_text(*[{"shop": f"Shop {n * n}"} for n in range(2_000)]).encode())
    path = intake.write("a.csv.x", content[: len(content) // 2])
    assert f"{path}" in refusal(path, intake.source())


def test_a_workbook_is_read_as_the_csv_that_it_would_be(intake: Intake) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append([*ROW, "note"])
    values = ["t1", datetime(2024, 3, 5, 10, 20, 30), 12.34, True, 4111111111111111, "Shop", None, date(1980, 2, 29)]  # noqa: DTZ001
    sheet.append([*values, 47.37, 8.0, 47, 8.6, 400000])
    sheet.append([])
    sheet.append(["t2"])
    path = intake.folder / "a.csv"  # known by its content
    book.save(path)
    frame = read(path, intake.source())
    assert frame.row(0)[1:9] == (
        "t1",
        "2024-03-05 10:20:30",
        "12.34",
        "true",
        "4.11111111111111E+15",
        "Shop",
        "",
        "1980-02-29 00:00:00",
    )
    assert frame.select("lat", "long", "shop_lat", "people").row(0) == ("47.37", "8", "47", "400000")
    assert frame[LINE].to_list() == [2, 4]
    book.create_sheet("other").append(["x"])
    book.save(path)
    assert "has several sheets with rows: 'Sheet', 'other'" in refusal(path, intake.source())


@pytest.mark.parametrize(
    "pack", [gzip.compress, zstd, lambda b: zipped(("a.csv", b.decode())), lambda b: gzip.compress(gzip.compress(b))]
)
def test_a_file_that_expands_too_far_is_refused_with_the_bound(
    intake: Intake, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "FREE_EXPANSION", 10_000)
    path = intake.write("a", pack(csv_text(*[{}] * 20_000).encode()))
    message = refusal(path, intake.source(limits={"expansion": 2}))
    assert "expands to more than 2 times its size" in message
    assert "raise `expansion`" in message
    assert len(read(path, intake.source(limits={"expansion": 10_000}))) == 20_000


# ---- CSV


def test_values_stay_the_text_that_they_were(intake: Intake) -> None:
    path = intake.rows({"id": "007", "sum": "1e3", "kind": "NA", "shop": " null ", "people": "1,000"})
    frame = read(path, intake.source())
    assert frame.select("id", "sum", "kind", "shop", "people").row(0) == ("007", "1e3", "NA", " null ", "1,000")
    assert set(frame.drop(LINE).dtypes) == {pl.String}


def test_columns_that_no_one_asked_for_are_not_read(intake: Intake) -> None:
    text = csv_text({}).replace("id,", "cvv,id,", 1).replace("t1,", "987,t1,", 1)
    assert "cvv" not in read(intake.write("a.csv", text), intake.source()).columns


def test_a_row_has_the_number_of_the_line_on_which_it_ends(intake: Intake) -> None:
    text = csv_text({}, {"shop": "two\nlines"}, {}, {"shop": "three\r\n\r\nlines"}, {}).replace("t3,", "\n\nt3,", 1)
    frame = read(intake.write("a.csv", text), intake.source(line_breaks=True))
    assert frame[LINE].to_list() == [2, 4, 7, 10, 11]


def test_line_numbers_go_on_over_chunks(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK_ROWS", 3)
    path, source = intake.rows(*[{}] * 8), intake.source()
    parts = [chunk for _, chunk in chunks(SourceFile("a.csv", path, "", 0), source)]
    assert [len(part) for part in parts] == [3, 3, 2]
    assert pl.concat(parts)[LINE].to_list() == list(range(2, 10))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_a_file_is_read_in_its_declared_encoding(intake: Intake, encoding: str) -> None:
    path = intake.write("a.csv", csv_text({"shop": "Café Zürich"}).encode(encoding))
    declared = "utf-8" if encoding == "utf-8-sig" else encoding
    assert read(path, intake.source(encoding=declared))["shop"].to_list() == ["Café Zürich"]


def test_another_delimiter_can_be_declared(intake: Intake) -> None:
    path = intake.write("a.tsv", csv_text({"shop": "a, b"}).replace('"a, b"', "a; b").replace(",", "\t"))
    assert read(path, intake.source(delimiter="\t"))["shop"].to_list() == ["a; b"]


@pytest.mark.parametrize("before", [0, 3, 5_000])
def test_a_wrong_encoding_is_told_with_file_line_and_column(intake: Intake, before: int) -> None:
    rows = [{"shop": "a, and\nb"}] * before + [{"shop": "Café\nZürich", "kind": "é"}, {}]
    text = csv_text(*rows).encode("latin-1").replace(b"\xe9\n", b"e\n").replace(b"\xfc", b"u")
    path = intake.write("a.csv", text)
    message = refusal(path, intake.source(line_breaks=True))
    assert f"{path}, line {1 + 2 * before + 2}, column 'kind': byte 0xe9 is not utf-8" in message
    assert "`encoding`" in message


def test_a_wrong_encoding_inside_a_zip_is_told_with_the_member(intake: Intake) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.csv", csv_text({}, {"kind": "é"}).encode("latin-1"))
    message = refusal(intake.write("a.zip", buffer.getvalue()), intake.source())
    assert "a.zip::x.csv, line 3, column 'kind': byte 0xe9 is not utf-8" in message


def test_a_file_that_ends_within_a_character_is_told_with_line_and_column(intake: Intake) -> None:
    text = csv_text({}, {"people": "é"}).encode().rstrip(b"\n")[:-1]
    assert "line 3, column 'people': byte 0xc3 is not utf-8" in refusal(intake.write("a.csv", text), intake.source())


def test_a_header_in_a_wrong_encoding_is_told_as_line_1(intake: Intake) -> None:
    text = HEADER.replace("shop,", "caf\xe9,").encode("latin-1")
    assert "line 1, column '(header)': byte 0xe9" in refusal(intake.write("a.csv", text), intake.source())


def test_a_cut_line_is_told_with_its_number_and_width(intake: Intake) -> None:
    text = csv_text({"shop": "x\ny"}, {}).rsplit(",", 3)[0] + "\n"
    message = refusal(intake.write("a.csv", text), intake.source(line_breaks=True))
    assert message.startswith(f"{intake.folder}/a.csv, line 4: 10 columns where the header has 13")


def test_a_stray_delimiter_is_told_with_its_line(intake: Intake) -> None:
    text = csv_text({}, {"shop": "x"}).replace(",x,", ",x,y,")
    assert "line 3: 14 columns where the header has 13" in refusal(intake.write("a.csv", text), intake.source())


def test_lines_and_columns_are_bounded_and_long_cells_that_nobody_reads_are_not_in_the_way(intake: Intake) -> None:
    text = csv_text({}, {}).replace("id,", "note,id,", 1).replace("t1,", f"{'x' * 200_000},t1,").replace("t2,", ",t2,")
    path = intake.write("a.csv", text)
    assert read(path, intake.source())["id"].to_list() == ["t1", "t2"]
    message = refusal(path, intake.source(limits={"line_characters": 100_000}))
    assert "line 2: the line has more than 100000 characters. If it is sound, raise `line_characters`" in message
    assert "14 columns, and 10 at most are read" in refusal(path, intake.source(limits={"columns": 10}))


@pytest.mark.parametrize("line_breaks", [False, True])
@pytest.mark.parametrize("strays", [1, 2])
def test_a_stray_quotation_mark_is_refused_with_the_line_on_which_it_opened(
    intake: Intake, strays: int, line_breaks: bool
) -> None:
    rows: list[dict[str, str]] = [{} for _ in range(9)]
    for at in range(strays):
        rows[3 + 2 * at] = {"shop": "STRAY"}
    path = intake.write("a.csv", csv_text(*rows).replace("STRAY", '"Quick Stop'))
    assert f"{path}, line 5: a quotation mark" in refusal(path, intake.source(line_breaks=line_breaks))


@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_line_ends_of_another_system_are_read_and_a_wrong_encoding_in_them_is_told(intake: Intake, end: str) -> None:
    path = intake.write("a.csv", csv_text({"shop": "café"}, {}).replace("\n", end).encode("cp1252"))
    assert read(path, intake.source(encoding="cp1252"))["shop"].to_list() == ["café", "Corner shop"]
    message = refusal(path, intake.source())
    assert "line 2, column 'shop': byte 0xe9 is not utf-8" in message
    assert "cp1252" in message


def test_a_header_in_quotation_marks_behind_a_byte_order_mark_is_read(intake: Intake) -> None:
    text = csv_text({}).replace("id,", '"id",', 1)
    assert read(intake.write("a.csv", text.encode("utf-8-sig")), intake.source())["id"].to_list() == ["t1"]


def test_a_missing_column_is_told_with_file_line_and_what_there_is(intake: Intake) -> None:
    path = intake.write("a.csv", csv_text({}).replace("kind", "mcc", 1))
    message = refusal(path, intake.source())
    assert f"{path}, line 1: there is no column 'kind'" in message
    assert "It has: id, when" in message
    assert "mcc" in message


def test_a_file_without_header_is_refused_without_telling_its_first_transaction(intake: Intake) -> None:
    message = refusal(intake.write("a.csv", csv_text({}).split("\n", 1)[1]), intake.source())
    assert "Is the first line a header?" in message
    assert not any(value in message for value in (CARD, ROW["born"], ROW["lat"], ROW["when"]))


def test_a_column_that_comes_twice_is_refused(intake: Intake) -> None:
    path = intake.write("a.csv", "sum," + HEADER)
    assert "there are several columns 'sum'" in refusal(path, intake.source())


@pytest.mark.parametrize("content", ["", "\n", "\r\n\r\n"])
def test_an_empty_file_has_no_rows(intake: Intake, content: str) -> None:
    path = intake.write("a.csv", content)
    assert list(chunks(SourceFile("a.csv", path, "", 0), intake.source())) == []
    assert list(chunks(SourceFile("a.csv", path, "", 0), intake.source(encoding="utf-16"))) == []


def test_empty_lines_before_the_header_are_left_out(intake: Intake) -> None:
    assert read(intake.write("a.csv", "\n\n" + csv_text({})), intake.source())[LINE].to_list() == [4]


# ---- zip


def test_the_members_of_a_zip_are_read_one_after_the_other(intake: Intake) -> None:
    content = zipped(("b.csv", csv_text({"id": "b"})), ("readme.md", "x"), ("a.csv", csv_text({"id": "a"})))
    path, source = intake.write("a.zip", content), intake.source()
    parts = list(chunks(SourceFile(str(path), path, "", 0), source))
    assert [(name, chunk["id"].to_list()) for name, chunk in parts] == [(f"{path}::a.csv", ["a"]), (f"{path}::b.csv", ["b"])]


def test_what_a_mac_puts_beside_the_files_of_a_zip_is_left_out(intake: Intake) -> None:
    content = zipped(("a.csv", csv_text({})), ("__MACOSX/._a.csv", "\0\5\26\7"), ("._b.csv", "\0"), ("d.csv/", ""))
    assert read(intake.write("a.zip", content), intake.source())["id"].to_list() == ["t1"]


def test_a_zip_may_hold_parquet(intake: Intake) -> None:
    buffer, rows = io.BytesIO(), io.BytesIO()
    read(intake.rows({}, {}), intake.source()).drop(LINE).write_parquet(rows)
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.parquet", rows.getvalue())
    assert read(intake.write("a.zip", buffer.getvalue()), intake.source())["id"].to_list() == ["t1", "t2"]


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
def test_a_truncated_zip_is_refused_by_name(intake: Intake, kept: float) -> None:
    content = zipped(("a.csv", csv_text(*[{}] * 200)))
    path = intake.write("a.zip", content[: int(len(content) * kept)])
    assert f"{path} is a truncated or damaged zip" in refusal(path, intake.source())


def test_a_damaged_member_is_refused_with_its_name_and_line(intake: Intake) -> None:
    content = bytearray(zipped(("a.csv", csv_text(*[{"shop": f"Shop {n * n}"} for n in range(3_000)]))))
    content[len(content) // 2] ^= 0xFF
    message = refusal(intake.write("a.zip", bytes(content)), intake.source())
    assert "a.zip::a.csv, " in message
    assert "line " in message


def test_a_zip_with_a_password_is_refused_with_what_to_do(intake: Intake) -> None:
    content = bytearray(zipped(("a.csv", csv_text({}))))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1  # the flag that says: encrypted
    assert "a.zip::a.csv cannot be unpacked" in refusal(intake.write("a.zip", bytes(content)), intake.source())


def test_a_zip_without_data_is_refused(intake: Intake) -> None:
    path = intake.write("a.zip", zipped(("readme.md", "x")))
    assert "holds no CSV and no Parquet file" in refusal(path, intake.source())


# ---- Parquet


def parquet(intake: Intake, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Path:
    path = intake.folder / "a.parquet"
    change(pl.DataFrame([ROW] * 5)).write_parquet(path)
    return path


def test_parquet_keeps_its_types_and_counts_its_rows_from_1(intake: Intake) -> None:
    path = parquet(intake, lambda frame: frame.with_columns(pl.col("people").cast(pl.Int32), pl.col("lat").cast(pl.Float64)))
    frame = read(path, intake.source())
    assert (frame["people"].dtype, frame["lat"].dtype) == (pl.Int32, pl.Float64)
    assert frame[LINE].to_list() == [1, 2, 3, 4, 5]


def test_a_column_missing_in_parquet_is_told(intake: Intake) -> None:
    assert "there is no column 'kind'" in refusal(parquet(intake, lambda frame: frame.drop("kind")), intake.source())


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_truncated_parquet_file_is_refused_by_name(intake: Intake, kept: float) -> None:
    path = parquet(intake, lambda frame: frame)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert f"{path}, after row 0: this is not a whole Parquet file" in refusal(path, intake.source())


@pytest.mark.parametrize("value", [pl.lit([1, 2]).implode(), pl.lit(b"x"), pl.time(1), pl.duration(hours=1), pl.struct(a=1)])
def test_a_column_of_a_type_that_holds_no_value_of_ours_is_refused_by_name(intake: Intake, value: pl.Expr) -> None:
    path = parquet(intake, lambda frame: frame.with_columns(value.alias("kind")))
    assert f"{path}, column 'kind': values of type" in refusal(path, intake.source())


def test_a_decimal_of_256_bits_is_refused_by_its_column_and_none_panics(intake: Intake) -> None:
    path = intake.folder / "a.parquet"
    table = pl.DataFrame([ROW] * 5).to_arrow()
    sums = pyarrow.array([Decimal("12.34")] * 5, pyarrow.decimal256(40, 2))
    pyarrow.parquet.write_table(table.set_column(table.column_names.index("sum"), "sum", sums), path)
    assert f"{path}, column 'sum': values of type decimal256(40, 2) are not read" in refusal(path, intake.source())


def test_days_and_times_that_python_does_not_know_are_beyond_all_bounds_and_do_not_panic(intake: Intake) -> None:
    path = intake.folder / "a.parquet"
    table = pl.DataFrame([ROW] * 4).to_arrow()
    days = pyarrow.array([0, None, 2**31 - 1, -(2**31)], pyarrow.int32()).cast(pyarrow.date32())
    for unit, edge in (("s", 2**52), ("ms", 2**62), ("us", 2**62), ("ns", 2**62)):
        times = pyarrow.array([0, None, edge, -edge], pyarrow.int64()).cast(pyarrow.timestamp(unit))
        changed = table.set_column(table.column_names.index("when"), "when", times)
        pyarrow.parquet.write_table(changed.set_column(changed.column_names.index("born"), "born", days), path)
        frame = read(path, intake.source())
        assert frame["born"].to_list() == [date(1970, 1, 1), None, date(9999, 12, 30), date(1, 1, 2)]
        years = frame["when"].dt.year().to_list()
        assert years == [1970, None, *((9999, 1) if unit != "ns" else (2116, 1823))]


def test_times_kept_as_int96_are_instants_in_utc_whatever_the_zone_of_the_source(intake: Intake) -> None:
    path = intake.folder / "a.parquet"
    when = pyarrow.array([datetime(2024, 1, 1, 12)])  # noqa: DTZ001
    table = pl.DataFrame([ROW]).to_arrow()
    table = table.set_column(table.column_names.index("when"), "when", when)
    pyarrow.parquet.write_table(table, path, use_deprecated_int96_timestamps=True)
    assert read(path, intake.source())["when"].to_list() == [datetime(2024, 1, 1, 12, tzinfo=UTC)]
    pyarrow.parquet.write_table(table, path)
    assert read(path, intake.source())["when"].to_list() == [datetime(2024, 1, 1, 12)]  # noqa: DTZ001


def test_parquet_is_bounded_in_columns_and_rows(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(intake, lambda frame: frame)
    assert "has 13 columns, and 12 at most" in refusal(path, intake.source(limits={"columns": 12}))
    monkeypatch.setattr("fraud_core.intake.parquet.FREE_ROWS", 10)
    many = parquet(intake, lambda frame: pl.concat([frame] * 20_000))
    assert "100,000 rows, more than one a byte" in refusal(many, intake.source())


# ---- counts


def test_a_file_tells_how_many_rows_there_ought_to_be(intake: Intake) -> None:
    for path, options in (
        (intake.write("a.csv", csv_text({}, {"shop": "a\nb"}, {}) + "\n\n"), {"line_breaks": True}),
        (parquet(intake, lambda frame: frame.head(3)), {}),
        (intake.write("a.zip", zipped(("a.csv", csv_text({})), ("b.csv", csv_text({}, {})))), {}),
    ):
        tally = Tally()
        assert sum(len(chunk) for _, chunk in chunks(SourceFile("a", path, "", 0), intake.source(**options), tally)) == 3
        assert tally.lines == 3
