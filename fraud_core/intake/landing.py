"""Landing: every source file is read once, by its content, and its rows are routed to partitions.

So the cost of a partition does not grow with the number of files, nor that of a file with the number of partitions.
"""

import hashlib
import io
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import polars as pl
from pydantic import BaseModel, ConfigDict

from fraud_core import partitions
from fraud_core.artifacts import fingerprint
from fraud_core.errors import IntegrityError
from fraud_core.intake.files import SourceFile, chunks, located
from fraud_core.intake.parsing import PARTITION, VERSION, Parsed, parse
from fraud_core.keys import Key
from fraud_core.sources import Source
from fraud_core.stores.objects import ObjectStore, put_content

FLUSH_ROWS = 500_000  # rows held in memory before segments are written
UNDATED = "_undated"  # where refused rows without a usable time go

Progress = Callable[[str, int], None]  # (file, rows read so far)


class Segment(BaseModel):
    """Rows of one file for one partition, in one object."""

    model_config = ConfigDict(frozen=True)

    partition: str
    key: str
    rows: int
    digest: str  # of the rows before keying; of refused rows: of the object
    sha256: str = ""  # of the object; empty where release 0.1.0 wrote it: then its name has the first 12 digits

    def read(self, store: ObjectStore) -> pl.DataFrame:
        """The rows.

        Raises:
            IntegrityError: the object is gone, or is not what was landed.
        """
        return pl.read_parquet(store.get_hashed(self.key, self.sha256 or PurePosixPath(self.key).stem))

    def is_whole(self, store: ObjectStore) -> bool:
        """Whether the object is what was landed."""
        try:
            store.get_hashed(self.key, self.sha256 or PurePosixPath(self.key).stem)
        except IntegrityError:
            return False
        return True


class LandedFile(BaseModel):
    """One file that was read."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    size: int
    rows: int
    repaired: int
    segments: tuple[Segment, ...]
    refused: tuple[Segment, ...]


class Landing(BaseModel):
    """All that has landed: files by name, read under one parse fingerprint."""

    model_config = ConfigDict(frozen=True)

    parse: str
    files: dict[str, LandedFile]

    def partitions(self) -> list[str]:
        """Keys of the partitions that have rows, in time order."""
        return sorted({segment.partition for file in self.files.values() for segment in file.segments})

    def segments(self, partition: str) -> list[Segment]:
        """The partition's rows: files in name order, each file's in its own order."""
        return [s for name in sorted(self.files) for s in self.files[name].segments if s.partition == partition]

    def refused(self, partition: str) -> list[Segment]:
        """The partition's refused rows, likewise."""
        return [s for name in sorted(self.files) for s in self.files[name].refused if s.partition == partition]

    def without_damaged(self, partition: str, store: ObjectStore) -> "Landing":
        """Without the files of which rows of this partition were damaged in the store: landing after that reads them again."""

        def is_whole(file: LandedFile) -> bool:
            return all(segment.is_whole(store) for segment in (*file.segments, *file.refused) if segment.partition == partition)

        return self.model_copy(update={"files": {name: file for name, file in self.files.items() if is_whole(file)}})

    def content(self) -> str:
        """Hash of what has landed, the same under every card key."""
        digests = [s.digest for name in sorted(self.files) for s in self.files[name].segments]
        return fingerprint(*digests)


def partition_keys(source: Source, landing: Landing | None) -> list[str]:
    """The source's partitions, in time order: all of a closed source; of an open one, from the first with rows to the last.

    A partition between these without rows is one too, so that whoever looks back over it knows that nothing happened.
    """
    if not source.is_open:
        return source.keys
    landed = landing.partitions() if landing is not None else []
    return partitions.key_range(landed[0], landed[-1], source.cadence) if landed else []


def parse_fingerprint(source: Source, card_key: Key) -> str:
    """Under which rules, declaration and card key files are read; when it changes, they are read anew."""
    return fingerprint(VERSION, source.parse_fingerprint(), card_key.id)


