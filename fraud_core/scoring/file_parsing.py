"""Reads a CSV or Parquet file of payments in a sealed process: `python -m fraud_core.scoring.file_parsing FORMAT MEMORY`.

A file is the one input that other people's parsers read. The process that does has no secret, is given the open file as its
standard input, and can open nothing else (`sandbox.seal`). It hands on plain rows to the process that scores (`filescoring`).

Standard output: lines of JSON (`Piece`).
"""

import codecs
import difflib
import io
import math
import os
import re
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import Any, BinaryIO, Literal

import pydantic_core
from pydantic import BaseModel

from fraud_core.intake.strict_csv import CsvError, CsvReader
from fraud_core.system.sandbox import seal
from fraud_core.transactions.refusals import MOST_PROBLEMS, FieldProblem, shown_name
from fraud_core.transactions.transaction import FIELDS, Transaction
from fraud_core.units.canonical_number import NO_AMOUNT, cents_of, number_of, whole_of
from fraud_core.units.canonical_text import canonical_text

FileFormat = Literal["csv", "parquet"]

ROWS_AT_ONCE = 5_000
MOST_COLUMNS = 1_000
MOST_ROW_GROUPS = 10_000
MOST_EXPANSION = 100  # times the size of the file
FREE_EXPANSION = 64_000_000  # bytes that a file may always expand to
FREE_ROWS = 100_000  # rows that a file may always have; above that, as many as it has bytes
LONGEST_CELL = 1_000  # characters that are handed on; every field allows fewer, so that a longer cell is refused all the same


Fields = dict[str, Any]  # of a payment; or `{PROBLEM: {"field": ..., "reason": ...}}`
PROBLEM = "(row)"


class Piece(BaseModel):
    """A part of what was read.

    Attributes:
        state: the file was opened; rows were read; all were; it cannot be read on.
        expected: once the file is open, about how many rows it has.
        notes: once it is open, what was taken for granted, in sentences.
        rows: each with its line (from 1; of Parquet its number): its fields, or a problem.
        lines: of the file, so far.
        idle: of these, how many are no row's: the header, and empty ones.
        detail, errors: of a failure.
    """

    state: Literal["opened", "rows", "done", "failed"]
    expected: int = 0
    notes: list[str] = []
    rows: list[tuple[int, Fields]] = []
    lines: int = 0
    idle: int = 0
    detail: str = ""
    errors: list[FieldProblem] = []


class UnreadableError(Exception):
    """The file as a whole cannot be scored, or not further than this."""

    def __init__(self, detail: str, errors: list[FieldProblem] | None = None) -> None:
        super().__init__(detail)
        self.errors = (errors or [])[:MOST_PROBLEMS]


def main() -> None:
    """Read standard input."""
    file: FileFormat = "parquet" if sys.argv[1] == "parquet" else "csv"
    out = sys.stdout.buffer
    prepare(file, int(sys.argv[2]))
    for piece in pieces(sys.stdin.buffer, file):
        out.write(pydantic_core.to_json(piece.__dict__) + b"\n")
        out.flush()


def prepare(file: FileFormat, memory: int) -> tuple[str, ...]:
    """Bound this process and seal it; see `sandbox.seal` for what is returned."""
    if file == "parquet":
        _warm_up()
    list(pieces(io.BytesIO(b"timestamp,amount\n,\xff"), "csv"))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    os.nice(5)  # whoever waits at a till goes first
    return seal()


def _warm_up() -> None:
    """Import what reading a Parquet file needs, by reading one: later, nothing can be opened."""
    import pyarrow as pa  # noqa: PLC0415 - only for Parquet
    import pyarrow.parquet as pq  # noqa: PLC0415

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    table = pa.table({"timestamp": pa.array([0], pa.timestamp("us", "UTC")), "amount": [1.0], "merchant": ["x"]})
    for codec in ("snappy", "zstd"):
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression=codec)
        buffer.seek(0)
        list(pieces(buffer, "parquet"))


