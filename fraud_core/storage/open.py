"""Open the object store that a URL names: a folder or an S3 bucket."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fraud_core.errors import SettingsError
from fraud_core.storage.directory import DirectoryStore
from fraud_core.storage.objects import ObjectStore


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
        from fraud_core.storage.s3 import S3Store, s3_client  # noqa: PLC0415 - boto3 is loaded only where it is used

        parts = urlsplit(url)
        if not parts.netloc or "@" in parts.netloc or parts.query or parts.fragment:  # it may hold a secret: not repeated
            raise SettingsError(
                "FRAUD_STORE must look like s3://bucket/prefix and hold nothing else; credentials come from the AWS variables."
            )
        return S3Store(parts.netloc, parts.path.strip("/"), cache, client or s3_client())
    return DirectoryStore(Path(url))
