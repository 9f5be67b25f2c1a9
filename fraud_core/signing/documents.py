"""Signed JSON documents: written with a signature, and verified before they are parsed."""

import json
import re
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from fraud_core.errors import IntegrityError
from fraud_core.signing.keys import Key, canonical_json, open_signed, sign

Document = TypeVar("Document", bound=BaseModel)


def signed_document(document: BaseModel, key: Key, *, indent: int | None = None) -> bytes:
    """The bytes of a document with its signature, in canonical form; indented where people are to read them."""
    signed = sign(document.model_dump(mode="json"), key)
    return canonical_json(signed) if indent is None else json.dumps(signed, indent=indent, sort_keys=True).encode()


def open_document(kind: type[Document], data: bytes, key: Key, where: str, **named: str | None) -> Document:
    """The document in these bytes.

    Args:
        kind: what it is expected to be.
        data: as they lie in a store.
        key: the signing key.
        where: how messages name it.
        named: fields by which it is known, as they must be: another's document that was copied here is signed as well.

    Raises:
        IntegrityError: its signature does not hold, this release reads it not as one of its kind, or it is another's.
    """
    body = open_signed(data, key, where)
    try:
        document = kind.model_validate(body)
    except ValidationError as error:  # signed by us, and yet another document, or another release's
        what = re.sub(r"(?<!^)(?=[A-Z])", " ", kind.__name__).lower()
        raise IntegrityError(
            f"{where} is signed, but is not a {what} that this release reads: another version wrote it."
        ) from error
    for name, value in named.items():
        if getattr(document, name) != value:
            raise IntegrityError(f"{where} speaks of {name} {getattr(document, name)}: it was moved there, and is not used.")
    return document


def is_signed(data: bytes, key: Key) -> bool:
    """Whether these bytes are a document that was signed with this key, of whatever kind."""
    try:
        open_signed(data, key, "It")
    except IntegrityError:
        return False
    return True


def signature_of(data: bytes) -> str:
    """The signature that a document carries, which tells two of one sequence apart. It must have been verified."""
    return str(json.loads(data)["signature"])
