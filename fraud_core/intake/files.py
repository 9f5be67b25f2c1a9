"""Reading source files: finding them, and turning CSV, Parquet, Excel and packed files into chunks of rows with line numbers.

Nothing is guessed: values of CSV stay text until the declared formats parse them. What a file is, its first bytes tell, and not
its name.
"""

import hashlib
import io
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import polars as pl

from fraud_core.errors import SourceError
from fraud_core.intake.download import download
from fraud_core.intake.strict_csv import CsvReader, UndecodableError
from fraud_core.intake.unpacking import DAMAGED, HEAD, Bounded, UnreadableError, decompressed, kind_of
from fraud_core.intake.watch import fetch_object, local_files, s3_objects
from fraud_core.intake.workbook import is_workbook, workbook_rows
from fraud_core.sources.source import Source
from fraud_core.system.paths import without_escapes
from fraud_core.units.canonical_text import canonical_texts

CHUNK_ROWS = 100_000
CHUNK_CHARACTERS = 64_000_000  # of text, whatever comes first
CHUNK_CELLS = 5_000_000  # that are read, where there are more than fifty columns
KEY = "__key"  # what rows of two files are joined by, as canonical text
LONGEST_CELL = 10_000  # characters that are handed on; no value is as long, so that a longer cell is refused all the same
LINE = "__line"  # number of the line a row ends on (CSV, the header is line 1) or of the row (Parquet, from 1)
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"  # the name of the folder of rows that have none
DEEPEST = 3  # packed within packed


@dataclass(frozen=True)
class SourceFile:
    """A file on this machine. `name` is what people know it by: its path or URL."""

    name: str
    path: Path
    sha256: str
    size: int


@dataclass
class Tally:
    """How many rows a file said or showed that it has, apart from how many were read of it."""

    lines: int = 0


@contextmanager
def located(source: Source) -> Iterator[list[SourceFile]]:
    """The source's files, remote ones fetched to a temporary folder for the time of the context; each pattern's sorted by name.

    Raises:
        SourceError: a pattern matches nothing, or a file cannot be fetched.
    """
    with tempfile.TemporaryDirectory(prefix="fraud-source-") as folder:
        files: list[tuple[str, Path]] = []
        for pattern in source.paths:
            scheme = urlsplit(pattern).scheme if "://" in pattern else ""
            if scheme == "https":
                files.append((pattern, download(pattern, _target(pattern, Path(folder)), source.limits)))
            elif scheme == "s3":
                urls = [seen.name for seen in s3_objects(pattern)] or [pattern]
                files += [(url, fetch_object(url, _target(url, Path(folder)))) for url in urls]
            elif scheme:
                raise SourceError(f"{pattern}: only local paths, https:// and s3:// are read.")
            else:
                files += [(name, Path(name)) for name in _present(pattern)]
        yield [SourceFile(name, path, *_digest(name, path)) for name, path in files]


def _present(pattern: str) -> list[str]:
    found = local_files(pattern)
    if found:
        return found
    name = without_escapes(pattern)
    if Path(name).is_dir():
        raise SourceError(f"{name} is a folder; write {name}/*.csv, or {name}/**/*.parquet for folders within it.")
    raise SourceError(f"{name}: there is no such file. Put it there, or name another with --file.")


@dataclass(frozen=True)
class Joined:
    """The second file of a source.

    Attributes:
        name: of the file.
        rows: its columns, and `KEY`.
    """

    name: str
    rows: pl.DataFrame

    def beside(self, frame: pl.DataFrame, key: str) -> pl.DataFrame:
        """Rows of the first file with the columns that they lack; missing where the second one has no row of that key."""
        other = self.rows.drop([name for name in self.rows.columns if name in frame.columns])
        keyed = frame.with_columns(canonical_texts(key, frame.schema[key]).alias(KEY))
        return keyed.join(other, on=KEY, how="left", maintain_order="left").drop(KEY)


