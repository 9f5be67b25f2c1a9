"""Card numbers: what stands for them, where they do not belong, and how text is shown that may hold one.

`holds_card_number` is the one recogniser: for payments, labels and notes; `holding_card_numbers` is the same for a column.
"""

import re
import unicodedata

import polars as pl

from fraud_core.signing.keys import Key

MASK = "(looks like a card number)"

_FEWEST, _MOST = 13, 19  # digits of a card number
# Groups of digits with at most three characters between them, none of which is a letter.
_NUMBER = re.compile(r"[0-9]+(?:[\W_]{1,3}[0-9]+)*")
_GROUP = re.compile(r"[0-9]+")
# Most texts are told apart by one search, which looks at each character a few times only.
_MAY_HOLD = re.compile(r"[0-9][^A-Za-z]{12}")
_MAY_BE = re.compile(r"[1-9][0-9]{3}(?:[0-9]{9}|([ -])[0-9]{4}(?:\1[0-9]{4}\1[0-9]|[0-9]{2}\1[0-9]{4}))")
# Numbers of other kinds, in which a card number would be there by chance: UUIDs and long hexadecimal hashes.
_HEXADECIMAL = re.compile(
    r"(?<![^\W_])(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?=[0-9]*[a-f])[0-9a-f]{24,})(?![^\W_])", re.IGNORECASE
)
# The ways in which numbers are printed on cards: any number that passes the check and is written so is taken for one.
_PRINTED = re.compile(
    r"[1-9][0-9]{12,18}|[1-9][0-9]{3}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{1,7}|[1-9][0-9]{3}([ -])[0-9]{6}\2[0-9]{4,5}"
)
# Written in any other way, it must begin as a scheme's numbers do, and be as long as these are.
_ISSUED = re.compile(
    r"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})"  # Visa
    r"|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"  # Mastercard
    r"|3[47][0-9]{13}"  # American Express
    r"|3(?:0[0-5]|[689][0-9])[0-9]{11,16}"  # Diners Club
    r"|(?:6011|64[4-9][0-9]|65[0-9]{2})[0-9]{12,15}"  # Discover
    r"|35(?:2[89]|[3-8][0-9])[0-9]{12,15}"  # JCB
    r"|62[0-9]{14,17}"  # UnionPay
)


def holds_card_number(text: str, *, alone: bool = False) -> bool:
    """Whether a text holds what looks like a card number: as long as one, and valid by Luhn (ISO/IEC 7812-1, annex B).

    It is looked for in the text's compatibility form (NFKC), however its groups are parted, with letters directly before or
    behind it, and between other digits. Hexadecimal hashes and UUIDs are left out.

    Args:
        text: any.
        alone: for ids, which may be long numbers themselves: the number must stand by itself, written as on a card.
    """
    if not text.isascii():
        text = _plain(text)
    if len(text) < _FEWEST or (_MAY_BE if alone else _MAY_HOLD).search(text) is None:
        return False
    plain = text if text.isdecimal() else _HEXADECIMAL.sub(" ", text)
    return any(_is_card(plain, found, alone=alone) for found in _NUMBER.finditer(plain))


def holding_card_numbers(text: pl.Expr, *, alone: bool = False) -> pl.Expr:
    """`holds_card_number` for a column of text: bool, null where the text is."""

    def judged(column: pl.Series) -> pl.Series:
        # Most texts have too few digits, and the others repeat.
        long = column.unique().drop_nulls()
        long = long.filter(long.str.count_matches(r"\p{N}") >= _FEWEST // 2)
        found = [one for one in long.to_list() if holds_card_number(one, alone=alone)]
        return column.is_in(pl.Series(found, dtype=pl.String).implode())

    return text.map_batches(judged, return_dtype=pl.Boolean)


def printable(text: str) -> str:
    """A merchant's, category's or other value of the data as it may be printed: in logs, verdicts, cards, metadata and pages."""
    return MASK if holds_card_number(text) else text


def _plain(text: str) -> str:
    """The text as it reads: compatibility forms resolved, digits of every script as ASCII, without characters nobody sees.

    Nothing where it has too few digits.
    """
    if sum(map(str.isnumeric, text)) < _FEWEST // 2:  # one character may stand for two digits
        return ""
    read = unicodedata.normalize("NFKC", text)
    return "".join(str(unicodedata.decimal(one, one)) for one in read if unicodedata.category(one) not in {"Cf", "Mn", "Me"})


def _is_card(text: str, number: re.Match[str], *, alone: bool) -> bool:
    """Whether neighbouring groups of digits make a card number, or a part of one group does."""
    groups = [(number.start() + group.start(), number.start() + group.end()) for group in _GROUP.finditer(number[0])]
    for first, (begin, _) in enumerate(groups):
        digits = ""
        for start, end in groups[first:]:
            digits += text[start:end]
            if len(digits) > _MOST:
                break
            if len(digits) < _FEWEST:
                continue
            is_written_so = _PRINTED.fullmatch(text, begin, end) is not None and _stands_alone(text, begin, end)
            if (is_written_so or (not alone and _ISSUED.fullmatch(digits) is not None)) and _passes_luhn(digits):
                return True
    return not alone and any(_is_within(text[begin:end]) for begin, end in groups)


def _stands_alone(text: str, begin: int, end: int) -> bool:
    return not (text[:begin][-1:].isalnum() or text[end:][:1].isalnum())


def _is_within(digits: str) -> bool:
    """Whether a card number of usual length lies within a run of more digits than any card has."""
    if len(digits) <= _MOST:
        return False
    parts = (digits[at : at + length] for length in (16, 15) for at in range(len(digits) - length + 1))
    return any(_ISSUED.fullmatch(part) is not None and _passes_luhn(part) for part in parts)


_ONCE = bytes.maketrans(b"0123456789", bytes(range(10)))
_TWICE = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))  # doubled, less nine from ten on


def _passes_luhn(number: str) -> bool:
    digits = number.encode()
    return (sum(digits[::-2].translate(_ONCE)) + sum(digits[-2::-2].translate(_TWICE))) % 10 == 0


def hashed_card(identity: str, card_key: Key) -> str:
    """The keyed hash that stands for a card everywhere: 32 hex digits of HMAC-SHA256."""
    return card_key.digest(b"card\x00" + identity.encode()).hex()[:32]
