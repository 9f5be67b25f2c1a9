"""Fields of a payment as programs and people are told of them: by GET /v1/model, the typed client and the desk's form."""

from dataclasses import dataclass

from fraud_core.fields.declaration import Kind, meaning_of
from fraud_core.fields.declared import ALIASES, Declared
from fraud_core.fields.schema import STANDARD
from fraud_core.transactions.declared_type import required_of, transaction_type

_WRITTEN = {canonical: written for written, canonical in ALIASES.items()}


@dataclass(frozen=True)
class ToldField:
    """A field that a payment may have, or that follows from others.

    Attributes:
        name: as callers write it.
        kind: what its values are.
        meaning: in words, without a value.
        required: whether a payment without it is refused.
        personal: whether it is hashed or not kept, and never shown.
        values: all that it may be, where that is declared.
        unit: of a number.
        lowest, highest: its bounds.
        read: whether the model that scores declares it.
        derived_from: what it follows from; None: a payment brings it.
    """

    name: str
    kind: Kind
    meaning: str
    required: bool
    personal: bool
    values: tuple[str, ...] | None
    unit: str
    lowest: float | None
    highest: float | None
    read: bool
    derived_from: tuple[str, ...] | None


def told_fields(accepts: Declared, declared: Declared) -> tuple[ToldField, ...]:
    """The fields in the order of their declaration, the standard ones first.

    Args:
        accepts: the fields that payments may have.
        declared: those of them that the model declares.
    """
    standard = {name: accepts.overridden(name) or field for name, field in STANDARD.items() if name != "label"}
    required = required_of(transaction_type(accepts))
    return tuple(
        ToldField(
            name=_WRITTEN.get(name, name),
            kind=field.kind,
            meaning=meaning_of(name, field),
            required=_WRITTEN.get(name, name) in required,
            personal=field.personal or (name in STANDARD and STANDARD[name].personal),
            values=None if field.values is None else tuple(field.flag_texts) if field.kind == "flag" else tuple(field.values),
            unit=field.unit,
            lowest=field.lowest,
            highest=field.highest,
            read=name in STANDARD or name in declared.own,
            derived_from=None if field.derivation is None else field.derivation.needs,
        )
        for name, field in {**standard, **accepts.own}.items()
    )
