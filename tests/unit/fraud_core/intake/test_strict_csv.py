"""What strict CSV promises: no line is lost without a word, and the line on which a quotation mark opened is named."""

import io

import pytest

from fraud_core.intake.strict_csv import CsvReader
from fraud_core.intake.unpacking import UnreadableError
from fraud_core.sources.limits import Limits


def records(text: str, **options: object) -> list[tuple[int, list[str]]]:
    reader = CsvReader(io.BytesIO(text.encode()), **options)  # type: ignore[arg-type]
    found = list(reader)
    reader.check_counts()
    return found


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_quoted_cells_empty_lines_and_a_bom_before_a_quoted_header_are_read(end: str) -> None:
    text = end.join(["\ufeff" + '"id","shop"', 't0,"a ""b"", c"', "", 't1,6" pipe', ""])
    assert records(text) == [(1, ["id", "shop"]), (2, ["t0", 'a "b", c']), (4, ["t1", '6" pipe'])]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('id,shop\nt0,a\nt1,"Quick Stop\nt2,b\nt3,"Quick Stop\nt4,c\n', 3),  # the next stray one would close it
        ('id,shop\nt0,"a"\nt1,"Quick Stop\nt2,b\n', 3),
        ('id,shop\nt0,"Quick Stop', 2),
        ('id,shop\nt0,"Quick" Stop\nt1,a\n', 2),
        ('"id,shop\nt0,a\n', 1),
    ],
)
def test_a_stray_or_open_quotation_mark_is_refused_with_the_line_on_which_it_opened(text: str, line: int) -> None:
    with pytest.raises(UnreadableError, match="quotation mark") as caught:
        records(text)
    assert caught.value.line == line
    assert "Stop" not in str(caught.value)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_cells_hold_line_breaks_only_where_that_was_declared(end: str) -> None:
    text = f'id,shop{end}t0,"two{end}{end}lines"{end}t1,a{end}'
    assert records(text, line_breaks=True) == [(1, ["id", "shop"]), (4, ["t0", f"two{end}{end}lines"]), (5, ["t1", "a"])]
    with pytest.raises(UnreadableError, match="does not close on it"):
        records(text)


def test_an_open_quotation_mark_is_refused_where_line_breaks_are_declared_too() -> None:
    with pytest.raises(UnreadableError, match="before the end of the file") as caught:
        records('id,shop\nt0,a\nt1,"Quick Stop\nt2,b\n', line_breaks=True)
    assert caught.value.line == 3


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("id,shop\nt0," + "x" * 1_010, {}, "line has more than 1000 characters"),
        ('id,shop\nt0,"' + "x\n" * 1_010, {"line_breaks": True}, "still open 1000 characters later"),
        (",".join("abcde") + "\n", {}, "5 columns, and 4 at most"),
    ],
)
def test_lines_cells_and_columns_are_bounded(text: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(UnreadableError, match=says):
        records(text, limits=Limits(line_characters=1_000, columns=4), **options)


def test_a_cell_as_long_as_a_line_may_be_is_read() -> None:
    assert len(records("id,shop\nt0," + "x" * 500_000)[1][1][1]) == 500_000
