"""Landing: every source file is read once, by its content, and its rows are routed to partitions.

So the cost of a partition does not grow with the number of files, nor that of a file with the number of partitions.
"""

import hashlib
import io
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath

import polars as pl
from pydantic import BaseModel, ConfigDict

from fraud_core.errors import IntegrityError, SourceError
from fraud_core.intake.files import Joined, SourceFile, Tally, chunks, located, read_joined
from fraud_core.intake.parsing import PARTITION, VERSION, Parsed, parse
from fraud_core.intake.repeats import Landed, find_repeats
from fraud_core.intake.values.clocks import wrong_unit
from fraud_core.signing.keys import Key
from fraud_core.sources import partitions
from fraud_core.sources.source import Source
from fraud_core.storage.artifacts import fingerprint
from fraud_core.storage.objects import ObjectStore, put_content

FLUSH_ROWS = 500_000  # rows held in memory before segments are written
FLUSH_BYTES = 512_000_000  # and bytes, whatever comes first
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

    def verified_path(self, store: ObjectStore) -> Path:
        """A local file with the rows, which were compared with their hash just now: for what is too much to hold in memory.

        Raises:
            IntegrityError: the object is gone, or is not what was landed.
        """
        store.get_hashed(self.key, self.sha256 or PurePosixPath(self.key).stem)
        return store.local_path(self.key)

    def is_whole(self, store: ObjectStore) -> bool:
        """Whether the object is what was landed."""
        try:
            self.verified_path(store)
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
    rounded: int = 0  # amounts that lost decimals, as the source says that they may
    lines: int | None = None  # that the file said it has, counted apart from `rows`; version 0.1.0 did not
    landed_at: datetime | None = None  # since when its content has been there; version 0.1.0 did not write that down

    def is_whole(self, store: ObjectStore, partition: str | None = None) -> bool:
        """Whether its rows (None: of all partitions) are in the store as they landed."""
        segments = [one for one in (*self.segments, *self.refused) if partition in (None, one.partition)]
        return all(segment.is_whole(store) for segment in segments)

    @property
    def since(self) -> datetime:
        """`landed_at`; before everything where it is not known."""
        return self.landed_at or datetime.min.replace(tzinfo=UTC)


class Landing(BaseModel):
    """All that has landed: files by name, read under one parse fingerprint."""

    model_config = ConfigDict(frozen=True)

    parse: str
    files: dict[str, LandedFile]
    repeats: tuple[Segment, ...] = ()  # rows whose id stands in another partition (see `repeats.SCHEMA`)

    def partitions(self) -> list[str]:
        """Keys of the partitions that have rows, in time order."""
        return sorted({segment.partition for file in self.files.values() for segment in file.segments})

    def segments(self, partition: str) -> list[Segment]:
        """The partition's rows: files in the order they came, then of their names; each file's rows in its own order."""
        return [segment for file in self.in_order() for segment in file.segments if segment.partition == partition]

    def refused(self, partition: str) -> list[Segment]:
        """The partition's refused rows, likewise."""
        return [segment for file in self.in_order() for segment in file.refused if segment.partition == partition]

    @property
    def kept(self) -> int:
        """How many rows were not refused."""
        return sum(segment.rows for file in self.files.values() for segment in file.segments)

    @property
    def quarantined(self) -> int:
        """How many rows were refused, with and without a usable time."""
        return sum(segment.rows for file in self.files.values() for segment in file.refused)

    def in_order(self) -> list[LandedFile]:
        """The files in the order they came; of those that came together, in the order of their names."""
        return [self.files[name] for name in sorted(self.files, key=lambda name: (self.files[name].since, name))]

    def repeated(self, partition: str) -> Segment | None:
        """The partition's rows whose id stands in another one."""
        return next((segment for segment in self.repeats if segment.partition == partition), None)

    def without_damaged(self, partition: str, store: ObjectStore) -> "Landing":
        """Without the files of which rows of this partition were damaged in the store: landing after that reads them again."""

        return self.model_copy(
            update={"files": {name: file for name, file in self.files.items() if file.is_whole(store, partition)}}
        )

    def content(self) -> str:
        """Hash of what has landed, the same under every card key."""
        digests = [segment.digest for file in self.in_order() for segment in file.segments]
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
    source: Source,
    store: ObjectStore,
    card_key: Key,
    previous: Landing | None,
    progress: Progress | None = None,
    now: datetime | None = None,
) -> Landing:
    """Read the files that are new, and return all that has landed.

    A file whose content was read before is not read again, under whatever name; a file that changed under its name takes the
    place of its former self. Segments become visible only by the returned landing, so a run that dies leaves nothing half-read.

    Args:
        source: whose files.
        store: where segments are written.
        card_key: see `parse`.
        previous: what had landed before.
        progress: is told of files and rows.
        now: the moment of landing; None: by the clock.

    Raises:
        SourceError: a file is missing or cannot be read as declared.
        IntegrityError: rows that had landed were damaged in the store, and their file is gone.
    """
    now = now or datetime.now(UTC)
    parsing = parse_fingerprint(source, card_key)
    # A file that is only read anew, by other rules, has been there all the time.
    came = {file.sha256: file.landed_at or now for file in (previous.files if previous is not None else {}).values()}
    known = previous.files if previous is not None and previous.parse == parsing else {}
    if source.simulator is not None:
        return Landing(parse=parsing, files={})
    with located(source) as files:
        second = lru_cache(lambda: read_joined(source))  # once, and only where a file is read
        present = {file.name: file.sha256 for file in files}
        read = {file.sha256: file for file in known.values()}
        # What changed under its name makes room; what it was may have gone on under another name, as rotated files do.
        landed = {name: file for name, file in known.items() if present.get(name, file.sha256) == file.sha256}
        contents = {file.sha256 for file in landed.values()}
        for file in files:
            if file.sha256 not in contents:
                landed_at = came.get(file.sha256, now)
                landed[file.name] = read.get(file.sha256) or _land_file(
                    file, source, store, card_key, landed_at, progress, second()
                )
                contents.add(file.sha256)
        landing = Landing(parse=parsing, files=landed)
        if previous is not None and previous.parse == parsing and previous.files == landed:
            return previous
        if source.columns.transaction_id is None:
            return landing
        try:
            return _with_repeats(landing, store)
        except IntegrityError:  # rows were damaged in the store; their file, if it is there, puts them right
            there = {file.sha256: file for file in files}
            for name, old in landed.items():
                if old.sha256 in there and not old.is_whole(store):
                    landed[name] = _land_file(
                        there[old.sha256], source, store, card_key, old.landed_at or now, progress, second()
                    )
        return _with_repeats(Landing(parse=parsing, files=landed), store)