def read_joined(source: Source) -> Joined | None:
    """The source's second file, if it has one.

    Raises:
        SourceError: it is missing, cannot be read, or has a key twice.
    """
    if source.join is None:
        return None
    name, key = source.join.file, source.join.key
    if not Path(name).is_file():
        raise SourceError(f"{name}: there is no such file; it is the second one of [join] in the source's TOML. Put it there.")
    reader = _Reader(source, Tally(), wanted=(key,), also=source.wanted)
    frames = [frame for _, frame in reader.path_chunks(name, Path(name), 1)]
    if not frames:
        raise SourceError(f"{name} is empty; it is the second file of [join] in the source's TOML.")
    rows = pl.concat(frames)
    rows = rows.with_columns(canonical_texts(key, rows.schema[key]).alias(KEY)).filter(pl.col(KEY).is_not_null())
    repeated = rows.filter(pl.col(KEY).is_duplicated()).sort(KEY, LINE)
    if not repeated.is_empty():
        first, second = repeated[LINE][0], repeated[LINE][1]
        more = repeated[KEY].n_unique() - 1
        raise SourceError(
            f"{name}, line {second}: the key {key} is that of line {first}{f', and {more:,} more keys repeat' if more else ''}. "
            "A row of the first file takes one row of this one: leave the others out, or join by a column that tells them apart."
        )
    return Joined(name, rows.drop(LINE, key))


