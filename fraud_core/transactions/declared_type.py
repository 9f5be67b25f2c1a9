"""The type of payment that a declaration makes: the standard fields and a source's own, checked as the intake checks them.

A field is declared once, and read by its kind here as in a file; derived fields are computed when a payment has been checked,
and what is personal and no id is forgotten then. For a source of the standard fields alone the type is `Transaction` itself.
"""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from copy import copy
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, ClassVar, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    ValidationError,
    ValidationInfo,
    create_model,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import InitErrorDetails, PydanticUndefined

from fraud_core.fields.declaration import Amounts, FieldDeclaration, meaning_of
from fraud_core.fields.declared import ALIASES, NOTHING, Declared
from fraud_core.fields.derive import Deriving, derived_values
from fraud_core.fields.schema import BY_NAME, LONGEST_NAME, STANDARD, no_flag, none_of, out_of_bounds
from fraud_core.signing.card_numbers import holds_card_number
from fraud_core.sources.amounts import amount_of, refusal
from fraud_core.sources.money import KnownRates
from fraud_core.transactions.refusals import shown_name
from fraud_core.transactions.transaction import (
    EXAMPLE,
    FIELDS,
    Transaction,
    card_refused,
    is_declared,
    plain_text,
    time_of,
    wrong,
)
from fraud_core.units.canonical_number import number_of
from fraud_core.units.canonical_text import canonical_text

Unknown = Literal["refuse", "ignore", "keep"]
Read = Callable[[Any, ValidationInfo], Any]
MOST_KEPT = 50  # unknown fields of a payment, where they are kept
_MOST_TYPES = 32  # that are remembered
_unshown: Any = SkipJsonSchema
_made: OrderedDict[tuple[int, str, Unknown, int, bool], tuple[Declared, KnownRates | None, type[Transaction]]] = OrderedDict()


def transaction_type(
    declared: Declared,
    timezone: str = "UTC",
    unknown: Unknown = "refuse",
    rates: KnownRates | None = None,
    *,
    refunds: bool = False,
) -> type[Transaction]:
    """The type of payments with these fields; the same one for the same declaration.

    Args:
        declared: the fields beside the standard ones, and how amounts are read.
        timezone: where a day begins: one that is given in the place of a time, and one that has a rate.
        unknown: what becomes of a field that is not declared; nothing is learned from what is kept.
        rates: by which amounts in other currencies are converted; None: such are refused.
        refunds: whether it is of refunds, whose amount says how much money came back, with a minus or without.
    """
    key = id(declared), timezone, unknown, id(rates), refunds
    found = _made.get(key)
    if found is None:
        is_plain = declared.is_standard and unknown == "refuse" and not refunds
        made = Transaction if is_plain else _type_of(declared, ZoneInfo(timezone), unknown, rates, refunds=refunds)
        found = _made[key] = declared, rates, made
        if len(_made) > _MOST_TYPES:
            _made.popitem(last=False)
    return found[2]


def together(newer: Declared, older: Declared) -> Declared:
    """The fields of one declaration, and those that a payment brought by an older one; these are not demanded, and nothing is
    derived of them."""
    more = {name: field for name, field in older.given.items() if name not in newer.fields}
    if not more:
        return newer
    lenient = {name: field.model_copy(update={"required": False}) for name, field in more.items()}
    return Declared(
        fields={**newer.fields, **lenient},
        windows=newer.windows,
        standard_windows=newer.standard_windows,
        amounts=newer.amounts,
    )


def changed(payment: Transaction, changes: Mapping[str, Any]) -> Transaction:
    """The payment with other values of some canonical fields, and what is derived of these computed anew."""
    made = payment.model_copy(update=dict(changes))
    follows = set(changes)
    for name, field in payment.model_declared.derived.items():
        assert field.derivation is not None
        if not follows.isdisjoint(ALIASES.get(one, one) for one in field.derivation.needs):
            follows.add(name)
    derived = derived_values(payment.model_declared, _known(made))
    made.__dict__.update({name: value for name, value in derived.items() if name in follows})
    return made


def fields_of(payment_type: type[Transaction]) -> tuple[str, ...]:
    """The names of the fields that a caller may send."""
    return (*FIELDS, *payment_type.model_declared.given)


def required_of(payment_type: type[Transaction]) -> tuple[str, ...]:
    """The names of those that must be sent."""
    return tuple(field.alias or name for name, field in payment_type.model_fields.items() if field.is_required())


def example_of(declared: Declared) -> dict[str, Any]:
    """A payment with a value in every field that may be sent."""
    return {**EXAMPLE, **{name: _example(declared, name, field) for name, field in declared.given.items()}}


