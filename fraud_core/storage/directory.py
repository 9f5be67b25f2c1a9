"""Object store in a local folder: content-addressed copies, atomic and conditional writes."""

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fraud_core.errors import IntegrityError, StoreConflictError, StoreError
from fraud_core.storage.objects import checked


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
