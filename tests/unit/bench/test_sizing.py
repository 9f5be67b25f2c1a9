"""The sizing table: workers are counted at half of what one bears, and rounded up."""

from pathlib import Path

import pytest

from bench.sizing import BEGIN, END, sizing, write_sizing

ROOT = Path(__file__).parents[3]
FIGURES = {"empty": 2_000.0, "scoring": 1_500.0, "redis": 401.0}
TABLE = """\
| scorer | requests/s a worker bears | planned (50%) | workers for 100/s | workers for 1,000/s | workers for 10,000/s |
|---|---:|---:|---:|---:|---:|
| model without history, nothing recorded | 1,500 | 750 | 1 | 2 | 14 |
| history in Redis: any number of machines | 401 | 200 | 1 | 5 | 50 |

A worker takes a core and 181 MB."""


def test_workers_are_counted_at_half_load_and_rounded_up_for_the_kinds_that_were_measured() -> None:
    assert sizing(FIGURES, 180.6) == TABLE


def test_the_table_goes_between_the_marks_and_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        write_sizing(page, TABLE)
        assert page.read_text() == f"before\n{BEGIN}\n{TABLE}\n{END}\nafter\n"


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="has lost the marks"):
        write_sizing(page, TABLE)
    assert page.read_text() == "no marks"


def test_the_page_about_scaling_has_the_marks() -> None:
    text = (ROOT / "docs" / "scaling.md").read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    assert text.index("## Sizing") < text.index(BEGIN) < text.index(END)
