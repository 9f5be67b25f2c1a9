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


def open_document(kind: type[Document], data: bytes, key: Key, where: str) -> Document:
    """The document in these bytes.

    Args:
        kind: what it is expected to be.
        data: as they lie in a store.
        key: the signing key.
        where: how messages name it.

    Raises:
        IntegrityError: its signature does not hold, or this release reads it not as one of its kind.
    """
    body = open_signed(data, key, where)
    try:
        return kind.model_validate(body)
    except ValidationError as error:  # signed by us, and yet another document, or another release's
        what = re.sub(r"(?<!^)(?=[A-Z])", " ", kind.__name__).lower()
        raise IntegrityError(
            f"{where} is signed, but is not a {what} that this release reads: another version wrote it."
        ) from error


def signature_of(data: bytes) -> str:
    """The signature that a document carries, which tells two of one sequence apart. It must have been verified."""
    return str(json.loads(data)["signature"])
