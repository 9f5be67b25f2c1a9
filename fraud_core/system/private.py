"""File permissions of the home: its databases, keys and payments are their owner's alone (700 and 600) and no commit's."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fraud_core.settings import Settings

OTHERS = 0o077  # whatever group and others may do


def keep_private(settings: Settings) -> str | None:
    """Let nobody else read what this process, and any that it starts, writes; and take from others what they could read.

    A store in a folder outside the home that others may enter is shared on purpose: then what is written keeps the rights that
    the caller's umask leaves, and only the home is closed. A home that is somebody's whole home directory is left as it is.

    Returns:
        What had to be repaired, as a sentence; None: nothing.
    """
    if not _is_shared(settings):
        os.umask(OTHERS)
    home = settings.home
    keep_out_of_git(home)
    if not home.is_dir() or home in (Path("/"), Path.home()) or not any(_is_open(path) for path in (home, *home.iterdir())):
        return None
    closed = sum(_close(path) for path in (home, *_below(home)))
    return (
        f"{home} could be read by others: it, and what is in it ({closed} in all), is its owner's alone now." if closed else None
    )


def keep_out_of_git(home: Path) -> None:
    """Let no `git add .` take what lies in a home, which has keys: it gets a `.gitignore` of its own, unless it has one.

    A folder that is somebody's whole home directory, or a repository itself, is left as it is.
    """
    ignored = home / ".gitignore"
    if home.is_dir() and home not in (Path("/"), Path.home()) and not (home / ".git").exists() and not ignored.exists():
        with suppress(OSError):  # a home that is mounted for reading alone
            ignored.write_text("*\n")


def _is_shared(settings: Settings) -> bool:
    if settings.store.startswith("s3://") or not settings.store:
        return False
    store = Path(settings.store).resolve()
    return not store.is_relative_to(settings.home) and store.is_dir() and _is_open(store)


def _is_open(path: Path) -> bool:
    """Whether others have any right to a file or folder; a link has none of its own."""
    try:
        mode = path.lstat().st_mode
    except OSError:  # it is gone again
        return False
    return not stat.S_ISLNK(mode) and bool(mode & OTHERS)


def _close(path: Path) -> int:
    """Take others' rights; 1 where they had any and it is ours to do so, else 0."""
    if _is_open(path):
        with suppress(OSError):  # somebody else's, or gone again
            path.chmod(stat.S_IMODE(path.lstat().st_mode) & ~OTHERS)
            return 1
    return 0


def _below(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):  # does not follow links
        yield from (Path(where) / name for name in (*folders, *files))
