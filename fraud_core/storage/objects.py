"""The object store: a directory or an S3 bucket, behind one small protocol. Keys are slash-separated and relative."""

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from fraud_core.errors import IntegrityError

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
