"""Payments with declared fields: what is taken, refused, derived, forgotten, and how it is documented."""

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from pydantic import SecretStr, ValidationError

from fraud_core.fields.declared import NOTHING, Declared
from fraud_core.scoring.file_parsing import FileFormat, Wanted, pieces
from fraud_core.scoring.score import from_text, from_values, inputs_of
from fraud_core.transactions.declared_type import changed, example_of, fields_of, required_of, together, transaction_type
from fraud_core.transactions.refusals import wrong_fields
from fraud_core.transactions.transaction import EXAMPLE, FIELDS, Transaction
from fraud_core.units.time import to_microseconds
from tests.declared import ONLINE

PAYMENT = transaction_type(ONLINE)
SENT: dict[str, Any] = {
    **EXAMPLE,
    "card": "4000 1234 5678 9010",
    "device": "d-1",
    "ip": "203.0.113.7",
    "email": "jane@Mail.Example.com",
    "income": 3,
    "channel": "web",
    "cvv": "m",
    "opened": "2020-06-20T14:14:25+02:00",
    "basket": "7.50",
}


def _reasons(sent: dict[str, Any], payment: type[Transaction] = PAYMENT) -> dict[str, str]:
    with pytest.raises(ValidationError) as found:
        payment.model_validate(sent)
    return {problem.field: problem.reason for problem in wrong_fields(found.value)}


def test_a_declaration_of_nothing_gives_the_standard_payment_itself_and_the_same_one_the_same_type() -> None:
    assert transaction_type(NOTHING) is Transaction
    same = transaction_type(ONLINE)
    assert transaction_type(ONLINE) is same is not transaction_type(ONLINE, "UTC", "keep")
    assert fields_of(Transaction) == FIELDS
    assert fields_of(PAYMENT) == (*FIELDS, "device", "ip", "email", "income", "channel", "cvv", "opened", "basket")
    assert required_of(PAYMENT) == ("timestamp", "amount", "channel")


def test_each_kind_is_read_by_its_rule_and_what_is_derived_follows() -> None:
    payment = PAYMENT.model_validate(SENT)
    own = {name: value for name, value in payment.__dict__.items() if name in ONLINE.own}
    assert own == {
        "device": "d-1",
        "ip": SecretStr("203.0.113.7"),
        "email": SecretStr("jane@Mail.Example.com"),
        "income": None,  # personal and no id: forgotten once the difference was made
        "channel": "web",
        "cvv": True,
        "opened": datetime(2020, 6, 20, 12, 14, 25, tzinfo=UTC),
        "basket": 7.5,
        "email_domain": "mail.example.com",
        "bin": "400012",
        "network": "203.0.113.0/24",
        "account_age": 24.0,
        "above_income": 2.86 - 3,
    }
    assert "203.0.113.7" not in repr(payment)
    assert "jane" not in repr(payment)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("channel", "fax", "is none of the declared values (web, app)"),
        ("channel", None, "is missing"),
        ("cvv", "perhaps", "is neither m/y (true) nor n (false)"),
        ("basket", 2_000, "is out of bounds (0 to 1000)"),
        ("basket", "many", "is not a finite number"),
        ("basket", True, "is not a finite number"),
        ("device", "4111111111111111", "holds what looks like a card number; card numbers belong into `card` alone"),
        ("device", 4.5e15 + 1e15, None),
        ("device", ["d"], "must be text or a whole number"),
        ("opened", "yesterday", "must be a time in ISO 8601, such as 2020-06-21T12:14:25+00:00"),
        ("opened", "2020-01-01T00:00:00", "has no offset from UTC; append Z or, say, +02:00"),
        ("bin", "400012", "is derived of card; leave it out"),
        ("nothing", 1, "is not a known field"),
    ],
)
def test_what_is_wrong_is_refused_in_words_without_the_value(field: str, value: Any, reason: str | None) -> None:
    if reason is None:
        assert PAYMENT.model_validate(SENT | {field: value}).__dict__[field] == "5500000000000000"
        return
    assert _reasons(SENT | {field: value}) == {field: reason}


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("cvv", "NA", None),
        ("cvv", "", None),
        ("cvv", False, False),
        ("basket", None, None),
        ("basket", " ", None),
        ("device", 4711.0, "4711"),
        ("opened", "1969-12-31", datetime(1969, 12, 31, 5, tzinfo=UTC)),
        ("opened", "2090-01-01T00:00:00Z", datetime(2090, 1, 1, tzinfo=UTC)),
        ("email", "4111111111111111", SecretStr("4111111111111111")),
    ],
)
def test_what_may_be_given_is_read(field: str, value: Any, read: Any) -> None:
    payment = transaction_type(ONLINE, "America/New_York").model_validate(SENT | {field: value})
    assert payment.__dict__[field] == read


def test_a_standard_field_can_be_demanded_bounded_and_told_what_means_missing() -> None:
    stricter = Declared.model_validate(
        {
            "fields": {
                "merchant": {"kind": "id", "required": True, "missing": ["NA"]},
                "category": {"kind": "category", "values": ["personal_care"]},
                "amount_cents": {"kind": "number", "highest": 100},
                "city_population": {"kind": "number", "missing": ["-1"], "meaning": "The town of {value}"},
            }
        }
    )
    payment = transaction_type(stricter)
    assert required_of(payment) == ("timestamp", "amount", "merchant")
    assert payment.model_validate(EXAMPLE | {"city_population": -1}).city_population is None
    assert _reasons(EXAMPLE | {"merchant": "NA", "category": "other", "amount": 101}, payment) == {
        "merchant": "is missing",
        "category": "is none of the declared values (personal_care)",
        "amount": "is out of bounds (to 100)",
    }