def pieces(source: BinaryIO, file: FileFormat) -> Iterator[Piece]:
    """What is in a file, piece by piece, and at last whether that was all."""
    last = Piece(state="opened")
    try:
        for last in READERS[file](source):
            yield last
    except UnreadableError as error:
        yield Piece(state="failed", lines=last.lines, idle=last.idle, detail=str(error), errors=error.errors)
    except MemoryError:
        detail = "The file needs more memory than one may take; use smaller row groups, or split it."
        yield Piece(state="failed", lines=last.lines, idle=last.idle, detail=detail)
    else:
        yield Piece(state="done", lines=last.lines, idle=last.idle)


# --- columns -------------------------------------------------------------------------------------------------------------------

_NAMELESS = frozenset({"", "unnamed: 0", "__index_level_0__"})
_LEFT_OUT = {"label": "The column `label` was left out: a file is scored as if nothing were known of its outcome."}
_KNOWN_AS = {
    "amt": "amount",
    "transaction_amount": "amount",
    "time": "timestamp",
    "datetime": "timestamp",
    "date": "timestamp",
    "trans_date_trans_time": "timestamp",
    "trans_num": "transaction_id",
    "id": "transaction_id",
    "cc_num": "card",
    "card_number": "card",
    "dob": "birth_date",
    "lat": "home_latitude",
    "long": "home_longitude",
    "lon": "home_longitude",
    "merch_lat": "merchant_latitude",
    "merch_long": "merchant_longitude",
    "city_pop": "city_population",
}
REQUIRED = tuple(field.alias or name for name, field in Transaction.model_fields.items() if field.is_required())


def columns_of(header: Sequence[str]) -> tuple[dict[int, str], list[str]]:
    """Place -> canonical name of the columns that are read, and what was taken for granted.

    Raises:
        UnreadableError: a column is not known, is there twice, or is missing.
    """
    if len(header) > MOST_COLUMNS:
        raise UnreadableError(f"The file has {len(header)} columns; {MOST_COLUMNS} at most are read.", _unknown(header))
    found: dict[int, str] = {}
    notes: list[str] = []
    problems: list[FieldProblem] = []
    for at, written in enumerate(header):
        name = written.strip().lower()
        if name in FIELDS:
            if name in found.values():
                problems.append(FieldProblem(field=name, reason="is there twice"))
            found[at] = name
        elif name in _NAMELESS:
            notes.append(f"Column {at + 1} has no name, as an index that pandas wrote, and was left out.")
        elif name in _LEFT_OUT:
            notes.append(_LEFT_OUT[name])
        else:
            problems.append(FieldProblem(field=shown_name(written), reason=_not_known(name)))
    problems += [FieldProblem(field=name, reason="is missing") for name in REQUIRED if name not in found.values()]
    if problems:
        raise UnreadableError(f"The columns must be among: {', '.join(FIELDS)}.", problems)
    return found, notes


def _unknown(header: Sequence[str]) -> list[FieldProblem]:
    unknown = (name for name in header if name.strip().lower() not in FIELDS)
    return [FieldProblem(field=shown_name(name), reason="is not a known column") for name in islice(unknown, MOST_PROBLEMS)]


def _not_known(name: str) -> str:
    close = difflib.get_close_matches(name[:64], FIELDS, 1, 0.8)
    meant = _KNOWN_AS.get(name) or (close[0] if close else None)
    return "is not a known column" + (f"; if it is `{meant}`, call it that" if meant else "")


def _refused(field: str, reason: str) -> Fields:
    return {PROBLEM: {"field": field, "reason": reason}}


