"""The object store: a directory or an S3 bucket, behind one small protocol. Keys are slash-separated and relative."""

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from fraud_core.errors import StoreConflictError, StoreError


class ObjectStore(Protocol):
    """What the product needs of a store. Every write is atomic: a reader sees the old object or the new one."""

    url: str

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises KeyError where there is none."""
        ...

    def get_tagged(self, key: str) -> tuple[bytes, str] | None:
        """The object's bytes and its entity tag, for a conditional write; None where there is none."""
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
        """A local file with the object's bytes, to scan or map. Only for write-once keys. Raises KeyError where there is none."""
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
    """
    if url.startswith("s3://"):
        parts = urlsplit(url)
        return S3Store(parts.netloc, parts.path.strip("/"), cache, client or s3_client())
    return DirectoryStore(Path(url))


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


class S3Store:
    """A store in an S3 bucket, under a prefix. Conditional writes use If-Match and If-None-Match."""

    def __init__(self, bucket: str, prefix: str, cache: Path, client: Any) -> None:
        self.bucket, self.prefix, self.cache, self.client = bucket, prefix, cache, client
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")

    def get(self, key: str) -> bytes:
        found = self.get_tagged(key)
        if found is None:
            raise KeyError(key)
        return found[0]

    def get_tagged(self, key: str) -> tuple[bytes, str] | None:
        with self._explained(key):
            try:
                answer = self.client.get_object(Bucket=self.bucket, Key=self._key(key))
            except self.client.exceptions.NoSuchKey:
                return None
            return answer["Body"].read(), answer["ETag"]

    def put(self, key: str, data: bytes) -> None:
        with self._explained(key):
            self.client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data)

    def put_if(self, key: str, data: bytes, tag: str | None) -> None:
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        with self._explained(key):
            self.client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, **condition)

    def exists(self, key: str) -> bool:
        with self._explained(key):
            found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self._key(key), MaxKeys=1)
            return any(item["Key"] == self._key(key) for item in found.get("Contents", ()))

    def list(self, prefix: str) -> Iterator[str]:
        cut = len(self._key(""))
        with self._explained(prefix):
            pages = self.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self._key(f"{prefix.rstrip('/')}/" if prefix else "")):
                for item in page.get("Contents", ()):
                    yield item["Key"][cut:]

    def local_path(self, key: str) -> Path:
        path = self.cache / hashlib.sha256(f"{self.url}/{key}".encode()).hexdigest() / Path(key).name
        if not path.is_file():
            data = self.get(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".draft-{secrets.token_hex(8)}")
            draft.write_bytes(data)
            draft.replace(path)
        return path

    def uri(self, key: str) -> str:
        return f"{self.url}/{key}"

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - only where an s3 URL is used

        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            # For If-Match on an object that is gone, AWS says NoSuchKey; reading has its own answer to that.
            if code in {"PreconditionFailed", "ConditionalRequestConflict", "412", "409", "NoSuchKey"}:
                raise StoreConflictError(f"{self.uri(key)} was written by somebody else in between.") from error
            raise StoreError(f"{self.uri(key)}: {_S3_ADVICE.get(code, f'the S3 server answers {code}.')}") from error
        except BotoCoreError as error:
            raise StoreError(f"{self.uri(key)}: the S3 endpoint cannot be reached ({type(error).__name__}).") from error


_S3_ADVICE = {
    "NoSuchBucket": "there is no such bucket; create it, or correct FRAUD_STORE.",
    "AccessDenied": "these credentials may not do this; see the bucket policies in docs/.",
    "403": "these credentials may not do this; see the bucket policies in docs/.",
    "InvalidAccessKeyId": "the access key is not known there; correct AWS_ACCESS_KEY_ID.",
    "SignatureDoesNotMatch": "the secret key does not fit the access key; correct AWS_SECRET_ACCESS_KEY.",
    "RequestTimeTooSkewed": "this machine's clock is off by more than the server tolerates; set it (NTP).",
}


def s3_client() -> Any:
    """A boto3 S3 client made from the standard AWS variables and profiles, with time-outs and bounded retries."""
    import boto3  # noqa: PLC0415 - only where an s3 URL is used
    from botocore.config import Config  # noqa: PLC0415

    return boto3.client("s3", config=Config(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "max_attempts": 4}))


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