def test_unknown_fields_are_refused_ignored_or_kept_within_bounds() -> None:
    more = SENT | {"coupon": "SPRING", "tries": 3, "empty": None}
    assert _reasons(more) == dict.fromkeys(("coupon", "tries", "empty"), "is not a known field")
    assert transaction_type(ONLINE, unknown="ignore").model_validate(more).model_extra is None
    keeping = transaction_type(ONLINE, unknown="keep")
    assert keeping.model_validate(more).model_extra == {"coupon": "SPRING", "tries": 3, "empty": None}
    for wrong in ("4111111111111111", 4111111111111111, "x" * 201, [1], float("nan")):
        assert list(_reasons(SENT | {"coupon": wrong}, keeping)) == ["coupon"]
    assert "more than 50" in _reasons(SENT | {f"field_{at}": at for at in range(51)}, keeping)["body"]
    assert "4111" not in str(_reasons(SENT | {"4111111111111111": 1}, keeping))
    assert transaction_type(NOTHING, unknown="keep").model_validate(EXAMPLE | {"coupon": "SPRING"}).model_extra


def test_the_fields_of_the_model_before_are_taken_and_not_demanded() -> None:
    newer = Declared.model_validate({"fields": {"till": {"kind": "id"}, "device": {"kind": "category"}}})
    payment = transaction_type(together(newer, ONLINE))
    assert payment.model_validate(SENT | {"till": "t-1"}).__dict__["till"] == "t-1"
    assert payment.model_validate(EXAMPLE).__dict__["channel"] is None
    assert "bin" in _reasons(SENT | {"bin": "400012"}, payment)
    assert together(ONLINE, NOTHING) is ONLINE


def test_what_is_derived_of_something_changed_is_derived_anew() -> None:
    payment = PAYMENT.model_validate(SENT)
    later = changed(payment, {"timestamp": datetime(2020, 6, 22, 12, 14, 25, tzinfo=UTC)})
    assert later.__dict__["account_age"] == 48.0
    assert {name for name, value in later.__dict__.items() if value != payment.__dict__[name]} == {"timestamp", "account_age"}


def test_the_arrays_of_own_columns_hold_hashes_of_what_is_personal_and_nothing_of_what_is_not_kept() -> None:
    payments = [PAYMENT.model_validate(SENT), PAYMENT.model_validate({**EXAMPLE, "channel": "app"})]
    arrays = inputs_of(payments, ONLINE, lambda secret: f"hash of {len(secret.get_secret_value())}")
    assert "income" not in arrays
    assert arrays["ip"].tolist() == ["hash of 11", None]
    assert arrays["channel"].tolist() == ["web", "app"]
    assert arrays["cvv"].tolist()[0] == 1.0
    assert arrays["basket"].dtype == arrays["cvv"].dtype == float
    assert arrays["opened"][0] == to_microseconds(datetime(2020, 6, 20, 12, 14, 25, tzinfo=UTC))
    assert inputs_of(payments, ONLINE)["ip"].tolist() == [None, None]


def test_the_schema_says_what_may_be_sent_and_its_example_is_valid() -> None:
    schema = PAYMENT.model_json_schema()
    properties = schema["properties"]
    assert set(properties) == set(fields_of(PAYMENT))
    assert schema["required"] == ["timestamp", "amount", "channel"]
    assert properties["channel"] | {"title": ""} == {
        "description": "The channel.",
        "enum": ["web", "app"],
        "examples": ["web"],
        "title": "",
        "type": "string",
    }
    assert properties["basket"]["description"] == "The basket. In items."
    assert properties["ip"]["writeOnly"]
    assert schema["examples"] == [example_of(ONLINE)]
    PAYMENT.model_validate(example_of(ONLINE))


@pytest.mark.parametrize("file", ["csv", "parquet"])
def test_a_payment_in_a_file_is_the_one_that_json_brings(file: FileFormat) -> None:
    frame = pl.DataFrame([SENT]).with_columns(
        pl.col("opened").str.to_datetime(time_zone="UTC"), pl.col("basket").cast(pl.Float32), CHANNEL=pl.lit("web")
    )
    content = io.BytesIO()
    if file == "csv":
        text = io.StringIO()
        csv.writer(text).writerows([SENT.keys(), map(str, SENT.values())])
        content.write(text.getvalue().encode())
    else:
        frame.drop("channel").write_parquet(content)
    content.seek(0)
    told = list(pieces(content, file, Wanted.of(PAYMENT)))
    assert [piece.state for piece in told] == ["opened", "rows", "done"], told[-1]
    ((_, row),) = told[1].rows
    read = from_text if file == "csv" else from_values
    assert read(json.loads(json.dumps(row)), None, PAYMENT) == PAYMENT.model_validate(SENT)


def test_a_file_with_a_derived_or_an_unknown_column_is_refused_or_that_column_left_out() -> None:
    content = b"timestamp,amount,channel,bin,coupon\n2020-06-21T12:14:25Z,1,web,400012,SPRING\n"
    (failed,) = pieces(io.BytesIO(content), "csv", Wanted.of(PAYMENT))
    assert {problem.field: problem.reason for problem in failed.errors} == {
        "bin": "is derived of card; leave the column out",
        "coupon": "is not a known column",
    }
    opened, rows, _ = pieces(io.BytesIO(content), "csv", Wanted.of(PAYMENT, leaves_out=True))
    assert "coupon, is not known, and was left out" in opened.notes[1]
    assert rows.rows == [(2, {"timestamp": "2020-06-21T12:14:25Z", "amount": "1", "channel": "web"})]
