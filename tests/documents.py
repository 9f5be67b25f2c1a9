"""README and docs as a reader finds them: their blocks, and a sandbox in which the commands are carried out."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = tuple(sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]))

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>.*)$")
_NEEDS = re.compile(r"^ *<!-- needs: (?P<what>\w+) -->$")
_TITLE = re.compile(r'title="(?P<path>[^"]+)"')
_SPAN = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: where it stands, relative to the repository.
        line: of its fence, from 1.
        language: as the fence names it; empty where it names none.
        text: without fence and indentation, with a line break at the end.
        needs: what the comment before it says that it needs; None: nothing but this project.
        title: the file that the reader is to write it to; None: none.
    """

    page: str
    line: int
    language: str
    text: str
    needs: str | None
    title: str | None

    @property
    def where(self) -> str:
        """Page and line."""
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The lines of a bash block that begin a command."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        return [line for line in joined.splitlines() if line and not line.startswith(("#", " "))]


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found, at = [], 0
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        if fence is None:
            at += 1
            continue
        end = next(number for number in range(at + 1, len(lines)) if lines[number].strip() == "```")
        language, _, rest = fence["info"].strip().partition(" ")
        needs = _NEEDS.match(lines[at - 1]) if at else None
        title = _TITLE.search(rest)
        text = "".join(line.removeprefix(fence["indent"]) + "\n" for line in lines[at + 1 : end])
        name = str(path.relative_to(ROOT))
        found.append(Block(name, at + 1, language, text, needs and needs["what"], title and title["path"]))
        at = end + 1
    return found


def spans(path: Path) -> Iterator[list[str]]:
    """What stands in a page's text as code, outside of blocks, and is a call of `fraud` or `make`: its words."""
    text = re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    for span in _SPAN.findall(text):
        if re.match(r"(\.venv/bin/)?fraud |make [a-z]", span):
            yield shlex.split(span)
