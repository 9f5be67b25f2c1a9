"""The header of a source's first local file: the names of its columns, where a pattern has to be matched against them."""

import bz2
import csv
import gzip
import hashlib
import lzma
import zipfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from glob import glob
from pathlib import Path
from typing import IO, Any, cast

from fraud_core.errors import SourceError
from fraud_core.system.paths import without_escapes

_LONGEST = 4_000_000  # bytes of a header
_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}


def header_of(pattern: str, encoding: str, delimiter: str) -> Sequence[str] | None:
    """Names of the columns of the first file that a local path or glob means; None where there is none.

    Raises:
        ValueError: it has no header that can be read.
    """
    plain = without_escapes(pattern)
    found = [plain] if Path(plain).is_file() else sorted(n for n in glob(pattern, recursive=True) if Path(n).is_file())  # noqa: PTH207
    if not found:
        return None
    try:
        return _header(Path(found[0]), encoding, delimiter)
    except (OSError, EOFError, UnicodeError, csv.Error, zipfile.BadZipFile, StopIteration) as error:
        raise ValueError(f"{found[0]} has no header that can be read: {type(error).__name__}") from error


def file_sha256(name: str) -> str:
    """Hash of a file's content, read anew only where its size or the time of its change is another.

    Raises:
        SourceError: it is missing, or cannot be read.
    """
    try:
        stat = Path(name).stat()
        return _hashed(name, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise SourceError(f"{name}: the second file of [join] cannot be read: {error.strerror}; put it there.") from error


@lru_cache(maxsize=8)
def _hashed(name: str, changed: int, size: int) -> str:
    with Path(name).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _header(path: Path, encoding: str, delimiter: str) -> Sequence[str]:
    with path.open("rb") as file:
        head = file.read(6)
    if head.startswith(b"PAR1"):
        import pyarrow.parquet  # noqa: PLC0415 - only for Parquet

        return list(pyarrow.parquet.read_schema(path).names)
    if head.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            member = min(name for name in archive.namelist() if name.lower().endswith((".csv", ".txt", ".tsv")))
            with archive.open(member) as stream:
                return _first_line(stream, encoding, delimiter)
    unpacked = next((opener for beginning, opener in _OPENERS.items() if head.startswith(beginning)), None)
    with cast(IO[bytes], path.open("rb") if unpacked is None else unpacked(path, "rb")) as stream:
        return _first_line(stream, encoding, delimiter)


def _first_line(stream: IO[bytes], encoding: str, delimiter: str) -> Sequence[str]:
    text = stream.readline(_LONGEST).decode(encoding).removeprefix("\ufeff")
    return next(csv.reader([text], delimiter=delimiter, strict=True))
