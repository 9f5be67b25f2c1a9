"""Reads a CSV or Parquet file of payments in a sealed process: `python -m fraud_core.scoring.file_parsing FORMAT MEMORY WANTED`.

A file is the one input that other people's parsers read. The process that does has no secret, is given the open file as its
standard input, and can open nothing else (`sandbox.seal`). It hands on plain rows to the process that scores (`filescoring`).

Standard output: lines of JSON (`Piece`).
"""

import difflib
import io
import math
import os
import re
import resource
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import Any, BinaryIO, Literal

import pydantic_core
from pydantic import BaseModel

from fraud_core.fields.declaration import Kind
from fraud_core.intake.strict_csv import DELIMITERS, CsvReader, UndecodableError, guess_delimiter
from fraud_core.intake.unpacking import HEAD, UnreadableError, kind_of
from fraud_core.sources.limits import Limits
from fraud_core.system.sandbox import seal
from fraud_core.transactions.declared_type import required_of
from fraud_core.transactions.refusals import MOST_PROBLEMS, FieldProblem, shown_name
from fraud_core.transactions.transaction import FIELDS, Transaction
from fraud_core.units.canonical_number import NO_AMOUNT, cents_of, number_of, point_of_degrees, point_of_money, whole_of
from fraud_core.units.canonical_text import canonical_text

FileFormat = Literal["csv", "parquet"]

ROWS_AT_ONCE = 5_000
MOST_COLUMNS = 1_000
MOST_ROW_GROUPS = 10_000
LIMITS = Limits(columns=MOST_COLUMNS, expansion=100)
FREE_ROWS = 100_000  # rows that a file may always have; above that, as many as it has bytes
LONGEST_CELL = 1_000  # characters that are handed on; every field allows fewer, so that a longer cell is refused all the same


REQUIRED = tuple(field.alias or name for name, field in Transaction.model_fields.items() if field.is_required())


class Wanted(BaseModel):
    """What a file may bring: the standard fields, and those of a declaration.

    Attributes:
        own: own fields and their kinds.
        required: fields that must be among the columns.
        derived: fields that follow from others, and from which.
        leaves_out: whether a column that is not known is left out; else the file is refused.
    """

    own: dict[str, Kind] = {}
    required: tuple[str, ...] = REQUIRED
    derived: dict[str, str] = {}
    leaves_out: bool = False

    @classmethod
    def of(cls, payment: type[Transaction], *, leaves_out: bool = False) -> "Wanted":
        """What a file of such payments brings."""
        declared = payment.model_declared
        return cls(
            own={name: field.kind for name, field in declared.given.items()},
            required=required_of(payment),
            derived={name: " and ".join(one.derivation.needs) for name, one in declared.derived.items() if one.derivation},
            leaves_out=leaves_out,
        )

    @property
    def fields(self) -> tuple[str, ...]:
        """All their names."""
        return (*FIELDS, *self.own)

    def names_something(self, name: str) -> bool:
        """Whether values of a field are names, whatever type they come in."""
        return name in _NAMES or self.own.get(name) in {"category", "id"}

    def is_number(self, name: str) -> bool:
        """Whether an own field is a number."""
        return self.own.get(name) == "number"


STANDARD_FIELDS = Wanted()
Fields = dict[str, Any]  # of a payment; or `{PROBLEM: {"field": ..., "reason": ...}}`
PROBLEM = "(row)"


class Progress(BaseModel):
    """How far the file was read.

    Attributes:
        state: the file was opened; rows were read; all were; it cannot be read on.
        expected: once the file is open, about how many rows it has.
        notes: once it is open, what was taken for granted, in sentences.
        lines: of the file, so far.
        idle: of these, how many are no row's: the header, and empty ones (Parquet: all are rows).
        detail, errors: of a failure.
    """

    state: Literal["opened", "rows", "done", "failed"]
    expected: int = 0
    notes: list[str] = []
    lines: int = 0
    idle: int = 0
    detail: str = ""
    errors: list[FieldProblem] = []


class Piece(Progress):
    """A part of what was read; `rows`: each with its line (from 1; of Parquet its number): its fields, or a problem."""

    rows: list[tuple[int, Fields]] = []


class UnscorableError(Exception):
    """The file as a whole cannot be scored, or not further than this."""

    def __init__(self, detail: str, errors: list[FieldProblem] | None = None) -> None:
        super().__init__(detail)
        self.errors = (errors or [])[:MOST_PROBLEMS]


