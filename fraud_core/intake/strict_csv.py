"""Strict CSV: every line ends up in exactly one record, or the file is refused with the line on which a quotation mark opened.

`csv.reader` by itself lets an open quotation mark swallow all that follows, up to the next one, as one cell. The intake and the
scoring of files read by this; what they differ in are arguments.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import IO

from fraud_core.intake.unpacking import UnreadableError
from fraud_core.sources.limits import Limits


class UndecodableError(UnreadableError):
    """A byte that the encoding does not have.

    Attributes:
        column: place of the cell that holds it, from 0; None: it stands in the header, or no cell can be told.
    """

    def __init__(self, line: int, message: str, column: int | None) -> None:
        super().__init__(message, line=line)
        self.column = column


class CsvReader:
    """Iterates over the records of a text as (line on which it ends, cells); empty lines are left out, and a BOM, too.

    Attributes:
        line: the last line of the newest record.
        lines, empty, continued, records: how many lines were read; of them, empty ones and further ones of a record; and records.

    Args:
        binary: the bytes; whoever opened them closes them.
        encoding: of the text. A byte that it does not have is found by the line on which it stands, not before.
        delimiter: between cells.
        line_breaks: whether cells may hold line breaks. Where they may not, a quotation mark must close on its own line.
        limits: characters that a line may have, and a record of several lines; cells that the header may have.
        longest_cell: in a record of more characters cells are cut to one more than this; None: none is.

    Raises:
        UnreadableError: (while iterating) a quotation mark is open or stray, or a bound is passed.
        UndecodableError: (while iterating) the text has another encoding.
    """

    def __init__(
        self,
        binary: IO[bytes],
        encoding: str = "utf-8",
        delimiter: str = ",",
        *,
        line_breaks: bool = False,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        longest_cell: int | None = None,
    ) -> None:
        self.lines = self.line = self.empty = self.continued = self.records = 0
        self._binary, self._encoding, self._delimiter, self._line_breaks = binary, encoding, delimiter, line_breaks
        self._longest, self._most_columns, self._longest_cell = limits.line_characters, limits.columns, longest_cell
        self._open: list[str] = []  # lines of the record that is being read
        self._size = 0  # characters in them

    @property
    def idle(self) -> int:
        """How many lines so far are no row's own: the header, empty lines, and further lines of a record."""
        return self.empty + self.continued + min(self.records, 1)

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(max(csv.field_size_limit(), self._longest))  # one for the whole process; lines are bounded here
        text = io.TextIOWrapper(self._binary, self._encoding, _MARK, newline="")  # so that cells keep their line breaks
        try:
            reader = csv.reader(self._feed(text), delimiter=self._delimiter, strict=True)
            while True:
                begin = self.line + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    break
                except csv.Error as error:
                    raise UnreadableError(_explanation(error), line=begin) from None
                self.line = self.lines
                if not cells:
                    self.empty += 1
                    continue
                if self.line != begin:
                    self._count_continued(begin, cells)
                self.records += 1
                if self.records == 1 and len(cells) > self._most_columns:
                    problem = f"there are {len(cells)} columns, and {self._most_columns} at most are read"
                    raise UnreadableError(problem, line=self.line, limits=("columns",))
                if self._longest_cell is not None and self._size > self._longest_cell:
                    cells = [cell[: self._longest_cell + 1] for cell in cells]
                yield self.line, cells
        finally:
            with suppress(ValueError):  # whoever opened the bytes closed them already
                text.detach()

    def _feed(self, text: io.TextIOWrapper) -> Iterator[str]:
        """The lines, one by one. Whoever asks for another before a record is whole stands within a quotation."""
        marked = _marks.made
        while line := text.readline(self._longest + 1):
            if self.lines == 0:
                line = line.removeprefix("\ufeff")
            if len(line) > self._longest:
                problem = f"the line has more than {self._longest} characters"
                raise UnreadableError(problem, line=self.lines + 1, limits=("line_characters",))
            if _marks.made != marked and (bad := _find_bad(line)):
                raise self._undecodable(line, bad.start())
            if self.lines == self.line:
                self._open, self._size = [line], len(line)
            elif not self._line_breaks:
                raise UnreadableError("a quotation mark opens on this line and does not close on it", line=self.line + 1)
            elif self._size > self._longest:
                problem = f"a quotation mark that opens here is still open {self._longest} characters later"
                raise UnreadableError(problem, line=self.line + 1)
            else:
                self._open.append(line)
                self._size += len(line)
            self.lines += 1
            yield line
        if self.lines != self.line:
            raise UnreadableError("a quotation mark opens here and does not close before the end of the file", line=self.line + 1)

    def _undecodable(self, line: str, at: int) -> UndecodableError:
        column = None
        if self.records:
            try:
                before = self._open if self.lines != self.line else []
                cells = next(csv.reader([*before, line[:at]], delimiter=self._delimiter), [])
                column = max(len(cells) - 1, 0)
            except csv.Error:  # it is told when the encoding is right
                column = None
        return UndecodableError(self.lines + 1, f"byte {ord(line[at]) - _BAD:#04x} is not {self._encoding}", column)

    def _count_continued(self, begin: int, cells: list[str]) -> None:
        """The further lines of a record must be those that its cells hold."""
        breaks = sum(len(cell.replace("\r\n", "\n").replace("\r", "\n").split("\n")) - 1 for cell in cells)
        if breaks != self.line - begin:
            raise UnreadableError(f"the record takes {self.line - begin + 1} lines and holds {breaks} line breaks", line=begin)
        self.continued += breaks

    def check_counts(self) -> None:
        """At the end of the file: every line was empty, a record's only or first, or a further one of it.

        Raises:
            UnreadableError: it was not.
        """
        if self.lines != self.empty + self.records + self.continued:
            raise UnreadableError(f"{self.lines} lines were read, and only {self.records} records came of them", line=self.lines)


# A byte that the encoding does not have becomes a character that no text has, so that its line is known without reading anew.
_BAD = 0xDC00
_MARK = "fraud_core.intake.mark"
_find_bad = re.compile("[\udc00-\udcff]").search


class _Marks:
    """Makes such characters, and counts how often: while it made none, no line need be looked through."""

    made = 0

    def __call__(self, error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeDecodeError)
        self.made += 1
        return "".join(chr(_BAD + byte) for byte in error.object[error.start : error.end]), error.end


_marks = _Marks()
codecs.register_error(_MARK, _marks)


def _explanation(error: csv.Error) -> str:
    if "expected after" in str(error):
        return "a quotation mark closes on or after this line with text behind it; quotation marks within a cell are doubled"
    return str(error)


DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def guess_delimiter(line: bytes, required: Iterable[str]) -> str:
    """What parts a header's cells, where nobody declared it: the first that makes the columns out of it that must be there."""
    header = line.decode("utf-8-sig", "replace").partition("\r")[0]
    for delimiter in DELIMITERS:
        names = {name.strip(' "\n').lower() for name in header.split(delimiter)}
        if names.issuperset(required):
            return delimiter
    return ","