def _example(declared: Declared, name: str, field: FieldDeclaration) -> Any:
    match field.kind:
        case "number":
            low, high = field.lowest, field.highest
            return low if high is None and low is not None else high if low is None and high is not None else _between(low, high)
        case _ if name == declared.amounts.by:
            return declared.amounts.base
        case "flag":
            return True
        case "time":
            return "2020-01-15T09:30:00Z"
        case "category":
            return field.values[0] if isinstance(field.values, tuple) and field.values else f"{name}_a"
        case _:
            rules = {one.derivation.rule for one in declared.derived.values() if one.derivation and name in one.derivation.needs}
            taken = {"part": "jane.doe@example.com", "network": "203.0.113.7", "first_digits": "4000 1234"}
            return next((value for rule, value in taken.items() if rule in rules), f"{name}-4711")


def _between(low: float | None, high: float | None) -> float:
    return 12.5 if low is None or high is None else round((low + high) / 2, 6)


# --- the types -----------------------------------------------------------------------------------------------------------------


class _Declared(Transaction):
    """A payment with fields of its own; the derived ones follow from the others."""

    model_config = ConfigDict(protected_namespaces=())

    model_read: ClassVar["_ReadAmount | None"] = None  # where an amount is more than two decimals in the one currency
    _deriving: ClassVar[Deriving] = Deriving(NOTHING)
    _forgotten: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        values, derived = self.__dict__, self._deriving
        if self.model_read is not None:
            values["amount_cents"] = self.model_read(values)
        values.update(derived({name: _told(values.get(name)) for name in derived.needs}))
        for name in self._forgotten:
            values[name] = None
        return self


class _Ignoring(_Declared):
    model_config = ConfigDict(extra="ignore")


