"""Watch a source's files without reading them: which ones its paths and patterns mean, and whether they changed.

Objects in S3 are listed, matched and fetched by the client of the object store (docs/adr/fsspec.md says why).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fraud_core.errors import FraudError, SourceError
from fraud_core.intake.download import head
from fraud_core.sources.limits import Limits
from fraud_core.sources.source import Source
from fraud_core.system.paths import without_escapes


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
            seen = [one if one.stamp else _asked(one.name) for one in s3_objects(pattern)]
        else:
            raise SourceError(f"{pattern}: only local paths, https:// and s3:// are read.")
        found |= {file.name: file for file in seen if file is not None}
    return [found[name] for name in sorted(found)]


def local_files(pattern: str) -> list[str]:
    """Files that a path or a glob means, sorted; `**` stands for folders at any depth. A file's own name is never a pattern."""
    for literal in (pattern, without_escapes(pattern)):
        if Path(literal).is_file():
            return [literal]
    return sorted(name for name in glob(pattern, recursive=True) if Path(name).is_file())  # noqa: PTH207 - patterns are absolute


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


# --- objects in S3 -------------------------------------------------------------------------------------------------------------


def s3_objects(pattern: str) -> list[Seen]:
    """Objects that an s3:// URL with `*`, `?`, `[ ]` or `**` means, sorted, by one listing of what begins like it.

    A URL without any of them is itself; nobody is asked about it, so that its stamp is empty.

    Raises:
        SourceError: the bucket cannot be listed.
    """
    bucket, key = _place(pattern)
    literal = re.split(r"[*?[]", key, maxsplit=1)[0]
    if literal == key:
        return [Seen(pattern, None, "")]
    matches = re.compile(_regex(key)).fullmatch
    with _asking(f"{pattern} cannot be listed") as client:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=literal)
        found = [item for page in pages for item in page.get("Contents", ()) if item["Key"] == key or matches(item["Key"])]
    return sorted(
        (Seen(f"s3://{bucket}/{item['Key']}", int(item["Size"]), str(item["ETag"])) for item in found), key=lambda one: one.name
    )


def fetch_object(url: str, target: Path) -> Path:
    """Fetch an object.

    Raises:
        SourceError: it cannot be had.
    """
    with _asking(f"{url} could not be fetched") as client:
        client.download_file(*_place(url), str(target))
    return target


def _asked(url: str) -> Seen:
    bucket, key = _place(url)
    with _asking(f"{url} cannot be asked for news") as client:
        found = client.head_object(Bucket=bucket, Key=key)
    return Seen(url, int(found["ContentLength"]), str(found["ETag"]))


def _place(url: str) -> tuple[str, str]:
    """Bucket and key."""
    return urlsplit(url).netloc, url.split("/", 3)[-1]


@contextmanager
def _asking(problem: str) -> Iterator[Any]:
    """A client; what goes wrong with it is told as this problem, by the kind of error alone: its words name the endpoint."""
    from fraud_core.storage.s3 import s3_client  # noqa: PLC0415 - only where an s3 URL is used

    try:
        yield s3_client()
    except FraudError:
        raise
    except Exception as error:
        said = getattr(error, "response", {}).get("Error", {}).get("Code", "")
        raise SourceError(f"{problem}: {type(error).__name__}{f' ({said})' if said else ''}.") from error


def _regex(pattern: str) -> str:
    """A glob as a regular expression: `*` and `?` stay within a folder, `**/` goes through any number of them."""
    parts = re.findall(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", pattern, re.DOTALL)
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(wild.get(part) or (_class(part) if len(part) > 1 else re.escape(part)) for part in parts)


def _class(brackets: str) -> str:
    inside = brackets[1:-1].replace("\\", r"\\")
    return f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside.replace('^', chr(92) + '^')}]"
