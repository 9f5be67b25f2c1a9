"""Rows of Excel workbooks (.xlsx) as text, as CSV would hold them."""

import datetime
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fraud_core.intake.unpacking import UnreadableError, check_expansion
from fraud_core.sources.limits import Limits

EXACT_DIGITS = 15  # that Excel keeps of a number


def is_workbook(archive: zipfile.ZipFile) -> bool:
    """Whether a zip is an Excel workbook."""
    return "xl/workbook.xml" in archive.namelist()


def workbook_rows(path: Path, limits: Limits) -> Iterator[tuple[int, list[str]]]:
    """Rows of a workbook's only sheet that holds any, each with its number; empty rows are left out.

    Days and times read 2024-03-05 10:20:30, and true and false are just these words. A number of more than 15 digits reads as
    Excel shows it, 4.11111111111111E+15, since its last digits are lost.

    Raises:
        UnreadableError: it expands too far, holds several tables, or no library is there to read it.
    """
    try:
        import openpyxl  # noqa: PLC0415 - only for workbooks
    except ImportError as error:
        raise UnreadableError("is an Excel workbook; install `openpyxl` to read it, or save it as CSV") from error

    with zipfile.ZipFile(path) as archive:
        check_expansion(sum(member.file_size for member in archive.infolist()), path.stat().st_size, limits)
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and extensions, which say nothing of values
        book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
        try:
            sheets = [sheet for sheet in book.worksheets if any(True for _ in _rows(sheet))]
            if len(sheets) > 1:
                names = ", ".join(f"'{sheet.title}'" for sheet in sheets)
                raise UnreadableError(f"has several sheets with rows: {names}; save the one that is meant as a file of its own")
            for sheet in sheets:
                yield from _rows(sheet)
        finally:
            book.close()


def _rows(sheet: Any) -> Iterator[tuple[int, list[str]]]:
    for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
        texts = [_text(cell) for cell in cells]
        while texts and not texts[-1]:  # rows differ in how many empty cells they end in
            texts.pop()
        if texts:
            yield number, texts


def _text(cell: Any) -> str:
    match cell:
        case None:
            return ""
        case bool():
            return str(cell).lower()
        case int() | float() if abs(cell) >= 10**EXACT_DIGITS:
            return f"{cell:.{EXACT_DIGITS - 1}E}"
        case float() if cell.is_integer():
            return str(int(cell))
        case datetime.datetime():  # kept as a floating-point number of days, which seconds survive
            return (cell + datetime.timedelta(milliseconds=500)).isoformat(" ", "seconds")
        case _:
            return str(cell)
