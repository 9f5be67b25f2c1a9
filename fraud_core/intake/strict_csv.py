"""Strict CSV: every line ends up in exactly one record, or the file is refused with the line on which a quotation mark opened.

`csv.reader` by itself lets an open quotation mark swallow all that follows, up to the next one, as one cell.
"""

import csv
from collections.abc import Iterator
from typing import TextIO

LONGEST_LINE = 1_000_000  # characters
MOST_COLUMNS = 10_000


class CsvError(ValueError):
    """A file that is not CSV as it was declared. The message begins in small letters and repeats no value.

    Attributes:
        line: where, from 1; of a quotation mark: where it opened.
    """

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class CsvReader:
    """Iterates over the records of a text as (line on which it ends, cells); empty lines are left out, and a BOM, too.

    Attributes:
        line: the last line of the newest record.
        lines, empty, continued, records: how many lines were read; of them, empty ones and further ones of a record; and records.
        characters: in all lines so far.

    Args:
        text: opened with newline="", so that cells keep their line breaks.
        delimiter: between cells.
        line_breaks: whether cells may hold line breaks. Where they may not, a quotation mark must close on its own line.
        longest_line: characters that a line may have, and a record of several lines.
        most_columns: cells that the header may have.

    Raises:
        CsvError: (while iterating) a quotation mark is open or stray, or a bound is passed.
    """

    def __init__(
        self,
        text: TextIO,
        delimiter: str = ",",
        *,
        line_breaks: bool = False,
        longest_line: int = LONGEST_LINE,
        most_columns: int = MOST_COLUMNS,
    ) -> None:
        self.lines = self.line = self.empty = self.continued = self.records = self.characters = 0
        self._text, self._delimiter, self._line_breaks = text, delimiter, line_breaks
        self._longest, self._most_columns = longest_line, most_columns

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(max(csv.field_size_limit(), self._longest))  # one for the whole process; lines are bounded here
        reader = csv.reader(self._feed(), delimiter=self._delimiter, strict=True)
        while True:
            begin = self.line + 1
            try:
                cells = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                raise CsvError(begin, self._explanation(error)) from None
            self.line = self.lines
            if not cells:
                self.empty += 1
                continue
            if self.line != begin:
                self._count_continued(begin, cells)
            self.records += 1
            if self.records == 1 and len(cells) > self._most_columns:
                raise CsvError(self.line, f"there are {len(cells)} columns, and {self._most_columns} at most are read")
            yield self.line, cells

    def _feed(self) -> Iterator[str]:
        """The lines, one by one. Whoever asks for another before a record is whole stands within a quotation."""
        begin_characters = 0
        while line := self._text.readline(self._longest + 1):
            if self.lines == 0:
                line = line.removeprefix("\ufeff")
            if len(line) > self._longest:
                raise CsvError(self.lines + 1, f"the line has more than {self._longest} characters")
            if self.lines == self.line:
                begin_characters = self.characters
            elif not self._line_breaks:
                raise CsvError(self.line + 1, "a quotation mark opens on this line and does not close on it")
            elif self.characters - begin_characters > self._longest:
                raise CsvError(self.line + 1, f"a quotation mark that opens here is still open {self._longest} characters later")
            self.lines += 1
            self.characters += len(line)
            yield line
        if self.lines != self.line:
            raise CsvError(self.line + 1, "a quotation mark opens here and does not close before the end of the file")

    def _count_continued(self, begin: int, cells: list[str]) -> None:
        """The further lines of a record must be those that its cells hold."""
        breaks = sum(len(cell.replace("\r\n", "\n").replace("\r", "\n").split("\n")) - 1 for cell in cells)
        if breaks != self.line - begin:
            raise CsvError(begin, f"the record takes {self.line - begin + 1} lines and holds {breaks} line breaks")
        self.continued += breaks

    def check_counts(self) -> None:
        """At the end of the file: every line was empty, a record's only or first, or a further one of it.

        Raises:
            CsvError: it was not.
        """
        if self.lines != self.empty + self.records + self.continued:
            raise CsvError(self.lines, f"{self.lines} lines were read, and only {self.records} records came of them")

    @staticmethod
    def _explanation(error: csv.Error) -> str:
        if "expected after" in str(error):
            return "a quotation mark closes on or after this line with text behind it; quotation marks within a cell are doubled"
        return str(error)
