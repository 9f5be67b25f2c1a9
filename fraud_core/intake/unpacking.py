"""What a file is by its first bytes, whatever its name, and its bytes unpacked as a stream that may only grow so far."""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, Literal, cast

from fraud_core.sources.limits import Limits

Kind = Literal["csv", "parquet", "zip", "gzip", "bzip2", "xz", "zstd", "empty"]

HEAD = 512  # bytes that tell what a file is
FREE_EXPANSION = 64_000_000  # bytes that a file may always expand to
DAMAGED = (zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)

_BEGINNINGS: tuple[tuple[bytes, Kind], ...] = (
    (b"PAR1", "parquet"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_NOT_READ = (
    (0, b"\xd0\xcf\x11\xe0", "an Excel file of the old kind (.xls); save it as .xlsx or as CSV"),
    (0, b"%PDF", "a PDF; export the table as CSV"),
    (0, b"ARROW1", "an Arrow file; write it as Parquet"),
    (0, b"ORC", "an ORC file; write it as Parquet"),
    (0, b"Obj\x01", "an Avro file; write it as Parquet"),
    (0, b"7z\xbc\xaf", "a 7z archive; pack it as zip"),
    (0, b"Rar!", "a RAR archive; pack it as zip"),
    (0, b"PARE", "encrypted Parquet; decrypt it first"),
    (257, b"ustar", "a tar archive; give the files in it, or a zip"),
    (0, b"<!doctype html", "a web page, as where one has to sign in; fetch the file itself"),
    (0, b"<html", "a web page, as where one has to sign in; fetch the file itself"),
)


class UnreadableError(ValueError):
    """A file that cannot be read, or not on. The message repeats no value; whoever reads the file names it and says what to do.

    Attributes:
        line: where, from 1; of a quotation mark: where it opened; 0: it is the file as a whole.
        limits: which of its `Limits` to raise if the file is sound.
    """

    def __init__(self, message: str, *, line: int = 0, limits: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.line, self.limits = line, limits


def kind_of(head: bytes) -> Kind:
    """What a file is, by its first `HEAD` bytes: what is none of the known kinds is taken for text.

    Raises:
        UnreadableError: it is of a kind that is known and not read.
    """
    if not head.strip(b"\r\n\t \xef\xbb\xbf"):
        return "empty"
    for at, beginning, what in _NOT_READ:
        if head[at : at + len(beginning)].lower() == beginning.lower():
            raise UnreadableError(f"is {what}")
    return next((kind for beginning, kind in _BEGINNINGS if head.startswith(beginning)), "csv")


class Bounded(io.RawIOBase):
    """A stream that ends in an error once it gave more bytes than a file of its packed size may expand to.

    Args:
        stream: gives the unpacked bytes.
        packed: size of the file on disk, in bytes.
        limits: how far it may grow.

    Raises:
        UnreadableError: (while reading) it grows too far.
    """

    def __init__(self, stream: IO[bytes], packed: int, limits: Limits) -> None:
        self._stream, self._packed, self._limits = stream, packed, limits
        self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(min(len(buffer), 1 << 20))
        self._given += len(data)
        check_expansion(self._given, self._packed, self._limits)
        buffer[: len(data)] = data
        return len(data)


def check_expansion(unpacked: int, packed: int, limits: Limits) -> None:
    """See that a file does not expand too far.

    Raises:
        UnreadableError: so many bytes come of so many.
    """
    if unpacked > min(max(FREE_EXPANSION, limits.expansion * packed), limits.unpacked_gb * 1e9):
        raise UnreadableError(
            f"expands to more than {limits.expansion} times its size or {limits.unpacked_gb:g} GB, as files do that are made to "
            "fill a machine",
            limits=("expansion", "unpacked_gb"),
        )


def decompressed(kind: Kind, path: Path) -> IO[bytes]:
    """The bytes of a compressed file, as they come."""
    match kind:
        case "gzip":
            return cast(IO[bytes], gzip.open(path))
        case "bzip2":
            return bz2.open(path)
        case "xz":
            return lzma.open(path)
        case _:
            import pyarrow  # noqa: PLC0415 - only for zstd

            return pyarrow.input_stream(str(path), compression="zstd")  # type: ignore[no-any-return]
