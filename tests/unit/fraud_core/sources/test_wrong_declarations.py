"""What a wrong declaration promises: an error that names the file, the line of the TOML, and what to write instead."""

from pathlib import Path

import pytest

from fraud_core.errors import SourceError
from fraud_core.sources.source import load_source

# 16 lines, whose header ends at line 6; the cases begin at line 17.
BASE = """name = "shop"
paths = ["pay.csv"]
cadence = "monthly"
first = "2024-01"
label_delay_days = 7
# -

[columns]
timestamp = { column = "when", formats = ["%Y-%m-%d %H:%M:%S"] }
amount = "sum"
card = "pan"
[fields.device]
kind = "id"
[fields.email]
kind = "id"
personal = true
"""
WINDOW = '[[windows]]\nof = "device"\nmeasure = "count"\nspans = ["1h"]\n'
CASES = {
    # --- fields
    "no kind": ("[fields.x]\n", 17, 'kind: Field required; write kind = "number"'),
    "a kind that is none": ('[fields.x]\nkind = "text"\n', 18, "'number', 'category', 'flag', 'time' or 'id'"),
    "a key misspelt": ('[fields.x]\nkind = "number"\ncolum = "y"\n', 19, "did you mean column?"),
    "a key that is none": ('[fields.x]\nkind = "number"\nqqq = 1\n', 19, "there are column, digits"),
    "a personal category": ('[fields.x]\nkind = "category"\npersonal = true\n', 17, 'declare kind = "id", or derive one'),
    "bounds of a category": ('[fields.x]\nkind = "category"\nlowest = 1\n', 17, "lowest is for numbers"),
    "bounds crossed": ('[fields.x]\nkind = "number"\nlowest = 2\nhighest = 1\n', 17, "lowest (2) lies above highest (1)"),
    "values of a number": ('[fields.x]\nkind = "number"\nvalues = ["1"]\n', 17, "values is for categories and flags"),
    "a flag's values as a list": ('[fields.x]\nkind = "flag"\nvalues = ["Y"]\n', 17, "values is for categories and flags"),
    "a text both true and false": (
        '[fields.x]\nkind = "flag"\nvalues = { true = ["Y"], false = ["y"] }\n', 17, "'y' means both true and false",
    ),
    "a meaning without its value": ('[fields.x]\nkind = "id"\nmeaning = "The x"\n', 19, "meaning has {value} once"),
    "formats of an id": ('[fields.x]\nkind = "id"\nformats = ["%Y"]\n', 17, "formats is for time"),
    "a format without a day": ('[fields.x]\nkind = "time"\nformats = ["%H:%M"]\n', 19, "does not tell year, month and day"),
    "digits of a number": ('[fields.x]\nkind = "number"\ndigits = 6\n', 17, "digits is for category and id"),
    "a drift that is none": ('[fields.x]\nkind = "number"\ndrift = "ignore"\n', 19, "'blocks', 'reported' or 'left_out'"),
    "two fields of one name": ('[fields.device]\nkind = "id"\n', 17, "give the second another name"),
    "names that differ in capitals": ('[fields.DEVICE]\nkind = "id"\n', 17, "differs from device in capitals alone"),
    "a name with a hyphen": ('[fields.a-b]\nkind = "id"\n', 17, "a name has letters, digits and underscores"),
    "a name that is taken": ('[fields.hour]\nkind = "number"\n', 17, "give the field another"),
    "the name of a feature": ('[fields.card_sum_1d]\nkind = "number"\n', 17, "there is a feature of that name already"),
    "a standard field of another kind": ('[fields.merchant]\nkind = "category"\n', 17, "give the own one another name"),
    "a standard field read twice": ('[fields.amount]\ncolumn = "b"\n', 17, "stands under [columns], too; keep one"),
    "a standard field that is personal": ('[fields.merchant]\npersonal = true\n', 17, "cannot be declared otherwise"),
    "a column personal and not": ('[fields.x]\nkind = "category"\ncolumn = "email"\n', 17, "declare both personal, or derive"),
    # --- groups
    "a range backwards": ('[fields."V{9..1}"]\nkind = "number"\n', 17, "from the smaller to the greater number"),
    "two ranges": ('[fields."V{1..2}_{1..2}"]\nkind = "number"\n', 17, "one range in braces is read, such as V{1..28}"),
    "ranges of two lengths": ('[fields."V{1..3}"]\ncolumn = "W{1..4}"\nkind = "number"\n', 17, "3 fields and column for 4"),
    "a range over a field": ('[fields."V{1..3}"]\nkind = "number"\n[fields.V2]\nkind = "number"\n', 19, "give it another name"),
    "a pattern that matches nothing": ('[fields.x]\ncolumns = "Z*"\nkind = "number"\n', 17, "matches Z*; it has when, sum"),
    "a pattern over odd names": ('[fields.x]\ncolumns = "odd*"\nkind = "number"\n', 17, "'odd name', whose name cannot be"),
    "a pattern and a column": ('[fields.x]\ncolumns = "V*"\ncolumn = "V1"\nkind = "number"\n', 17, "for all that match"),
    # --- derived fields
    "derived of nothing that is there": ('[fields.x]\nfrom = { part = "domain", of = "e_mail" }\n', 17, "did you mean 'email'?"),
    "derived in a circle": (
        "[fields.x]\nfrom = { difference = ['y', 'amount'] }\n[fields.y]\nfrom = { difference = ['x', 'amount'] }\n",
        17, "is derived from itself",
    ),
    "derived of itself": ("[fields.x]\nfrom = { difference = ['x', 'amount'] }\n", 17, "begin from a field that"),
    "derived by two rules": ('[fields.x]\nfrom = { first_digits = 6, hours_since = "device" }\n', 18, "from takes one of part"),
    "derived by a rule that is none": ('[fields.x]\nfrom = { upper = "device" }\n', 18, "upper: Extra inputs are not permitted"),
    "derived of another kind": ('[fields.x]\nfrom = { hours_since = "device" }\n', 17, "is of a time, and device is a id"),
    "derived and read": ('[fields.x]\ncolumn = "V1"\nfrom = { first_digits = 6, of = "card" }\n', 17, "leave column out, or"),
    "derived of a column that is not there": (
        '[fields.x]\nfrom = { first_digits = 6, of = "merchant" }\n', 17, 'name it under [columns]: merchant = "..."',
    ),
    "a prefix that is none": ('[fields.x]\nfrom = { network = "64/48", of = "email" }\n', 18, "for IPv4 (1 to 32)"),
    "derived and personal": (
        '[fields.x]\npersonal = true\nkind = "id"\nfrom = { first_digits = 6, of = "card" }\n', 17, "is not derived",
    ),
    # --- windows
    "a window over a field that is not there": (
        '[[windows]]\nof = "device"\nmeasure = "distinct"\nover = "crad"\nspans = ["1h"]\n', 17, "did you mean 'card'?",
    ),
    "a window of no entity": ('[[windows]]\nof = "amount"\nmeasure = "count"\nspans = ["1h"]\n', 17, "is a field of kind id"),
    "a window of a column that is not there": (
        '[[windows]]\nof = "merchant"\nmeasure = "count"\nspans = ["1h"]\n', 17, 'under [columns]: merchant = "..."',
    ),
    "a span that is none": (WINDOW.replace("1h", "1w"), 20, "'1w' is no span from 1m to 180d"),
    "a span beyond all retention": (WINDOW.replace("1h", "181d"), 20, "'181d' is no span from 1m to 180d"),
    "a measure that is none": (WINDOW.replace("count", "median"), 19, "Input should be 'count'"),
    "a sum of nothing": (WINDOW.replace("count", "sum"), 17, "sum needs `over`"),
    "a count over something": (WINDOW + 'over = "amount"\n', 17, "count takes no `over`"),
    "a sum of ids": (WINDOW.replace("count", "sum") + 'over = "card"\n', 17, "sum is taken of a number, and this is a id"),
    "where of a personal field": (WINDOW + 'where = { email = ["x"] }\n', 17, "its values cannot be named here"),
    "where a flag is something": (WINDOW + 'where = { label = ["maybe"] }\n', 17, "where takes true and false of it"),
    "one name for several spans": (WINDOW.replace('"1h"', '"1h", "2h"') + 'name = "x"\n', 17, "name needs {span}"),
    "two windows alike": (WINDOW + WINDOW, 21, "gives the feature device_count_1h, of which there is one already"),
    "the second of two windows wrong": (WINDOW + WINDOW.replace("device", "devize"), 21, "did you mean 'device'?"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pay.csv").write_text("when,sum,pan,device,email,V1,odd name\n")
    return tmp_path


def error(folder: Path, text: str) -> str:
    (folder / "shop.toml").write_text(text)
    with pytest.raises(SourceError) as raised:
        load_source(folder / "shop.toml")
    return str(raised.value)


def test_what_the_cases_add_to_is_sound(folder: Path) -> None:
    (folder / "shop.toml").write_text(BASE + WINDOW)
    assert len(load_source(folder / "shop.toml").windows) == 1
    assert BASE.count("\n") == 16


@pytest.mark.parametrize(("added", "line", "says"), CASES.values(), ids=CASES)
def test_a_wrong_declaration_is_an_error_with_its_line_and_what_to_write(folder: Path, added: str, line: int, says: str) -> None:
    said = error(folder, BASE + added)
    assert str(folder / "shop.toml") in said
    assert f"line {line}" in said
    assert says in said
    assert said.endswith(".")


@pytest.mark.parametrize(
    ("head", "line", "says"),
    [
        ("history_days = 5\n", 17, "write history_days = 40, or leave it out"),
        ('[history]\nenabled = false\nreason = "none"\n', 19, "leave one of them out"),
        ('excluded_features = ["devize"]\n', 6, "there is no feature 'devize' to exclude"),
    ],
)
def test_what_stands_elsewhere_in_the_toml_can_make_it_wrong(folder: Path, head: str, line: int, says: str) -> None:
    window = WINDOW.replace("1h", "40d")
    text = BASE.replace("# -\n", "" if head.startswith("[") else head) + (head if head.startswith("[") else "") + window
    said = error(folder, text)
    assert says in said
    assert f"line {line}" in said


def test_history_reaches_as_far_back_as_the_longest_own_window(folder: Path) -> None:
    for span, days in (("90d", 90), ("36h", 30), ("1d", 30)):
        (folder / "shop.toml").write_text(BASE + WINDOW.replace("1h", span))
        assert load_source(folder / "shop.toml").history_days == days


def test_lines_are_found_in_nested_tables_inline_ones_and_behind_texts_of_several_lines(folder: Path) -> None:
    text = BASE.replace("# -\n", 'description = """\n[columns]\namount = 1\n"""\n')
    assert "line 13, columns.amount" in error(folder, text.replace('amount = "sum"', "amount = 3"))
    assert "line 10, columns.timestamp.formats" in error(folder, BASE.replace("# -", "\n").replace("%Y-%m-%d", "%q"))