def chunks(
    file: SourceFile, source: Source, tally: Tally | None = None, joined: Joined | None = None
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Rows of a file as (name, frame) chunks of at most `CHUNK_ROWS`, with the source's wanted columns and `LINE`.

    Members of an archive are read one after the other, each under its own name. An empty file has no chunks. A wanted column that
    a file lacks may stand in the names of its folders, as in `month=2024-01/part-0.parquet`.

    Args:
        file: what to read.
        source: how.
        tally: is told how many rows there ought to be.
        joined: the source's second file, if it was read already.

    Raises:
        SourceError: a column is missing, the encoding is wrong, or the file is truncated; names file, column and line.
    """
    if source.join is None:
        yield from _Reader(source, tally or Tally(), wanted=source.wanted).path_chunks(file.name, file.path, 1)
        return
    second = joined or read_joined(source)
    assert second is not None
    elsewhere = tuple(name for name in second.rows.columns if name != KEY)
    reader = _Reader(source, tally or Tally(), wanted=source.wanted, elsewhere=elsewhere)
    for name, frame in reader.path_chunks(file.name, file.path, 1):
        yield name, second.beside(frame, source.join.key)


def all_rows(file: SourceFile, source: Source, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Rows of a file with these columns of it, whatever the source declares; see `chunks`."""
    yield from (frame for _, frame in _Reader(source, Tally(), wanted=columns).path_chunks(file.name, file.path, 1))


class _Reader:
    """Reads files of a source, packed or not.

    Args:
        source: how.
        tally: is told how many rows there ought to be.
        wanted: columns that are read.
        elsewhere: of them those that may be missing, since another file has them.
        also: columns that are read where they are there.
    """

    def __init__(
        self, source: Source, tally: Tally, *, wanted: Sequence[str], elsewhere: Sequence[str] = (), also: Sequence[str] = ()
    ) -> None:
        self.source, self.tally = source, tally
        self.wanted, self.elsewhere, self.also = wanted, elsewhere, also

    def path_chunks(self, name: str, path: Path, depth: int) -> Iterator[tuple[str, pl.DataFrame]]:
        if depth > DEEPEST:
            raise SourceError(f"{name} is packed more than {DEEPEST} times; unpack it.")
        with _named(name), path.open("rb") as binary:
            kind = kind_of(binary.read(HEAD))
            binary.seek(0)
            match kind:
                case "empty":
                    return
                case "csv":
                    yield from ((name, chunk) for chunk in self.csv_chunks(name, binary))
                case "parquet":
                    yield from ((name, chunk) for chunk in self.parquet_chunks(name, path))
                case "zip":
                    yield from self.zip_chunks(name, path, depth)
                case _:
                    with decompressed(kind, path) as stream:
                        yield from self.stream_chunks(name, stream, path.stat().st_size, depth + 1)

    def stream_chunks(self, name: str, stream: IO[bytes], packed: int, depth: int) -> Iterator[tuple[str, pl.DataFrame]]:
        """Rows of what comes out of a packed file: text as it comes, all else by way of a temporary file."""
        bounded = io.BufferedReader(Bounded(stream, packed, self.source.limits), 1 << 16)
        kind = kind_of(bounded.peek(HEAD)[:HEAD])
        if kind == "csv":
            yield from ((name, chunk) for chunk in self.csv_chunks(name, bounded))
        elif kind != "empty":
            with tempfile.NamedTemporaryFile(prefix="fraud-unpacked-") as plain:
                shutil.copyfileobj(bounded, plain)
                plain.flush()
                yield from self.path_chunks(name, Path(plain.name), depth)

    def zip_chunks(self, name: str, path: Path, depth: int) -> Iterator[tuple[str, pl.DataFrame]]:
        with zipfile.ZipFile(path) as archive:
            if is_workbook(archive):
                yield from ((name, chunk) for chunk in self.workbook_chunks(name, path))
                return
            members = sorted((m for m in archive.infolist() if _holds_data(m.filename)), key=lambda member: member.filename)
            if not members:
                raise UnreadableError("holds no CSV and no Parquet file")
            for member in members:
                within = f"{name}::{member.filename}"
                with _named(within), _opened(archive, member) as stream:
                    yield from self.stream_chunks(within, stream, path.stat().st_size, depth + 1)

    def csv_chunks(self, name: str, binary: IO[bytes]) -> Iterator[pl.DataFrame]:
        source = self.source
        records = CsvReader(
            binary,
            source.encoding,
            source.delimiter,
            line_breaks=source.line_breaks,
            limits=source.limits,
            longest_cell=LONGEST_CELL,
        )
        header: list[str] = []
        try:
            yield from self._text_chunks(name, records, header)
            records.check_counts()
            self.tally.lines += records.lines - records.idle
        except UndecodableError as error:
            column = "(header)" if error.column is None else header[min(error.column, len(header) - 1)]
            raise SourceError(
                f"{name}, line {error.line}, column '{column}': {error}; "
                "set `encoding` in the source's TOML, such as cp1252 for what Excel saves on Windows."
            ) from error
        except DAMAGED as error:
            raise SourceError(
                f"{name}, after line {records.line}: it is truncated or damaged ({error}); fetch it again."
            ) from error

    def workbook_chunks(self, name: str, path: Path) -> Iterator[pl.DataFrame]:
        header: list[str] = []

        def padded() -> Iterator[tuple[int, list[str]]]:
            for line, cells in workbook_rows(path, self.source.limits):
                self.tally.lines += bool(header)
                yield line, cells + [""] * (len(header) - len(cells))

        yield from self._text_chunks(name, padded(), header)

    def _text_chunks(self, name: str, records: Iterable[tuple[int, list[str]]], header: list[str]) -> Iterator[pl.DataFrame]:
        """Frames of the records; the first one becomes the header."""
        remaining = iter(records)
        header += next(remaining, (0, []))[1]
        if not header:
            return
        folders, read = self._columns(name, header)
        places = [header.index(column) for column in read]
        pick = itemgetter(*places) if len(places) > 1 else lambda row: (row[places[0]],)
        width, held = len(header), 0
        most = min(CHUNK_ROWS, CHUNK_CELLS // len(read))
        lines: list[int] = []
        rows: list[tuple[str, ...]] = []
        for line, row in remaining:
            if len(row) != width:
                raise UnreadableError(
                    f"{len(row)} columns where the header has {width}; the line is cut off or holds a stray delimiter", line=line
                )
            cells = pick(row)
            lines.append(line)
            rows.append(cells)
            held += sum(map(len, cells))
            if len(rows) >= most or held > CHUNK_CHARACTERS:
                yield _text_frame(lines, rows, read, folders)
                lines, rows, held = [], [], 0
        if rows:
            yield _text_frame(lines, rows, read, folders)

    def parquet_chunks(self, name: str, path: Path) -> Iterator[pl.DataFrame]:
        from fraud_core.intake import parquet  # noqa: PLC0415 - only for Parquet

        seen = 0
        try:
            bounds = {"free_rows": parquet.FREE_ROWS, "row_groups": parquet.MOST_ROW_GROUPS}
            file = parquet.ParquetFile(path, path.stat().st_size, self.source.limits, **bounds)
            folders, read = self._columns(name, file.names)
            for column in read:
                if not file.is_read(column):
                    raise SourceError(
                        f"{name}, column '{column}': values of type {file.types[column]} are not read; store the column as text."
                    )
            for frame in file.frames(read, min(CHUNK_ROWS, CHUNK_CELLS // len(read))):
                whole = frame.with_columns(pl.lit(value).alias(column) for column, value in folders.items())
                yield whole.with_row_index(LINE, offset=seen + 1).with_columns(pl.col(LINE).cast(pl.UInt32))
                seen += len(frame)
            self.tally.lines += file.rows
        except parquet.DAMAGED as error:
            raise SourceError(f"{name}, after row {seen}: this is not a whole Parquet file ({error}).") from error

    def _columns(self, name: str, present: Sequence[str]) -> tuple[dict[str, str], list[str]]:
        """The wanted columns: those that the names of its folders tell with their value, and those that are read."""
        wanted = list(dict.fromkeys([*self.wanted, *(column for column in self.also if column in present)]))
        folders = _folder_columns(name, present, wanted)
        _require(name, [*present, *folders], wanted, self.elsewhere)
        away = {column for column in self.elsewhere if column not in present}
        return folders, [column for column in wanted if column not in folders and column not in away]


def _opened(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    try:
        return archive.open(member)
    except RuntimeError as error:  # a password, or a compression that Python does not know
        raise UnreadableError(f"cannot be unpacked: {error}; unpack it yourself, or pack it as a plain zip") from error


@contextmanager
def _named(name: str) -> Iterator[None]:
    """What is wrong with a file, as a sentence that names it and says what to do."""
    try:
        yield
    except UnreadableError as error:
        problem = f"{name}, line {error.line}: {error}" if error.line else f"{name} {error}"
        raise SourceError(f"{problem}.{_advice(error)}") from error
    except zipfile.BadZipFile as error:
        raise SourceError(f"{name} is a truncated or damaged zip ({error}); fetch it again.") from error
    except (*DAMAGED, OSError) as error:
        raise SourceError(f"{name} is truncated or damaged ({error}); fetch it again.") from error


def _advice(error: UnreadableError) -> str:
    raised = f" If it is sound, raise {' or '.join(f'`{limit}`' for limit in error.limits)} under [limits] in the source's TOML."
    if "does not close on it" in str(error):
        return " Correct the line; if cells hold line breaks, set `line_breaks = true` in the source's TOML."
    if error.line and "columns" in error.limits:
        return f" Is `delimiter` right?{raised}"
    return raised if error.limits else ""


def _holds_data(member: str) -> bool:
    """Whether a member of an archive may hold rows: no folder, and nothing hidden or put beside it by a Mac."""
    path = Path(member)
    if member.endswith("/") or path.name.startswith((".", "~$")) or "__MACOSX" in path.parts:
        return False
    return path.suffix.lower() in _DATA_SUFFIXES


_DATA_SUFFIXES = {".csv", ".txt", ".tsv", ".parquet", ".pq", ".gz", ".bz2", ".xz", ".zst", ".zip", ".xlsx"}


def _folder_columns(name: str, present: Sequence[str], wanted: Sequence[str]) -> dict[str, str]:
    """Wanted columns that the file itself lacks and the names of its folders tell."""
    parts = (part.partition("=") for part in name.partition("://")[2 if "://" in name else 0].split("/")[:-1] if "=" in name)
    told = {column: "" if value == NO_VALUE else unquote(value) for column, equals, value in parts if equals}
    return {column: told[column] for column in wanted if column in told and column not in present}


def _text_frame(lines: list[int], rows: list[tuple[str, ...]], read: Sequence[str], folders: dict[str, str]) -> pl.DataFrame:
    data: dict[str, Any] = {LINE: pl.Series(lines, dtype=pl.UInt32)}
    for column, values in zip(read, zip(*rows, strict=True), strict=True):
        data[column] = pl.Series(values, dtype=pl.String)
    return pl.DataFrame(data).with_columns(pl.lit(value).alias(column) for column, value in folders.items())


def _require(name: str, present: Sequence[str], wanted: Sequence[str], elsewhere: Sequence[str]) -> None:
    missing = [column for column in wanted if column not in present and column not in elsewhere]
    if len(missing) == len(wanted):
        # Where there is no header, the first line is somebody's transaction, and is not told.
        raise SourceError(f"{name}, line 1: none of the columns {', '.join(wanted)} is there. Is the first line a header?")
    if missing:
        raise SourceError(
            f"{name}, line 1: there is no column '{missing[0]}'{f' (nor {missing[1:]})' if missing[1:] else ''}. "
            f"It has: {', '.join(present)}. Correct [columns] or [fields] in the source's TOML."
        )
    twice = [column for column in wanted if present.count(column) > 1]
    if twice:
        raise SourceError(f"{name}, line 1: there are several columns '{twice[0]}'; rename all but the one that is meant.")


def _target(url: str, folder: Path) -> Path:
    target = folder / hashlib.sha256(url.encode()).hexdigest()[:12] / (Path(urlsplit(url).path).name or "file")
    target.parent.mkdir()
    return target


def _digest(name: str, path: Path) -> tuple[str, int]:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror}.") from error
