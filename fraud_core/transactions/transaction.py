"""A card payment as people and programs send it: one transaction by its canonical names, checked as the intake checks."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, SecretStr, ValidationInfo
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from fraud_core.fields import schema
from fraud_core.fields.declared import NOTHING, Declared
from fraud_core.signing.card_numbers import holds_card_number
from fraud_core.units.canonical_number import NO_AMOUNT, cents_of
from fraud_core.units.canonical_text import LOST_DIGITS, canonical_text, has_lost_digits, is_plain

AHEAD = timedelta(minutes=5)
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST_BIRTH = date(1900, 1, 1)

_AMOUNT = schema.BY_NAME["amount_cents"]
assert _AMOUNT.lowest is not None
assert _AMOUNT.highest is not None
_LOWEST, _HIGHEST = _AMOUNT.lowest, _AMOUNT.highest
_ID_LENGTH, _NAME_LENGTH, _CARD_LENGTH = (schema.BY_NAME[name].longest or 0 for name in ("transaction_id", "merchant", "card"))
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# ISO 8601 with an offset, in its extended or basic form (RFC 3339 is part of it); no character that is not printed here.
_TIME = re.compile(
    r"(?:[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?"
    r"|[0-9]{8}[Tt][0-9]{4}(?:[0-9]{2}(?:[.,][0-9]+)?)?)"
    r"(?:[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?"
)

_USUAL_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)", re.ASCII)  # found sooner


def wrong(reason: str) -> PydanticCustomError:
    """A validator's refusal; the reason is shown to the caller and must not hold the value."""
    return PydanticCustomError("wrong", reason)


def time_of(value: Any) -> datetime:
    """An aware time, whenever it is."""
    if isinstance(value, str):
        text = value.strip()
        try:
            if _USUAL_TIME.fullmatch(text):
                value = datetime.fromisoformat(text)
            else:
                value = datetime.fromisoformat(text.upper()) if _TIME.fullmatch(text) else None
        except ValueError:
            raise wrong("is not a time in ISO 8601, such as 2020-06-21T12:14:25+00:00") from None
    if not isinstance(value, datetime):
        raise wrong("must be a time in ISO 8601, such as 2020-06-21T12:14:25+00:00")
    if value.tzinfo is not UTC and value.utcoffset() is None:
        raise wrong("has no offset from UTC; append Z or, say, +02:00")
    moment: datetime = value
    return moment


def timestamp_of(value: Any) -> datetime:
    """An aware time from 1970 to five minutes from now."""
    at = time_of(value)
    if at < EARLIEST:
        raise wrong("lies before 1970")
    if at - AHEAD > datetime.now(UTC):
        raise wrong("lies more than five minutes ahead of the server's clock")
    return at


def amount_of(value: Any) -> int:
    """An amount with at most two decimals in cents, exactly, by the rules of the pipeline's intake."""
    cents = cents_of(value)
    if cents is None:
        raise wrong("must be a finite number" if isinstance(value, float) and not math.isfinite(value) else NO_AMOUNT)
    if not _LOWEST <= cents <= _HIGHEST:
        raise wrong(f"is out of bounds ({_LOWEST / 100:.0f} to {_HIGHEST / 100:.0f})")
    return cents


def birth_date_of(value: Any, info: ValidationInfo) -> date | None:
    """A day from 1900 to that of the transaction, wherever on Earth that is."""
    if value is None:
        return None
    if isinstance(value, str):
        text = value.strip()
        try:
            value = date.fromisoformat(text) if len(text) == 10 and text[4] == text[7] == "-" else None  # no days of weeks
        except ValueError:
            value = None
    elif isinstance(value, datetime):
        value = value.date()
    if not isinstance(value, date):
        raise wrong("is not a day, such as 1980-02-29")
    at = info.data.get("timestamp")
    if value < EARLIEST_BIRTH or (at is not None and value.year >= at.year - 1 and value > _last_day_of(at)):
        raise wrong("lies before 1900 or after the transaction")
    return value


def _last_day_of(at: datetime) -> date:
    """The latest day that it is anywhere on Earth."""
    return (at.astimezone(UTC) + timedelta(hours=14)).date()


def card_of(value: Any) -> SecretStr | None:
    """A card number or a token that stands for it, as text that nothing prints."""
    if isinstance(value, SecretStr):
        return value
    if value is None:
        return None
    text = None if isinstance(value, bool) else plain_text(value, _CARD_LENGTH)
    if text is None:
        raise wrong("must be text of 1 to 64 characters, or a whole number")
    return SecretStr(text)


def text_of(value: Any, info: ValidationInfo) -> str | None:
    """A merchant or category by its canonical text, unless it holds control characters or a card number."""
    try:
        return _name_again(value) if type(value) is str and len(value) <= _NAME_LENGTH else _name_of(value)
    except PydanticCustomError:
        text = plain_text(value, _NAME_LENGTH)
        if text is None or not is_declared(text, info):
            raise
        return text


def _name_of(value: Any) -> str | None:
    text = plain_text(value, _NAME_LENGTH)
    if text is not None and holds_card_number(text):
        raise card_refused()
    return text


# Merchants and categories come again and again. What is refused is not remembered, so that no card number is.
_name_again = lru_cache(maxsize=4_096)(_name_of)


