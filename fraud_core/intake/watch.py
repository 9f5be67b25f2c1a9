"""Watch a source's files without reading them: what is there, and whether it changed."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fraud_core.errors import SourceError
from fraud_core.intake.download import head
from fraud_core.intake.files import local_files, s3_urls
from fraud_core.sources.limits import Limits
from fraud_core.sources.source import Source


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
            seen = [_local(name) for name in local_files(pattern)]
        elif scheme == "https":
            seen = [_on_the_web(pattern, source.limits)]
        elif scheme == "s3":
            seen = [_in_a_bucket(url) for url in s3_urls(pattern)]
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


def _on_the_web(url: str, limits: Limits) -> Seen:
    headers = head(url, limits)
    length = headers.get("content-length")
    stamp = f"{headers.get('etag')} {headers.get('last-modified')} {length}"
    return Seen(url, None if length is None else int(length), stamp)


def _in_a_bucket(url: str) -> Seen:
    from fraud_core.storage.s3 import s3_client  # noqa: PLC0415 - only where an s3 URL is used

    try:
        found = s3_client().head_object(Bucket=urlsplit(url).netloc, Key=url.split("/", 3)[-1])
        return Seen(url, int(found["ContentLength"]), str(found["ETag"]))
    except Exception as error:
        raise SourceError(f"{url} cannot be asked for news: {type(error).__name__}.") from error
