"""Paths that other people's programs can take: a plain name for a folder whose own holds brackets, `#`, `?`, `%` and the like."""

import hashlib
import os
import re
import stat
import tempfile
from glob import escape, has_magic
from pathlib import Path

from fraud_core.errors import SettingsError

_PLAIN = frozenset("/._-+@=~ ")  # beside letters and digits of any script


def plain(folder: Path) -> Path:
    """The folder itself where its path is plain, else a link to it whose path is.

    Dagster and Prometheus look for their files with this path as a pattern, and write it into URLs and configuration as it is.
    The link lies in the user's cache, in a folder that nobody else can write to, and is always the same for a folder. What is
    stored for good must not name it.

    Args:
        folder: absolute; made if it is not there and its path is not plain.

    Raises:
        SettingsError: there is nowhere that such a link could lie.
    """
    if _is_plain(str(folder)):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    link = _links() / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    if not (link.is_symlink() and link.readlink() == folder):
        draft = link.with_name(f".{link.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        draft.symlink_to(folder)
        draft.replace(link)
    return link


def _is_plain(path: str) -> bool:
    return all(character.isalnum() or character in _PLAIN for character in path)


def _links() -> Path:
    """Our own folder for links."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for place in (cache / "fraud", Path(tempfile.gettempdir()) / f"fraud-{os.getuid()}", Path(f"/tmp/fraud-{os.getuid()}")):  # noqa: S108
        if not (place.is_absolute() and _is_plain(str(place))):
            continue
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = place.lstat()
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
            return place
    raise SettingsError(
        "The path of FRAUD_HOME has characters that Dagster cannot take, and there is no folder for a link to it. "
        "Let XDG_CACHE_HOME name a folder of yours whose path has none."
    )


def absolute_pattern(folder: Path, pattern: str) -> str:
    """A glob as an absolute one. Only what stands in the pattern is a wildcard: names of folders that are there are just names.

    Args:
        folder: what a relative pattern is relative to; its own name may hold brackets.
        pattern: a path or a glob.
    """
    base, wild = folder.resolve(), Path(pattern)
    if wild.is_absolute():
        base, wild = Path(wild.anchor), wild.relative_to(wild.anchor)
    parts = list(wild.parts)
    while parts and (not has_magic(parts[0]) or (len(parts) > 1 and (base / parts[0]).is_dir())):
        base /= parts.pop(0)
    return os.path.join(escape(str(base.resolve())), *parts)  # noqa: PTH118 - a pattern


def without_escapes(pattern: str) -> str:
    """The name that a glob stands for if it has no wildcard."""
    return _ESCAPED.sub(r"\1", pattern)


_ESCAPED = re.compile(r"\[([*?[])\]")
