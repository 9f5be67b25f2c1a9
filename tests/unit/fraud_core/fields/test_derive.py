"""What derived fields promise: one payment over HTTP and a column of a file give the same, to the bit."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_core.fields.declared import Declared
from fraud_core.fields.derive import derive_columns, derived_values
from fraud_core.fields.schema import UTC_MICROSECONDS

DECLARED = Declared.model_validate(
    {
        "fields": {
            "email": {"kind": "id", "personal": True},
            "ip": {"kind": "id", "personal": True},
            "billing": {"kind": "category"},
            "shipping": {"kind": "category"},
            "limit": {"kind": "number"},
            "spent": {"kind": "number"},
            "opened": {"kind": "time"},
            "changed": {"kind": "time"},
            "top": {"from": {"part": "top_domain", "of": "email"}},
            "domain": {"from": {"part": "domain", "of": "email"}},
            "bin_again": {"from": {"equal": ["bin", "billing"]}},
            "bin": {"from": {"first_digits": 6, "of": "card"}},
            "network": {"kind": "id", "from": {"network": "24/48", "of": "ip"}},
            "same": {"from": {"equal": ["billing", "shipping"]}},
            "whole": {"from": {"equal": ["amount", "limit"]}},
            "over": {"from": {"difference": ["amount", "limit"]}},
            "left": {"from": {"difference": ["limit", "spent"]}},
            "between": {"from": {"difference": ["changed", "opened"]}},
            "since": {"from": {"hours_since": "opened"}},
            "years": {"from": {"hours_since": "birth_date"}},
        }
    }
)
NAMES = ("CH", "411111", "DE")
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1)).map(lambda one: one.replace(tzinfo=UTC))  # noqa: DTZ001
NUMBERS = st.floats(-1e9, 1e9)
PAYMENTS = st.fixed_dictionaries(
    {
        "timestamp": MOMENTS,
        "amount_cents": st.integers(0, 10**11),
        "card": st.none()
        | st.sampled_from(
            ["4111111111111111", "4111-1111 1111 1111", "tok_4111", "411", "", "\uff14\uff11\uff11\uff11\uff11\uff11\uff11\uff11"]
        ),
        "birth_date": st.none() | st.dates(date(1900, 1, 1), date(2020, 1, 1)),
        "email": st.none() | st.sampled_from(["a@B.co.uk", "a@b@C.org.", "nobody", "@", "x@localhost"]) | st.text(max_size=20),
        "ip": st.none()
        | st.sampled_from(["10.1.2.3", "2001:db8::1", "::ffff:10.1.2.3", "10.1.2", " 10.0.0.1 "])
        | st.text(max_size=9),
        "billing": st.none() | st.sampled_from(NAMES),
        "shipping": st.none() | st.sampled_from(NAMES),
        "limit": st.none() | NUMBERS | st.sampled_from([12.34, 0.1]),
        "spent": st.none() | NUMBERS,
        "opened": st.none() | MOMENTS,
        "changed": st.none() | MOMENTS,
    }
)
SCHEMA = {
    "timestamp": UTC_MICROSECONDS, "amount_cents": pl.Int64, "card": pl.String, "birth_date": pl.Date, "email": pl.String,
    "ip": pl.String, "billing": pl.String, "shipping": pl.String, "limit": pl.Float64, "spent": pl.Float64,
    "opened": UTC_MICROSECONDS, "changed": UTC_MICROSECONDS,
}  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.lists(PAYMENTS, min_size=1, max_size=5))
def test_one_payment_and_a_column_of_them_give_the_same_bits(payments: list[dict[str, Any]]) -> None:
    frame = derive_columns(DECLARED, pl.DataFrame(payments, schema=SCHEMA))  # type: ignore[arg-type]
    alone = [derived_values(DECLARED, payment) for payment in payments]
    assert frame.select(list(DECLARED.derived)).rows(named=True) == alone


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"email": "Ada@Mail.Example.CO.UK"}, {"domain": "mail.example.co.uk", "top": "uk"}),
        ({"card": "4111 1111-1111 1111", "billing": "411111"}, {"bin": "411111", "bin_again": True}),
        ({"card": "tok_411111"}, {"bin": None, "bin_again": None}),
        ({"ip": "2001:db8:1:2::9"}, {"network": "2001:db8:1::/48"}),
        ({"ip": "::ffff:10.1.2.3"}, {"network": "10.1.2.0/24"}),
        ({"amount_cents": 1234, "limit": 12.34}, {"whole": True, "over": 0.0}),
        ({"billing": "CH", "shipping": None}, {"same": None}),
    ],
)
def test_rules_give_what_they_say(changes: dict[str, Any], wanted: dict[str, Any]) -> None:
    payment = dict.fromkeys(SCHEMA) | {"timestamp": datetime(2024, 1, 1, tzinfo=UTC), "amount_cents": 100} | changes
    found = derived_values(DECLARED, payment)
    assert {name: found[name] for name in wanted} == wanted


def test_hours_are_exact_and_a_column_that_is_not_there_is_missing() -> None:
    moment = datetime(2024, 3, 5, 9, 20, 30, tzinfo=UTC)
    found = derived_values(
        DECLARED, {"timestamp": moment, "opened": moment - timedelta(hours=36), "birth_date": date(2024, 3, 5)}
    )
    assert (found["since"], found["years"]) == (36.0, 9 + 20.5 / 60)
    frame = derive_columns(DECLARED, pl.DataFrame({"timestamp": [moment]}, schema={"timestamp": UTC_MICROSECONDS}))
    assert frame.select(list(DECLARED.derived)).null_count().row(0) == (1,) * len(DECLARED.derived)
