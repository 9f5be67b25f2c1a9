"""Files of strangers: read by a process that holds no secret and reaches none; what is unambiguous is read, the rest told."""

import io
import os
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fraud_core.scoring.file import _told, child_environment, shape
from fraud_core.scoring.file_parsing import PROBLEM, FileFormat, Piece, pieces

ATTACK = """
import ctypes, os, socket, sys
from fraud_core.scoring import file_parsing
had = file_parsing.prepare("parquet", 2_000_000_000)
assert "files" in had, had
def reached(what):
    try:
        what()
    except OSError:
        return False
    return True
def opened(path):
    return lambda: open(path, "rb").read()
def traced():
    if ctypes.CDLL(None, use_errno=True).ptrace(16, os.getppid(), 0, 0) != 0:
        raise OSError
key, = sys.argv[1:]
ways = [opened(key), opened(f"/proc/{os.getppid()}/environ"), opened(f"/proc/{os.getppid()}/mem"), opened("/etc/passwd"),
        lambda: os.listdir(os.path.dirname(key)), lambda: socket.socket()]
if "landlock" in had or "user" in had:
    ways += [traced, lambda: os.kill(os.getppid(), 0)]
print([reached(way) for way in ways], sorted(name for name in os.environ if "FRAUD" in name or "SECRET" in name))
"""


def test_the_process_that_reads_a_file_can_reach_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_SIGNING_KEY", "0" * 64)
    monkeypatch.setenv("MY_OWN_SECRET", "x")
    key = tmp_path / "keys" / "card.key"
    key.parent.mkdir()
    key.write_text("0" * 64)
    told = subprocess.run(
        [sys.executable, "-c", ATTACK, str(key)], env=child_environment(), capture_output=True, text=True, check=True
    ).stdout
    assert "True" not in told
    assert told.rstrip().endswith("[]")


def test_a_reader_that_gets_no_further_is_told_within_its_time() -> None:
    read, write = os.pipe()
    try:
        (piece,) = _told(read, 0.01)
        assert (piece.state, "within 0.01 s" in piece.detail) == ("failed", True)
        os.write(write, b'{"state":"opened"}\n{"state":"rows","rows":')
        os.close(write)
        states = [piece.state for piece in _told(read, 5.0)]
        assert states[-1] == "failed"
    finally:
        os.close(read)


def read_of(content: bytes, file: FileFormat = "csv") -> tuple[list[dict[str, Any]], Piece, list[str]]:
    """Rows, the last piece, and notes."""
    found = list(pieces(io.BytesIO(content), file))
    notes = [note for piece in found for note in piece.notes]
    return [row for piece in found for _, row in piece.rows], found[-1], notes


HEAD = b"timestamp,amount,card\n"
TIME = b"2024-06-21T12:14:25Z"
MOMENT = datetime(2024, 6, 21, tzinfo=UTC)


@pytest.mark.parametrize(
    ("content", "row", "note"),
    [
        (b",timestamp,amount\n0," + TIME + b",2.86\n", {"amount": "2.86"}, "no name"),
        (b" Timestamp , Amount\n" + TIME + b", 2.86 \n", {"amount": "2.86"}, ""),
        (b"timestamp;amount\n" + TIME + b";2,86\n", {"amount": "2.86"}, "semicolons"),
        (b'"timestamp"\t"amount"\n' + TIME + b"\t2.86\n", {"amount": "2.86"}, "tabs"),
        (b'\xef\xbb\xbf"timestamp",amount\n' + TIME + b",19.38\n", {"amount": "19.38"}, ""),
        (b"timestamp,amount,label\n" + TIME + b",2.86,1\n", {"amount": "2.86"}, "`label` was left out"),
        (HEAD + TIME + b",2.86,NULL\n", {"amount": "2.86"}, ""),
        (b"timestamp,amount,city_population\n" + TIME + b",2,333497.0\n", {"amount": "2", "city_population": "333497"}, ""),
    ],
)
def test_what_is_unambiguous_is_read_and_what_was_taken_for_granted_is_told(
    content: bytes, row: dict[str, str], note: str
) -> None:
    rows, last, notes = read_of(content)
    assert rows == [{"timestamp": TIME.decode()} | row]
    assert note in " ".join(notes)
    assert (last.state, last.lines, last.idle) == ("done", 2, 1)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"timestamp,amt\n", "amt is not a known column; if it is `amount`, call it that"),
        (b"timestamp,amount,mercant\n", "mercant is not a known column; if it is `merchant`, call it that"),
        (HEAD + TIME + b',2.86,"C1\n' + TIME + b',2.86,"C2\n', "Line 2: a quotation mark opens on this line"),
        (
            HEAD + b"a,1,2\n" * 9 + b"b,1,\xe9\n" + b"c,1,2\n",
            "Line 11 is not UTF-8 (Latin-1, perhaps); save the file as UTF-8. Nothing after",
        ),
        (b"timestamp,amt\n\xe9", "amt is not a known column"),
        (b"timestamp,amount\xe9\n", "Line 1 is not UTF-8 (Latin-1, perhaps); save the file as UTF-8. Nothing is"),
        (b"PK\x03\x04" + b"\0" * 600, "This is a file of type zip, and was sent as csv"),
        (b"PAR1" + b"\0" * 600, "This is a file of type parquet, and was sent as csv"),
        (b"\xd0\xcf\x11\xe0" + b"\0" * 600, "The file is an Excel file of the old kind (.xls)"),
    ],
)
def test_what_is_not_is_refused_with_what_is_meant(content: bytes, told: str) -> None:
    _, last, _ = read_of(content)
    assert last.state == "failed"
    assert told in last.detail + " ".join(f"{problem.field} {problem.reason}" for problem in last.errors)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (TIME + b',2.86,"C2\n' + (TIME + b",2.86,C1\n") * 9, "Line 9: a quotation mark opens on this line"),
        (TIME + b",2.86,\xe9\n" + (TIME + b",2.86,C1\n") * 9, "Line 9 is not UTF-8"),
        (b"x" * 1_000_001, "Line 9: the line has more than 1000000 characters"),
    ],
)
@pytest.mark.parametrize("at_once", [2, 5_000])
def test_what_stands_before_a_damaged_row_is_scored_and_counted(
    monkeypatch: pytest.MonkeyPatch, damage: bytes, told: str, at_once: int
) -> None:
    monkeypatch.setattr("fraud_core.scoring.file_parsing.ROWS_AT_ONCE", at_once)
    rows, last, _ = read_of(HEAD + b"\n" + (TIME + b",2.86,C1\n") * 5 + b"\n" + damage)
    assert (len(rows), last.lines, last.idle) == (5, 8, 3)
    assert (last.state, last.detail.startswith(told)) == ("failed", True)
    assert last.detail.endswith("Nothing after line 8 is scored.")


