"""Scores one file in a process of its own: `python -m fraud_core.filescoring`, started by whoever serves people.

A file is the one input that other people's parsers read. Here they can take no more than the memory they were given, crash
without taking an authorisation along, and never hold up the process that answers those.

Standard input: one line of JSON (`Order`), then the model's bytes. Standard output: frames, each a line of JSON (`Frame`) and as
many bytes of the answer as it says.
"""

import csv
import gc
import io
import os
import resource
import sys
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any, BinaryIO, Literal

import polars as pl
import pydantic_core
from pydantic import BaseModel, ConfigDict

from fraud_core import schema
from fraud_core.bundle import Bundle
from fraud_core.canonical_text import canonical_texts
from fraud_core.history.windows import Reach
from fraud_core.keys import Key, card_key
from fraud_core.payment import FIELDS, Transaction
from fraud_core.recall import Recall
from fraud_core.refusals import FieldProblem, shown_name
from fraud_core.scorer import Scorer
from fraud_core.scoring import Record, Validate, from_text, from_values, score_rows
from fraud_core.settings import Settings
from fraud_core.stores.history import open_history

ROWS_AT_ONCE = 5_000
MOST_ROW_GROUPS = 10_000
MOST_EXPANSION = 100  # times the size of the file
FREE_EXPANSION = 64_000_000  # bytes that a file may always expand to
LONGEST_LINE = 1_000_000  # characters

FileFormat = Literal["csv", "parquet"]
AnswerFormat = Literal["ndjson", "csv", "arrow"]
COMMAND = (sys.executable, "-m", "fraud_core.filescoring")


class Order(BaseModel):
    """What to score, by which model, and where the past of cards and merchants is (on the way, secrets are in a pipe alone).

    `repeated` names fields of a payment that its record repeats; none is personal.
    """

    model_config = ConfigDict(protected_namespaces=())

    path: Path
    format: FileFormat
    answer: AnswerFormat
    repeated: tuple[str, ...] = ()
    memory: int
    bundle: Bundle
    home: Path
    history: str | None
    history_timeout: int
    card_key: str

    def recall(self, reach: Reach) -> Recall:
        """Tells the past of payments."""
        settings = Settings(_env_file=None, home=self.home, history=self.history, history_timeout=self.history_timeout)
        return Recall(open_history(settings, reach), Key(bytes.fromhex(self.card_key)))


class Frame(BaseModel):
    """A piece of the answer.

    Attributes:
        state: the file was opened; rows were scored; all rows were; it cannot be read on.
        expected: once the file is open, about how many rows it has.
        rows, refused: so far.
        size: bytes of the answer that follow.
        detail, errors: of a failure.
    """

    state: Literal["opened", "rows", "done", "failed"]
    expected: int = 0
    rows: int = 0
    refused: int = 0
    size: int = 0
    detail: str = ""
    errors: list[FieldProblem] = []


class UnreadableError(Exception):
    """The file as a whole cannot be scored, or not further than this."""

    def __init__(self, detail: str, errors: list[FieldProblem] | None = None) -> None:
        super().__init__(detail)
        self.errors = errors or []