def main() -> None:
    """Read standard input."""
    file: FileFormat = "parquet" if sys.argv[1] == "parquet" else "csv"
    out = sys.stdout.buffer
    wanted = Wanted.model_validate_json(sys.argv[3])
    prepare(file, int(sys.argv[2]))
    for piece in pieces(sys.stdin.buffer, file, wanted):
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


def pieces(source: BinaryIO, file: FileFormat, wanted: Wanted = STANDARD_FIELDS) -> Iterator[Piece]:
    """What is in a file, piece by piece, and at last whether that was all."""
    last = Piece(state="opened")
    try:
        _check_kind(source, file)
        for last in READERS[file](source, wanted):
            yield last
    except UnscorableError as error:
        yield Piece(state="failed", lines=last.lines, idle=last.idle, detail=str(error), errors=error.errors)
    except UnreadableError as error:
        yield Piece(state="failed", lines=last.lines, idle=last.idle, detail=f"The file {error}.")
    except MemoryError:
        detail = "The file needs more memory than one may take; use smaller row groups, or split it."
        yield Piece(state="failed", lines=last.lines, idle=last.idle, detail=detail)
    else:
        yield Piece(state="done", lines=last.lines, idle=last.idle)


def _check_kind(source: BinaryIO, file: FileFormat) -> None:
    """See that a file is what it was sent as, by its first bytes. What is no file of ours at all, its reader tells."""
    kind = kind_of(source.read(HEAD))
    source.seek(0)
    if kind not in {file, "csv", "empty"}:
        raise UnscorableError(f"This is a file of type {kind}, and was sent as {file}; send it as what it is, unpacked.")


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


def columns_of(header: Sequence[str], wanted: Wanted = STANDARD_FIELDS) -> tuple[dict[int, str], list[str]]:
    """Place -> canonical name of the columns that are read, and what was taken for granted.

    Raises:
        UnscorableError: a column is not known, is there twice, or is missing.
    """
    if len(header) > MOST_COLUMNS:
        unknown = _unknown(header, wanted)
        raise UnscorableError(f"The file has {len(header)} columns; {MOST_COLUMNS} at most are read.", unknown)
    known = {name.lower(): name for name in wanted.fields}
    found: dict[int, str] = {}
    notes: list[str] = []
    problems: list[FieldProblem] = []
    for at, written in enumerate(header):
        name = written.strip().lower()
        if name in known:
            if known[name] in found.values():
                problems.append(FieldProblem(field=known[name], reason="is there twice"))
            found[at] = known[name]
        elif name in _NAMELESS:
            notes.append(f"Column {at + 1} has no name, as an index that pandas wrote, and was left out.")
        elif name in _LEFT_OUT:
            notes.append(_LEFT_OUT[name])
        elif wanted.leaves_out:
            notes.append(f"Column {at + 1}, {shown_name(written.strip())}, is not known, and was left out.")
        else:
            problems.append(FieldProblem(field=shown_name(written), reason=_not_known(name, wanted)))
    problems += [FieldProblem(field=name, reason="is missing") for name in wanted.required if name not in found.values()]
    if problems:
        raise UnscorableError(f"The columns must be among: {', '.join(wanted.fields)}.", problems)
    return found, notes


def _unknown(header: Sequence[str], wanted: Wanted) -> list[FieldProblem]:
    known = {name.lower() for name in wanted.fields}
    unknown = (name for name in header if name.strip().lower() not in known)
    return [FieldProblem(field=shown_name(name), reason="is not a known column") for name in islice(unknown, MOST_PROBLEMS)]


def _not_known(name: str, wanted: Wanted) -> str:
    derived = {one.lower(): needs for one, needs in wanted.derived.items()}
    if name in derived:
        return f"is derived of {derived[name]}; leave the column out"
    close = difflib.get_close_matches(name[:64], wanted.fields, 1, 0.8)
    meant = _KNOWN_AS.get(name) or (close[0] if close else None)
    return "is not a known column" + (f"; if it is `{meant}`, call it that" if meant else "")


def _refused(field: str, reason: str) -> Fields:
    return {PROBLEM: {"field": field, "reason": reason}}


# --- CSV -----------------------------------------------------------------------------------------------------------------------


