"""Secret keys: one for card hashes, one for signatures. Made on first use, readable by their owner alone."""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from fraud_core.errors import IntegrityError, SettingsError
from fraud_core.settings import Settings
from fraud_core.system.private import keep_out_of_git


@dataclass(frozen=True, repr=False)
class Key:
    """A secret of 32 bytes. `id` names it in manifests without telling it."""

    secret: bytes

    @property
    def id(self) -> str:
        """First 12 hex digits of the key's own hash, under a label, so that it says nothing about data hashed with it."""
        return hashlib.sha256(b"fraud key id\x00" + self.secret).hexdigest()[:12]

    def digest(self, message: bytes) -> bytes:
        """HMAC-SHA256 of the message, 32 bytes."""
        return hmac.digest(self.secret, message, "sha256")

    def __repr__(self) -> str:
        return f"Key(id={self.id})"


def canonical_json(document: Mapping[str, Any]) -> bytes:
    """The one byte string of a JSON document: sorted keys, no spaces, no NaN."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sign(document: Mapping[str, Any], key: Key) -> dict[str, Any]:
    """The document with a `signature` over all of its other members."""
    body = {name: value for name, value in document.items() if name != "signature"}
    return {**body, "signature": key.digest(canonical_json(body)).hex()}


def verify(document: Mapping[str, Any], key: Key, what: str) -> dict[str, Any]:
    """The document without its signature.

    Raises:
        IntegrityError: the signature is missing or was made with another key, or the document was changed.
    """
    body = {name: value for name, value in document.items() if name != "signature"}
    given = document.get("signature")
    try:
        holds = isinstance(given, str) and hmac.compare_digest(given.encode(), key.digest(canonical_json(body)).hex().encode())
    except ValueError:  # NaN or half a character: we never wrote that
        holds = False
    if not holds:
        raise IntegrityError(
            f"{what} does not carry a valid signature. It was changed by hand or written with another FRAUD_SIGNING_KEY "
            f"(this machine's key is {key.id}); it is not used."
        )
    return body


def open_signed(data: bytes, key: Key, what: str) -> dict[str, Any]:
    """The JSON document in these bytes, without its signature.

    Raises:
        IntegrityError: they are no JSON object, or its signature does not hold.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{what} is not JSON; it is not used.") from error
    if not isinstance(document, dict):
        raise IntegrityError(f"{what} is not a JSON object; it is not used.")
    return verify(document, key, what)


def card_key(settings: Settings) -> Key:
    """The key behind card hashes."""
    return _key(settings.card_key, settings.home / "keys" / "card.key", "FRAUD_CARD_KEY")


def signing_key(settings: Settings) -> Key:
    """The key that signs verdicts, manifests, pointers and the hashes of joblib files."""
    return _key(settings.signing_key, settings.home / "keys" / "signing.key", "FRAUD_SIGNING_KEY")


def create_if_missing(path: Path) -> str:
    """A secret of 32 random bytes in hex, made on first use in a file that its owner alone can read."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    keep_out_of_git(path.parent)
    # Two processes may come here at once: the secret is written whole to a file of its own, and the first link wins.
    if not path.exists():
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()


def _key(given: SecretStr | None, path: Path, name: str) -> Key:
    if given is not None:
        return _parse(given.get_secret_value(), name)
    return _parse(create_if_missing(path), str(path))


def _parse(text: str, name: str) -> Key:
    try:
        secret = bytes.fromhex(text.strip())
    except ValueError:
        secret = b""
    if len(secret) != 32:
        raise SettingsError(f"{name} must be 64 hex digits (32 bytes); make one with `openssl rand -hex 32`.")
    return Key(secret)