def child_environment() -> dict[str, str]:
    """What a child is given of this process' environment: none of our secrets, and one thread, for the others are needed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FRAUD_", "AWS_", "PROMETHEUS_"))}
    threads = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return kept | threads | {"ARROW_DEFAULT_MEMORY_POOL": "system"}


def order_bytes(
    path: Path, file: FileFormat, answer: AnswerFormat, bundle: Bundle, settings: Settings, repeated: tuple[str, ...] = ()
) -> bytes:
    """What a child reads from its standard input."""
    order = Order(
        path=path,
        format=file,
        answer=answer,
        repeated=repeated,
        memory=settings.file_memory,
        bundle=bundle,
        home=settings.home,
        history=None if settings.history is None else settings.history.get_secret_value(),
        history_timeout=settings.history_timeout,
        card_key=card_key(settings).secret.hex(),
    )
    return order.model_dump_json().encode() + b"\n"


def main() -> None:
    """Carry out the order on standard input."""
    stdout = sys.stdout.buffer
    order = Order.model_validate_json(sys.stdin.buffer.readline())
    resource.setrlimit(resource.RLIMIT_DATA, (order.memory, order.memory))
    os.nice(5)  # whoever waits at a till goes first
    gc.disable()  # rows make no cycles, and looking for them takes a third of the time
    answer(order, Scorer(order.bundle), stdout)


def answer(order: Order, scorer: Scorer, out: BinaryIO) -> None:
    """Write the frames of an order."""
    rows = refused = 0
    recall = None if scorer.reach is None else order.recall(scorer.reach)

    def write(frame: Frame, data: bytes = b"") -> None:
        out.write(frame.model_dump_json(exclude_defaults=True).encode() + b"\n" + data)
        out.flush()

    try:
        read, validate = READERS[order.format]
        chunks = read(order.path)
        next(chunks)  # opens the file
        write(Frame(state="opened", expected=expected_rows(order.path, order.format)))
        for chunk in chunks:
            records = score_rows(scorer, [row for _, row in chunk], rows + 1, validate, recall, order.repeated)
            if order.answer == "arrow":
                for record, (line, _) in zip(records, chunk, strict=True):
                    record["line"] = line
            rows += len(records)
            refused += sum("errors" in record for record in records)
            data = WRITERS[order.answer](records)
            write(Frame(state="rows", rows=rows, refused=refused, size=len(data)), data)
    except UnreadableError as error:
        write(Frame(state="failed", rows=rows, refused=refused, detail=str(error), errors=error.errors))
    except MemoryError:
        detail = f"The file needs more memory than the {order.memory // 1_000_000} MB it may take; use smaller row groups."
        write(Frame(state="failed", rows=rows, refused=refused, detail=detail))
    else:
        write(Frame(state="done", rows=rows, refused=refused))


# --- answers -------------------------------------------------------------------------------------------------------------------


def ndjson(records: list[Record]) -> bytes:
    """A line of JSON a record."""
    return b"".join(pydantic_core.to_json(record) + b"\n" for record in records)


CSV_COLUMNS = ("row", "transaction_id", "probability", "decision", "problems")


def csv_lines(records: list[Record]) -> bytes:
    """A line of CSV a record. Text that a spreadsheet would take for a formula gets an apostrophe before it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for record in records:
        values = (record.get(name, "") for name in CSV_COLUMNS[:-1])
        writer.writerow([escaped(value) for value in (*values, _told(record))])
    return text.getvalue().encode()


def escaped(value: Any) -> Any:
    """A cell that no spreadsheet executes (OWASP, "CSV Injection")."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


ARROW_SCHEMA = {
    "line": pl.UInt32(),
    "transaction_id": pl.String(),
    "timestamp": schema.UTC_MICROSECONDS,
    "amount_cents": pl.Int64(),
    "merchant": pl.String(),
    "category": pl.String(),
    "probability": pl.Float64(),
    "decision": pl.String(),
    "problems": pl.String(),
}


def arrow(records: list[Record]) -> bytes:
    """A stream of Arrow record batches by `ARROW_SCHEMA`, with what the order has repeated; null where a row was refused."""
    for record in records:
        record["problems"] = _told(record) or None
        if "timestamp" in record:
            record["timestamp"] = record["timestamp"].astimezone(UTC)
    buffer = io.BytesIO()
    pl.DataFrame(records, ARROW_SCHEMA).write_ipc_stream(buffer)
    return buffer.getvalue()


def _told(record: Record) -> str:
    return "; ".join(f"{error['field']} {error['reason']}" for error in record.get("errors", ()))


WRITERS: dict[AnswerFormat, Callable[[list[Record]], bytes]] = {"ndjson": ndjson, "csv": csv_lines, "arrow": arrow}


# --- files: each reader yields once when the file is open and its columns are right, then chunks of rows with their lines -------

Chunk = list[tuple[int, Any]]  # lines count from 1, a CSV's header included


def expected_rows(path: Path, file: FileFormat) -> int:
    """About how many rows a file has that could be opened: what its footer says, or as many as it has lines."""
    if file == "parquet":
        import pyarrow.parquet  # noqa: PLC0415 - only for Parquet

        return int(pyarrow.parquet.read_metadata(path).num_rows)
    with path.open("rb") as text:
        return max(sum(block.count(b"\n") for block in iter(lambda: text.read(1 << 20), b"")) - 1, 0)


def _csv_rows(path: Path) -> Iterator[Chunk]:
    """Rows of a CSV file with a header, as checked later; an empty cell is a missing value."""
    with path.open(encoding="utf-8-sig", errors="strict", newline="") as file:
        reader = csv.reader(_bounded_lines(file))
        try:
            header = next(reader, [])
            _require(header)
            yield []
            chunk: Chunk = []
            for cells in reader:
                if not cells:
                    continue
                row: dict[str, str] | FieldProblem
                if len(cells) == len(header):
                    row = {name: cell for name, cell in zip(header, cells, strict=True) if cell.strip()}
                else:
                    row = FieldProblem(field="(row)", reason=f"has {len(cells)} cells where the header has {len(header)}")
                chunk.append((reader.line_num, row))
                if len(chunk) == ROWS_AT_ONCE:
                    yield chunk
                    chunk = []
            if chunk:
                yield chunk
        except UnicodeDecodeError:
            raise UnreadableError(f"After line {reader.line_num} the file is not UTF-8; save it as UTF-8.") from None
        except csv.Error as error:
            raise UnreadableError(f"After line {reader.line_num} the file is not CSV: {error}.") from None


def _bounded_lines(file: io.TextIOWrapper) -> Iterator[str]:
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise UnreadableError(f"A line has more than {LONGEST_LINE} characters.")
        yield line


def _parquet_rows(path: Path) -> Iterator[Chunk]:
    """Rows of a Parquet file; a row's number stands for its line."""
    import pyarrow  # noqa: PLC0415 - only for Parquet
    import pyarrow.parquet  # noqa: PLC0415

    pyarrow.set_cpu_count(1)
    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True) as file:
            _require(file.schema_arrow.names)
            _check_expansion(file.metadata, path.stat().st_size)
            yield []
            line = 0
            for batch in file.iter_batches(ROWS_AT_ONCE, use_threads=False):
                frame = pl.from_arrow(batch)
                assert isinstance(frame, pl.DataFrame)
                chunk = [(at, _row(values)) for at, values in enumerate(_as_sent(frame).iter_rows(named=True), line + 1)]
                line += len(chunk)
                yield chunk
    except pyarrow.ArrowMemoryError:
        raise MemoryError from None
    except (pyarrow.ArrowException, OSError, pl.exceptions.PolarsError) as error:
        raise UnreadableError(f"This is not a Parquet file that can be read ({type(error).__name__}).") from None


