"""What was refused of a source, most common first, and what to declare instead: the first thing that a new user has to see."""

import re

import polars as pl

from fraud_core.fields import schema
from fraud_core.intake.landing import Landing
from fraud_core.sources.source import Source
from fraud_core.storage.objects import ObjectStore

MOST_TOLD = 3


def count_refusals(landing: Landing, store: ObjectStore) -> pl.DataFrame:
    """Refused rows by column and reason, with a masked example and the line it stands on; the commonest first."""
    segments = [segment for file in landing.in_order() for segment in file.refused]
    nothing = pl.DataFrame(schema=schema.QUARANTINE_SCHEMA)
    refused = pl.concat([nothing, *(segment.read(store) for segment in segments)])
    return (
        refused.group_by("column", "reason", maintain_order=True)
        .agg(
            pl.len().alias("rows"),
            pl.col("value").first().alias("example"),
            pl.col("source_file").first(),
            pl.col("source_line").first(),
        )
        .sort("rows", "column", "reason", descending=[True, False, False])
    )


def explain_refusals(source: Source, landing: Landing, store: ObjectStore) -> str | None:
    """How many rows of all that landed were refused, why, and what to declare; None where none was."""
    if not landing.quarantined:
        return None
    counts = count_refusals(landing, store)
    whole = "All" if not landing.kept else f"{landing.quarantined:,} of"
    lines = [f"{whole} {landing.kept + landing.quarantined:,} rows were refused:"]
    for one in counts.head(MOST_TOLD).iter_rows(named=True):
        declared = _declared(source, one["column"])
        is_own = one["column"] in source.declared.own
        advice = _advice(one["column"], declared, one["reason"], one["example"], is_own=is_own)
        place = f"{one['source_file']} line {one['source_line']}"
        lines.append(
            f"  {one['rows']:,}: '{declared}' ({one['column']}) {one['reason']}, such as {one['example']} in {place}. {advice}"
        )
    more = len(counts) - MOST_TOLD
    if more > 0:
        lines.append(f"  and {more} more; the asset `quarantine` has them all.")
    return "\n".join(line.rstrip() for line in lines)


def _declared(source: Source, canonical: str) -> str:
    """The source's own column behind a canonical one."""
    return ", ".join(source.reading(canonical).names)


_FORMATS = {
    "9999-99-99 99:99:99": "%Y-%m-%d %H:%M:%S",
    "9999-99-99 99:99": "%Y-%m-%d %H:%M",
    "9999-99-99x99:99:99": "%Y-%m-%dT%H:%M:%S",
    "9999-99-99x99:99:99x": "%Y-%m-%dT%H:%M:%S%#z",
    "99.99.9999 99:99:99": "%d.%m.%Y %H:%M:%S",
    "99.99.9999 99:99": "%d.%m.%Y %H:%M",
    "9999-99-99": "%Y-%m-%d",
    "99.99.9999": "%d.%m.%Y",
    "9999999999": "%s",
}


# The last mark of a number may stand before its decimals, an earlier one parts its thousands.
_NOTATION = re.compile(
    r"[+-]?9{1,3}(?:(?P<thousands>[ '.,\u2019\u00a0\u202f])999(?:(?P=thousands)999)*)?(?:(?P<decimal>[.,])9+)?"
)


def _declared_notation(example: str, thousands: str | None, decimal: str | None) -> str:
    """What to declare of how numbers are written."""
    mark = {"\u2019": "'", "\u00a0": " ", "\u202f": " "}.get(thousands or "", thousands)
    wanted = ['decimal = ","'] if "," in (decimal or "") or mark == "." else []
    wanted += [f'thousands = "{mark}"'] if mark else []
    if not wanted:
        return ""
    is_either = (
        mark in {".", ","} and decimal is None and example.count(mark) == 1
    )  # 1.234 may be a thousand, or have three decimals
    condition = "If these are thousands, declare" if is_either else "Declare"
    return f"{condition} {' and '.join(wanted)} beside `delimiter`."


_OF_OWN = (
    ("is none of the declared values", "add it to `values`, or leave them out"),
    ("(true) nor", 'say what stands there: values = { true = ["..."], false = ["..."] }'),
    ("is out of bounds", "correct `lowest` and `highest`, or name what means missing: missing = [...]"),
    (
        "looks like a card number",
        "if they are numbers of another kind, say of how many digits: digits = ...; if it is personal: personal = true",
    ),
    ("is not a finite number", 'if it stands for nothing, say so: missing = [...]; if it is a name, kind = "category" or "id"'),
)


def _advice_on_own(name: str, reason: str, example: str) -> str:
    """What to write under an own field."""
    if "declared format" in reason:
        return f'Declare its format under [fields.{name}]: formats = ["{_FORMATS.get(example, "...")}"].'
    told = next((advice for part, advice in _OF_OWN if part in reason), "")
    return f"Under [fields.{name}] {told}." if told else ""


_OF_AMOUNTS = (
    ("without rates", "Add the currency to the table of `rates`, with its days."),
    ("has no rate", "Add the day to the table of `rates`."),
    ("is out of bounds (0", 'If amounts below zero are refunds, declare negative = "refund" beside the column.'),
    ("decimals", 'If decimals may be rounded, declare decimals = "round" beside the column.'),
)


def _advice(column: str, declared: str, reason: str, example: str, *, is_own: bool) -> str:
    """What to write into the source's TOML, by what the shape of the value (9 for digits, x for letters) tells."""
    name = "amount" if column == "amount_cents" else column
    if is_own:
        return _advice_on_own(name, reason, example)
    if "is not an amount" in reason or "number" in reason:
        notation = _NOTATION.fullmatch(example)
        if notation is not None:
            return _declared_notation(example, *notation.groups()) or _on_amounts(reason)
        return _on_sign(name, declared, reason)
    of_parts, shape = column == "card" and ", " in declared, _FORMATS.get(example, "...")
    told = {
        "declared format": f'Declare its format: {name} = {{ column = "{declared}", formats = ["{shape}"] }} under [columns].',
        "outside the source's partitions": "Correct `first`, or `last`.",
        "is neither": f'Declare what stands there: label = {{ column = "{declared}", fraud = "...", legitimate = "..." }} '
        "under [columns].",
        "is missing": 'If a card may lack some of them, declare partial = "keep" beside its columns.' if of_parts else "",
    }
    return next((advice for part, advice in told.items() if part in reason), _on_amounts(reason) if name == "amount" else "")


def _on_sign(name: str, declared: str, reason: str) -> str:
    if "is not an amount" not in reason:
        return ""
    return f'If a sign of the currency stands there: {name} = {{ column = "{declared}", strip = "$ " }} under [columns].'


def _on_amounts(reason: str) -> str:
    return next((advice for part, advice in _OF_AMOUNTS if part in reason), "")