def _csv_pieces(binary: BinaryIO, wanted: Wanted) -> Iterator[Piece]:
    """Rows of a CSV file with a header, as text; an empty cell is a missing value."""
    expected = max(sum(block.count(b"\n") for block in iter(lambda: binary.read(1 << 20), b"")) - 1, 0)
    binary.seek(0)
    delimiter = guess_delimiter(binary.readline(LIMITS.line_characters), wanted.required)
    binary.seek(0)
    reader = CsvReader(binary, "utf-8", delimiter, limits=LIMITS.model_copy(update={"columns": LIMITS.line_characters}))
    rows: list[tuple[int, Fields]] = []
    try:
        records = iter(reader)
        _, header = next(records, (0, []))
        columns, notes = columns_of(header, wanted)
        # Of an own field it is declared what means that there is none.
        texts = frozenset(n for n in columns.values() if n != "card" and (n in wanted.own or wanted.names_something(n)))
        if delimiter != ",":
            notes.insert(0, f"The cells are parted by {DELIMITERS[delimiter]}, and were read so.")
        yield Piece(state="opened", expected=expected, notes=notes)
        for line, cells in records:
            rows.append((line, _csv_row(cells, columns, len(header), texts)))
            if len(rows) == ROWS_AT_ONCE:
                yield Piece(state="rows", rows=rows, lines=reader.line, idle=reader.idle)
                rows = []
        reader.check_counts()
        yield Piece(state="rows", rows=rows, lines=reader.line, idle=reader.idle)
    except UnreadableError as error:
        if rows:  # they are whole, whatever comes after them
            yield Piece(state="rows", rows=rows, lines=reader.line, idle=reader.idle)
        wrong = ": " + str(error)
        if isinstance(error, UndecodableError):
            wrong = " is not UTF-8 (Latin-1, perhaps); save the file as UTF-8"
        scored = f"after line {reader.line} " if reader.records > 1 else ""
        raise UnscorableError(f"Line {error.line}{wrong}. Nothing {scored}is scored.") from None


def _csv_row(cells: list[str], columns: dict[int, str], width: int, texts: Collection[str]) -> Fields:
    if len(cells) != width:
        return _refused("(row)", f"has {len(cells)} cells where the header has {width}")
    return {
        name: _TIDY.get(name, _same)(cells[at].strip()[:LONGEST_CELL])
        for at, name in columns.items()
        if _is_there(cells[at], is_text=name in texts)
    }


_MISSING = frozenset({"nan", "nat", "null", "none", "na", "n/a", "<na>", "#n/a", "\\n"})  # of a name they could be one


def _is_there(cell: str, *, is_text: bool) -> bool:
    cell = cell.strip()
    return bool(cell) and (is_text or len(cell) > 4 or cell.lower() not in _MISSING)


def _same(cell: str) -> str:
    return cell


def _degrees(cell: str) -> str:
    return point_of_degrees(cell).replace("_", " ")  # which pydantic reads over


def _whole(cell: str) -> str:
    whole = whole_of(cell)
    return cell.replace("_", " ") if whole is None else str(whole)


