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
            "Line 11 is not UTF-8 (Latin-1, perhaps); save the file as UTF-8. Nothing is",
        ),
    ],
)
def test_what_is_not_is_refused_with_what_is_meant(content: bytes, told: str) -> None:
    _, last, _ = read_of(content)
    assert last.state == "failed"
    assert told in last.detail + " ".join(f"{problem.field} {problem.reason}" for problem in last.errors)


def test_up_to_which_line_a_broken_file_was_scored_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fraud_core.scoring.file_parsing.ROWS_AT_ONCE", 2)
    rows, last, _ = read_of(HEAD + (TIME + b",2.86,C1\n") * 5 + TIME + b',2.86,"C2\n')
    assert (len(rows), last.lines, last.idle) == (4, 5, 1)
    assert last.detail.startswith("Line 7: a quotation mark opens here")
    assert last.detail.endswith("Nothing after line 5 is scored.")


def test_thirty_thousand_unknown_columns_are_a_hundred_problems() -> None:
    _, last, _ = read_of(b"timestamp,amount," + b",".join(b"c%d" % at for at in range(30_000)) + b"\n")
    assert (last.state, len(last.errors)) == ("failed", 100)


def as_parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


MOMENT = datetime(2024, 6, 21, tzinfo=UTC)


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
    assert (last.state, "no more rows than bytes" in last.detail) == ("failed", True)


def test_one_card_in_any_type_is_one_card() -> None:
    number = 4500000000000011
    cards = ([str(number)], [number], [float(number)], pa.array([Decimal(number)], pa.decimal128(20, 2)))
    read = [read_of(as_parquet(timestamp=[MOMENT], amount=[1.0], card=card), "parquet")[0][0]["card"] for card in cards]
    assert read == [str(number)] * 4


def test_a_shape_tells_no_value() -> None:
    assert shape("19,38 EUR") == "99,99 xxx"
