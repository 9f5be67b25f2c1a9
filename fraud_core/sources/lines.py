"""On which line of a TOML something is declared, so that an error names it."""

import re
from collections.abc import Iterator, Sequence

_HEADER = re.compile(r"^\s*(\[\[?)\s*(.+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_ASSIGNED = re.compile(rf"^\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*=")
_PART = re.compile(_KEY)


def line_of(text: str, place: Sequence[str | int]) -> int | None:
    """The line on which a value is declared, from 1; of what is not there itself, the line of the table that it belongs to.

    Args:
        text: the TOML.
        place: the keys that lead to it, with numbers for places in lists of tables, as pydantic tells them.
    """
    wanted = tuple(str(part) for part in place)
    best, line = 0, None
    for number, path in _declared(text):
        shared = len(path) if path == wanted[: len(path)] else 0
        if shared > best:
            best, line = shared, number
    return line


def _declared(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and full path of every header and every key."""
    table: tuple[str, ...] = ()
    counts: dict[tuple[str, ...], int] = {}
    quoted = ""  # the mark that closes a text of several lines
    for number, line in enumerate(text.splitlines(), start=1):
        if quoted:
            quoted = "" if quoted in line else quoted
            continue
        header = _HEADER.match(line)
        if header is not None and "=" not in header[2].split('"')[0]:
            table = _path(header[2])
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, str(counts[table]))
            yield number, table
            continue
        assigned = _ASSIGNED.match(line)
        if assigned is not None:
            yield number, (*table, *_path(assigned[1]))
            rest = line[assigned.end() :]
            quoted = next((mark for mark in ('"""', "'''") if rest.count(mark) % 2), "")


def _path(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))
