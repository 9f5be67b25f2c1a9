"""What reading source files promises: nothing is guessed, and an error names the file, the line and the column."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from fraud_core.errors import SourceError
from fraud_core.intake import files
from fraud_core.intake.files import LINE, SourceFile, chunks, located
from fraud_core.sources import Source
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


def test_a_remote_file_is_fetched_for_the_time_of_reading(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    content = csv_text({}, {}).encode()
    monkeypatch.setattr(files.urllib.request, "urlopen", lambda url, timeout: io.BytesIO(content))
    with located(intake.source(paths=["https://example.org/export/a.csv?token=1"])) as found:
        assert (found[0].name, found[0].path.name) == ("https://example.org/export/a.csv?token=1", "a.csv")
        assert found[0].path.read_bytes() == content
    assert not found[0].path.exists()


def test_a_file_that_cannot_be_fetched_is_refused_by_its_address(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str, timeout: float) -> io.BytesIO:
        raise TimeoutError("timed out")

    monkeypatch.setattr(files.urllib.request, "urlopen", fail)
    with (
        pytest.raises(SourceError, match=r"https://example.org/a.csv could not be fetched: TimeoutError"),
        located(intake.source(paths=["https://example.org/a.csv"])),
    ):
        pass


def test_a_file_of_an_unknown_type_is_refused(intake: Intake) -> None:
    assert "files of type '.xlsx' are not read" in refusal(intake.write("a.xlsx", "x"), intake.source())


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
    frame = read(intake.write("a.csv", text), intake.source())
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
    message = refusal(path, intake.source())
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
    message = refusal(intake.write("a.csv", text), intake.source())
    assert message.startswith(f"{intake.folder}/a.csv, line 4: 10 columns where the header has 13")


def test_a_stray_delimiter_is_told_with_its_line(intake: Intake) -> None:
    text = csv_text({}, {"shop": "x"}).replace(",x,", ",x,y,")
    assert "line 3: 14 columns where the header has 13" in refusal(intake.write("a.csv", text), intake.source())


def test_an_oversized_field_is_told_with_its_line(intake: Intake) -> None:
    path = intake.rows({}, {"shop": "x" * 200_000})
    assert "line 3: field larger than field limit" in refusal(path, intake.source())


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


@pytest.mark.parametrize("content", ["", "\n", "\n\n" + HEADER])
def test_an_empty_file_and_an_empty_first_line_are_refused(intake: Intake, content: str) -> None:
    assert str(intake.folder / "a.csv") in refusal(intake.write("a.csv", content), intake.source())


# ---- zip


def test_the_members_of_a_zip_are_read_one_after_the_other(intake: Intake) -> None:
    content = zipped(("b.csv", csv_text({"id": "b"})), ("readme.md", "x"), ("a.csv", csv_text({"id": "a"})))
    path, source = intake.write("a.zip", content), intake.source()
    parts = list(chunks(SourceFile(str(path), path, "", 0), source))
    assert [(name, chunk["id"].to_list()) for name, chunk in parts] == [(f"{path}::a.csv", ["a"]), (f"{path}::b.csv", ["b"])]


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


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_parquet_file_is_refused_by_name(intake: Intake, kept: float) -> None:
    path = parquet(intake, lambda frame: frame)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert f"{path}, after row 0: this is not a whole Parquet file" in refusal(path, intake.source())


@pytest.mark.parametrize("value", [pl.lit([1, 2]).implode(), pl.lit(b"x"), pl.time(1), pl.duration(hours=1), pl.struct(a=1)])
def test_a_column_of_a_type_that_holds_no_value_of_ours_is_refused_by_name(intake: Intake, value: pl.Expr) -> None:
    path = parquet(intake, lambda frame: frame.with_columns(value.alias("kind")))
    assert f"{path}, column 'kind': values of type" in refusal(path, intake.source())