# --- CSV -----------------------------------------------------------------------------------------------------------------------

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def _csv_pieces(binary: BinaryIO) -> Iterator[Piece]:
    """Rows of a CSV file with a header, as text; an empty cell is a missing value."""
    expected = max(sum(block.count(b"\n") for block in iter(lambda: binary.read(1 << 20), b"")) - 1, 0)
    binary.seek(0)
    text = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="strict", newline="")
    scored = 0
    try:
        first = text.readline(1_000_000)
        text.seek(0)
        delimiter = _delimiter_of(first)
        reader = CsvReader(text, delimiter, most_columns=1_000_000)
        records = iter(reader)
        _, header = next(records, (0, []))
        columns, notes = columns_of(header)
        if delimiter != ",":
            notes.insert(0, f"The cells are parted by {_DELIMITERS[delimiter]}, and were read so.")
        yield Piece(state="opened", expected=expected, notes=notes)
        rows: list[tuple[int, Fields]] = []
        for line, cells in records:
            rows.append((line, _csv_row(cells, columns, len(header))))
            if len(rows) == ROWS_AT_ONCE:
                yield Piece(state="rows", rows=rows, lines=reader.line, idle=reader.line - reader.records + 1)
                rows, scored = [], reader.line
        reader.check_counts()
        yield Piece(state="rows", rows=rows, lines=reader.lines, idle=reader.lines - reader.records + 1)
    except UnicodeDecodeError:
        line = _line_of_bad_byte(binary)
        raise UnreadableError(
            f"Line {line} is not UTF-8 (Latin-1, perhaps); save the file as UTF-8. {_ends_after(scored)}"
        ) from None
    except CsvError as error:
        raise UnreadableError(f"Line {error.line}: {error}. {_ends_after(scored)}") from None
    finally:
        text.detach()


def _ends_after(line: int) -> str:
    return f"Nothing after line {line} is scored." if line else "Nothing is scored."


def _line_of_bad_byte(binary: BinaryIO) -> int:
    """Line of the first byte that is not UTF-8. The file is read a second time, since readers read ahead."""
    binary.seek(0)
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    line = 1
    while block := binary.read(1 << 16):
        try:
            decoder.decode(block)
        except UnicodeDecodeError as error:
            return line + error.object[: error.start].count(b"\n")
        line += block.count(b"\n")
    return line


def _delimiter_of(line: str) -> str:
    """What parts the header's cells: the first that makes the columns out of it that must be there."""
    for delimiter in _DELIMITERS:
        names = {name.strip(' "\r\n').lower() for name in line.removeprefix("\ufeff").split(delimiter)}
        if names.issuperset(REQUIRED):
            return delimiter
    return ","


def _csv_row(cells: list[str], columns: dict[int, str], width: int) -> Fields:
    if len(cells) != width:
        return _refused("(row)", f"has {len(cells)} cells where the header has {width}")
    return {
        name: _TIDY.get(name, _same)(cells[at].strip()[:LONGEST_CELL])
        for at, name in columns.items()
        if _is_there(name, cells[at])
    }


_TEXTS = frozenset({"transaction_id", "merchant", "category"})  # in which a marker could be a name
_MISSING = frozenset({"nan", "nat", "null", "none", "na", "n/a", "<na>", "#n/a", "\\n"})


def _is_there(name: str, cell: str) -> bool:
    cell = cell.strip()
    return bool(cell) and (name in _TEXTS or len(cell) > 4 or cell.lower() not in _MISSING)


_COMMA_MONEY = re.compile(r"[+-]?[0-9]{1,12},[0-9]{1,2}", re.ASCII)
_COMMA_DEGREES = re.compile(r"[+-]?[0-9]{1,3},[0-9]+", re.ASCII)


def _same(cell: str) -> str:
    return cell


def _money(cell: str) -> str:
    # No thousands: these have three digits behind the comma.
    return cell.replace(",", ".") if _COMMA_MONEY.fullmatch(cell) else cell


def _degrees(cell: str) -> str:
    cell = cell.replace(",", ".") if _COMMA_DEGREES.fullmatch(cell) else cell
    return cell.replace("_", " ")  # which pydantic reads over


def _whole(cell: str) -> str:
    whole = whole_of(cell)
    return cell.replace("_", " ") if whole is None else str(whole)


_TIDY: dict[str, Callable[[str], str]] = {
    "amount": _money,
    "home_latitude": _degrees,
    "home_longitude": _degrees,
    "merchant_latitude": _degrees,
    "merchant_longitude": _degrees,
    "city_population": _whole,
}


# --- Parquet -------------------------------------------------------------------------------------------------------------------