def _with_repeats(landing: Landing, store: ObjectStore) -> Landing:
    """What has landed, with the rows that are refused because their id stands in another partition."""
    files = enumerate(landing.in_order())
    landed = [Landed(one.partition, came, one.verified_path(store)) for came, file in files for one in file.segments]
    written = []
    for partition, rows in sorted(find_repeats(landed).items()):
        key, sha256 = _written(store, partition, rows)
        written.append(Segment(partition=partition, key=key, rows=len(rows), digest=sha256, sha256=sha256))
    return landing.model_copy(update={"repeats": tuple(written)})


def _written(store: ObjectStore, partition: str, frame: pl.DataFrame) -> tuple[str, str]:
    """Key and hash of the object with these rows."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
    key = f"assets/landing/{partition}/{sha256[:12]}.parquet"
    put_content(store, key, buffer.getvalue())
    return key, sha256


@dataclass
class _Router:
    """Collects the rows of a file by partition, taken and refused ones, and writes them as segments when there are many."""

    store: ObjectStore
    parts: dict[tuple[str, bool], list[pl.DataFrame]] = field(default_factory=lambda: defaultdict(list))  # True: refused
    digests: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    held: int = 0
    held_bytes: int = 0
    segments: list[Segment] = field(default_factory=list)
    refusals: list[Segment] = field(default_factory=list)

    def take(self, parsed: Parsed) -> None:
        refused = parsed.refused.with_columns(pl.col(PARTITION).fill_null(UNDATED))
        for rows, are_refused in ((parsed.rows, False), (refused, True)):
            for (key,), frame in rows.partition_by(PARTITION, as_dict=True, include_key=False, maintain_order=True).items():
                self.parts[str(key), are_refused].append(frame)
                if not are_refused:
                    self.digests[str(key)].append(parsed.digest(str(key)))
            self.held += len(rows)
            self.held_bytes += int(rows.estimated_size())
        if self.held >= FLUSH_ROWS or self.held_bytes >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        for (partition, are_refused), frames in self.parts.items():
            frame = pl.concat(frames)
            key, sha256 = _written(self.store, partition, frame)
            digest = sha256 if are_refused else hashlib.sha256(b"".join(self.digests[partition])).hexdigest()
            segment = Segment(partition=partition, key=key, rows=len(frame), digest=digest, sha256=sha256)
            (self.refusals if are_refused else self.segments).append(segment)
        self.parts.clear()
        self.digests.clear()
        self.held = self.held_bytes = 0


def _land_file(
    file: SourceFile,
    source: Source,
    store: ObjectStore,
    card_key: Key,
    landed_at: datetime,
    progress: Progress | None,
    joined: Joined | None,
) -> LandedFile:
    router = _Router(store)
    rows = repaired = rounded = 0
    times: list[datetime] = []
    tally = Tally()
    for name, chunk in chunks(file, source, tally, joined):
        parsed = parse(chunk, PurePosixPath(name).name, source, card_key, landed_at)
        router.take(parsed)
        rows += len(chunk)
        repaired += parsed.repaired
        rounded += parsed.rounded
        if progress is not None:
            progress(file.name, rows)
        times += parsed.times
    router.flush()
    kept, refused = (sum(segment.rows for segment in segments) for segments in (router.segments, router.refusals))
    if times and (problem := wrong_unit(source.columns.timestamp, min(times), max(times), rows)) is not None:
        raise SourceError(f"{file.name}: {problem}.")
    if not tally.lines == rows == kept + refused:
        raise SourceError(
            f"{file.name} has {tally.lines:,} rows, of which {rows:,} were read, {kept:,} taken and {refused:,} refused; that "
            "does not tally, so none is taken. This is a fault of the intake: please report it."
        )
    return LandedFile(
        sha256=file.sha256,
        size=file.size,
        rows=rows,
        lines=tally.lines,
        repaired=repaired,
        rounded=rounded,
        segments=tuple(router.segments),
        refused=tuple(router.refusals),
        landed_at=landed_at,
    )