def land(
    source: Source, store: ObjectStore, card_key: Key, previous: Landing | None, progress: Progress | None = None
) -> Landing:
    """Read the files that are new, and return all that has landed.

    A file whose content was read before is not read again, under whatever name; a file that changed under its name takes the
    place of its former self. Segments become visible only by the returned landing, so a run that dies leaves nothing half-read.

    Raises:
        SourceError: a file is missing or cannot be read as declared.
    """
    parsing = parse_fingerprint(source, card_key)
    known = previous.files if previous is not None and previous.parse == parsing else {}
    if source.simulator is not None:
        return Landing(parse=parsing, files={})
    with located(source) as files:
        present = {file.name: file.sha256 for file in files}
        read = {file.sha256: file for file in known.values()}
        # What changed under its name makes room; what it was may have gone on under another name, as rotated files do.
        landed = {name: file for name, file in known.items() if present.get(name, file.sha256) == file.sha256}
        contents = {file.sha256 for file in landed.values()}
        for file in files:
            if file.sha256 not in contents:
                landed[file.name] = read.get(file.sha256) or _land_file(file, source, store, card_key, progress)
                contents.add(file.sha256)
    return Landing(parse=parsing, files=landed)


@dataclass
class _Router:
    """Collects the rows of a file by partition and writes them as segments when there are many."""

    store: ObjectStore
    rows: dict[str, list[pl.DataFrame]] = field(default_factory=lambda: defaultdict(list))
    digests: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    refused: dict[str, list[pl.DataFrame]] = field(default_factory=lambda: defaultdict(list))
    held: int = 0
    segments: list[Segment] = field(default_factory=list)
    refusals: list[Segment] = field(default_factory=list)

    def take(self, parsed: Parsed) -> None:
        for (key,), frame in parsed.rows.partition_by(PARTITION, as_dict=True, include_key=False, maintain_order=True).items():
            self.rows[str(key)].append(frame)
            self.digests[str(key)].append(parsed.digest(str(key)))
        refused = parsed.refused.with_columns(pl.col(PARTITION).fill_null(UNDATED))
        for (key,), frame in refused.partition_by(PARTITION, as_dict=True, include_key=False, maintain_order=True).items():
            self.refused[str(key)].append(frame)
        self.held += len(parsed.rows) + len(parsed.refused)
        if self.held >= FLUSH_ROWS:
            self.flush()

    def flush(self) -> None:
        for key, frames in self.rows.items():
            self.segments.append(self._write(key, frames, hashlib.sha256(b"".join(self.digests[key])).hexdigest()))
        for key, frames in self.refused.items():
            self.refusals.append(self._write(key, frames, None))
        self.rows.clear()
        self.digests.clear()
        self.refused.clear()
        self.held = 0

    def _write(self, partition: str, frames: list[pl.DataFrame], digest: str | None) -> Segment:
        frame = pl.concat(frames)
        buffer = io.BytesIO()
        frame.write_parquet(buffer, compression="zstd")
        sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
        key = f"assets/landing/{partition}/{sha256[:12]}.parquet"
        put_content(self.store, key, buffer.getvalue())
        return Segment(partition=partition, key=key, rows=len(frame), digest=digest or sha256, sha256=sha256)


def _land_file(file: SourceFile, source: Source, store: ObjectStore, card_key: Key, progress: Progress | None) -> LandedFile:
    router = _Router(store)
    rows = repaired = 0
    for name, chunk in chunks(file, source):
        parsed = parse(chunk, PurePosixPath(name).name, source, card_key)
        router.take(parsed)
        rows += len(chunk)
        repaired += parsed.repaired
        if progress is not None:
            progress(file.name, rows)
    router.flush()
    return LandedFile(
        sha256=file.sha256,
        size=file.size,
        rows=rows,
        repaired=repaired,
        segments=tuple(router.segments),
        refused=tuple(router.refusals),
    )