class _Wrong:
    """A cell that is no value."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def _parquet_pieces(binary: BinaryIO) -> Iterator[Piece]:
    """Rows of a Parquet file, with the types that JSON would bring; a row's number stands for its line."""
    import pyarrow as pa  # noqa: PLC0415 - only for Parquet
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        size = binary.seek(0, io.SEEK_END)
        binary.seek(0)
        metadata = pq.read_metadata(binary)
        _check_bounds(metadata, size)
        names = metadata.schema.to_arrow_schema().names
        columns, notes = columns_of(names)
        binary.seek(0)
        with pq.ParquetFile(
            binary,
            metadata=metadata,
            pre_buffer=False,
            buffer_size=1 << 20,
            page_checksum_verification=True,
            read_dictionary=[names[at] for at in columns],  # a long text that many rows have is held but once
        ) as file:
            _check_types(file.schema_arrow, columns)
            yield Piece(state="opened", expected=metadata.num_rows, notes=notes)
            line = 0
            wanted = [names[at] for at in columns]
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=wanted, use_threads=False):
                cells = {name: _cells(name, batch.column(names[at])) for at, name in columns.items()}
                rows = [(line + 1 + at, _parquet_row(cells, at)) for at in range(len(batch))]
                line += len(rows)
                yield Piece(state="rows", rows=rows, lines=line)
    except pa.ArrowMemoryError:
        raise MemoryError from None
    except (pa.ArrowException, OSError) as error:
        raise UnreadableError(f"This is not a Parquet file that can be read ({type(error).__name__}).") from None


def _check_bounds(metadata: Any, size: int) -> None:
    if metadata.num_row_groups > MOST_ROW_GROUPS:
        raise UnreadableError(f"The file has {metadata.num_row_groups} row groups; {MOST_ROW_GROUPS} at most are read.")
    if metadata.num_columns > MOST_COLUMNS:
        raise UnreadableError(f"The file has {metadata.num_columns} columns; {MOST_COLUMNS} at most are read.")
    if metadata.num_rows > max(FREE_ROWS, size):
        raise UnreadableError(
            f"The file would expand to {metadata.num_rows:,} rows out of {size:,} bytes; no more rows than bytes are read."
        )
    expanded = sum(metadata.row_group(at).total_byte_size for at in range(metadata.num_row_groups))
    if expanded > max(FREE_EXPANSION, MOST_EXPANSION * size):
        raise UnreadableError(f"The file would expand to more than {MOST_EXPANSION} times its size; compress it less.")


def _check_types(schema: Any, columns: dict[int, str]) -> None:
    problems = [
        FieldProblem(field=name, reason=f"has values of type {_shown(kind)}, which are not read; store the column as text")
        for kind, name in ((schema.field(at).type, name) for at, name in columns.items())
        if not _is_read(kind, name)
    ]
    if problems:
        raise UnreadableError("A column has a type that is not read.", problems)


def _shown(kind: Any) -> str:
    return re.sub(r"[^A-Za-z0-9_].*", "", str(kind))


def _is_read(kind: Any, name: str) -> bool:
    import pyarrow.types as of  # noqa: PLC0415

    if of.is_dictionary(kind):
        return _is_read(kind.value_type, name)
    if of.is_timestamp(kind) or of.is_date(kind):
        return name not in _NAMES
    tests = (of.is_string, of.is_large_string, of.is_integer, of.is_float32, of.is_float64, of.is_decimal128, of.is_boolean)
    return any(test(kind) for test in (*tests, of.is_null))


