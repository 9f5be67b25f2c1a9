"""Reading source files: finding them, and turning CSV, Parquet and zip into chunks of rows with their line numbers.

Nothing is guessed: CSV values stay text until the declared formats parse them.
"""

import codecs
import csv
import hashlib
import io
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from operator import itemgetter
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import polars as pl

from fraud_core.errors import SourceError
from fraud_core.sources import Source

CHUNK_ROWS = 100_000
LINE = "__line"  # number of the line a row ends on (CSV, the header is line 1) or of the row (Parquet, from 1)


@dataclass(frozen=True)
class SourceFile:
    """A file on this machine. `name` is what people know it by: its path or URL."""

    name: str
    path: Path
    sha256: str
    size: int


@contextmanager
def located(source: Source) -> Iterator[list[SourceFile]]:
    """The source's files, remote ones fetched to a temporary folder for the time of the context; each pattern's sorted by name.

    Raises:
        SourceError: a pattern matches nothing, or a file cannot be fetched.
    """
    with tempfile.TemporaryDirectory(prefix="fraud-source-") as folder:
        files = []
        for pattern in source.paths:
            if urlsplit(pattern).scheme in {"https", "s3"}:
                files.append((pattern, _fetch(pattern, Path(folder))))
                continue
            if "://" in pattern:
                raise SourceError(f"{pattern}: only local paths, https:// and s3:// are read.")
            literal = [pattern] if Path(pattern).is_file() else []  # a name may hold brackets
            found = literal or sorted(glob(pattern, recursive=True))  # noqa: PTH207 - patterns are absolute
            if not found:
                raise SourceError(f"{pattern}: there is no such file. Put it there, or name another with --file.")
            files += [(name, Path(name)) for name in found]
        yield [SourceFile(name, path, *_digest(name, path)) for name, path in files]


def chunks(file: SourceFile, source: Source) -> Iterator[tuple[str, pl.DataFrame]]:
    """Rows of a file as (name, frame) chunks of at most `CHUNK_ROWS`, with the source's wanted columns and `LINE`.

    A zip's members are read one after the other, each under its own name.

    Raises:
        SourceError: a column is missing, the encoding is wrong, or the file is truncated; names file, column and line.
    """
    suffix = file.path.suffix.lower()
    if suffix == ".zip":
        yield from _zip_chunks(file, source)
    elif suffix in {".parquet", ".pq"}:
        yield from ((file.name, chunk) for chunk in _parquet_chunks(file.name, file.path, source))
    elif suffix in {".csv", ".txt", ".tsv"}:
        with file.path.open("rb") as binary:
            yield from ((file.name, chunk) for chunk in _csv_chunks(file.name, binary, source))
    else:
        raise SourceError(f"{file.name}: files of type '{suffix}' are not read; give CSV, Parquet or zip.")


def _zip_chunks(file: SourceFile, source: Source) -> Iterator[tuple[str, pl.DataFrame]]:
    try:
        with zipfile.ZipFile(file.path) as archive:
            members = sorted(m.filename for m in archive.infolist() if m.filename.lower().endswith((".csv", ".parquet")))
            if not members:
                raise SourceError(f"{file.name} holds no CSV and no Parquet file.")
            for member in members:
                yield from _member_chunks(f"{file.name}::{member}", archive, member, source)
    except zipfile.BadZipFile as error:
        raise SourceError(f"{file.name} is a truncated or damaged zip ({error}); fetch it again.") from error


def _member_chunks(name: str, archive: zipfile.ZipFile, member: str, source: Source) -> Iterator[tuple[str, pl.DataFrame]]:
    try:
        with archive.open(member) as binary:
            if member.lower().endswith(".csv"):
                yield from ((name, chunk) for chunk in _csv_chunks(name, binary, source))
                return
            with tempfile.NamedTemporaryFile(suffix=".parquet") as plain:
                shutil.copyfileobj(binary, plain)
                plain.flush()
                yield from ((name, chunk) for chunk in _parquet_chunks(name, Path(plain.name), source))
    except RuntimeError as error:  # a password, or a compression that Python does not know
        raise SourceError(f"{name} cannot be unpacked: {error}; unpack it yourself, or pack it as a plain zip.") from error
    except _DAMAGED as error:
        raise SourceError(f"{name} is truncated or damaged ({error}); fetch it again.") from error


_DAMAGED = (zipfile.BadZipFile, EOFError, zlib.error)


def _csv_chunks(name: str, binary: IO[bytes], source: Source) -> Iterator[pl.DataFrame]:
    text = io.TextIOWrapper(binary, encoding=source.encoding, errors="strict", newline="")
    reader = csv.reader(text, delimiter=source.delimiter)
    try:
        header = _header(name, reader, source)
        pick = itemgetter(*(header.index(column) for column in source.columns.wanted))
        width = len(header)
        lines: list[int] = []
        rows: list[tuple[str, ...]] = []
        for row in reader:
            if len(row) != width:
                if not row:
                    continue
                raise SourceError(
                    f"{name}, line {reader.line_num}: {len(row)} columns where the header has {width}; "
                    "the line is cut off or holds a stray delimiter."
                )
            lines.append(reader.line_num)
            rows.append(pick(row))
            if len(rows) == CHUNK_ROWS:
                yield _text_frame(lines, rows, source)
                lines, rows = [], []
        if rows:
            yield _text_frame(lines, rows, source)
    except UnicodeDecodeError as error:
        line, column = _place_of_bad_byte(binary, source)
        raise SourceError(
            f"{name}, line {line}, column '{column}': byte {error.object[error.start]:#04x} is not {source.encoding}; "
            "set `encoding` in the source's TOML."
        ) from error
    except csv.Error as error:
        raise SourceError(f"{name}, line {reader.line_num}: {error}.") from error
    except _DAMAGED as error:
        raise SourceError(
            f"{name}, after line {reader.line_num}: the zip is truncated or damaged ({error}); fetch it again."
        ) from error
    finally:
        text.detach()  # whoever opened the file closes it


