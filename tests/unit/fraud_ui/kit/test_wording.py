"""Numbers as people read them, and texts that stay texts."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from fraud_core.evaluation.intervals import Interval
from fraud_core.evaluation.metrics import NEVER
from fraud_ui.kit import wording


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.0, "0 %"),
        (1e-9, "under 0.01 %"),
        (0.00551, "0.551 %"),
        (0.1234, "12.3 %"),
        (0.5, "50 %"),
        (0.9987, "99.87 %"),
        (0.99999, "over 99.99 %"),
        (1.0, "100 %"),
    ],
)
def test_a_share_is_never_rounded_to_what_it_is_not(share: float, shown: str) -> None:
    assert wording.percent(share) == shown


def test_text_from_elsewhere_is_neither_markup_nor_a_template() -> None:
    hostile = "<img src=x onerror=alert(1)> ${value} {{props}} \"'"
    shown = wording.escaped(hostile)
    assert not set(shown) & set("<>\"'{}$")
    table = wording.table("<b>", ("<i>",), [(shown,)])
    assert "<b>" not in table
    assert "<i>" not in table
    assert "<script>" not in wording.alert("<script>", ["<script>"])


def test_a_time_is_shown_in_the_readers_zone() -> None:
    noon = datetime(2024, 6, 21, 12, tzinfo=UTC)
    assert wording.moment(noon, ZoneInfo("Europe/Zurich")) == "2024-06-21 14:00 CEST"


def test_units_signs_and_counts() -> None:
    assert wording.money(123_456) == "1,234.56"
    assert (wording.kilometres(999), wording.kilometres(12_345)) == ("999 m", "12.3 km")
    assert (wording.signed(0.5), wording.signed(-0.5)) == ("+0.50", "\u22120.50")
    assert (wording.counted(1, "row"), wording.counted(2_000, "row")) == ("1 row", "2,000 rows")
    assert wording.threshold(NEVER) == "never"
    assert wording.interval(0.9, Interval(0.8, 0.95)) == "0.900 (0.800 to 0.950)"
    assert wording.interval(None, None) == "too few frauds"
