"""Scores one file in a process of its own: `python -m fraud_core.scoring.file`, started by whoever serves people.

The file itself is read by a second process, which has no secret and can open nothing (`fileparsing`). This one holds the model,
the key of cards and the way to their past; what it reads are plain rows. It ends the other where that gets no further, so that
whoever waits is always answered.

Standard input: one line of JSON (`Order`), then the model's bytes. Standard output: frames, each a line of JSON (`Frame`) and as
many bytes of the answer as it says.
"""

import csv
import gc
import io
import os
import re
import resource
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any, BinaryIO, Literal

import polars as pl
import pydantic_core
from pydantic import BaseModel, ConfigDict

from fraud_core.features.windows import Reach
from fraud_core.fields import schema
from fraud_core.fields.declared import NOTHING, Declared
from fraud_core.history.lookup import HistoryLookup
from fraud_core.history.open import open_history
from fraud_core.models.bundle import Bundle
from fraud_core.models.scorer import Scorer
from fraud_core.scoring.file_parsing import PROBLEM, FileFormat, Piece, Progress, Wanted
from fraud_core.scoring.score import Record, Validate, from_text, from_values, score_rows
from fraud_core.settings import Settings
from fraud_core.signing.keys import Key, card_key
from fraud_core.sources.money import RateTable
from fraud_core.system.sandbox import hide
from fraud_core.transactions.declared_type import transaction_type
from fraud_core.transactions.refusals import FieldProblem
from fraud_core.transactions.transaction import Transaction

LONGEST_PIECE = 100_000_000  # bytes

AnswerFormat = Literal["ndjson", "csv", "arrow"]
COMMAND = (sys.executable, "-m", "fraud_core.scoring.file")
PARSER = (sys.executable, "-m", "fraud_core.scoring.file_parsing")


class Order(BaseModel):
    """What to score, by which model, and where the past of cards and merchants is (on the way, secrets are in a pipe alone).

    `repeated` names fields of a payment that its record repeats; none is personal. `accepts` are the own fields that payments may
    have, where these are more than the model's; with `leaves_out`, others are left out. By the table `rates` amounts in other
    currencies are converted.
    """

    model_config = ConfigDict(protected_namespaces=())

    path: Path
    format: FileFormat
    answer: AnswerFormat
    repeated: tuple[str, ...] = ()
    accepts: Declared | None = None
    leaves_out: bool = False
    rates: Path | None = None
    memory: int
    step_seconds: float
    bundle: Bundle
    home: Path
    history: str | None
    history_timeout: int
    card_key: str

    def payment(self, scorer: Scorer) -> type[Transaction]:
        """The type of the payments in the file."""
        declared = scorer.declared if self.accepts is None else self.accepts
        return transaction_type(declared, scorer.bundle.manifest.learned.timezone, rates=RateTable(self.rates))

    def lookup(self, reach: Reach) -> HistoryLookup:
        """Tells the past of payments."""
        settings = Settings(_env_file=None, home=self.home, history=self.history, history_timeout=self.history_timeout)
        return HistoryLookup(open_history(settings, reach), Key(bytes.fromhex(self.card_key)))


class Frame(Progress):
    """A piece of the answer: how far the file was scored (`lines = rows + idle`), and `size` bytes that follow.

    Attributes:
        rows, refused: so far.
        size: bytes of the answer that follow.
    """

    rows: int = 0
    refused: int = 0
    size: int = 0


# What a program needs to run. No secret is among it; whatever an operator has set besides stays here.
_KEPT = frozenset({"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV"})
_KEPT_TRUST = frozenset({"SSL_CERT_FILE", "SSL_CERT_DIR"})  # of the history store's certificate


