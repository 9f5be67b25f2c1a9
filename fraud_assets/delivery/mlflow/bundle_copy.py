"""The copy of a serving bundle that MLflow holds: the same files, without pickle, checked for being whole."""

import hashlib
from pathlib import Path

from fraud_core.models.bundle import Bundle, read_bundle, write_bundle
from fraud_core.models.registry import versions
from fraud_core.signing.keys import Key
from fraud_core.storage.directory import DirectoryStore

# No secret: whoever has a copy may read it. What serves payments reads the bundle in the store instead, which this installation
# has signed.
PUBLIC_KEY = Key(hashlib.sha256(b"a copy of the bundle, for MLflow").digest())


def write_copy(bundle: Bundle, folder: Path) -> None:
    """Write a bundle's files into a folder."""
    write_bundle(DirectoryStore(folder), bundle, PUBLIC_KEY)


def read_copy(folder: Path) -> Bundle:
    """Read the bundle in a folder.

    Raises:
        IntegrityError: a file is missing or changed.
    """
    store = DirectoryStore(folder)
    (version,) = versions(store, PUBLIC_KEY)
    return read_bundle(store, version, PUBLIC_KEY)