def _kept(value: Any) -> Any:
    """What may be kept of a field that nobody declared: a short text, a number, a truth value."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (int, float)):
        number = number_of(value)
        if number is None or holds_card_number(str(value)):
            raise wrong("is not known, and not kept: it is no usual number")
        return value
    if not isinstance(value, str):
        raise wrong("is not known, and not kept: it is neither a text, a number nor true or false")
    text = plain_text(value, LONGEST_NAME)
    if text is not None and holds_card_number(text):
        raise card_refused()
    return text


class _Keeping(_Declared):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, PlainValidator(_kept)]]

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        names = self.__pydantic_extra__ or {}
        if len(names) > MOST_KEPT:
            raise wrong(f"has more than {MOST_KEPT} fields that are not known")
        if any(shown_name(name) != name for name in names):
            raise wrong("has a field whose name is not kept; names have letters, digits and underscores")
        return self


_BASES: Mapping[Unknown, type[_Declared]] = {"refuse": _Declared, "ignore": _Ignoring, "keep": _Keeping}


def _known(payment: Transaction) -> dict[str, Any]:
    """The values of a payment that fields are derived of; what is secret as it was given."""
    return {name: _told(one) for name, one in payment.__dict__.items()}


def _told(value: Any) -> Any:
    return value.get_secret_value() if type(value) is SecretStr else value


class _ReadAmount:
    """Reads the amount of a payment whose other fields are read: what it is in depends on the currency and the day.

    Args:
        declared: says how.
        zone: of the source's clocks.
        rates: by which it is converted.
        refunds: whether it is of refunds; else these are refused.
    """

    def __init__(self, declared: Declared, zone: ZoneInfo, rates: KnownRates | None, *, refunds: bool) -> None:
        self._amounts, self._zone, self._rates, self._refunds = declared.amounts, zone, rates, refunds
        self._lowest, self._highest = bounds_of(declared)

    def __call__(self, values: Mapping[str, Any]) -> int:
        """The amount in cents of the base currency.

        Raises:
            ValidationError: it is none.
        """
        amounts = self._amounts
        currency = values[amounts.by] if amounts.by else None
        day = values["timestamp"].astimezone(self._zone).date()
        found = amount_of(values["amount_cents"], amounts, currency, day, self._rates)
        if isinstance(found, str):
            raise _of_amount(found)
        if found.is_refund and not self._refunds:
            raise _of_amount(REFUND_REFUSED)
        low, high = self._lowest, self._highest
        if not (low <= found.cents <= high):
            raise _of_amount(out_of_bounds(low / 100, high / 100))
        return found.cents


REFUND_REFUSED = "is below zero: a refund, which is not scored; send it to POST /v1/refunds"


def _of_amount(reason: str) -> ValidationError:
    return ValidationError.from_exception_data("Transaction", [InitErrorDetails(type=wrong(reason), loc=("amount",), input=None)])


def bounds_of(declared: Declared) -> tuple[float, float]:
    """The least and the greatest amount in cents."""
    column, said = BY_NAME["amount_cents"], declared.overridden("amount_cents")
    assert column.lowest is not None
    assert column.highest is not None
    lowest = -column.highest if declared.amounts.negative == "keep" else column.lowest
    if said is None:
        return lowest, column.highest
    return lowest if said.lowest is None else said.lowest * 100, column.highest if said.highest is None else said.highest * 100


def _told_amount(amounts: Amounts) -> Callable[[Any], Any]:
    """The amount as it came, if it is one at all; it is read when the other fields are."""

    def told(value: Any) -> Any:
        if number_of(value) is None:
            raise wrong(refusal(amounts))
        return value

    return told


def _amount_field(declared: Declared, *, refunds: bool) -> tuple[Any, Any]:
    """The amount, where more is declared of it than two decimals in the one currency."""
    amounts, said = declared.amounts, declared.overridden("amount_cents")
    lowest = -1e9 if refunds or amounts.negative == "keep" else 0
    shown = Annotated[float, Field(ge=lowest, le=1e9)] | Annotated[str, Field(pattern=r"^-?[0-9]{1,9}(\.[0-9]{1,3})?$")]
    words = ["Money that came back, with a minus or without." if refunds else "A number or decimal text."]
    if amounts.by:
        words.append(
            f"In the currency that `{amounts.by}` says, with its decimals (ISO 4217); converted into {amounts.base} by the rate "
            "of the payment's day."
        )
    elif amounts.base:
        words.append(f"In {amounts.base}, with its decimals (ISO 4217).")
    if amounts.negative == "refund" and not refunds:
        words.append("Refunds go to POST /v1/refunds.")
    read: Any = Annotated[Any, PlainValidator(_told_amount(amounts), json_schema_input_type=shown)]
    if said is not None and said.missing:
        read = Annotated[read, BeforeValidator(_without(said))]
    return read, Field(alias="amount", description=" ".join(words))


def _type_of(
    declared: Declared, zone: ZoneInfo, unknown: Unknown, rates: KnownRates | None, *, refunds: bool
) -> type[Transaction]:
    own: dict[str, Any] = {name: _own(name, field, zone, declared) for name, field in declared.given.items()}
    own |= {name: _derived(field) for name, field in declared.derived.items()}
    own |= {name: _overridden(name, field) for name, field in declared.fields.items() if name in STANDARD and name != "label"}
    reads_amount = refunds or declared.amounts != Amounts()
    if reads_amount:
        own["amount_cents"] = _amount_field(declared, refunds=refunds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a field may be called as something that pydantic no longer wants used
        make: Any = create_model  # whose result mypy takes for a class of its own
        made: type[_Declared] = make(
            "Transaction",
            __base__=_BASES[unknown],
            __module__=__name__,
            __doc__=Transaction.__doc__,
            __cls_kwargs__={"json_schema_extra": {"examples": [example_of(declared)]}},
            **own,
        )
    made.model_declared = declared
    if reads_amount:
        made.model_read = _ReadAmount(declared, zone, rates, refunds=refunds)
    made._deriving = Deriving(declared)
    made._forgotten = tuple(name for name, field in declared.own.items() if not field.is_kept)
    return made


def _own(name: str, field: FieldDeclaration, zone: ZoneInfo, declared: Declared) -> tuple[Any, Any]:
    """A field that a payment brings, as pydantic takes it."""
    read = _missing_first(field, _READ[field.kind](field, zone))
    if field.personal and field.kind == "id":
        plain = read

        def read(value: Any, info: ValidationInfo) -> Any:
            text = plain(value.get_secret_value() if isinstance(value, SecretStr) else value, info)
            return None if text is None else SecretStr(text)

    shown = _shown(field)
    extra: dict[str, Any] = {"examples": [_example(declared, name, field)]}
    words = [f"{meaning_of(name, field)}."] + ([f"In {field.unit}."] if field.unit else [])
    if field.personal:
        words.append(
            "Hashed on arrival and never repeated." if field.kind == "id" else "Not kept; other fields are derived of it."
        )
        extra["writeOnly"] = True
    described = Field(PydanticUndefined if field.required else None, description=" ".join(words), json_schema_extra=extra)
    checked: Any = Annotated[Any, PlainValidator(read, json_schema_input_type=shown if field.required else shown | None)]
    if field.required:
        checked = Annotated[checked, AfterValidator(_there)]
    return checked, described


def _there(value: Any) -> Any:
    if value is None:
        raise wrong("is missing")
    return value


def _derived(field: FieldDeclaration) -> tuple[Any, Any]:
    """A derived field: nobody may send it."""
    assert field.derivation is not None
    needs = " and ".join(field.derivation.needs)

    def refused(value: Any) -> Any:
        raise wrong(f"is derived of {needs}; leave it out")

    return Annotated[Any, PlainValidator(refused), _unshown()], None


def _overridden(name: str, field: FieldDeclaration) -> tuple[Any, Any]:
    """A standard field of which something is declared otherwise."""
    standard = copy(Transaction.model_fields[name])
    standard.metadata = [*standard.metadata, AfterValidator(_also(name, field)), BeforeValidator(_without(field))]
    if field.required:
        standard.default = PydanticUndefined
    if field.meaning:
        standard.description = f"{meaning_of(name, field)}."
    standard._attributes_set = {**standard._attributes_set, "default": standard.default, "description": standard.description}
    return standard.annotation, standard


def _also(name: str, field: FieldDeclaration) -> Callable[[Any], Any]:
    scale = 100 if name == "amount_cents" else 1
    low, high = field.lowest, field.highest

    def checked(value: Any) -> Any:
        if value is None:
            return _there(value) if field.required else None
        if isinstance(field.values, tuple):
            return _among(field.values, value)
        if (low is not None and value < low * scale) or (high is not None and value > high * scale):
            raise wrong(out_of_bounds(low, high))
        return value

    return checked


def _without(field: FieldDeclaration) -> Callable[[Any], Any]:
    missing = _missing_texts(field)
    return lambda value: None if missing and _is_missing(value, missing) else value


# --- one reading a kind --------------------------------------------------------------------------------------------------------


def _missing_texts(field: FieldDeclaration) -> frozenset[str]:
    return frozenset(text for text in map(canonical_text, field.missing) if text is not None)


def _is_missing(value: Any, missing: frozenset[str]) -> bool:
    """Whether a value is one of the texts that mean that there is none."""
    if isinstance(value, str):
        return canonical_text(value) in missing
    return isinstance(value, (bool, int, float)) and canonical_text(value) in missing


def _missing_first(field: FieldDeclaration, read: Read) -> Read:
    missing = _missing_texts(field)

    def checked(value: Any, info: ValidationInfo) -> Any:
        if value is None or (missing and _is_missing(value, missing)):
            return None
        return read(value, info)

    return checked


def _reads_number(field: FieldDeclaration, zone: ZoneInfo) -> Read:
    low, high = field.lowest, field.highest

    def read(value: Any, info: ValidationInfo) -> float | None:
        if isinstance(value, str) and not value.strip():
            return None
        number = number_of(value)
        if number is None:
            raise wrong("is not a finite number")
        if (low is not None and number < low) or (high is not None and number > high):
            raise wrong(out_of_bounds(low, high))
        return number

    return read


def _reads_text(field: FieldDeclaration, zone: ZoneInfo) -> Read:
    values = field.values if isinstance(field.values, tuple) else None

    def read(value: Any, info: ValidationInfo) -> str | None:
        text = plain_text(value, LONGEST_NAME)
        if text is None:
            return None
        if not field.personal and holds_card_number(text) and not is_declared(text, info):
            raise card_refused()
        return text if values is None else _among(values, text)

    return read


def _among(values: tuple[str, ...], text: str) -> str:
    if text not in values:
        raise wrong(none_of(values))
    return text


def _reads_flag(field: FieldDeclaration, zone: ZoneInfo) -> Read:
    texts = field.flag_texts
    reason = no_flag(texts)

    def read(value: Any, info: ValidationInfo) -> bool | None:
        if isinstance(value, bool):
            return value
        try:
            text = canonical_text(value)
        except TypeError:
            raise wrong(reason) from None
        if text is None:
            return None
        if (found := texts.get(text.lower())) is None:
            raise wrong(reason)
        return found

    return read


def _reads_time(field: FieldDeclaration, zone: ZoneInfo) -> Read:
    def read(value: Any, info: ValidationInfo) -> datetime | None:
        if isinstance(value, str):
            text = value.strip()
            if not text:
                return None
            if len(text) == len("2020-01-31") and (day := _day(text)) is not None:
                value = datetime.combine(day, time(), zone)
        try:
            return time_of(value).astimezone(UTC)
        except OverflowError:
            raise wrong("lies outside the years 1 to 9999") from None

    return read


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text[4] == text[7] == "-" else None
    except ValueError:
        return None


_READ: Mapping[str, Callable[[FieldDeclaration, ZoneInfo], Read]] = {
    "number": _reads_number,
    "category": _reads_text,
    "id": _reads_text,
    "flag": _reads_flag,
    "time": _reads_time,
}


def _shown(field: FieldDeclaration) -> Any:
    """The type that the documentation shows."""
    match field.kind:
        case "number":
            return Annotated[float, Field(ge=field.lowest, le=field.highest)]
        case "category" if isinstance(field.values, tuple) and field.values:
            return Literal[field.values]
        case "flag":
            texts = field.values if isinstance(field.values, dict) else {}
            told = tuple(text for some in texts.values() for text in some)
            return bool | Literal[told] if told else bool
        case "time":
            return datetime
        case _:
            return Annotated[str, Field(max_length=LONGEST_NAME)] | Annotated[int, Field(gt=-(2**53), lt=2**53)]
