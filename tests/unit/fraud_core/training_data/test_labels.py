"""Labels as a table say what the log says of one payment, and change what was learned of it only where they matter."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from fraud_core.fields.schema import UTC_MICROSECONDS
from fraud_core.labels.log import LabelLog, NewLabel
from fraud_core.labels.resolve import Label, resolve
from fraud_core.labels.resolve_table import standing, table_of
from fraud_core.settings import Settings
from fraud_core.storage.database import open_database
from fraud_core.training_data.labels import Outcomes, corrections
from fraud_core.units.time import HOUR_US

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
HOUR = int(NOON.timestamp()) // 3600
AUTHORS = (("chargeback", ""), ("analyst", "lead"), ("analyst", ""), ("source", ""))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> LabelLog:
    """Numbers the labels, in the order in which they are said."""
    return LabelLog(open_database(Settings(_env_file=None, home=tmp_path_factory.mktemp("labels"))))


def word(payment: str, outcome: Any, source: Any = "analyst", role: str = "", hours: int = 0) -> NewLabel:
    return NewLabel(payment, outcome, source, "ann", NOON, NOON + timedelta(hours=hours), role)


def table(log: LabelLog, *words: NewLabel) -> pl.DataFrame:
    return table_of(log.append_all(words))


def payments(**own: bool | None) -> pl.DataFrame:
    """Payments at noon, at the merchant of their own letter, with their own labels."""
    schema = {"transaction_id": pl.String, "timestamp": UTC_MICROSECONDS, "merchant": pl.String, "label": pl.Boolean}
    return pl.DataFrame([(name, NOON, name[0], value) for name, value in own.items()], schema=schema, orient="row")


def drawn(log: LabelLog, seed: int, count: int = 200) -> list[Label]:
    rng = np.random.default_rng(seed)
    words = [
        word(
            f"p{rng.integers(30)}",
            ["fraud", "legitimate", "unsure"][rng.integers(3)],
            *AUTHORS[rng.integers(4)],
            hours=int(rng.integers(40)),
        )
        for _ in range(count)
    ]
    return log.append_all(words)


@pytest.mark.parametrize("seed", range(5))
def test_what_stands_is_what_the_log_resolves_to(log: LabelLog, seed: int) -> None:
    labels = drawn(log, seed)
    found = dict(standing(table_of(labels)).iter_rows())
    assert found == {one: resolve([other for other in labels if other.transaction_id == one]) for one in found}
    assert len(found) > 25


@pytest.mark.parametrize("seed", range(5))
def test_corrections_up_to_an_hour_add_up_to_what_was_believed_then(log: LabelLog, seed: int) -> None:
    labels = drawn(log, seed)
    own = {f"p{number}": bool(number % 3 == 0) for number in range(30)}
    made = corrections(table_of(labels), payments(**own), ["merchant"])
    for hour in range(0, 42, 3):
        as_of = NOON + timedelta(hours=hour) - timedelta(microseconds=1)
        believed = [resolve([one for one in labels if one.transaction_id == name], as_of) for name in own]
        frauds = sum((one or ("fraud" if fraud else "")) == "fraud" for one, fraud in zip(believed, own.values(), strict=True))
        known = made.filter(pl.col("known") < HOUR + hour)
        assert sum(own.values()) + known["frauds"].sum() == frauds
        assert known["dropped"].sum() == believed.count("unsure")


def test_a_correction_stands_at_the_hour_of_the_payment_and_since_the_hour_of_the_word(log: LabelLog) -> None:
    words = table(log, word("a", "fraud", hours=5), word("b", "legitimate", hours=6))
    made = corrections(words, payments(a=False, b=False), ["merchant"])
    hour = NOON.timestamp() * 1_000_000 // HOUR_US
    assert made.rows() == [("merchant", "a", hour, HOUR + 5, 1, 0)]  # b was believed legitimate before


def test_payments_without_a_merchant_correct_nothing(log: LabelLog) -> None:
    nowhere = payments(a=False).with_columns(merchant=pl.lit(None, pl.String))
    assert corrections(table(log, word("a", "fraud")), nowhere, ["merchant"]).is_empty()


# ---- trainings


def outcomes(log: LabelLog, *words: NewLabel, mature_before: datetime = NOON + timedelta(days=1)) -> Outcomes:
    return Outcomes(standing(table(log, *words)), mature_before)


def settled(rows: pl.DataFrame, known: Outcomes) -> dict[str, bool]:
    return dict(known.settled(rows.lazy()).select("transaction_id", "label").collect().iter_rows())


def test_the_log_comes_before_the_source_and_unsure_payments_are_left_out(log: LabelLog) -> None:
    rows = payments(a=False, b=True, c=True, d=True)
    known = outcomes(log, word("a", "fraud"), word("b", "legitimate"), word("c", "unsure"))
    assert settled(rows, known) == {"a": True, "b": False, "d": True}


def test_a_payment_of_which_nobody_has_said_anything_is_legitimate_after_the_delay_and_counts_nowhere_before(
    log: LabelLog,
) -> None:
    rows = payments(a=None, b=None, c=True)
    known = word("b", "fraud")
    assert settled(rows, outcomes(log, known)) == {"a": False, "b": True, "c": True}
    assert settled(rows, outcomes(log, known, mature_before=NOON)) == {"b": True, "c": True}


def test_without_a_log_rows_stay_as_they_are(log: LabelLog) -> None:
    rows = payments(a=False, b=True)
    assert outcomes(log).settled(rows.lazy()).collect().equals(rows)


def test_only_labels_that_say_otherwise_change_anything(log: LabelLog) -> None:
    rows = payments(a=False, b=True, c=None, d=False, e=False)
    same = [word("a", "legitimate"), word("b", "fraud"), word("c", "legitimate"), word("elsewhere", "fraud")]
    assert outcomes(log, *same).changes(rows.lazy()).is_empty()
    other = [*same, word("d", "fraud"), word("e", "unsure")]
    assert dict(outcomes(log, *other).changes(rows.lazy()).iter_rows()) == {"d": True, "e": None}
    late = outcomes(log, *same, mature_before=NOON).changes(rows.lazy())
    assert dict(late.iter_rows()) == {"c": False}  # otherwise it would not count yet