_TIDY: dict[str, Callable[[str], str]] = {
    "amount": point_of_money,
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


def _parquet_pieces(binary: BinaryIO, wanted: Wanted) -> Iterator[Piece]:
    """Rows of a Parquet file, with the types that JSON would bring; a row's number stands for its line."""
    import pyarrow as pa  # noqa: PLC0415 - only for Parquet

    from fraud_core.intake.parquet import DAMAGED, ParquetFile  # noqa: PLC0415

    line = 0
    try:
        size = binary.seek(0, io.SEEK_END)
        file = ParquetFile(binary, size, LIMITS, free_rows=FREE_ROWS, row_groups=MOST_ROW_GROUPS)
        columns, notes = columns_of(file.names, wanted)
        _check_types(file, columns, wanted)
        yield Piece(state="opened", expected=file.rows, notes=notes)
        written = [file.names[at] for at in columns]
        for batch in file.batches(written, ROWS_AT_ONCE, dictionaries=True):
            named = zip(columns.values(), written, strict=True)
            cells = {name: _cells(name, batch.column(own), wanted, instant=file.is_instant(own)) for name, own in named}
            rows = [(line + 1 + at, _parquet_row(cells, at)) for at in range(len(batch))]
            line += len(rows)
            yield Piece(state="rows", rows=rows, lines=line)
    except pa.ArrowMemoryError:
        raise MemoryError from None
    except DAMAGED as error:
        scored = f" Nothing after row {line} is scored." if line else ""
        raise UnscorableError(f"This is not a Parquet file that can be read ({type(error).__name__}).{scored}") from None


def _check_types(file: Any, columns: dict[int, str], wanted: Wanted) -> None:
    problems = [
        FieldProblem(field=name, reason=f"has values of type {_shown(kind)}, which are not read; store the column as text")
        for name, written, kind in ((name, file.names[at], file.types[file.names[at]]) for at, name in columns.items())
        if not file.is_read(written) or (wanted.names_something(name) and re.match("timestamp|date", str(kind)))
    ]
    if problems:
        raise UnscorableError("A column has a type that is not read.", problems)


def _shown(kind: Any) -> str:
    return re.sub(r"[^A-Za-z0-9_].*", "", str(kind))


def _cells(name: str, array: Any, wanted: Wanted, *, instant: bool) -> list[Any]:
    """A column's values as JSON has them; None where there is none."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.types as of  # noqa: PLC0415

    kind = array.type
    if of.is_dictionary(kind):
        places = array.indices.to_pylist()
        used = {place: array.dictionary.slice(place, 1) for place in set(places) if place is not None}
        values = {place: _cells(name, value, wanted, instant=instant)[0] for place, value in used.items()}
        return [None if place is None else values[place] for place in places]
    stored, read = array, _reader_of(name, kind, wanted, instant=instant)
    if of.is_timestamp(kind) or of.is_date64(kind):
        stored = array.cast(pa.int64())
    elif of.is_date32(kind):
        stored = array.cast(pa.int32())
    elif of.is_string(kind) or of.is_large_string(kind):
        stored = array.cast(pa.large_binary())
    values_of = stored.to_pylist()
    return values_of if read is None else [None if one is None else read(one) for one in values_of]


def _reader_of(name: str, kind: Any, wanted: Wanted, *, instant: bool) -> Callable[[Any], Any] | None:
    """What makes a value of such a column plain; None: it is."""
    import pyarrow.types as of  # noqa: PLC0415

    is_text = of.is_string(kind) or of.is_large_string(kind)
    is_single = of.is_float32(kind)
    readers = (
        (of.is_timestamp(kind), partial(_time, unit=getattr(kind, "unit", ""), instant=instant, day=name == "birth_date")),
        (of.is_date32(kind), _day),
        (of.is_date64(kind), lambda number: _day(number // 86_400_000)),
        (is_text and name in _TIDY, partial(_text_number, name)),
        (is_text, _text),
        (wanted.names_something(name) and is_single, _single_name),
        (wanted.names_something(name), canonical_text),
        (name == "amount" and is_single, _single_amount),
        (name in _TIDY and of.is_decimal(kind), partial(_exact_number, name)),
        (name == "city_population" and of.is_floating(kind), lambda value: _or_itself(whole_of(value), value)),
        (name == "birth_date" and of.is_floating(kind), lambda value: None if math.isnan(value) else value),
        (wanted.is_number(name) and of.is_floating(kind), partial(_own_number, single=is_single)),
        (wanted.is_number(name) and of.is_decimal(kind), lambda value: _or_itself(number_of(value), f"{value:f}")),
        (is_single, lambda value: _or_itself(number_of(value, single=True), value)),
    )
    return next((read for fits, read in readers if fits), None)


_NAMES = frozenset({"transaction_id", "merchant", "category", "card"})
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


def _own_number(value: float, *, single: bool) -> float | None:
    return None if math.isnan(value) else _or_itself(number_of(value, single=single), value)


def _or_itself(read: Any, value: Any) -> Any:
    """What a value was read as; where it could not be, itself, which is refused as over HTTP."""
    return value if read is None else read


_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - an offset is written where the column has one
_EPOCH_DAY = date(1970, 1, 1)


def _time(number: int, unit: str, *, instant: bool, day: bool) -> str | _Wrong:
    microseconds = number // 1_000 if unit == "ns" else number * _UNITS[unit]
    try:
        moment = _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return _Wrong("lies outside the years 1 to 9999")
    return moment.date().isoformat() if day else moment.isoformat() + ("Z" if instant else "")


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


READERS: dict[FileFormat, Callable[[BinaryIO, Wanted], Iterator[Piece]]] = {"csv": _csv_pieces, "parquet": _parquet_pieces}


if __name__ == "__main__":
    main()