def _header(name: str, reader: Iterator[list[str]], source: Source) -> list[str]:
    header = next(reader, None)
    if header is None:
        raise SourceError(f"{name} is empty.")
    if header:
        header[0] = header[0].removeprefix("\ufeff")
    _require(name, header, source)
    return header


def _place_of_bad_byte(binary: IO[bytes], source: Source) -> tuple[int, str]:
    """Line and column of the first byte that cannot be decoded. The file is read a second time, since readers read ahead."""
    binary.seek(0)
    reader = csv.reader(_lines_before_bad_byte(binary, source.encoding), delimiter=source.delimiter)
    header = next(reader, [])
    rows = deque(reader, maxlen=1)
    return reader.line_num, header[min(len(rows[0]), len(header)) - 1] if rows else "(header)"


def _lines_before_bad_byte(binary: IO[bytes], encoding: str) -> Iterator[str]:
    """Lines of the file, the last one up to its bad byte."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)("strict"), translate=True)
    rest = ""
    is_last = False
    while not is_last:
        block = binary.read(1 << 16)
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            text, is_last = error.object[: error.start].decode(encoding, "ignore"), True
        *lines, rest = (rest + text).split("\n")
        yield from (f"{line}\n" for line in lines)
        is_last = is_last or not block
    yield rest


def _text_frame(lines: list[int], rows: list[tuple[str, ...]], source: Source) -> pl.DataFrame:
    data: dict[str, Any] = {LINE: pl.Series(lines, dtype=pl.UInt32)}
    for column, values in zip(source.columns.wanted, zip(*rows, strict=True), strict=True):
        data[column] = pl.Series(values, dtype=pl.String)
    return pl.DataFrame(data)


def _parquet_chunks(name: str, path: Path, source: Source) -> Iterator[pl.DataFrame]:
    import pyarrow  # noqa: PLC0415 - only for Parquet sources
    import pyarrow.parquet  # noqa: PLC0415

    seen = 0
    try:
        file = pyarrow.parquet.ParquetFile(path)
        _require(name, file.schema_arrow.names, source)
        for batch in file.iter_batches(CHUNK_ROWS, columns=list(source.columns.wanted)):
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)
            _require_types(name, frame.schema, source)
            yield frame.with_row_index(LINE, offset=seen + 1).with_columns(pl.col(LINE).cast(pl.UInt32))
            seen += len(frame)
    except (pyarrow.ArrowException, OSError) as error:
        raise SourceError(f"{name}, after row {seen}: this is not a whole Parquet file ({error}).") from error


def _require(name: str, present: Sequence[str], source: Source) -> None:
    wanted = source.columns.wanted
    missing = [column for column in wanted if column not in present]
    if len(missing) == len(wanted):
        # Where there is no header, the first line is somebody's transaction, and is not told.
        raise SourceError(f"{name}, line 1: none of the columns {', '.join(wanted)} is there. Is the first line a header?")
    if missing:
        raise SourceError(
            f"{name}, line 1: there is no column '{missing[0]}'{f' (nor {missing[1:]})' if missing[1:] else ''}. "
            f"It has: {', '.join(present)}. Correct [columns] in the source's TOML."
        )
    twice = [column for column in wanted if present.count(column) > 1]
    if twice:
        raise SourceError(f"{name}, line 1: there are several columns '{twice[0]}'; rename all but the one that is meant.")


def _require_types(name: str, columns: Mapping[str, pl.DataType], source: Source) -> None:
    for column in source.columns.wanted:
        dtype = columns[column]
        if dtype.is_nested() or isinstance(dtype, pl.Time | pl.Duration | pl.Object | pl.Binary):
            raise SourceError(f"{name}, column '{column}': values of type {dtype} are not read; store the column as text.")


def _fetch(url: str, folder: Path) -> Path:
    target = folder / hashlib.sha256(url.encode()).hexdigest()[:12] / Path(urlsplit(url).path).name
    target.parent.mkdir()
    try:
        if url.startswith("s3://"):
            from fraud_core.stores.s3 import s3_client  # noqa: PLC0415 - only where an s3 URL is used

            parts = urlsplit(url)
            s3_client().download_file(parts.netloc, parts.path.lstrip("/"), str(target))
        else:
            with urllib.request.urlopen(url, timeout=60) as answer, target.open("wb") as file:  # noqa: S310 - https only
                shutil.copyfileobj(answer, file)
    except Exception as error:
        raise SourceError(f"{url} could not be fetched: {type(error).__name__}: {error}.") from error
    return target


def _digest(name: str, path: Path) -> tuple[str, int]:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror}.") from error