def test_up_to_which_line_a_broken_file_was_scored_is_told() -> None:
    rows, last, _ = read_of(HEAD + (TIME + b",2.86,C1\n") * 5 + TIME + b',2.86,"C2\n')
    assert (len(rows), last.lines, last.idle) == (5, 6, 1)
    assert last.detail.startswith("Line 7: a quotation mark opens here")
    assert last.detail.endswith("Nothing after line 6 is scored.")


def test_row_groups_before_a_damaged_one_are_scored_and_counted() -> None:
    buffer = io.BytesIO()
    table = pa.table({"timestamp": [MOMENT] * 900, "amount": [float(at) for at in range(900)]})
    pq.write_table(table, buffer, row_group_size=100, use_dictionary=False, compression="none", write_page_checksum=True)
    content = bytearray(buffer.getvalue())
    content[pq.read_metadata(buffer).row_group(4).column(1).data_page_offset + 200] ^= 0xFF
    rows, last, _ = read_of(bytes(content), "parquet")
    assert [row["amount"] for row in rows] == [float(at) for at in range(400)]
    assert (last.state, last.lines, "Nothing after row 400 is scored" in last.detail) == ("failed", 400, True)


def test_thirty_thousand_unknown_columns_are_a_hundred_problems() -> None:
    _, last, _ = read_of(b"timestamp,amount," + b",".join(b"c%d" % at for at in range(30_000)) + b"\n")
    assert (last.state, len(last.errors)) == ("failed", 100)


def as_parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def test_one_impossible_cell_is_one_refused_row() -> None:
    times = pa.array([0, 9 * 10**18, 0, 0], pa.int64()).cast(pa.timestamp("us", "UTC"))
    births = pa.array([0, 0, 2**31 - 1, 0], pa.int32()).cast(pa.date32())
    texts = pa.array([b"a", b"a", b"a", b"\xff"], pa.binary()).view(pa.string())
    rows, last, _ = read_of(as_parquet(timestamp=times, amount=[1.0] * 4, birth_date=births, merchant=texts), "parquet")
    wrong = [row.get(PROBLEM, {}).get("field") for row in rows]
    assert wrong == [None, "timestamp", "birth_date", "merchant"]
    assert rows[0] == {"timestamp": "1970-01-01T00:00:00Z", "amount": 1.0, "birth_date": "1970-01-01", "merchant": "a"}
    assert (last.state, last.lines) == ("done", 4)


def test_a_column_of_a_type_that_is_not_read_is_refused_by_name() -> None:
    amounts = pa.array([Decimal("1.00")], pa.decimal256(76, 2))
    _, last, _ = read_of(as_parquet(timestamp=[MOMENT], amount=amounts), "parquet")
    assert [problem.field for problem in last.errors] == ["amount"]
    assert "decimal256" in last.errors[0].reason


def test_more_rows_than_bytes_are_not_read() -> None:
    _, last, _ = read_of(as_parquet(timestamp=[MOMENT] * 200_000, amount=[1.0] * 200_000), "parquet")
    assert (last.state, "would expand to 200,000 rows, more than one a byte" in last.detail) == ("failed", True)


def test_one_card_in_any_type_is_one_card() -> None:
    number = 4500000000000011
    cards = ([str(number)], [number], [float(number)], pa.array([Decimal(number)], pa.decimal128(20, 2)))
    read = [read_of(as_parquet(timestamp=[MOMENT], amount=[1.0], card=card), "parquet")[0][0]["card"] for card in cards]
    assert read == [str(number)] * 4


def test_a_shape_tells_no_value() -> None:
    assert shape("19,38 EUR") == "99,99 xxx"