def child_environment() -> dict[str, str]:
    """What a child is given of this process' environment: what it runs by, and one thread, for the others are needed."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT | _KEPT_TRUST}
    threads = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return kept | threads | {"ARROW_DEFAULT_MEMORY_POOL": "system"}


def order_bytes(
    path: Path,
    file: FileFormat,
    answer: AnswerFormat,
    bundle: Bundle,
    settings: Settings,
    repeated: tuple[str, ...] = (),
    accepts: Declared | None = None,
) -> bytes:
    """What a child reads from its standard input."""
    order = Order(
        path=path,
        format=file,
        answer=answer,
        repeated=repeated,
        accepts=accepts,
        leaves_out=settings.api_unknown_fields != "refuse",
        rates=RateTable.of(settings).path,
        memory=settings.file_memory,
        step_seconds=settings.file_step_seconds,
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
    hide()
    gc.disable()  # rows make no cycles, and looking for them takes a third of the time
    answer(order, Scorer(order.bundle), stdout)


def answer(order: Order, scorer: Scorer, out: BinaryIO) -> None:
    """Write the frames of an order."""
    rows = refused = 0
    lookup = None if scorer.reach is None else order.lookup(scorer.reach)
    validate: Validate = from_text if order.format == "csv" else from_values
    last = Piece(state="opened")

    def write(state: Literal["opened", "rows", "done", "failed"], data: bytes = b"", **told: Any) -> None:
        frame = Frame(state=state, rows=rows, refused=refused, lines=last.lines, idle=last.idle, size=len(data), **told)
        out.write(frame.model_dump_json(exclude_defaults=True).encode() + b"\n" + data)
        out.flush()

    opened: Piece | None = None
    payment = order.payment(scorer)
    columns = arrow_schema(order.repeated, payment.model_declared)
    for piece in pieces_of(order, payment):
        match piece.state:
            case "opened":
                opened = piece  # told with the first rows, so that a file of which there are none is refused as a whole
                continue
            case "failed":
                write("failed", detail=piece.detail, errors=piece.errors)
                return
            case "done" if piece.lines != rows + piece.idle or piece.lines != last.lines:
                last = piece
                said = f"Of {piece.lines} lines only {rows + piece.idle} are accounted for; this is our fault."
                write("failed", detail=said)
                return
            case "done":
                write("done")
                return
        if opened is not None:
            write("opened", expected=opened.expected, notes=opened.notes)
            opened = None
        last = piece
        records = _records(order, scorer, piece, rows + 1, validate, lookup, payment)
        rows += len(records)
        refused += sum("errors" in record for record in records)
        if records:
            write("rows", arrow(records, columns) if order.answer == "arrow" else WRITERS[order.answer](records))


def _records(
    order: Order,
    scorer: Scorer,
    piece: Piece,
    first: int,
    validate: Validate,
    lookup: HistoryLookup | None,
    payment: type[Transaction],
) -> list[Record]:
    """The records of some rows, with the shape of what was refused in a text, and their lines where these are told."""
    rows = [FieldProblem.model_validate(row[PROBLEM]) if PROBLEM in row else row for _, row in piece.rows]
    records = score_rows(scorer, rows, first, validate, lookup, order.repeated, payment)
    for record, (line, row) in zip(records, piece.rows, strict=True):
        if order.answer == "arrow":
            record["line"] = line
        for problem in record.get("errors", ()):
            value = row.get(problem["field"])
            # Typed times of Parquet are text only on their way here.
            is_written = problem["field"] in _SHAPED and (order.format == "csv" or problem["field"] != "timestamp")
            if is_written and isinstance(value, str):
                hint = "; numbers have a decimal point and nothing between thousands" if _COMMAS.fullmatch(value) else ""
                problem["reason"] += f" (it is written as {shape(value)}{hint})"
    return records


_SHAPED = frozenset({"timestamp", "amount", "merchant_latitude", "merchant_longitude", "city_population"})
_COMMAS = re.compile(r"[+-]?[0-9]+(?:[ '.,\u2019\u00a0\u202f][0-9]+)+")


def shape(text: str) -> str:
    """What a value looks like without what it is: digits become 9, letters x; 40 characters at most."""
    return "".join("9" if one.isnumeric() else "x" if one.isalpha() else one if one.isprintable() else "?" for one in text[:40])


def pieces_of(order: Order, payment: type[Transaction] = Transaction) -> Iterator[Piece]:
    """What the sealed process reads of the file; at last a piece that is done or failed, whatever became of that process."""
    wanted = Wanted.of(payment, leaves_out=order.leaves_out)
    with (
        order.path.open("rb") as file,
        subprocess.Popen(  # noqa: S603 - our own module
            (*PARSER, order.format, str(order.memory), wanted.model_dump_json()),
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what parsers say of a stranger's file belongs into no log
            env={name: value for name, value in child_environment().items() if name not in _KEPT_TRUST},
        ) as parser,
    ):
        try:
            assert parser.stdout is not None
            yield from _told(parser.stdout.fileno(), order.step_seconds)
        finally:
            parser.kill()


def _told(descriptor: int, seconds: float) -> Iterator[Piece]:
    """The pieces that come in, each within so many seconds."""
    buffer = bytearray()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1_000):
            yield Piece(
                state="failed", detail=f"The file could not be read on within {seconds:g} s, so its scoring was ended; split it."
            )
            return
        block = os.read(descriptor, 1 << 20)
        if not block or len(buffer) > LONGEST_PIECE:
            yield Piece(
                state="failed", detail="The process that read the file ended; the file is damaged, or needs too much memory."
            )
            return
        buffer += block
        if not block.endswith(b"\n"):
            continue
        for line in bytes(buffer).splitlines():
            piece = Piece.model_validate_json(line)
            yield piece
            if piece.state in {"done", "failed"}:
                return
        buffer.clear()
        deadline = time.monotonic() + seconds  # begins anew: it was not the reader who took the time in between


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
        writer.writerow([escaped(value) for value in (*values, _problems(record))])
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


def arrow_schema(repeated: Sequence[str], declared: Declared = NOTHING) -> dict[str, pl.DataType]:
    """`ARROW_SCHEMA`, and the own fields that are repeated."""
    own = {column.name: column.dtype for column in declared.columns if not column.personal}
    return {**ARROW_SCHEMA, **{name: own[name] for name in repeated if name in own}}


def arrow(records: list[Record], columns: Mapping[str, pl.DataType]) -> bytes:
    """A stream of Arrow record batches by `arrow_schema`, with what the order has repeated; null where a row was refused."""
    for record in records:
        record["problems"] = _problems(record) or None
        if "timestamp" in record:
            record["timestamp"] = record["timestamp"].astimezone(UTC)
    buffer = io.BytesIO()
    pl.DataFrame(records, dict(columns)).write_ipc_stream(buffer)
    return buffer.getvalue()


def _problems(record: Record) -> str:
    return "; ".join(f"{error['field']} {error['reason']}" for error in record.get("errors", ()))


WRITERS: dict[AnswerFormat, Callable[[list[Record]], bytes]] = {"ndjson": ndjson, "csv": csv_lines}


if __name__ == "__main__":
    main()