def _check_expansion(metadata: Any, size: int) -> None:
    if metadata.num_row_groups > MOST_ROW_GROUPS:
        raise UnreadableError(f"The file has {metadata.num_row_groups} row groups; {MOST_ROW_GROUPS} at most are read.")
    expanded = sum(metadata.row_group(at).total_byte_size for at in range(metadata.num_row_groups))
    if expanded > max(FREE_EXPANSION, MOST_EXPANSION * size):
        raise UnreadableError(f"The file would expand to more than {MOST_EXPANSION} times its size; compress it less.")


_TEXT = ("transaction_id", "card", "merchant", "category")


def _as_sent(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with the types that JSON would bring: names as their canonical text, times no finer than Python's."""
    casts: list[pl.Expr] = []
    for name, dtype in frame.schema.items():
        if name in _TEXT:
            casts.append(canonical_texts(name, dtype).alias(name))
        elif isinstance(dtype, pl.Datetime):
            casts.append(pl.col(name).dt.cast_time_unit("us"))
    return frame.with_columns(casts)


def _require(columns: list[str]) -> None:
    """Raises UnreadableError: a column is not known, is there twice, or is missing."""
    problems = [FieldProblem(field=shown_name(name), reason="is not a known column") for name in columns if name not in FIELDS]
    problems += [FieldProblem(field=name, reason="is there twice") for name in FIELDS if columns.count(name) > 1]
    needed = [field.alias or name for name, field in Transaction.model_fields.items() if field.is_required()]
    problems += [FieldProblem(field=name, reason="is missing") for name in needed if name not in columns]
    if problems:
        raise UnreadableError(f"The columns must be among: {', '.join(FIELDS)}.", problems)


def _row(values: dict[str, Any]) -> dict[str, Any]:
    row = {name: value for name, value in values.items() if value is not None}
    population = row.get("city_population")
    if isinstance(population, float) and population.is_integer():
        row["city_population"] = int(population)  # a column of whole numbers with gaps is often kept as floats
    return row


READERS: dict[FileFormat, tuple[Callable[[Path], Iterator[Chunk]], Validate]] = {
    "csv": (_csv_rows, from_text),
    "parquet": (_parquet_rows, from_values),
}


if __name__ == "__main__":
    main()
