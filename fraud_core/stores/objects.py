"""The object store: a directory or an S3 bucket, behind one small protocol. Keys are slash-separated and relative."""

import fcntl
import hashlib
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from fraud_core.errors import IntegrityError, SettingsError, StoreConflictError, StoreError

_LOG = logging.getLogger(__name__)


class ObjectStore(Protocol):
    """What the product needs of a store. Every write is atomic: a reader sees the old object or the new one."""

    url: str

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises KeyError where there is none."""
        ...

    def get_tagged(self, key: str) -> tuple[bytes, str] | None:
        """The object's bytes and its entity tag, for a conditional write; None where there is none."""
        ...

    def get_changed(self, key: str, tag: str | None) -> tuple[bytes, str] | None:
        """The object's bytes and tag; None where it still has this tag. Costs next to nothing then. Raises KeyError likewise."""
        ...

    def get_hashed(self, key: str, sha256: str) -> bytes:
        """The bytes of an object with this SHA-256 (hex, or its begin), in memory: nobody can change them before their use.

        What was fetched from afar is kept as a local copy, which is checked likewise, and fetched anew where it was damaged.

        Raises:
            IntegrityError: the object is gone or has another hash.
        """
        ...

    def put(self, key: str, data: bytes) -> None:
        """Write or replace the object."""
        ...

    def put_if(self, key: str, data: bytes, tag: str | None) -> None:
        """Write only if the object still has this tag (None: only if there is no object).

        Raises:
            StoreConflictError: somebody else wrote it.
        """
        ...

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Keys below the prefix, sorted."""
        ...

    def local_path(self, key: str) -> Path:
        """A local file with the object's bytes, for tools that want a path; what is read here is read by `get_hashed`.

        Only for objects named by their content's SHA-256, or its begin.

        Raises:
            KeyError: there is none.
            IntegrityError: what was fetched does not have the hash it is named by.
        """
        ...

    def uri(self, key: str) -> str:
        """Where the object lies, for people."""
        ...


def open_store(url: str, cache: Path, client: Any = None) -> ObjectStore:
    """Open the store at a directory path or ``s3://bucket/prefix``.

    Args:
        url: the store.
        cache: folder for local copies of remote objects.
        client: a boto3 S3 client to use; made from the standard AWS variables where none is given.

    Raises:
        SettingsError: the URL is not one of these, or the AWS variables contradict each other.
    """
    if url.startswith("s3://"):
        from fraud_core.stores.s3 import S3Store, s3_client  # noqa: PLC0415 - boto3 is loaded only where it is used

        parts = urlsplit(url)
        if not parts.netloc or "@" in parts.netloc or parts.query or parts.fragment:  # it may hold a secret: not repeated
            raise SettingsError(
                "FRAUD_STORE must look like s3://bucket/prefix and hold nothing else; credentials come from the AWS variables."
            )
        return S3Store(parts.netloc, parts.path.strip("/"), cache, client or s3_client())
    return DirectoryStore(Path(url))


def checked(data: bytes, sha256: str, uri: str) -> bytes:
    """The bytes, which have this SHA-256 (hex, or its begin).

    Raises:
        IntegrityError: they do not.
    """
    if not sha256 or not hashlib.sha256(data).hexdigest().startswith(sha256):
        raise IntegrityError(f"{uri} is not the file that was written; it is not loaded.")
    return data


def put_content(store: ObjectStore, key: str, data: bytes) -> None:
    """Write what its content names, unless it is there already. What was damaged or replaced is put right, and logged."""
    found = store.get_tagged(key)
    if found is not None and found[0] == data:
        return
    if found is not None:
        _LOG.warning("%s was not what its name says; it was replaced by what it should be.", store.uri(key))
    store.put(key, data)


class DirectoryStore:
    """A store in a local directory. Writes go to a temporary file, are flushed to disk, and renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.url = str(self.root)

    def get(self, key: str) -> bytes:
        path = self._path(key)
        try:
            return path.read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise KeyError(key) from None
        except OSError as error:
            raise StoreError(f"Cannot read {path}: {error.strerror or error}.") from error

    def get_tagged(self, key: str) -> tuple[bytes, str] | None:
        try:
            data = self.get(key)
        except KeyError:
            return None
        return data, _tag(data)

    def get_changed(self, key: str, tag: str | None) -> tuple[bytes, str] | None:
        data = self.get(key)
        found = _tag(data)
        return None if found == tag else (data, found)

    def get_hashed(self, key: str, sha256: str) -> bytes:
        try:
            data = self.get(key)
        except KeyError:
            raise IntegrityError(f"{self.uri(key)} is gone.") from None
        return checked(data, sha256, self.uri(key))

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with self._draft(path, data) as draft:
            draft.replace(path)

    def put_if(self, key: str, data: bytes, tag: str | None) -> None:
        path = self._path(key)
        with self._draft(path, data) as draft:
            if tag is None:
                try:
                    os.link(draft, path)  # atomic: fails where the object exists
                except FileExistsError:
                    raise StoreConflictError(f"{self.uri(key)} exists already.") from None
                return
            with self._lock():
                current = self.get_tagged(key)
                if current is None or current[1] != tag:
                    raise StoreConflictError(f"{self.uri(key)} was changed by somebody else in between.")
                draft.replace(path)

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        folder = self._path(prefix)
        if not folder.is_dir():
            return
        found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        yield from sorted(path.relative_to(self.root).as_posix() for path in found)

    def local_path(self, key: str) -> Path:
        path = self._path(key)
        if not path.is_file():
            raise KeyError(key)
        return path

    def uri(self, key: str) -> str:
        return str(self._path(key))

    def _path(self, key: str) -> Path:
        path = (self.root / key).resolve()
        if not path.is_relative_to(self.root):
            raise StoreError(f"The key {key!r} leads out of the store.")
        return path

    @contextmanager
    def _draft(self, path: Path, data: bytes) -> Iterator[Path]:
        """A file with the data, flushed to disk, to be moved to the path; what is left of it is removed."""
        draft = path.parent / f".draft-{secrets.token_hex(8)}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield draft
        except OSError as error:
            raise StoreError(f"Cannot write {path}: {error.strerror or error}. Nothing was changed.") from error
        finally:
            with suppress(OSError):  # what went wrong before is what is told
                draft.unlink(missing_ok=True)
        _flush_folder(path.parent)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.root / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _flush_folder(folder: Path) -> None:
    """Make a rename in the folder outlive a power failure."""
    try:
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
    except OSError as error:
        raise StoreError(f"{folder} was written to, but the disk does not confirm it: {error.strerror or error}.") from error


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