def _cells(name: str, array: Any) -> list[Any]:
    """A column's values as JSON has them; None where there is none."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.types as of  # noqa: PLC0415

    kind = array.type
    if of.is_dictionary(kind):
        places = array.indices.to_pylist()
        used = {place: array.dictionary.slice(place, 1) for place in set(places) if place is not None}
        values = {place: _cells(name, value)[0] for place, value in used.items()}
        return [None if place is None else values[place] for place in places]
    stored, read = array, _reader_of(name, kind)
    if of.is_timestamp(kind) or of.is_date64(kind):
        stored = array.cast(pa.int64())
    elif of.is_date32(kind):
        stored = array.cast(pa.int32())
    elif of.is_string(kind) or of.is_large_string(kind):
        stored = array.cast(pa.large_binary())
    values_of = stored.to_pylist()
    return values_of if read is None else [None if one is None else read(one) for one in values_of]


def _reader_of(name: str, kind: Any) -> Callable[[Any], Any] | None:
    """What makes a value of such a column plain; None: it is."""
    import pyarrow.types as of  # noqa: PLC0415

    is_text = of.is_string(kind) or of.is_large_string(kind)
    is_single = of.is_float32(kind)
    readers = (
        (of.is_timestamp(kind), partial(_time, kind=kind, day=name == "birth_date")),
        (of.is_date32(kind), _day),
        (of.is_date64(kind), lambda number: _day(number // 86_400_000)),
        (is_text and name in _TIDY, partial(_text_number, name)),
        (is_text, _text),
        (name in _NAMES and is_single, _single_name),
        (name in _NAMES, canonical_text),
        (name == "amount" and is_single, _single_amount),
        (name in _TIDY and of.is_decimal(kind), partial(_exact_number, name)),
        (name == "city_population" and of.is_floating(kind), lambda value: _or_itself(whole_of(value), value)),
        (name == "birth_date" and of.is_floating(kind), lambda value: None if math.isnan(value) else value),
        (is_single, lambda value: _or_itself(number_of(value, single=True), value)),
    )
    return next((read for fits, read in readers if fits), None)


_NAMES = frozenset({*_TEXTS, "card"})
EXACT_SINGLE = 2.0**24  # below this, floats of 32 bits tell whole numbers apart
LOST = 1e300  # stands for a number whose digits are lost


def _single_name(value: float) -> str | None:
    number = number_of(value, single=True)
    return None if number is None else canonical_text(number if abs(number) < EXACT_SINGLE else LOST)


def _single_amount(value: float) -> str | _Wrong:
    cents = cents_of(value, single=True)
    return _Wrong(NO_AMOUNT) if cents is None else str(Decimal(cents) / 100)


def _text_number(name: str, value: bytes) -> Any:
    """A number that Parquet has as text, as JSON has it; the text where it is none."""
    text = _text(value)
    if not isinstance(text, str):
        return text
    cell = _TIDY[name](text.strip())
    return (cell or None) if name == "amount" else _exact_number(name, cell)


def _exact_number(name: str, value: str | Decimal) -> Any:
    number = None if name == "amount" else whole_of(value) if name == "city_population" else number_of(value)
    return f"{value:f}" if number is None and isinstance(value, Decimal) else _or_itself(number, value)


def _or_itself(read: Any, value: Any) -> Any:
    """What a value was read as; where it could not be, itself, which is refused as over HTTP."""
    return value if read is None else read


_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - an offset is written where the column has one
_EPOCH_DAY = date(1970, 1, 1)


def _time(number: int, kind: Any, *, day: bool) -> str | _Wrong:
    microseconds = number // 1_000 if kind.unit == "ns" else number * _UNITS[kind.unit]
    try:
        moment = _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return _Wrong("lies outside the years 1 to 9999")
    return moment.date().isoformat() if day else moment.isoformat() + ("" if kind.tz is None else "Z")


def _day(number: int) -> str | _Wrong:
    try:
        return (_EPOCH_DAY + timedelta(days=number)).isoformat()
    except OverflowError:
        return _Wrong("lies outside the years 1 to 9999")


def _text(value: bytes) -> str | _Wrong | None:
    try:
        return value[: 4 * LONGEST_CELL].decode("utf-8", "strict")[:LONGEST_CELL] or None
    except UnicodeDecodeError as error:
        if error.start >= 4 * LONGEST_CELL - 3:  # cut within a character
            return "x" * LONGEST_CELL
        return _Wrong("is not UTF-8")


def _parquet_row(cells: dict[str, list[Any]], at: int) -> Fields:
    row = {name: column[at] for name, column in cells.items() if column[at] is not None}
    for name, value in row.items():
        if isinstance(value, _Wrong):
            return _refused(name, value.reason)
    return row


READERS: dict[FileFormat, Callable[[BinaryIO], Iterator[Piece]]] = {"csv": _csv_pieces, "parquet": _parquet_pieces}


if __name__ == "__main__":
    main()
