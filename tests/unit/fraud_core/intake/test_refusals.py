"""What a user is told of refused rows: how many, why, an example that gives nothing away, and what to declare."""

import tomllib
from typing import Any

import pytest

from fraud_core.intake.refusals import explain_refusals
from tests.unit.fraud_core.intake.shop import CARD, COLUMNS, Intake


def told(intake: Intake, *changes: dict[str, str], **declared: Any) -> str | None:
    intake.rows(*changes)
    source = intake.source(**declared)
    return explain_refusals(source, intake.land(source), intake.store)


def test_nothing_is_told_where_nothing_was_refused(intake: Intake) -> None:
    assert told(intake, {}, {}) is None


def test_the_three_commonest_reasons_are_told_with_a_masked_example_and_advice(intake: Intake) -> None:
    message = told(
        intake, *[{"sum": "12,34"}] * 4, *[{"when": "05.03.2024 10:20"}] * 3, {"outcome": "yes"}, {"outcome": "no"}, {"lat": "99"}
    )
    assert message is not None
    first, *reasons, more = message.splitlines()
    assert first == "All 10 rows were refused:"
    assert reasons[0].startswith(
        "  4: 'sum' (amount_cents) is not an amount with at most two decimals, such as 99,99 in a.csv line 2."
    )
    assert reasons[0].endswith('Declare decimal = "," beside `delimiter`.')
    assert reasons[1].endswith(
        'Declare its format: timestamp = { column = "when", formats = ["%d.%m.%Y %H:%M"] } under [columns].'
    )
    assert reasons[2].startswith("  2: 'outcome' (label) is neither 'F' nor 'L', such as xxx in a.csv line 9.")
    assert more == "  and 1 more; the asset `quarantine` has them all."


@pytest.mark.parametrize(
    ("written", "column", "advice"),
    [
        ("12,50", "sum", 'Declare decimal = "," beside'),
        ("1.234,50", "sum", 'Declare decimal = "," and thousands = "." beside'),
        ("1,234.50", "sum", 'Declare thousands = "," beside'),
        ("1\u202f234.50", "sum", 'Declare thousands = " " beside'),
        ("1.234.567", "sum", 'Declare decimal = "," and thousands = "." beside'),
        ("47,3", "shop_lat", 'Declare decimal = "," beside'),
        ("400'000", "people", 'Declare thousands = "\'" beside'),
    ],
)
def test_how_numbers_are_written_is_told_and_declared_so_they_are_read(
    intake: Intake, written: str, column: str, advice: str
) -> None:
    whole = {"sum": "12", "lat": "47", "long": "8", "shop_lat": "47", "shop_long": "8"}
    assert advice in (told(intake, whole | {column: written}) or "")
    declared = tomllib.loads("\n".join(advice.removeprefix("Declare ").removesuffix(" beside").split(" and ")))
    landing = intake.land(intake.source(**declared))
    assert (landing.kept, landing.quarantined) == (1, 0)


@pytest.mark.parametrize("written", ["12.345", "12,345"])
def test_three_digits_behind_a_mark_are_not_said_to_be_thousands(intake: Intake, written: str) -> None:
    assert "If these are thousands, declare" in (told(intake, {"sum": written}) or "")


def test_refused_rows_among_others_are_counted_and_personal_values_stay_hidden(intake: Intake) -> None:
    message = told(intake, {}, {"born": "01.01.1850", "pan": CARD}, {})
    assert message is not None
    assert message.startswith("1 of 3 rows were refused:")
    assert "'born' (birth_date) lies before 1900 or after the transaction, such as (hidden)" in message
    assert CARD not in message
    assert "1850" not in message


@pytest.mark.parametrize("first", ["2024-04"])
def test_rows_before_the_first_partition_are_told(intake: Intake, first: str) -> None:
    assert "Correct `first`, or `last`." in str(told(intake, {}, first=first, last="open"))


OWN = {
    "basket": {"kind": "number", "column": "people", "highest": 10},
    "channel": {"kind": "category", "column": "kind", "values": ["web"]},
    "vip": {"kind": "flag", "column": "outcome"},
    "opened": {"kind": "time", "column": "born", "formats": ["%Y-%m-%d"]},
    "device": {"kind": "id", "column": "shop"},
}


@pytest.mark.parametrize(
    ("declared", "changes", "advice"),
    [
        ({"fields": {"basket": OWN["basket"]}}, {}, "Under [fields.basket] correct `lowest` and `highest`"),
        ({"fields": {"basket": OWN["basket"]}}, {"people": "?"}, "missing = [...]"),
        ({"fields": {"channel": OWN["channel"]}}, {}, "Under [fields.channel] add it to `values`"),
        ({"fields": {"vip": OWN["vip"]}}, {}, 'values = { true = ["..."], false = ["..."] }'),
        ({"fields": {"opened": OWN["opened"]}}, {}, 'under [fields.opened]: formats = ["%d.%m.%Y"]'),
        ({"fields": {"device": OWN["device"]}}, {"shop": CARD}, "Under [fields.device] if they are numbers of another kind"),
        ({}, {"sum": "-3"}, 'declare negative = "refund"'),
        ({}, {"sum": "3.4567"}, 'declare decimals = "round"'),
        ({"columns": COLUMNS | {"card": ["pan", "kind"]}}, {"kind": ""}, 'declare partial = "keep"'),
    ],
)
def test_advice_names_the_key_that_helps(intake: Intake, declared: dict[str, Any], changes: dict[str, str], advice: str) -> None:
    columns = {name: said for name, said in COLUMNS.items() if name not in {"city_population", "label", "birth_date", "merchant"}}
    assert advice in (told(intake, changes, **{"columns": columns} | declared) or "")