def id_of(value: Any, info: ValidationInfo) -> str | None:
    """As `text_of`, for ids, which may be long numbers themselves."""
    if value is None:
        return None
    text = plain_text(value, _ID_LENGTH)
    if text is None:
        raise wrong("is empty")
    if holds_card_number(text, alone=True) and not is_declared(text, info):
        raise card_refused()
    return text


def reading(digits: Mapping[str, Sequence[int]]) -> dict[str, Any] | None:
    """The context in which payments are validated; None where there is nothing to know.

    Args:
        digits: by field, of how many digits numbers are that stand in it by design: they are no card numbers.
    """
    return {"digits": digits} if any(digits.values()) else None


def is_declared(text: str, info: ValidationInfo) -> bool:
    """Whether a text is a number of a length that the source declares."""
    number = text.removeprefix("-")
    if not info.context or not number.isdecimal():
        return False
    return len(number) in info.context["digits"].get(info.field_name, ())


def plain_text(value: Any, longest: int) -> str | None:
    """The canonical text of a column's value; None where there is none."""
    if value is None or (type(value) is str and len(value) <= longest and is_plain(value)):
        return value
    try:
        text = canonical_text(value)
    except TypeError:
        raise wrong("must be text or a whole number") from None
    if text is None:
        return None
    if len(text) > longest:
        raise wrong(f"is longer than {longest} characters")
    if has_lost_digits(text):
        raise wrong(LOST_DIGITS)
    if not text.isprintable() and _CONTROL.search(text):
        raise wrong("holds control characters")
    return text


def clean_text(value: str) -> str:
    """The text, unless it holds control characters or a card number."""
    if not value.isprintable() and _CONTROL.search(value):
        raise wrong("holds control characters")
    if holds_card_number(value):
        raise card_refused()
    return value


def card_refused() -> PydanticCustomError:
    return wrong("holds what looks like a card number; card numbers belong into `card` alone")


def _number(name: str) -> Any:
    column = schema.BY_NAME[name]
    return Field(ge=column.lowest, le=column.highest, allow_inf_nan=False)


def _shown_as(of: Callable[..., Any], shown: Any) -> PlainValidator:
    return PlainValidator(of, json_schema_input_type=shown)


_WholeNumber = Annotated[int, Field(gt=-(2**53), lt=2**53)]
_Text = Annotated[str, Field(max_length=200)] | _WholeNumber | bool | None
_Id = Annotated[str, Field(min_length=1, max_length=128)] | _WholeNumber | None
_CardShown = Annotated[str, Field(max_length=64)] | Annotated[int, Field(ge=0, lt=10**19)] | None
_Money = (
    Annotated[float, Field(ge=0, le=10**9, json_schema_extra={"multipleOf": 0.01})]
    | Annotated[str, Field(pattern=r"^[0-9]{1,9}(\.[0-9]{1,2})?$")]
)

EXAMPLE: JsonDict = {
    "transaction_id": "2da90c7d74bd46a0caf3777415b3ebd3",
    "timestamp": "2020-06-21T12:14:25Z",
    "amount": "2.86",
    "card": "tok_7b1f0c",
    "merchant": "Kirlin and Sons",
    "category": "personal_care",
    "birth_date": "1968-03-19",
    "home_latitude": 33.9659,
    "home_longitude": -80.9355,
    "merchant_latitude": 33.986391,
    "merchant_longitude": -81.200714,
    "city_population": 333497,
}


class Transaction(BaseModel):
    """One card payment by its canonical names. A field that the model needs and that is not given counts as missing."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        str_strip_whitespace=True,
        hide_input_in_errors=True,
        validate_by_name=False,
        json_schema_extra={"examples": [EXAMPLE]},
    )

    model_declared: ClassVar[Declared] = NOTHING  # what it has beside the standard fields (see `transactions.declared_type`)

    transaction_id: Annotated[str | None, _shown_as(id_of, _Id)] = Field(
        None, description="Your id of the payment; one is made where none is given."
    )
    timestamp: Annotated[datetime, _shown_as(timestamp_of, datetime)] = Field(
        description="When, in ISO 8601 with an offset from UTC; at most five minutes ahead."
    )
    amount_cents: Annotated[int, _shown_as(amount_of, _Money)] = Field(
        alias="amount", description="With at most two decimals: a number or decimal text."
    )
    card: Annotated[SecretStr | None, _shown_as(card_of, _CardShown)] = Field(
        None, description="Card number, or a token that stands for it. Hashed on arrival and never repeated."
    )
    merchant: Annotated[str | None, _shown_as(text_of, _Text)] = None
    category: Annotated[str | None, _shown_as(text_of, _Text)] = Field(None, description="Merchant category, as in training.")
    birth_date: Annotated[date | None, _shown_as(birth_date_of, date | None)] = Field(
        None, description="Of the cardholder, from 1900 on."
    )
    home_latitude: Annotated[float, _number("home_latitude")] | None = Field(None, description="Degrees north.")
    home_longitude: Annotated[float, _number("home_longitude")] | None = Field(None, description="Degrees east.")
    merchant_latitude: Annotated[float, _number("merchant_latitude")] | None = Field(None, description="Degrees north.")
    merchant_longitude: Annotated[float, _number("merchant_longitude")] | None = Field(None, description="Degrees east.")
    city_population: Annotated[int, Field(ge=0, le=10**9)] | None = Field(None, description="Inhabitants of the home town.")


FIELDS = tuple(field.alias or name for name, field in Transaction.model_fields.items())
