"""Looking at a source's files without reading them: what is there, and whether it changed."""

import urllib.request
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from urllib.parse import urlsplit

from fraud_core.errors import SourceError
from fraud_core.sources import Source

PATIENCE = 10.0  # seconds that a remote server may take


@dataclass(frozen=True)
class Seen:
    """A file by its name, size in bytes (None: not told), and whatever changes when it does."""

    name: str
    size: int | None
    stamp: str


def look(source: Source) -> list[Seen]:
    """The source's files at present, by name; none for the simulator, and none where a pattern matches nothing.

    Raises:
        SourceError: a remote file cannot be asked about.
    """
    found: dict[str, Seen] = {}
    for pattern in source.paths:
        scheme = urlsplit(pattern).scheme if "://" in pattern else ""
        if not scheme:
            seen = [_local(name) for name in glob(pattern, recursive=True)]  # noqa: PTH207 - patterns are absolute
        elif scheme in {"https", "s3"}:
            seen = [_remote(pattern, scheme)]
        else:
            raise SourceError(f"{pattern}: only local paths, https:// and s3:// are read.")
        found |= {file.name: file for file in seen if file is not None}
    return [found[name] for name in sorted(found)]


def _local(name: str) -> Seen | None:
    try:
        stat = Path(name).stat()
    except FileNotFoundError:
        return None  # it went between being listed and looked at
    return Seen(name, stat.st_size, f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ino}")


def _remote(url: str, scheme: str) -> Seen:
    try:
        if scheme == "s3":
            from fraud_core.stores.s3 import s3_client  # noqa: PLC0415 - only where an s3 URL is used

            parts = urlsplit(url)
            head = s3_client().head_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))
            return Seen(url, int(head["ContentLength"]), str(head["ETag"]))
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - https only
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310 - https only
            length = answer.headers["Content-Length"]
            stamp = f"{answer.headers['ETag']} {answer.headers['Last-Modified']} {length}"
            return Seen(url, None if length is None else int(length), stamp)
    except Exception as error:
        raise SourceError(f"{url} cannot be asked for news: {type(error).__name__}.") from error
