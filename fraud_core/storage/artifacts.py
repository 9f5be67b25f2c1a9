"""Artifacts of the assets in the object store: content-addressed files, and a signed pointer to the current one, written last.

So a re-materialization never harms what was there before, and what is read back is what this installation wrote.
"""

import hashlib
import io
import json
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict

from fraud_core.errors import IntegrityError, PartitionError, SourceError, StoreConflictError
from fraud_core.signing.documents import open_document, signed_document
from fraud_core.signing.keys import Key, canonical_json
from fraud_core.storage.heads import Heads
from fraud_core.storage.index import Index
from fraud_core.storage.objects import ObjectStore, put_content

INDEXED = ("raw", "transformed")  # assets whose pointers stand in an index
OWNER = "source.json"  # names the source that a store belongs to


class Table(BaseModel):
    """A table on its way into the store.

    Attributes:
        frame: the rows.
        content: hash of what the rows say, the same under every card key; verdicts and manifests name it.
        inputs: hash of everything the rows were made from; while it stays, the table need not be made again.
        facts: counts and such, for people.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    frame: pl.DataFrame
    content: str
    inputs: str
    facts: dict[str, int | float | str] = {}


class Document(BaseModel):
    """A JSON document on its way into the store."""

    model_config = ConfigDict(frozen=True)

    body: dict[str, Any]
    content: str
    facts: dict[str, int | float | str] = {}


class Estimator(BaseModel):
    """A fitted object on its way into the store, as joblib."""

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    fitted: Any
    inputs: str
    facts: dict[str, int | float | str] = {}


class Pointer(BaseModel):
    """What the store holds of an asset (and partition) at present."""

    model_config = ConfigDict(frozen=True)

    asset: str
    partition: str | None
    format: Literal["parquet", "json", "joblib"]
    key: str
    sha256: str
    size: int
    rows: int | None
    content: str
    inputs: str
    facts: dict[str, int | float | str]


class Artifacts:
    """The assets' artifacts in a store that belongs to one source."""

    def __init__(self, store: ObjectStore, signing_key: Key, heads: Heads | None = None) -> None:
        self.store = store
        self.signing_key = signing_key
        self.heads = heads

    def claim(self, source_name: str) -> None:
        """Write the source's name into a new store.

        Raises:
            SourceError: the store belongs to another source.
        """
        mine = canonical_json({"source": source_name})
        if self.store.get_tagged(OWNER) is None:
            with suppress(StoreConflictError):  # somebody else claimed it just now: for whom, is read below
                self.store.put_if(OWNER, mine, None)
        owner = json.loads(self.store.get(OWNER))["source"]
        if owner != source_name:
            raise SourceError(
                f"The store {self.store.url} belongs to the source '{owner}', not to '{source_name}'. "
                "One source a store: give another FRAUD_HOME (or --home), or another FRAUD_STORE."
            )

    def check_writable(self) -> None:
        """Learn before any work is done whether the store takes writes, by asking for one that must lose and changes nothing.

        Raises:
            StoreError: it does not, or cannot be reached.
        """
        with suppress(StoreConflictError):
            self.store.put_if(OWNER, self.store.get(OWNER), None)

    def write(self, asset: str, partition: str | None, value: Table | Document | Estimator) -> Pointer:
        """Write an artifact under its content's hash, then point at it."""
        match value:
            case Table():
                extension, data = "parquet", _parquet(value.frame)
            case Document():
                extension, data = "json", canonical_json(value.body)
            case Estimator():
                extension, data = "joblib", _joblib(value.fitted)
        sha256 = hashlib.sha256(data).hexdigest()
        key = f"{_folder(asset, partition)}/{sha256[:12]}.{extension}"
        put_content(self.store, key, data)
        pointer = Pointer.model_validate(
            {
                "asset": asset,
                "partition": partition,
                "format": extension,
                "key": key,
                "sha256": sha256,
                "size": len(data),
                "rows": len(value.frame) if isinstance(value, Table) else None,
                "content": sha256 if isinstance(value, Estimator) else value.content,
                "inputs": "" if isinstance(value, Document) else value.inputs,
                "facts": value.facts,
            }
        )
        where, signed = f"{_folder(asset, partition)}/latest.json", signed_document(pointer, self.signing_key)
        if (self.store.get_tagged(where) or (b"",))[0] != signed:
            with self.index(asset).writing(partition) if asset in INDEXED and partition else nullcontext():
                self.store.put(where, signed)
        return pointer

    def pointer(self, asset: str, partition: str | None = None) -> Pointer | None:
        """The pointer of an asset, None where nothing was materialized.

        Raises:
            IntegrityError: the pointer's signature does not hold.
        """
        key = f"{_folder(asset, partition)}/latest.json"
        found = self.store.get_tagged(key)
        if found is None:
            return None
        return open_document(Pointer, found[0], self.signing_key, self.store.uri(key), asset=asset, partition=partition)

    def pointers(self, asset: str) -> dict[str, Pointer]:
        """The pointers of all materialized partitions of an asset, by key, in time order."""
        found = {partition: self.pointer(asset, partition) for partition in self._partitions(asset)}
        return {partition: pointer for partition, pointer in found.items() if pointer is not None}

    def index(self, asset: str) -> Index[Pointer]:
        """The index of a partitioned asset (see `INDEXED`), for planning."""
        listed, read = partial(self._partitions, asset), partial(self.pointer, asset)
        return Index(asset, Pointer, self.store, self.signing_key, self.heads, listed, read)

    def scan(self, asset: str, partition: str | None = None) -> pl.LazyFrame:
        """The rows of an asset's table (or of one partition), as they were written: the file is checked at once, in memory.

        Raises:
            IntegrityError: the file is gone, or is not the one that the signed pointer names.
            PartitionError: it was not materialized.
        """
        return pl.scan_parquet(self._verified(self._required(asset, partition)))

    def document(self, asset: str) -> dict[str, Any] | None:
        """The JSON document of an asset, None where nothing was materialized."""
        pointer = self.pointer(asset)
        return None if pointer is None else json.loads(self._verified(pointer))

    def estimator(self, asset: str) -> Any:
        """The fitted object of an asset. Its bytes are verified against the signed pointer before they are unpickled.

        Raises:
            IntegrityError: they are not what this installation wrote.
            PartitionError: nothing was materialized.
        """
        return self.fitted(self._required(asset, None))

    def fitted(self, pointer: Pointer) -> Any:
        """The fitted object that a pointer names, be it the current one or an earlier.

        Args:
            pointer: read from something signed; it alone says which bytes may be unpickled.

        Raises:
            IntegrityError: the bytes are not those that were written, or are gone.
        """
        from fraud_core.storage import former_names  # noqa: PLC0415 - the scorer never comes here, and must not load it

        return former_names.load(self._verified(pointer))

    def _partitions(self, asset: str) -> list[str]:
        names = [key.split("/") for key in self.store.list(f"assets/{asset}")]
        return sorted(name[2] for name in names if len(name) == 4 and name[3] == "latest.json")

    def _required(self, asset: str, partition: str | None) -> Pointer:
        pointer = self.pointer(asset, partition)
        if pointer is None:
            what = f"{asset} {partition}" if partition else asset
            raise PartitionError(f"{what} was not materialized yet; materialize it first.")
        return pointer

    def _verified(self, pointer: Pointer) -> bytes:
        try:
            return self.store.get_hashed(pointer.key, pointer.sha256)
        except IntegrityError as error:
            what = f"{pointer.asset} {pointer.partition}" if pointer.partition else pointer.asset
            raise IntegrityError(f"{error} Materialize {what} again, which puts it right.") from None


def fingerprint(*parts: str | bytes) -> str:
    """SHA-256 over parts, each with its length, in hex."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def _folder(asset: str, partition: str | None) -> str:
    return f"assets/{asset}/{partition}" if partition else f"assets/{asset}"


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()


def _joblib(fitted: Any) -> bytes:
    import joblib  # noqa: PLC0415 - the scorer never comes here, and must not load it

    buffer = io.BytesIO()
    joblib.dump(fitted, buffer)
    return buffer.getvalue()
