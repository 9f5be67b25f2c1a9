"""Card numbers: what stands for them, and where they do not belong."""

import re

from fraud_core.keys import Key

# 13 to 19 digits in one run, or in the groups that are printed on cards. They stand by themselves: a run of digits within a
# hexadecimal id is no card number, and one id in a thousand has one that would pass the check.
_CANDIDATE = re.compile(
    r"(?<![^\W_])(?:[1-9]\d{12,18}|[1-9]\d{3}([ -])\d{4}\1\d{4}\1\d{1,7}|[1-9]\d{3}([ -])\d{6}\2\d{4,5})(?![^\W_])"
)


def holds_card_number(text: str) -> bool:
    """Whether a number in the text passes the check of Luhn (ISO/IEC 7812-1, annex B) and is as long as card numbers are."""
    # Most texts are told apart by one search.
    return _CANDIDATE.search(text) is not None and any(_passes_luhn(found[0]) for found in _CANDIDATE.finditer(text))


def _passes_luhn(number: str) -> bool:
    digits = [int(character) for character in reversed(number) if character.isdecimal()]
    doubled = [digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def hashed_card(identity: str, card_key: Key) -> str:
    """The keyed hash that stands for a card everywhere: 32 hex digits of HMAC-SHA256."""
    return card_key.digest(b"card\x00" + identity.encode()).hex()[:32]
